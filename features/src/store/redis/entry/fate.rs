//! What becomes of a write: stored, or merged into what another writer was faster with, or sent again later.

use super::super::value::{self, Version, Write, Written};
use super::{Entry, Standing, join};
use crate::kernel::{Flush, Layout};
use crate::time::Timestamp;

/// Merges of one sealed delta in one interval.
const MERGES: u32 = 3;

/// What an answer meant.
#[derive(Debug)]
pub(in super::super) enum Outcome {
    /// The delta is stored.
    Done,
    /// The delta is to be sent again at once, merged into what is there.
    Again(Write),
    /// The delta is to be sent again at the next interval.
    Later,
    /// The delta was given up: whether it is stored can no longer be known.
    Ambiguous,
    /// The delta was given up: what is stored cannot be read, and nothing may overwrite it.
    Unreadable,
    /// Answer to something older.
    Stale,
}

impl Entry {
    /// What became of a write of that flush.
    pub(in super::super) fn answered(&mut self, layout: &Layout, flush: Flush, written: Written, now: Timestamp) -> Outcome {
        let Some(sealed) = self.sealed.as_mut().filter(|sealed| sealed.flush == flush) else { return Outcome::Stale };
        sealed.in_flight = false;
        match written {
            Written::Stored if sealed.standing == Standing::Moves => self.carry_over(layout),
            Written::Stored => {
                if !sealed.keeps_ttl() {
                    self.lives_from = sealed.flush.at;
                }
                let version = Version::of(flush);
                // What was learnt meanwhile is newer than this write, and stays.
                if self.base == sealed.expected {
                    self.rebase(Some(version));
                    self.fresh = self.fresh.max(now);
                    self.known = true;
                    self.generation = self.generation.wrapping_add(1);
                }
                self.stored(layout)
            }
            Written::Refused(_) => Outcome::Later,
            Written::Unknown => {
                sealed.unknown = true;
                Outcome::Later
            }
            Written::Missing if sealed.standing != self.standing => self.pass_on(layout),
            Written::Missing => {
                sealed.expected = None;
                self.lost(layout, now);
                self.again(layout)
            }
            Written::Other(found) => self.other(layout, &found, now),
        }
    }

    /// Another writer was faster: the sealed delta goes into what is there, unless it is in there already.
    fn other(&mut self, layout: &Layout, found: &[u8], now: Timestamp) -> Outcome {
        let Some(sealed) = self.sealed.as_mut() else { return Outcome::Stale };
        let (Some(version), Ok(mut state)) = (value::version(found), value::unpack(layout, found)) else {
            self.sealed = None;
            return Outcome::Unreadable;
        };
        let closed = sealed.standing != Standing::Settled && value::is_closed(found);
        if state.holds(sealed.flush) && !closed {
            let outcome = self.stored(layout);
            self.adopt(layout, Some(version), state, now);
            return outcome;
        }
        if closed {
            return self.redirect(layout, found, state, now);
        }
        if sealed.may_be_in(&state, now) {
            self.sealed = None;
            self.adopt(layout, Some(version), state, now);
            return Outcome::Ambiguous;
        }
        // Of a version that was not known here nobody knows what its time to live is: a failover may have brought it back.
        sealed.keeps &= self.base == Some(version);
        join(&mut state, layout, &sealed.delta);
        state.stamp(sealed.flush);
        (sealed.value, sealed.expected) = (sealed.standing.pack(sealed.flush, &state, layout), Some(version));
        // The stamp says that the delta is in it, so it is not added again.
        self.adopt(layout, Some(version), state, now);
        self.again(layout)
    }

    pub(super) fn again(&mut self, layout: &Layout) -> Outcome {
        let Some(sealed) = self.sealed.as_mut() else { return Outcome::Stale };
        sealed.merges += 1;
        if sealed.merges > MERGES {
            return Outcome::Later;
        }
        sealed.in_flight = true;
        Outcome::Again(sealed.write(self.id, layout))
    }

    pub(super) fn forget_sealed(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            self.saved = self.saved.max(sealed.covers);
        }
    }
}
