//! Encryption of the little that is kept in clear: ChaCha20-Poly1305 (RFC 8439) under a key of 32 bytes.
//!
//! Bytes and a purpose enter, sealed bytes leave, and back. What was changed, or sealed for another purpose, does not open.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use telltale_features::file::{self, Readers};

/// Seals and opens for one purpose.
pub struct Cipher {
    key: Option<LessSafeKey>,
    purpose: &'static [u8],
}

impl Cipher {
    /// With that key, for that purpose: the same purpose must be named to open it again.
    pub fn new(secret: &[u8; 32], purpose: &'static [u8]) -> Self {
        // A key of 32 bytes is always taken.
        Self { key: UnboundKey::new(&CHACHA20_POLY1305, secret).ok().map(LessSafeKey::new), purpose }
    }

    /// A random nonce and the sealed content.
    ///
    /// # Errors
    /// When there is no randomness, or the content is longer than 256 GiB.
    pub fn seal(&self, mut content: Vec<u8>) -> io::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let key = self.key.as_ref().ok_or_else(|| damaged("the key cannot be used"))?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.purpose), &mut content)
            .map_err(|_| damaged("it is too long to be encrypted"))?;
        Ok([nonce.as_slice(), &content].concat())
    }

    /// What was sealed.
    ///
    /// # Errors
    /// When it was changed, or sealed with another key or for another purpose.
    pub fn open(&self, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let wrong = || damaged("it was changed, or encrypted with another key");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let key = self.key.as_ref().ok_or_else(wrong)?;
        let mut content = sealed.to_vec();
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(self.purpose), &mut content);
        let length = opened.map_err(|_| wrong())?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// The secret in that file, made there at first, readable by its owner only.
///
/// # Errors
/// When it can neither be read nor made, or is not 32 bytes long.
pub fn secret(path: &Path) -> io::Result<[u8; 32]> {
    match std::fs::read(path) {
        Ok(secret) => secret.try_into().map_err(|_| damaged(&format!("`{}` does not hold 32 bytes", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret: [u8; 32] = random()?;
            file::replace(path, &secret, Readers::Owner)?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

/// Content that cannot be what it should be.
pub fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Random bytes of the system.
///
/// # Errors
/// When there are none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_purpose_open_what_was_sealed() {
        let cipher = Cipher::new(&[7; 32], b"one");
        let sealed = cipher.seal(b"anna".to_vec()).unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"anna"));
        assert_eq!(cipher.open(&sealed).unwrap(), b"anna");
        assert_ne!(cipher.seal(b"anna".to_vec()).unwrap(), sealed, "a nonce must not repeat");
        let mut changed = sealed.clone();
        changed[NONCE_LEN] ^= 1;
        for (other, sealed) in [
            (Cipher::new(&[8; 32], b"one"), &sealed),
            (Cipher::new(&[7; 32], b"two"), &sealed),
            (Cipher::new(&[7; 32], b"one"), &changed),
            (Cipher::new(&[7; 32], b"one"), &Vec::new()),
        ] {
            assert_eq!(other.open(sealed).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
