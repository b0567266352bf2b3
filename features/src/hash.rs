//! Keyed hashes: identifiers become entity keys, secrets become tokens, definitions become tags.
//!
//! All of them are BLAKE3 in keyed mode (definitions: unkeyed), cut to the length that is needed.

use smallvec::SmallVec;

use crate::entity::EntityKey;

/// The secret keys of one installation. Made once in the data directory and shared by its replicas.
#[derive(Clone)]
pub struct Keyring {
    /// Number of the key, written beside what it made so that a later rotation can tell.
    pub id: u32,
    secret: [u8; 32],
}

impl Keyring {
    /// A keyring from its 32 secret bytes.
    pub const fn new(id: u32, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// The key under which enforcement points hash identifiers themselves.
    pub fn entity_secret(&self) -> [u8; 32] {
        blake3::derive_key("telltale 2026 entity key", &self.secret)
    }

    /// Ready to hash entities and secrets.
    pub fn hasher(&self) -> Hasher {
        Hasher {
            id: self.id,
            entity: self.entity_secret(),
            token: blake3::derive_key("telltale 2026 token key", &self.secret),
            context: blake3::derive_key("telltale 2026 context key", &self.secret),
        }
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({}, redacted)", self.id)
    }
}

/// The derived keys, ready for use.
#[derive(Clone)]
pub struct Hasher {
    /// Number of the key.
    pub id: u32,
    entity: [u8; 32],
    token: [u8; 32],
    context: [u8; 32],
}

impl Hasher {
    /// Key of an entity: type name, a zero byte, the normalised identifier. The proxy computes the same.
    pub fn entity(&self, type_name: &str, identifier: &str) -> EntityKey {
        EntityKey(first16(&keyed(&self.entity, [type_name.as_bytes(), &[0], identifier.as_bytes()])))
    }

    /// Token that stands for a secret of that kind: `tok_<kind>_<32 hex digits>`. Equal secrets give equal tokens.
    pub fn token(&self, kind: &str, secret: &[u8]) -> String {
        let digest = keyed(&self.token, [kind.as_bytes(), &[0], secret]).to_hex();
        let mut token = String::with_capacity(kind.len() + 37);
        for part in ["tok_", kind, "_", digest.as_str().get(..32).unwrap_or_default()] {
            token.push_str(part);
        }
        token
    }

    /// Authentication code of a context token.
    pub fn context_mac(&self, key_id: u32, context: &[u8]) -> [u8; 16] {
        first16(&keyed(&self.context, [&key_id.to_le_bytes(), context, &[]]))
    }
}

/// 64-bit hash of a definition: the tag of its section in a blob, the identity of a feature.
pub fn definition(text: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text.as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// 64-bit hash of a value that is counted as a member (a path, an agent, an attribute). Unkeyed: never of a secret.
pub fn member(text: &str) -> u64 {
    definition(text)
}

/// The keyed hash of the parts, one after the other. They are joined first: an incremental hasher is two kilobytes to set up, and all
/// that is hashed here is short.
fn keyed(key: &[u8; 32], parts: [&[u8]; 3]) -> blake3::Hash {
    let mut joined = SmallVec::<[u8; 256]>::new();
    parts.into_iter().for_each(|part| joined.extend_from_slice(part));
    blake3::keyed_hash(key, &joined)
}

fn first16(hash: &blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    out
}
