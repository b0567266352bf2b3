//! What stands in Redis under an entity's key, and the one script that writes it.
//!
//! A value is its version, 16 bytes, and the kernel's blob. The version says which flush of which writer made the value; it stands in
//! front so that the script can compare it without knowing the blob's format, which is the kernel's alone.

use std::sync::Arc;

use crate::entity::EntityId;
use crate::kernel::{DecodeError, EntityState, Flush, Layout};

/// Bytes of a version.
pub(super) const VERSION: usize = 16;

/// The compare-and-set script. It touches one key, so it runs on any node of a Cluster, and every key that it writes has a TTL.
///
/// - `KEYS[1]`: the entity's key.
/// - `ARGV[1]`: version that the stored value must have, 16 bytes; empty: there must be none.
/// - `ARGV[2]`: the new value, its own version in front.
/// - `ARGV[3]`: seconds to live.
///
/// Returns 1 when the value is stored, now or by an earlier call whose answer was lost; 0 when the key is missing although a version was
/// expected; else the stored value, for the caller to merge into.
pub(super) const SCRIPT: &str = "\
local found = redis.call('GETRANGE', KEYS[1], 0, 15)
if found == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
  return 1
end
if found == '' then return 0 end
if found == string.sub(ARGV[2], 1, 16) then return 1 end
return redis.call('GET', KEYS[1])";

/// Which flush of which writer made a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version([u8; VERSION]);

impl Version {
    pub(super) fn of(flush: Flush) -> Self {
        let mut bytes = [0; VERSION];
        let parts = flush.writer.to_le_bytes().into_iter().chain(flush.sequence.to_le_bytes());
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One call of the script.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub entity: EntityId,
    /// The flush whose delta this carries.
    pub flush: Flush,
    pub expected: Option<Version>,
    pub value: Arc<[u8]>,
    /// Seconds to live.
    pub lives: u64,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Written {
    /// Stored.
    Stored,
    /// There is another version: the value.
    Other(Vec<u8>),
    /// There is nothing, though something was expected.
    Missing,
    /// Redis refused: not stored for certain. The error's code.
    Refused(String),
    /// No answer: stored or not.
    Unknown,
}

/// The value of a state that was stamped with that flush.
pub(super) fn pack(flush: Flush, state: &EntityState, layout: &Layout) -> Arc<[u8]> {
    let blob = state.encode(layout);
    let mut value = Vec::with_capacity(VERSION + blob.len());
    value.extend_from_slice(Version::of(flush).bytes());
    value.extend_from_slice(&blob);
    value.into()
}

/// The version of a value; `None` when it is too short to have one.
pub(super) fn version(value: &[u8]) -> Option<Version> {
    value.first_chunk::<VERSION>().map(|bytes| Version(*bytes))
}

/// The state in a value.
pub(super) fn unpack(layout: &Layout, value: &[u8]) -> Result<EntityState, DecodeError> {
    EntityState::decode(layout, value.get(VERSION..).unwrap_or_default())
}
