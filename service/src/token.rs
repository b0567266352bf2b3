//! The installation's key and the context tokens made with it.
//!
//! A context enters, an authenticated token leaves, and back. A token that was not made here is refused with a clear message;
//! nothing in it is believed before its authentication code is right.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use prost::Message;
use telltale_features::domain::Context;
use telltale_features::file::{self, Readers};
use telltale_features::hash::{Hasher, Keyring};
use telltale_features::schema::Schema;
use telltale_features::store::redis::NamesKey;
use telltale_proto::journal::v1::{Context as WireContext, ContextToken};

use crate::cipher;
use crate::convert::{ConvertError, context_from_proto, context_to_proto};

/// Name of the key file in the data directory.
const KEY_FILE: &str = "telltale.key";
/// Largest token that is looked at, bytes.
const TOKEN_BYTES: usize = 64 * 1024;

/// Why a context token was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all.
    #[error("`context` is not a context token: {0}; allowed is the unchanged `context` of a verdict, or none")]
    Malformed(String),
    /// Made with another key.
    #[error("`context` was made with key `{found}`, this installation has key `{known}`")]
    UnknownKey {
        /// The token's key.
        found: u32,
        /// The installation's.
        known: u32,
    },
    /// Changed or forged.
    #[error("`context` is forged or damaged: its authentication code is wrong; allowed is the unchanged `context` of a verdict")]
    Forged,
    /// For another transaction than the report names.
    #[error("`context` belongs to transaction `{token}`, the report names `{report}`")]
    OtherTransaction {
        /// The token's transaction.
        token: String,
        /// The report's.
        report: String,
    },
    /// Right, but of a schema that this scorer does not have.
    #[error("the token's content does not fit the schema in force: {0}")]
    Content(#[from] ConvertError),
}

/// Makes a context token.
pub fn seal(hasher: &Hasher, context: &Context, schema: &Schema) -> Vec<u8> {
    let content = context_to_proto(context, schema).encode_to_vec();
    let mac = hasher.context_mac(hasher.id, &content).to_vec();
    ContextToken { key_id: hasher.id, context: content.into(), mac: mac.into() }.encode_to_vec()
}

/// Opens a context token for the transaction that the report names.
///
/// # Errors
/// When it was not made with this installation's key, was changed, or belongs to another transaction.
pub fn open(hasher: &Hasher, token: &[u8], transaction_id: &str, schema: &Schema) -> Result<Context, TokenError> {
    if token.len() > TOKEN_BYTES {
        return Err(TokenError::Malformed(format!("it is {} bytes long", token.len())));
    }
    let token = ContextToken::decode(token).map_err(|error| TokenError::Malformed(error.to_string()))?;
    if token.key_id != hasher.id {
        return Err(TokenError::UnknownKey { found: token.key_id, known: hasher.id });
    }
    if !equal_in_constant_time(&hasher.context_mac(token.key_id, &token.context), &token.mac) {
        return Err(TokenError::Forged);
    }
    let context = WireContext::decode(token.context).map_err(|error| TokenError::Malformed(error.to_string()))?;
    if context.transaction_id != transaction_id {
        let report = transaction_id.to_owned();
        return Err(TokenError::OtherTransaction { token: context.transaction_id, report });
    }
    Ok(context_from_proto(context, schema)?)
}

/// Compares without telling by its duration where the first difference stands.
pub fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Reads the installation's key from the data directory, or makes it there at first start, readable by its owner only.
///
/// # Errors
/// When the folder cannot be written or the file does not hold 4 + 32 bytes.
pub fn keyring(data: &Path) -> io::Result<Keyring> {
    let path = data.join(KEY_FILE);
    match File::open(&path) {
        Ok(file) => read_key(file).map(|(id, secret)| Keyring::new(id, secret)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(&path, 1).map(|secret| Keyring::new(1, secret)),
        Err(error) => Err(error),
    }
}

/// A key for replays that have no installation: always the same, so that the same input gives the same files.
pub fn replay_keyring() -> Keyring {
    Keyring::new(0, *blake3::hash(b"telltale replay without an installation").as_bytes())
}

/// A secret of names in Redis.
///
/// # Errors
/// When the file cannot be read or does not hold 4 + 32 bytes.
pub fn names_key(path: &Path) -> io::Result<NamesKey> {
    let (id, secret) = read_key(File::open(path)?)?;
    Ok(NamesKey::new(id, &secret))
}

/// Makes a secret of names, with the number after that of the one before it, and returns the number.
///
/// # Errors
/// When the file exists, cannot be written, or the one before cannot be read.
pub fn make_names_key(path: &Path, before: Option<&Path>) -> io::Result<u32> {
    if path.exists() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{}` exists; allowed: a new file", path.display())));
    }
    let id = match before {
        Some(before) => names_key(before)?.id.wrapping_add(1),
        None => 1,
    };
    make_key(path, id).map(|_| id)
}

fn read_key(file: File) -> io::Result<(u32, [u8; 32])> {
    let mut content = Vec::new();
    file.take(64).read_to_end(&mut content)?;
    let (id, secret) = content.split_at_checked(4).ok_or_else(damaged_key)?;
    let id = <[u8; 4]>::try_from(id).map_err(|_| damaged_key())?;
    let secret = <[u8; 32]>::try_from(secret).map_err(|_| damaged_key())?;
    Ok((u32::from_le_bytes(id), secret))
}

fn make_key(path: &Path, id: u32) -> io::Result<[u8; 32]> {
    let secret = cipher::random::<32>()?;
    file::replace(path, &[&id.to_le_bytes()[..], &secret].concat(), Readers::Owner)?;
    Ok(secret)
}

fn damaged_key() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the key file is damaged: allowed are 4 bytes of key number and 32 bytes of key")
}
