//! What must go: entities whose TTL has passed, and, beyond the shard's share of bytes, those that say least.
//!
//! Entities on probation go first, those touched longest ago before the others; established ones go only once no more than
//! [`PROBATION`] of the share is left on probation. So a flood of ids that come once or twice each can take what nobody uses and that
//! part, and no more; and a new entity that comes again within the time that its part lasts becomes established.

use crate::entity::EntityId;

use super::shard::Shard;

/// When a shard is over its share it goes down to this part of it, so that it need not look again at every epoch.
const KEEP: (u64, u64) = (15, 16);
/// The part of its share that entities on probation keep when room is short.
const PROBATION: u64 = 4;
/// Below so many candidates they are sorted.
const FEW: usize = 32;

/// Last touch, entity, weight.
type Candidate = (u64, EntityId, u64);

impl Shard {
    /// Gives up what has outlived its TTL.
    pub(super) fn sweep(&mut self) {
        let Self { table, stubs, kinds, totals, saving, now, .. } = self;
        table.retain(|entry| {
            let stays = kinds.get(entry.meta.id.kind.index()).is_some_and(|kind| !entry.meta.expired(&kind.layout, *now));
            if !stays {
                saving.keep(&mut entry.meta, kinds, |kind| entry.state.encode(&kind.layout));
                totals.expired += 1;
                totals.remove(entry.meta.id, entry.weight);
            }
            stays
        });
        stubs.retain(|stub| {
            let stays = kinds.get(stub.meta.id.kind.index()).is_some_and(|kind| !stub.meta.expired(&kind.layout, *now));
            if !stays {
                let mut meta = stub.meta;
                saving.keep(&mut meta, kinds, |kind| stub.blob(&kind.dictionary));
                totals.expired += 1;
                totals.remove_stub(stub);
            }
            stays
        });
    }

    /// Brings a shard that is over its share back within it.
    pub(super) fn evict(&mut self) {
        let goal = self.share / KEEP.1 * KEEP.0;
        let over = |shard: &Self| shard.totals.held().saturating_sub(goal);
        let most = self.totals.stub_bytes.saturating_sub(self.share / PROBATION);
        let need = over(self).min(most);
        if need > 0 {
            let mut young: Vec<Candidate> = self.stubs.iter().map(|stub| (stub.meta.last, stub.meta.id, stub.weight())).collect();
            let count = oldest(&mut young, need);
            young.into_iter().take(count).for_each(|(_, id, _)| self.drop_stub(id));
        }
        let need = over(self);
        if need > 0 {
            let mut old: Vec<Candidate> = self.table.iter().map(|entry| (entry.meta.last, entry.meta.id, entry.weight)).collect();
            let count = oldest(&mut old, need);
            old.into_iter().take(count).for_each(|(_, id, _)| self.drop_entry(id));
        }
    }

    fn drop_stub(&mut self, id: EntityId) {
        let Self { stubs, kinds, totals, saving, .. } = self;
        if let Ok(found) = stubs.find_entry(super::shard::hash(id), |stub| stub.meta.id == id) {
            let (stub, _) = found.remove();
            let mut meta = stub.meta;
            saving.keep(&mut meta, kinds, |kind| stub.blob(&kind.dictionary));
            totals.evicted += 1;
            totals.remove_stub(&stub);
        }
    }

    fn drop_entry(&mut self, id: EntityId) {
        let Self { table, kinds, totals, saving, .. } = self;
        if let Ok(found) = table.find_entry(super::shard::hash(id), |entry| entry.meta.id == id) {
            let (mut entry, _) = found.remove();
            let entry = &mut *entry;
            saving.keep(&mut entry.meta, kinds, |kind| entry.state.encode(&kind.layout));
            totals.evicted += 1;
            totals.evicted_established += 1;
            totals.remove(entry.meta.id, entry.weight);
        }
    }
}

/// Puts those touched longest ago to the front, as many as weigh `need` together, and says how many they are. In linear time: sorting all
/// of a full shard took most of the time of a flood.
fn oldest(candidates: &mut [Candidate], mut need: u64) -> usize {
    let (mut low, mut high) = (0, candidates.len());
    while high - low > FEW {
        let middle = low + (high - low) / 2;
        let Some(part) = candidates.get_mut(low..high) else { break };
        part.select_nth_unstable(middle - low);
        let front: u64 = part.iter().take(middle - low).map(|(_, _, weight)| weight).sum();
        if front >= need {
            high = middle;
        } else {
            need -= front;
            low = middle;
        }
    }
    let Some(part) = candidates.get_mut(low..high) else { return 0 };
    part.sort_unstable();
    for (_, _, weight) in part {
        if need == 0 {
            break;
        }
        need = need.saturating_sub(*weight);
        low += 1;
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entity::{EntityKey, EntityType};

    proptest! {
        #[test]
        fn the_oldest_are_those_that_sorting_finds(lasts in proptest::collection::vec((0..50_u64, 1..900_u64), 0..300), need in 0..60_000_u64) {
            let id = |at: usize| EntityId { kind: EntityType(0), key: EntityKey([u8::try_from(at % 256).unwrap(); 16]) };
            let mut some: Vec<Candidate> = lasts.iter().enumerate().map(|(at, (last, weight))| (*last, id(at), *weight)).collect();
            let mut sorted = some.clone();
            sorted.sort_unstable();
            let mut wanted = 0;
            let mut held = 0;
            while wanted < sorted.len() && held < need {
                held += sorted[wanted].2;
                wanted += 1;
            }
            let count = oldest(&mut some, need);
            let mut found = some[..count].to_vec();
            found.sort_unstable();
            prop_assert_eq!(found, sorted[..wanted].to_vec());
        }
    }
}
