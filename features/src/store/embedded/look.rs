//! What operators do with entities: look at all of one type, forget one.

use crate::entity::{EntityId, EntityType};
use crate::kernel::EntityState;
use crate::store::{Moment, Order};
use crate::time::Timestamp;

use super::EmbeddedStore;

/// Entities looked at under one hold of a shard's lock.
const AT_ONCE: usize = 8;

impl EmbeddedStore {
    /// Forgets an entity, in the order of everything: what happened to it up to that moment is gone, and nothing that began before
    /// brings it back.
    pub fn forget_now(&self, entity: EntityId, order: Order<'_>) -> Moment {
        let mut locked = self.lock(std::iter::once(entity));
        let moment = self.open(&mut locked, order);
        if let Some(shard) = locked.shard(entity) {
            shard.bury(entity, moment);
        }
        moment
    }

    /// Up to when an entity was forgotten on request.
    pub fn tombstone(&self, entity: EntityId) -> Option<Timestamp> {
        self.shards.get(super::shard_of(entity))?.lock().tombstone(entity)
    }

    /// Shows every entity of a type, in no order, a few at a time.
    pub fn visit(&self, kind: EntityType, mut each: impl FnMut(EntityId, &EntityState)) {
        for shard in &self.shards {
            let ids: Vec<EntityId> = shard.lock().entities().filter(|id| id.kind == kind).collect();
            for some in ids.chunks(AT_ONCE) {
                let shard = shard.lock();
                some.iter().for_each(|id| shard.show(*id, |state| each(*id, state)));
            }
        }
    }
}
