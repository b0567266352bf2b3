//! What stands in Redis under an entity's key, and the one script that writes it.
//!
//! A value is its version, 16 bytes, and the kernel's blob. The version says which flush of which writer made the value; it stands in
//! front so that the script can compare it without knowing the blob's format, which is the kernel's alone.

use std::sync::Arc;

use crate::entity::EntityId;
use crate::kernel::{DecodeError, EntityState, Flush, Layout};

use super::names::Standing;
use super::sole::Token;

/// First half of a version that closes a name; never a writer's number but by a chance of 2⁻⁶⁴.
const CLOSED: [u8; 8] = *b"\xffmoved\xff\xff";

/// Bytes of a version.
pub(super) const VERSION: usize = 16;

/// The compare-and-set script. Each key is treated by itself, and every key that it writes has a TTL. On a Cluster it is called with one
/// key, since others stand in other slots.
///
/// - `KEYS`: the key of the token (see [`super::sole`]), unless the first argument is empty, as it is on a Cluster; the entities' keys.
/// - `ARGV`: the token that stands as far as the caller knows, and the one to put there if another does; then three a key: the version that the stored value must have, 16 bytes, empty when there must be none; the new value, its own
///   version in front; seconds to live, empty to leave the key's time to live as it is. The range is given as text: a number would be
///   printed and read again each time.
///
/// Returns one answer an entity's key, then the token that stands now: 1 when the value is stored, now or by an earlier call whose answer was lost; 0 when the key is missing
/// although a version was expected; an error that concerns this key; else the stored value, for the caller to merge into. Where the
/// token cannot be put there, nothing is written, and the answer is that error.
pub(super) const SCRIPT: &str = "\
local answers, token, first = {}, ARGV[1], 0
if token ~= '' then
  first = 1
  if redis.pcall('GET', KEYS[1]) ~= token then
    token = ARGV[2]
    local put = redis.pcall('SET', KEYS[1], token, 'EX', '86400')
    if put.err then return put end
  end
end
for at = 1, #KEYS - first do
  local key, value = KEYS[first + at], ARGV[3 * at + 1]
  local answer = redis.pcall('GETRANGE', key, '0', '15')
  if answer == ARGV[3 * at] then
    if ARGV[3 * at + 2] == '' then
      answer = redis.pcall('SET', key, value, 'KEEPTTL')
    else
      answer = redis.pcall('SET', key, value, 'EX', ARGV[3 * at + 2])
    end
    if answer.ok then answer = 1 end
  elseif answer == '' then
    answer = 0
  elseif answer == string.sub(value, 1, 16) then
    answer = 1
  elseif type(answer) == 'string' then
    answer = redis.pcall('GET', key)
  end
  answers[at] = answer
end
answers[#KEYS - first + 1] = token
return answers";

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

    /// The version that closes a name: the entity stands under another one from there on. Different for each flush of each writer.
    pub(super) fn closing(flush: Flush) -> Self {
        let mut bytes = [0; VERSION];
        let number = flush.writer.wrapping_add(flush.sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bytes.iter_mut().zip(CLOSED.into_iter().chain(number.to_le_bytes())).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One value to be written.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub entity: EntityId,
    /// Under which of its names.
    pub standing: Standing,
    /// The flush whose delta this carries.
    pub flush: Flush,
    pub expected: Option<Version>,
    pub value: Arc<[u8]>,
    /// Seconds to live; `None`: as long as the key does already.
    pub lives: Option<u64>,
    /// Under which token the expected version was seen; none: it must be compared.
    pub token: Token,
}

impl Write {
    /// Whether it closes a name that still had a history, and not only takes that away.
    pub(super) fn closes(&self) -> bool {
        self.standing == Standing::Moves && !is_emptied(&self.value)
    }
}

/// What became of it.
#[derive(Clone, Debug)]
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
    pack_as(Version::of(flush), state, layout)
}

/// The value of a state, of that version.
pub(super) fn pack_as(version: Version, state: &EntityState, layout: &Layout) -> Arc<[u8]> {
    let blob = state.encode(layout);
    let mut value = Vec::with_capacity(VERSION + blob.len());
    value.extend_from_slice(version.bytes());
    value.extend_from_slice(&blob);
    value.into()
}

/// The same value, of another version.
pub(super) fn renamed(value: &[u8], version: Version) -> Arc<[u8]> {
    [version.bytes(), value.get(VERSION..).unwrap_or_default()].concat().into()
}

/// Whether a value says that its entity stands under another name.
pub(super) fn is_closed(value: &[u8]) -> bool {
    value.starts_with(&CLOSED)
}

/// Whether it says no more than that.
pub(super) fn is_emptied(value: &[u8]) -> bool {
    is_closed(value) && value.len() == VERSION
}

/// The version of a value; `None` when it is too short to have one.
pub(super) fn version(value: &[u8]) -> Option<Version> {
    value.first_chunk::<VERSION>().map(|bytes| Version(*bytes))
}

/// The state in a value.
pub(super) fn unpack(layout: &Layout, value: &[u8]) -> Result<EntityState, DecodeError> {
    if is_emptied(value) {
        return Ok(EntityState::default());
    }
    EntityState::decode(layout, value.get(VERSION..).unwrap_or_default())
}
