//! What operators do with entities: look one up, look at those at hand.

use crate::entity::{EntityId, EntityType};
use crate::kernel::EntityState;
use crate::time::Timestamp;

use super::{RedisStore, shard_of};

/// Entities looked at under one hold of a shard's lock.
const AT_ONCE: usize = 8;

impl RedisStore {
    /// What is stored of an entity, with what waits here to be stored. Asks Redis for as long as a read may take.
    pub async fn look(&self, entity: EntityId) -> Option<EntityState> {
        let shared = &self.shared;
        let (asked, _) = shared.ask(std::iter::once(entity), None, |_, _| true).await;
        let mut shard = shared.shards.get(shard_of(entity))?.lock();
        shared.learn(&mut shard, entity, &asked, shared.now());
        shard.find(entity).map(|entry| entry.view.clone())
    }

    /// Up to when an entity was forgotten on request, as far as it is at hand.
    pub fn tombstone(&self, entity: EntityId) -> Option<Timestamp> {
        let shard = self.shared.shards.get(shard_of(entity))?.lock();
        shard.find(entity).and_then(|entry| entry.view.tombstone())
    }

    /// Shows every entity of a type that is at hand, in no order, a few at a time.
    pub fn visit(&self, kind: EntityType, mut each: impl FnMut(EntityId, &EntityState)) {
        for shard in &self.shared.shards {
            let ids: Vec<EntityId> = shard.lock().ids().filter(|id| id.kind == kind).collect();
            for some in ids.chunks(AT_ONCE) {
                let shard = shard.lock();
                for entry in some.iter().filter_map(|id| shard.find(*id)) {
                    each(entry.id, &entry.view);
                }
            }
        }
    }
}
