//! A delta on its way to the store, and how long the key that it makes or changes is to live.

use std::sync::Arc;
use std::time::Duration;

use super::super::delta::Delta;
use super::super::names::Standing;
use super::super::sole::Token;
use super::super::value::{Version, Write};
use crate::entity::EntityId;
use crate::kernel::{EntityState, Flush, Layout};
use crate::time::Timestamp;

/// Writers that a header lists at most: beyond, one may have been dropped from it.
const WRITERS: usize = 64;
/// A header forgets a writer after ten minutes; a minute less, because clocks differ.
const LISTED: i64 = 540_000_000;
/// A time to live is left alone for no longer than this, whatever its length.
const LONGEST_SLACK: Duration = Duration::from_secs(600);

/// A delta on its way.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) delta: Delta,
    pub(super) flush: Flush,
    /// Number of the last change that it covers.
    pub(super) covers: u64,
    /// What was sent last, for a repetition.
    pub(super) value: Arc<[u8]>,
    pub(super) expected: Option<Version>,
    /// Under which name it goes.
    pub(super) standing: Standing,
    /// It has closed the name of before, which then has this version.
    pub(super) closed: Option<Version>,
    pub(super) in_flight: bool,
    /// A write of it stayed unanswered.
    pub(super) unknown: bool,
    pub(super) merges: u32,
    /// The key's time to live was set a moment ago, so the write keeps it.
    pub(super) keeps: bool,
}

impl Sealed {
    /// Whether it may have been applied to a state whose header does not list it. Not listed proves that it was not, as long as the
    /// header cannot have forgotten this writer.
    pub(super) fn may_be_in(&self, state: &EntityState, now: Timestamp) -> bool {
        let forgotten = state.writers() >= WRITERS || now.micros_since(self.flush.at) > LISTED;
        self.unknown && forgotten && state.flushed(self.flush.writer).is_none()
    }

    /// Whether a write of it leaves the key's time to live as it is: a new key, or one that moves, must be given one.
    pub(super) fn keeps_ttl(&self) -> bool {
        self.keeps && self.expected.is_some() && self.standing == Standing::Settled
    }

    /// A repetition is always compared: the value was made before what was learnt since.
    pub(super) fn write(&self, entity: EntityId, layout: &Layout) -> Write {
        let lives = (!self.keeps_ttl()).then(|| lives(layout));
        Write {
            entity,
            standing: self.standing,
            flush: self.flush,
            expected: self.expected,
            value: Arc::clone(&self.value),
            lives,
            token: Token::NONE,
        }
    }
}

/// Whether a write at `now` may leave a time to live alone that was set at `set`.
pub(super) fn keeps(layout: &Layout, set: Timestamp, now: Timestamp) -> bool {
    u64::try_from(now.micros_since(set)).is_ok_and(|since| Duration::from_micros(since) < slack(layout))
}

/// How long after it was set a time to live is left alone: setting it again costs Redis about a tenth of a write. Bounded, because a failover
/// may lose the write that set it, and a scorer with another schema may have set a shorter one.
fn slack(layout: &Layout) -> Duration {
    (layout.plan().ttl / 64).min(LONGEST_SLACK)
}

/// Seconds that a key is to live, rounded up.
// INVARIANT: at least the TTL and the slack, so that a key which a write leaves alone never goes before its TTL has passed since that write.
pub(in super::super) fn lives(layout: &Layout) -> u64 {
    (layout.plan().ttl + slack(layout)).as_secs() + 1
}
