//! Policy state: rate-limit buckets, evidence, marks. Kept in the entity's blob, changed only inside `Store::decide`.
//!
//! A slot's tag is the hash of rule, entity type and kind. Each kind has a merge law, so that replicas can add up what each of
//! them decided. No feature reads a slot.

use smallvec::SmallVec;

use crate::entity::EntityType;
use crate::time::Timestamp;

/// Tag of a slot: [`crate::hash::definition`] of rule, entity type and kind.
pub type SlotTag = u64;

/// The tag under which a proved identity is marked.
pub const PROVED: SlotTag = 0x7072_6f76_6564_0001;

/// One slot of policy state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// Rate limit: theoretical arrival time of the next conforming event (GCRA, ITU-T I.371). Merge: the other side's spending
    /// is added to the later of both times.
    Bucket {
        /// Theoretical arrival time.
        arrival: Timestamp,
    },
    /// Evidence that decays by half every `half_life_us`. Merge: both sides decayed to the later time, then added.
    Evidence {
        /// Amount at `at`.
        amount: f64,
        /// When it was last changed.
        at: Timestamp,
        /// Half-life, microseconds.
        half_life_us: i64,
    },
    /// Something holds until a time: proved identity, active denial. Merge: the later time.
    Mark {
        /// Until when.
        until: Timestamp,
    },
}

/// A change of one slot: what a decision writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotChange {
    /// Spend from a bucket: the arrival time moves to max(arrival, at) + increment.
    Spend {
        /// When.
        at: Timestamp,
        /// Emission interval times quantity, microseconds.
        increment_us: i64,
    },
    /// Add evidence.
    Add {
        /// When.
        at: Timestamp,
        /// How much; negative takes back.
        amount: f64,
        /// Half-life, microseconds.
        half_life_us: i64,
    },
    /// Let a mark hold until then, unless it already holds longer.
    Mark {
        /// Until when.
        until: Timestamp,
    },
}

/// The slots of every subject of one transaction, as they stand under the lock, and the changes made to them.
#[derive(Debug, Default)]
pub struct PolicyState {
    /// Slots as read, by subject type.
    pub slots: SmallVec<[(EntityType, SlotTag, Slot); 8]>,
    /// Changes to write, in the order made.
    pub changes: SmallVec<[(EntityType, SlotTag, SlotChange); 4]>,
}

impl PolicyState {
    /// The slot of that subject, changes made so far included.
    pub fn get(&self, kind: EntityType, tag: SlotTag) -> Option<Slot> {
        self.slots.iter().find(|(of, known, _)| *of == kind && *known == tag).map(|(_, _, slot)| *slot)
    }

    /// Records a change and shows it to later reads of the same decision.
    pub fn change(&mut self, kind: EntityType, tag: SlotTag, change: SlotChange) {
        let before = self.get(kind, tag);
        let after = Slot::changed(before, change);
        self.changes.push((kind, tag, change));
        match self.slots.iter_mut().find(|(of, known, _)| *of == kind && *known == tag) {
            Some((_, _, slot)) => *slot = after,
            None => self.slots.push((kind, tag, after)),
        }
    }

    /// Whether a mark holds at that time.
    pub fn holds(&self, kind: EntityType, tag: SlotTag, at: Timestamp) -> bool {
        matches!(self.get(kind, tag), Some(Slot::Mark { until }) if until > at)
    }
}

impl Slot {
    /// The slot after a change. A change of another kind than the slot replaces it.
    pub fn changed(before: Option<Self>, change: SlotChange) -> Self {
        match (before, change) {
            (Some(Self::Bucket { arrival }), SlotChange::Spend { at, increment_us }) => {
                Self::Bucket { arrival: Timestamp::from_micros(arrival.max(at).micros().saturating_add(increment_us)) }
            }
            (_, SlotChange::Spend { at, increment_us }) => {
                Self::Bucket { arrival: Timestamp::from_micros(at.micros().saturating_add(increment_us)) }
            }
            (Some(slot @ Self::Evidence { .. }), SlotChange::Add { at, amount, half_life_us }) => {
                Self::Evidence { amount: (slot.evidence(at) + amount).max(0.0), at, half_life_us }
            }
            (_, SlotChange::Add { at, amount, half_life_us }) => Self::Evidence { amount: amount.max(0.0), at, half_life_us },
            (Some(Self::Mark { until: known }), SlotChange::Mark { until }) => Self::Mark { until: known.max(until) },
            (_, SlotChange::Mark { until }) => Self::Mark { until },
        }
    }

    /// Evidence decayed to that time: `amount · 2^(−Δt / half-life)`; 0 for another kind of slot.
    pub fn evidence(self, now: Timestamp) -> f64 {
        match self {
            Self::Evidence { amount, at, half_life_us } if half_life_us > 0 => {
                let elapsed = now.micros_since(at).max(0) as f64;
                amount * (-elapsed / half_life_us as f64).exp2()
            }
            Self::Evidence { amount, .. } => amount,
            Self::Bucket { .. } | Self::Mark { .. } => 0.0,
        }
    }
}
