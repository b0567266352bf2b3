//! One signature and what it is over: a short statement, signed with Ed25519 (RFC 8032). Bytes enter, a checked signature leaves.
//!
//! The statement names what is signed, the model it is for and a BLAKE3 digest, so that nothing that was signed for one model passes for
//! another's, and no manifest for a model's file. Whom to believe is not decided here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Most bytes of a stored signature.
pub const MOST_BYTES: u64 = 4 << 10;
/// PKCS#8 before the seed of an Ed25519 key (RFC 8410, section 7): what OpenSSL writes and reads.
const PKCS8: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A public key: 32 bytes, written in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub(super) [u8; 32]);

impl PublicKey {
    /// From base64 or 64 hexadecimal digits.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes = if text.len() == 64 { blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes()) } else { None };
        let bytes = bytes.or_else(|| BASE64.decode(text).ok()?.try_into().ok());
        bytes.map(Self).ok_or_else(|| "an Ed25519 public key is 32 bytes: 44 letters of base64 or 64 hexadecimal digits".to_string())
    }

    /// As it is written everywhere.
    pub fn to_base64(self) -> String {
        BASE64.encode(self.0)
    }
}

/// What a signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signs {
    /// `manifest.toml`, which holds the digests of all files of a version.
    Manifest,
    /// A bare model file, before it is a version.
    File,
}

impl Signs {
    const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::File => "file",
        }
    }
}

/// `signature.json` of a version, or the `.sig` beside a bare file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What it is over.
    pub signs: Signs,
    /// The model it is for.
    pub model: String,
    /// BLAKE3 of what is signed, 64 hexadecimal digits.
    pub digest: String,
    /// Public key of the signer, base64.
    pub key: String,
    /// The signature of the statement, base64.
    pub signature: String,
}

impl Signature {
    /// Reads a stored signature.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > MOST_BYTES {
            return Err(format!("{} bytes, a signature has at most {MOST_BYTES}", bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| format!("no signature as `telltale models sign` writes it: {error}"))
    }

    /// As it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The public key it names.
    ///
    /// # Errors
    /// That it names none.
    pub fn public_key(&self) -> Result<PublicKey, String> {
        PublicKey::parse(&self.key).map_err(|allowed| format!("`key` is `{}`: {allowed}", shortened(&self.key)))
    }

    /// Whether its key signed exactly this statement.
    pub(super) fn is_genuine(&self) -> bool {
        let (Ok(key), Ok(signature)) = (self.public_key(), BASE64.decode(&self.signature)) else { return false };
        UnparsedPublicKey::new(&ED25519, key.0).verify(&self.statement(), &signature).is_ok()
    }

    /// The bytes that are signed. No line break in a field can move a border: names and digests have none, and one that does is signed too.
    fn statement(&self) -> Vec<u8> {
        let Self { signs, model, digest, .. } = self;
        format!("telltale model signature 1\n{}\n{model}\n{digest}\n", signs.name()).into_bytes()
    }
}

/// What somebody else wrote, short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(64).collect()
}

/// A private key. Nothing prints it.
pub struct SigningKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// The key of a seed of 32 random bytes.
    ///
    /// # Errors
    /// [`ModelError::Data`] when the seed gives no key.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, ModelError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        pair.map(|pair| Self { seed, pair }).map_err(|_| ModelError::Data("these bytes give no Ed25519 key".to_string()))
    }

    /// From PEM as [`SigningKey::to_pem`] and `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    /// [`ModelError::Data`] with what is allowed; never with the text.
    pub fn from_pem(text: &str) -> Result<Self, ModelError> {
        let inside = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(inside, _)| inside);
        let der = inside.and_then(|inside| BASE64.decode(inside.split_whitespace().collect::<String>()).ok());
        let seed = der.as_deref().and_then(|der| der.strip_prefix(&PKCS8)).and_then(|seed| seed.try_into().ok());
        let allowed = || ModelError::Data("no private key: allowed is what `telltale models keygen` writes, an Ed25519 key in PEM".into());
        Self::from_seed(seed.ok_or_else(allowed)?)
    }

    /// The file's text: PKCS#8 in PEM. A secret.
    pub fn to_pem(&self) -> String {
        format!("{BEGIN}\n{}\n{END}\n", BASE64.encode([&PKCS8[..], &self.seed].concat()))
    }

    /// What others check its signatures with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(bytes)
    }

    /// Signs a manifest or a file of a model.
    pub fn sign(&self, signs: Signs, model: &str, bytes: &[u8]) -> Signature {
        let digest = blake3::hash(bytes).to_hex().to_string();
        let key = self.public().to_base64();
        let mut signature = Signature { signs, model: model.to_string(), digest, key, signature: String::new() };
        signature.signature = BASE64.encode(self.pair.sign(&signature.statement()));
        signature
    }
}
