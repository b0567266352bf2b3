//! Whichever store the configuration chose, behind one type.
//!
//! A match a call instead of a type parameter through the whole service: the hot path is compiled once, and nothing is boxed.

use crate::entity::{EntityId, EntityType, Subjects};
use crate::event::EntityEvents;
use crate::kernel::EntityState;
use crate::kernel::slots::PolicyState;
use crate::store::embedded::{EmbeddedStore, Passage, Step};
use crate::store::redis::RedisStore;
use crate::store::{Happening, History, Moment, Order, Store, StoreStats};
use crate::time::Timestamp;

/// The embedded store or Redis.
pub enum AnyStore {
    /// In this process.
    Embedded(EmbeddedStore),
    /// Shared by replicas.
    Redis(RedisStore),
}

impl From<EmbeddedStore> for AnyStore {
    fn from(store: EmbeddedStore) -> Self {
        Self::Embedded(store)
    }
}

impl From<RedisStore> for AnyStore {
    fn from(store: RedisStore) -> Self {
        Self::Redis(store)
    }
}

impl AnyStore {
    /// Applies a recorded batch: see [`EmbeddedStore::replay`]. The Redis store applies it in order on this thread, to what its cache
    /// holds, and writes it back at its next flushes.
    pub fn replay(&self, steps: &[Step], threads: usize) -> Vec<Option<History>> {
        match self {
            Self::Embedded(store) => store.replay(steps, threads),
            Self::Redis(store) => steps.iter().map(|step| store.replay_one(step)).collect(),
        }
    }

    /// [`Store::decide`] without waiting for anything.
    pub fn decide_now<T>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T) -> T {
        match self {
            Self::Embedded(store) => store.decide_now(subjects, order, decide),
            Self::Redis(store) => store.decide_now(subjects, order, decide),
        }
    }

    /// Forgets an entity, in the order of everything: what happened to it up to that moment is gone here at once, in Redis with the
    /// next flush.
    pub fn forget(&self, entity: EntityId, order: Order<'_>) -> Moment {
        match self {
            Self::Embedded(store) => store.forget_now(entity, order),
            Self::Redis(store) => {
                let moment = store.moment(order);
                store.forget(entity, moment.now);
                moment
            }
        }
    }

    /// Up to when an entity was forgotten on request, as far as this process knows.
    pub fn tombstone(&self, entity: EntityId) -> Option<Timestamp> {
        match self {
            Self::Embedded(store) => store.tombstone(entity),
            Self::Redis(store) => store.tombstone(entity),
        }
    }

    /// A copy of one entity's state.
    pub async fn look(&self, entity: EntityId) -> Option<EntityState> {
        match self {
            Self::Embedded(store) => store.state(entity),
            Self::Redis(store) => store.look(entity).await,
        }
    }

    /// Shows every entity of a type that this process has at hand, in no order, a few at a time.
    pub fn visit(&self, kind: EntityType, each: impl FnMut(EntityId, &EntityState)) {
        match self {
            Self::Embedded(store) => store.visit(kind, each),
            Self::Redis(store) => store.visit(kind, each),
        }
    }

    /// Digest of the embedded store; `None` where the state is elsewhere.
    pub fn digest(&self) -> Option<String> {
        match self {
            Self::Embedded(store) => Some(store.digest()),
            Self::Redis(_) => None,
        }
    }

    /// The embedded store, if it is that.
    pub fn embedded(&self) -> Option<&EmbeddedStore> {
        match self {
            Self::Embedded(store) => Some(store),
            Self::Redis(_) => None,
        }
    }

    /// The Redis store, if it is that.
    pub fn redis(&self) -> Option<&RedisStore> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(store) => Some(store),
        }
    }
}

impl Store for AnyStore {
    async fn observe(&self, happening: Happening<'_>, order: Order<'_>) -> History {
        match self {
            Self::Embedded(store) => store.observe_now(happening, order),
            Self::Redis(store) => store.observe(happening, order).await,
        }
    }

    async fn apply(&self, events: EntityEvents, order: Order<'_>) -> Moment {
        match self {
            Self::Embedded(store) => store.apply_now(events, order),
            Self::Redis(store) => store.apply(events, order).await,
        }
    }

    async fn decide<T: Send>(&self, subjects: &Subjects, order: Order<'_>, decide: impl FnOnce(&mut PolicyState, Moment) -> T + Send) -> T {
        match self {
            Self::Embedded(store) => store.decide_now(subjects, order, decide),
            Self::Redis(store) => store.decide(subjects, order, decide).await,
        }
    }

    fn moment(&self, order: Order<'_>) -> Moment {
        match self {
            Self::Embedded(store) => store.moment(order),
            Self::Redis(store) => store.moment(order),
        }
    }

    fn enter(&self) -> Passage<'_> {
        match self {
            Self::Embedded(store) => store.enter(),
            Self::Redis(_) => Passage::uncounted(),
        }
    }

    fn has_claims(&self) -> bool {
        match self {
            Self::Embedded(store) => store.has_claims(),
            Self::Redis(store) => store.has_claims(),
        }
    }

    fn stats(&self) -> StoreStats {
        match self {
            Self::Embedded(store) => store.stats(),
            Self::Redis(store) => store.stats(),
        }
    }
}
