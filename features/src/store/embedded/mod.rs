//! The embedded store: entity state in this process, sharded, bounded in bytes.
//!
//! Events and decisions enter, histories leave. It never reads a clock but the one that it is given, and never writes a file.
//!
//! A transaction locks the shards of its entities in ascending order, takes its moment under the locks, applies, reads. So on every
//! shard sequence numbers ascend, and applying the same events with the recorded moments, in that order, on any number of threads,
//! gives the same store to the last bit.
//!
//! Bytes: the bound is split evenly over [`SHARDS`] shards. Eviction and expiry run when the sequence crosses a multiple of
//! [`EPOCH`], so between two of these a store may exceed its bound by what 1,024 operations bring: at most `1,024 × entities an
//! operation × largest state`, in practice under 5 MB. Who goes first stands in `evict`; what a snapshot sees in `cut`.

mod batch;
mod cut;
mod evict;
#[cfg(test)]
mod flood_tests;
mod look;
mod shard;
mod stub;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::entity::{EntityId, Subjects};
use crate::event::{self, EntityEvents, Event};
use crate::kernel::plan::EntityPlan;
use crate::kernel::slots::PolicyState;
use crate::kernel::{EntityState, Layout};
use crate::store::{EntityReads, Happening, History, Moment, Order, Sequence, Status, Store, StoreStats};
use crate::time::Timestamp;

pub use batch::Step;
pub use cut::{Cut, Passage, Record, ShardMark};

use cut::Passages;
use shard::{Kind, Shard};
use stub::Dictionary;

/// Eviction and expiry run only when the sequence crosses a multiple of this.
pub const EPOCH: u64 = 1024;

/// Shards: a constant, so that what is evicted does not depend on the machine.
pub const SHARDS: usize = 256;

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

/// Entity state in this process.
pub struct EmbeddedStore {
    kinds: Arc<[Kind]>,
    shards: Box<[Mutex<Shard>]>,
    head: Mutex<Head>,
    passages: Passages,
}

/// The last sequence and the greatest clock handed out, and how many cuts were made. Locked last, and only for as long as taking a moment
/// needs.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    moment: Moment,
    generation: u32,
}

/// The shards of one operation, locked.
struct Locked<'a>(SmallVec<[(usize, MutexGuard<'a, Shard>); 9]>);

impl Locked<'_> {
    fn shard(&mut self, entity: EntityId) -> Option<&mut Shard> {
        let wanted = shard_of(entity);
        self.0.iter_mut().find(|(index, _)| *index == wanted).map(|(_, shard)| &mut **shard)
    }
}

/// The shard of an entity: bits that the table inside the shard does not look at first.
fn shard_of(entity: EntityId) -> usize {
    (shard::hash(entity) >> 40) as usize % SHARDS
}

impl EmbeddedStore {
    /// An empty store that follows these plans; index = entity type.
    pub fn new(plans: Arc<[EntityPlan]>, options: EmbeddedOptions) -> Self {
        let kind = |plan: &EntityPlan| Kind { layout: Layout::new(plan.clone()), dictionary: Dictionary::new(plan) };
        let kinds: Arc<[Kind]> = plans.iter().map(kind).collect();
        let share = options.max_bytes / SHARDS as u64;
        let shards = (0..SHARDS as u64).map(|index| Mutex::new(Shard::new(index, Arc::clone(&kinds), share))).collect();
        Self { kinds, shards, head: Mutex::default(), passages: Passages::default() }
    }

    /// [`Store::observe`] without the future.
    pub fn observe_now<'a>(&self, happening: impl Into<Happening<'a>>, order: Order<'_>) -> History {
        let happening = happening.into();
        let mut locked = self.lock(happening.entities());
        let moment = self.open(&mut locked, order);
        let (events, clamped) = happening.at(order, moment);
        // All of them are looked at before any is worked on: with a million entities most lie in memory, and the processor waits for
        // several at once where it would wait for one after the other.
        let touched = events.entities().filter_map(|entity| locked.shard(entity).map(|shard| shard.touch(entity)));
        std::hint::black_box(touched.fold(0, |all, words| all ^ words));
        let mut history = history(&events, moment, SmallVec::with_capacity(events.events.len()));
        history.clamped = clamped;
        for (entity, event) in &events.events {
            if let Some(shard) = locked.shard(*entity) {
                history.entities.push(shard.observe(*entity, event, moment));
            }
        }
        history
    }

    /// [`Store::apply`] without the future. A time in the future is clamped to the clock; one in the past stays, because an
    /// outcome or a label applies at its transaction's time, weeks ago perhaps.
    pub fn apply_now(&self, mut events: EntityEvents, order: Order<'_>) -> Moment {
        let mut locked = self.lock(events.entities());
        let moment = self.open(&mut locked, order);
        for (entity, event) in &mut events.events {
            if matches!(order, Order::Live(_)) {
                event.time = event.time.min(moment.now);
            }
            if let Some(shard) = locked.shard(*entity) {
                shard.apply(*entity, event, moment);
            }
        }
        moment
    }

    /// [`Store::decide`] without the future.
    pub fn decide_now<T>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T) -> T {
        let mut locked = self.lock(event::entities(subjects));
        let moment = self.open(&mut locked, order);
        let mut policy = PolicyState::default();
        for entity in event::entities(subjects) {
            if let Some(shard) = locked.shard(entity) {
                shard.lend(entity, moment, &mut policy);
            }
        }
        let decided = decide(&mut policy, moment);
        for (kind, tag, change) in policy.changes {
            if let Some(entity) = subjects.of(kind).map(|subject| subject.id)
                && let Some(shard) = locked.shard(entity)
            {
                shard.write(entity, tag, change, moment);
            }
        }
        decided
    }

    /// Every entity with its blob, in order of entities: for audits, and equal for equal content whatever way it came about.
    pub fn for_each_encoded(&self, mut each: impl FnMut(EntityId, &[u8])) {
        let shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        let mut entities: Vec<EntityId> = shards.iter().flat_map(|shard| shard.entities()).collect();
        entities.sort_unstable();
        for entity in entities {
            if let Some(blob) = shards.get(shard_of(entity)).and_then(|shard| shard.blob(entity)) {
                each(entity, &blob);
            }
        }
    }

    /// Every entity with the bytes that it takes in memory and those of its blob, shard by shard.
    pub fn for_each_size(&self, mut each: impl FnMut(EntityId, u64, usize)) {
        for shard in &self.shards {
            shard.lock().sizes().for_each(|(entity, memory, blob)| each(entity, memory, blob));
        }
    }

    /// Digest of the whole store, 64 hex digits: entities in order, each with its blob.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.for_each_encoded(|entity, blob| {
            hasher.update(&[entity.kind.0]).update(&entity.key.0).update(&(blob.len() as u64).to_le_bytes()).update(blob);
        });
        hasher.finalize().to_hex().to_string()
    }

    /// A copy of one entity's state, for operators and tests.
    pub fn state(&self, entity: EntityId) -> Option<EntityState> {
        self.shards.get(shard_of(entity))?.lock().state(entity)
    }

    fn lock(&self, entities: impl Iterator<Item = EntityId>) -> Locked<'_> {
        let mut wanted: SmallVec<[usize; 9]> = entities.map(shard_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Locked(wanted.into_iter().filter_map(|index| self.shards.get(index).map(|shard| (index, shard.lock()))).collect())
    }

    /// Takes the moment under the locks and opens the shards for it.
    fn open(&self, locked: &mut Locked<'_>, order: Order<'_>) -> Moment {
        let Head { moment, generation } = self.take(order);
        locked.0.iter_mut().for_each(|(_, shard)| shard.open(moment, generation));
        moment
    }

    fn take(&self, order: Order<'_>) -> Head {
        let mut head = self.head.lock();
        let known = head.moment;
        match order {
            Order::Live(clock) => {
                head.moment = Moment { sequence: Sequence(known.sequence.0 + 1), now: Timestamp::max(known.now, clock.now()) };
                *head
            }
            Order::Recorded(moment) => {
                head.moment = Moment { sequence: known.sequence.max(moment.sequence), now: known.now.max(moment.now) };
                Head { moment, generation: head.generation }
            }
        }
    }
}

fn history(events: &EntityEvents, moment: Moment, entities: SmallVec<[EntityReads; 1]>) -> History {
    let first: Option<&Event> = events.events.first().map(|(_, event)| event);
    let event_time = first.map_or(moment.now, |event| event.time);
    History { moment, event_time, status: Status::Full, entities, ..History::default() }
}

impl Store for EmbeddedStore {
    async fn observe(&self, happening: Happening<'_>, order: Order<'_>) -> History {
        self.observe_now(happening, order)
    }

    async fn apply(&self, events: EntityEvents, order: Order<'_>) -> Moment {
        self.apply_now(events, order)
    }

    async fn decide<T: Send>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T + Send) -> T {
        self.decide_now(subjects, order, decide)
    }

    fn moment(&self, order: Order<'_>) -> Moment {
        self.take(order).moment
    }

    fn enter(&self) -> Passage<'_> {
        self.passages.enter()
    }

    fn stats(&self) -> StoreStats {
        let kinds = self.kinds.len();
        let mut stats = StoreStats { entities: vec![0; kinds], bytes: vec![0; kinds], ..StoreStats::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.entities.iter_mut().zip(&shard.totals.entities).for_each(|(sum, part)| *sum += part);
            stats.bytes.iter_mut().zip(&shard.totals.bytes).for_each(|(sum, part)| *sum += part);
            stats.evicted += shard.totals.evicted;
            stats.evicted_established += shard.totals.evicted_established;
            stats.probation += shard.totals.stubs;
            stats.probation_bytes += shard.totals.stub_bytes;
            stats.expired += shard.totals.expired;
        }
        stats
    }
}
