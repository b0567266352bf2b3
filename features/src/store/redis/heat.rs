//! How often an entity is seen, and what the cache would lose with it.
//!
//! Moments enter; whether it is hot leaves.

use crate::time::Timestamp;

/// Events a second from which on an entity is hot.
const HOT: u32 = 20;
/// Who was seen so often, or less, may be a made-up identifier of a flood.
pub(super) const PASSING: u32 = 2;

/// What the cache loses with an entity, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Nothing but a read.
    Stored,
    /// What happened once or twice and is not stored yet: a flood of made-up identifiers pushes out itself.
    Passing,
    /// A read of every transaction.
    Hot,
    /// History that is not stored yet.
    Waiting,
}

/// Events of this second and of the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    second: i64,
    now: u32,
    before: u32,
}

impl Rate {
    pub(super) fn count(&mut self, now: Timestamp) {
        let second = now.micros() / 1_000_000;
        if second != self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            (self.second, self.now) = (second, 0);
        }
        self.now = self.now.saturating_add(1);
    }

    pub(super) fn is_hot(&self, now: Timestamp) -> bool {
        let second = now.micros() / 1_000_000;
        match second - self.second {
            0 => self.now.max(self.before) >= HOT,
            1 => self.now >= HOT,
            _ => false,
        }
    }
}
