//! What one transaction, outcome or label means to each of its entities: the kernel's input.
//!
//! The schema makes events ([`crate::schema::Schema`]), stores apply them. An event holds no text and no secret: which filters
//! it passes, its numbers, and 64-bit hashes of what is counted.

use smallvec::SmallVec;

use crate::entity::{EntityId, Subjects};
use crate::time::Timestamp;

/// One event for one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Event time, already clamped.
    pub time: Timestamp,
    /// How many real events it stands for; above 1 only for an aggregate.
    pub weight: u32,
    /// Sign: −1 takes an earlier label back, else +1.
    pub sign: i8,
    /// Bit `i` set: the event passes filter `i` of the entity type's plan. An event without any bit is not applied.
    pub filters: u64,
    /// Value `i` of the plan, NaN where this event has none.
    pub values: SmallVec<[f64; 4]>,
    /// Hash of member `i` of the plan, `None` where this event has none.
    pub members: SmallVec<[Option<u64>; 8]>,
    /// Whether this event proves the identity (a successful outcome, a verified signature).
    pub proves: bool,
}

/// The events of one transaction, outcome or label: one an entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityEvents {
    /// In lock order, as the subjects are.
    // INVARIANT: sorted by entity without repeats.
    // On the heap, because an event is 250 bytes: eight of them in place were copied at each step of a transaction's way.
    pub events: SmallVec<[(EntityId, Event); 1]>,
}

impl EntityEvents {
    /// The entities concerned, in lock order.
    pub fn entities(&self) -> impl Iterator<Item = EntityId> + '_ {
        self.events.iter().map(|(entity, _)| *entity)
    }
}

/// Who is concerned by a decision: the same subjects, by identifier only.
pub fn entities(subjects: &Subjects) -> impl Iterator<Item = EntityId> + '_ {
    subjects.iter().map(|subject| subject.id)
}
