//! Where entity state lives: one contract for every store.
//!
//! `observe` takes the events of a transaction, applies them in sequence and returns what each entity's features then read;
//! `decide` lends the policy state of the same entities under the same locks. STATE, sequence and time, is the law here.

pub mod any;
pub mod embedded;
pub mod redis;

use std::future::Future;
use std::time::Duration;

use smallvec::SmallVec;

use crate::entity::{EntityId, Subjects};
use crate::event::EntityEvents;
use crate::kernel::slots::PolicyState;
use crate::time::{Clock, Timestamp};

/// Position in the one order of everything that a scorer applied. Starts at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// When, in both senses: the place in the order and the scorer's clock, taken together under the locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Place in the order.
    pub sequence: Sequence,
    /// The clock, never running backwards.
    pub now: Timestamp,
}

/// Where a moment comes from.
#[derive(Clone, Copy)]
pub enum Order<'a> {
    /// Live: the store takes the next number and asks the clock, under the locks. A time is clamped to `[now − 1 h, now]`.
    Live(&'a dyn Clock),
    /// Replay: as recorded. Times stay as they are.
    Recorded(Moment),
}

/// What the entities' features read after a transaction was applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// When it was applied.
    pub moment: Moment,
    /// Event time after clamping.
    pub event_time: Timestamp,
    /// Whether the time had to be clamped.
    pub clamped: bool,
    /// How much of the history was there.
    pub status: Status,
    /// Whether it is this scorer's.
    pub claim: Claim,
    /// The reads of each entity, in the order of its plan and in lock order of the entities.
    // On the heap, as events are.
    pub entities: SmallVec<[EntityReads; 1]>,
}

/// Whose a transaction is, where several scorers may be given it (STATE, idempotency, strict).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Nobody was asked, or nobody answered: it counts here.
    #[default]
    Unasked,
    /// This scorer's.
    Won,
    /// Another one's: nothing was applied here. What was decided there, empty while it is being decided.
    Lost(Box<[u8]>),
}

/// The features of one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityReads {
    /// Which entity.
    pub entity: EntityId,
    /// Seconds between the event and the newest event known of this entity, 0 when in order.
    pub lateness: f64,
    /// One value a [`crate::kernel::plan::Read`] of its plan.
    pub reads: SmallVec<[f64; 24]>,
}

/// How much of the history a read rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All of it.
    #[default]
    Full,
    /// A local copy that may lag.
    Stale,
    /// Part of it.
    Partial,
    /// None.
    None,
}

/// Whether what a transaction changed outlives this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nobody waits for that here.
    Asynchronous,
    /// Stored.
    Durable,
    /// Not yet, as far as is known.
    Pending,
}

/// What a store tells of itself, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Entities held, by entity type.
    pub entities: Vec<u64>,
    /// Bytes held, by entity type.
    pub bytes: Vec<u64>,
    /// Entities given up for want of room since the start.
    pub evicted: u64,
    /// Those of them that were seen often enough to have history.
    pub evicted_established: u64,
    /// Entities held that were seen once or twice; only the embedded store tells them apart.
    pub probation: u64,
    /// Their bytes.
    pub probation_bytes: u64,
    /// Entities whose TTL had passed since the start.
    pub expired: u64,
    /// What only a shared store has: name and count.
    pub shared: Vec<(&'static str, u64)>,
}

/// A live event's time may lie this far before the clock.
pub(crate) const LATEST: Duration = Duration::from_secs(3600);

/// A transaction's events, told again for another time: of the same entities in the same order.
pub type Retell<'a> = dyn Fn(Timestamp) -> EntityEvents + Sync + 'a;

/// The events of a transaction, and how to tell them again when its time has to be clamped: a filter may ask for the hour, and it is
/// asked about the time at which the transaction is applied, live as in replay.
pub struct Happening<'a> {
    events: EntityEvents,
    retell: Option<&'a Retell<'a>>,
    claim: Option<&'a str>,
}

impl From<EntityEvents> for Happening<'_> {
    fn from(events: EntityEvents) -> Self {
        Self { events, retell: None, claim: None }
    }
}

impl<'a> Happening<'a> {
    /// Events that are told again by `retell` when their time is clamped.
    pub fn new(events: EntityEvents, retell: &'a Retell<'a>) -> Self {
        Self { events, retell: Some(retell), claim: None }
    }

    /// The same under that name: of several scorers that are given it, one applies it.
    #[must_use]
    pub const fn claimed(mut self, name: Option<&'a str>) -> Self {
        self.claim = name;
        self
    }

    /// The entities concerned, in lock order.
    pub(crate) fn entities(&self) -> impl Iterator<Item = crate::entity::EntityId> + '_ {
        self.events.entities()
    }

    /// The events as they are applied at `moment`, and whether their time had to be clamped.
    pub(crate) fn at(self, order: Order<'_>, moment: Moment) -> (EntityEvents, bool) {
        let mut events = self.events;
        let Some(told) = events.events.first().map(|(_, event)| event.time).filter(|_| matches!(order, Order::Live(_))) else {
            return (events, false);
        };
        let time = told.clamp(moment.now.minus(LATEST), moment.now);
        if time == told {
            return (events, false);
        }
        if let Some(retell) = self.retell {
            events = retell(time);
        }
        events.events.iter_mut().for_each(|(_, event)| event.time = time);
        (events, true)
    }
}

/// A store of entity state. Failures are a [`Status`], never an error: the caller always gets an answer.
pub trait Store: Send + Sync {
    /// Applies a transaction's events, all of one time, in sequence and reads every entity's features.
    fn observe(&self, happening: Happening<'_>, order: Order<'_>) -> impl Future<Output = History> + Send;

    /// Applies an outcome's or a label's events: nothing is read.
    fn apply(&self, events: EntityEvents, order: Order<'_>) -> impl Future<Output = Moment> + Send;

    /// Lends the policy state of the subjects to `decide` and writes the changes it made, all in one section of the order.
    fn decide<T: Send>(
        &self,
        subjects: &Subjects,
        order: Order<'_>,
        decide: impl FnOnce(&mut PolicyState, Moment) -> T + Send,
    ) -> impl Future<Output = T> + Send;

    /// Takes a moment of its own, for what changes no entity: an override, a policy change.
    fn moment(&self, order: Order<'_>) -> Moment;

    /// Counts a transaction that is about to be observed, until it is decided: what a snapshot finds under way must be known to it.
    fn enter(&self) -> embedded::Passage<'_> {
        embedded::Passage::uncounted()
    }

    /// Whether scorers claim transactions from each other here.
    fn has_claims(&self) -> bool {
        false
    }

    /// Sizes and counts, for metrics.
    fn stats(&self) -> StoreStats;
}
