//! The Redis store: entity state shared by replicas, one key an entity, read before the answer and written back after it.
//!
//! Events and decisions enter, histories leave. The kernel does all the work here as in the embedded store; Redis holds blobs and
//! compares versions. A replica's own order stands as STATE says: entities locked in key order, the moment taken under the locks.
//!
//! ```text
//! observe ── which entities must be asked for? ── one pipelined GET a node, at most `read_deadline` ──┐
//!    lock ── moment ── learn what was found ── apply, read ── unlock                                  ◄┘
//!    flush, every `flush_every` ± 20 %: seal what is open ── compare-and-set ── another version: merge into it, again
//!    alone for a second: what was read or written since ── `SET` while nobody else wrote
//! ```
//! Whatever Redis does, the caller gets its answer in time; how much history is behind it is its [`Status`].

mod ages;
mod ask;
mod breaker;
mod claims;
mod cluster;
mod delta;
mod entry;
mod flush;
mod forget;
mod heat;
mod keeper;
mod link;
mod look;
mod names;
mod options;
mod shard;
mod skew;
mod sole;
mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod value;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::entity::{EntityId, Subjects};
use crate::event::{self, EntityEvents};
use crate::kernel::Layout;
use crate::kernel::plan::EntityPlan;
use crate::kernel::slots::PolicyState;
use crate::store::embedded::Step;
use crate::store::{Claim, Durability, EntityReads, Happening, History, Moment, Order, Sequence, Status, Store, StoreStats};
use crate::time::{Clock, Timestamp, micros};

pub use names::{Names, NamesKey};
pub use options::{Acknowledge, Credentials, RedisOptions, RedisOptionsError, Secret, Tls, Topology};
pub use table::{Table, TableError};
pub use transfer::{Created, Stored, Transfer, TransferError};

use ask::Answers;
use breaker::Breaker;
use entry::Currency;
use flush::Counts;
use link::Link;
use names::Standing;
use shard::Shard;
use skew::Skew;
use sole::Token;

/// Shards of the cache.
const SHARDS: usize = 256;
/// Batches of a flush that may be on their way at once.
const BATCHES: usize = 8;

/// Entity state in Redis, with a cache here.
pub struct RedisStore {
    shared: Arc<Shared>,
    chores: Vec<JoinHandle<()>>,
}

/// What answers, flushes and the keeper share.
struct Shared {
    options: Arc<RedisOptions>,
    layouts: Arc<[Layout]>,
    shards: Box<[Mutex<Shard>]>,
    /// The last sequence and the greatest clock handed out.
    head: Mutex<Moment>,
    clock: Arc<dyn Clock>,
    skew: Skew,
    reads: Link,
    writes: Link,
    breaker: Breaker,
    batches: Arc<Semaphore>,
    /// Claims that were decided here and are to be written.
    decided: claims::Decided,
    flushes: AtomicU64,
    /// A flush is wanted now.
    wanted: Notify,
    /// Counts batches that came back.
    rounds: watch::Sender<u64>,
    counts: Counts,
}

/// The shards of one operation, locked.
struct Locked<'a>(SmallVec<[(usize, MutexGuard<'a, Shard>); 9]>);

impl Locked<'_> {
    fn shard(&mut self, entity: EntityId) -> Option<&mut Shard> {
        let wanted = shard_of(entity);
        self.0.iter_mut().find(|(index, _)| *index == wanted).map(|(_, shard)| &mut **shard)
    }
}

fn shard_of(entity: EntityId) -> usize {
    (shard::hash(entity) >> 40) as usize % SHARDS
}

impl RedisStore {
    /// A store that follows these plans; index = entity type. Waits about a second for Redis; without it, it begins with local state
    /// and merges that once Redis is there. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the options cannot be used.
    pub async fn start(options: RedisOptions, plans: Arc<[EntityPlan]>, clock: Arc<dyn Clock>) -> Result<Self, RedisOptionsError> {
        link::check(&options)?;
        let options = Arc::new(options);
        let layouts: Arc<[Layout]> = plans.iter().cloned().map(Layout::new).collect();
        let share = options.max_bytes / SHARDS as u64;
        let shard = || Shard::new(Arc::clone(&layouts), share).standing(options.names.standing());
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        let shared = Arc::new(Shared {
            layouts,
            shards,
            head: Mutex::new(Moment::default()),
            clock,
            skew: Skew::default(),
            reads: Link::new(Arc::clone(&options)),
            writes: Link::new(Arc::clone(&options)),
            breaker: Breaker::open(),
            batches: Arc::new(Semaphore::new(BATCHES)),
            decided: claims::Decided::default(),
            flushes: AtomicU64::new(0),
            wanted: Notify::new(),
            rounds: watch::Sender::new(0),
            counts: Counts::default(),
            options,
        });
        keeper::begin(&shared).await;
        let chores = vec![tokio::spawn(flush::run(Arc::clone(&shared))), tokio::spawn(keeper::run(Arc::clone(&shared)))];
        Ok(Self { shared, chores })
    }

    /// Writes everything back that is not stored yet, as long as `patience` lasts. True when nothing is left.
    pub async fn flush(&self, patience: Duration) -> bool {
        let shared = &self.shared;
        let history = async {
            let mut rounds = shared.rounds.subscribe();
            while shared.dirty() > 0 {
                shared.wanted.notify_one();
                // An error would say that the store is gone, which it is not while this borrows it.
                drop(timeout(shared.options.flush_every, rounds.changed()).await);
            }
        };
        // Together: a slow claim must not keep history from going out.
        let done = async { tokio::join!(history, claims::write_last(shared)) };
        timeout(patience, done).await.is_ok()
    }

    /// Waits, in synchronous mode and at most that long, until what these subjects' entities hold is stored.
    pub async fn settle(&self, subjects: &Subjects, within: Duration) -> Durability {
        let shared = &self.shared;
        if shared.options.acknowledge == Acknowledge::Asynchronous {
            return Durability::Asynchronous;
        }
        let changes: Vec<(EntityId, u64)> = event::entities(subjects)
            .filter_map(|entity| {
                let shard = shared.shards.get(shard_of(entity))?.lock();
                shard.find(entity).map(|entry| (entity, entry.changes()))
            })
            .collect();
        let mut rounds = shared.rounds.subscribe();
        let stored = async {
            while !shared.is_saved(&changes) {
                shared.wanted.notify_one();
                // An error would say that the store is gone, which it is not while this borrows it.
                drop(rounds.changed().await);
            }
        };
        match timeout(within, stored).await {
            Ok(()) => Durability::Durable,
            Err(_) => Durability::Pending,
        }
    }

    /// One recorded step on what the cache holds: nothing is asked, nothing awaited.
    pub fn replay_one(&self, step: &Step) -> Option<History> {
        match step {
            Step::Observe(events, moment) => Some(self.shared.observe(events.clone().into(), Order::Recorded(*moment), &Answers::new())),
            Step::Apply(events, moment) => {
                self.shared.apply(events.clone(), Order::Recorded(*moment));
                None
            }
        }
    }

    /// [`Store::decide`] with what the cache holds.
    pub fn decide_now<T>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T) -> T {
        self.shared.decide(subjects, order, decide, &Answers::new())
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.chores.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn key(&self, entity: EntityId, standing: Standing) -> String {
        let kind = self.layouts.get(entity.kind.index()).map_or("", |layout| &layout.plan().name);
        format!("{}:{}", self.options.prefix, self.options.names.name((kind, entity.key), standing))
    }

    /// The clock of what happens outside the order: flushes.
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.now().micros().saturating_add(self.skew.correction()))
    }

    /// The token that stands, where reads and writes go to the same server.
    fn token(&self) -> Token {
        if self.reads.is_with(&self.writes) { self.writes.token() } else { Token::NONE }
    }

    fn lag(&self) -> i64 {
        micros(self.options.lag)
    }

    fn dirty(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().totals.dirty).sum()
    }

    fn observe(&self, happening: Happening<'_>, order: Order<'_>, asked: &Answers) -> History {
        let mut locked = self.lock(happening.entities());
        let moment = self.take(order);
        let now = moment.now;
        let (events, clamped) = happening.at(order, moment);
        let mut entities = SmallVec::new();
        let mut currencies: SmallVec<[Currency; 8]> = SmallVec::new();
        for (entity, event) in &events.events {
            let Some(shard) = locked.shard(*entity) else { continue };
            let answered = self.learn(shard, *entity, asked, now);
            let mut reads = EntityReads { entity: *entity, lateness: 0.0, reads: Default::default() };
            let currency = shard.happen(*entity, now, |entry, layout| {
                reads.lateness = entry.observe(layout, event, now, &mut reads.reads);
                entry.currency(now, self.lag(), answered)
            });
            currencies.extend(currency);
            entities.push(reads);
        }
        let event_time = events.events.first().map_or(now, |(_, event)| event.time);
        History { moment, event_time, clamped, status: status(&currencies), entities, ..History::default() }
    }

    fn apply(&self, mut events: EntityEvents, order: Order<'_>) -> Moment {
        let mut locked = self.lock(events.entities());
        let moment = self.take(order);
        for (entity, event) in &mut events.events {
            if matches!(order, Order::Live(_)) {
                event.time = event.time.min(moment.now);
            }
            let Some(shard) = locked.shard(*entity) else { continue };
            let layout = self.layouts.get(entity.kind.index());
            if layout.is_some_and(|layout| event.filters & layout.filters != 0) || event.proves {
                shard.happen(*entity, moment.now, |entry, layout| entry.apply(layout, event, moment.now));
            }
        }
        moment
    }

    fn decide<T>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T, asked: &Answers) -> T {
        let mut locked = self.lock(event::entities(subjects));
        let moment = self.take(order);
        let mut policy = PolicyState::default();
        for entity in event::entities(subjects) {
            if let Some(shard) = locked.shard(entity) {
                self.learn(shard, entity, asked, moment.now);
                shard.lend(entity, moment.now, &mut policy);
            }
        }
        let decided = decide(&mut policy, moment);
        for (kind, tag, change) in policy.changes {
            if let Some(entity) = subjects.of(kind).map(|subject| subject.id)
                && let Some(shard) = locked.shard(entity)
            {
                shard.happen(entity, moment.now, |entry, _| entry.change_slot(tag, change, moment.now));
            }
        }
        decided
    }

    fn lock(&self, entities: impl Iterator<Item = EntityId>) -> Locked<'_> {
        let mut wanted: SmallVec<[usize; 9]> = entities.map(shard_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Locked(wanted.into_iter().filter_map(|index| self.shards.get(index).map(|shard| (index, shard.lock()))).collect())
    }

    fn take(&self, order: Order<'_>) -> Moment {
        let mut head = self.head.lock();
        match order {
            Order::Live(clock) => {
                let now = Timestamp::from_micros(clock.now().micros().saturating_add(self.skew.correction()));
                *head = Moment { sequence: Sequence(head.sequence.0 + 1), now: head.now.max(now) };
                *head
            }
            Order::Recorded(moment) => {
                *head = Moment { sequence: head.sequence.max(moment.sequence), now: head.now.max(moment.now) };
                moment
            }
        }
    }

    /// Whether everything of these entities up to those changes is stored.
    fn is_saved(&self, changes: &[(EntityId, u64)]) -> bool {
        changes.iter().all(|(entity, change)| {
            let shard = self.shards.get(shard_of(*entity)).map(Mutex::lock);
            shard.is_some_and(|shard| shard.find(*entity).is_some_and(|entry| entry.is_saved(*change)))
        })
    }
}

/// The history's worth: the least of its entities', as far as there is anything at all.
fn status(currencies: &[Currency]) -> Status {
    let any = |wanted: Currency| currencies.contains(&wanted);
    if !currencies.is_empty() && currencies.iter().all(|currency| *currency == Currency::Unknown) {
        Status::None
    } else if any(Currency::Unknown) || any(Currency::Part) {
        Status::Partial
    } else if any(Currency::Old) {
        Status::Stale
    } else {
        Status::Full
    }
}

impl Store for RedisStore {
    async fn observe(&self, happening: Happening<'_>, order: Order<'_>) -> History {
        let lag = self.shared.lag();
        let (asked, claim) = self.shared.ask(happening.entities(), happening.claim, |entry, now| entry.wants_reading(now, lag)).await;
        let history = match claim {
            Claim::Lost(_) => self.shared.look(happening, order, &asked),
            Claim::Unasked | Claim::Won => self.shared.observe(happening, order, &asked),
        };
        History { claim, ..history }
    }

    async fn apply(&self, events: EntityEvents, order: Order<'_>) -> Moment {
        self.shared.apply(events, order)
    }

    async fn decide<T: Send>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T + Send) -> T {
        // Observed a moment ago, as a rule: only what the cache lacks is asked for.
        let (asked, _) = self.shared.ask(event::entities(subjects), None, |_, _| false).await;
        self.shared.decide(subjects, order, decide, &asked)
    }

    fn moment(&self, order: Order<'_>) -> Moment {
        self.shared.take(order)
    }

    fn has_claims(&self) -> bool {
        self.shared.options.claims.is_some()
    }

    fn stats(&self) -> StoreStats {
        self.shared.stats()
    }
}
