//! One shard of the local cache: entries by entity, which of them wait to be flushed, what they weigh.
//!
//! Bounded in bytes: beyond its share a shard gives up what is worth least ([`Worth`]), of equals what was touched longest ago. What is
//! not stored yet goes only when nothing else is left, and is counted as lost: a flood of made-up identifiers pushes out itself.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::entity::EntityId;
use crate::kernel::slots::PolicyState;
use crate::kernel::{Flush, Layout};
use crate::time::Timestamp;

use super::entry::{Entry, Outcome};
use super::heat::Worth;
use super::names::Standing;
use super::sole::Token;
use super::value::{Write, Written};

/// When a shard is over its share it goes down to this part of it.
const KEEP: (u64, u64) = (15, 16);
/// Bytes of an entry beside its state: its place in the table, the allocator's part.
const OVERHEAD: u64 = 48;

/// Entities, bytes, evictions of a shard.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub entities: Vec<u64>,
    pub bytes: Vec<u64>,
    pub evicted: u64,
    pub expired: u64,
    /// Given up although not stored.
    pub lost: u64,
    /// Waiting to be stored.
    pub dirty: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    layouts: Arc<[Layout]>,
    share: u64,
    /// Which names entities have of which nothing is known yet.
    standing: Standing,
    table: HashTable<Box<Entry>>,
    dirty: Vec<EntityId>,
    pub totals: Totals,
}

/// Keys are keyed hashes already: no further hashing, only the type is mixed in.
pub(super) fn hash(id: EntityId) -> u64 {
    id.key.low64() ^ (u64::from(id.kind.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Shard {
    pub(super) fn new(layouts: Arc<[Layout]>, share: u64) -> Self {
        let totals = Totals { entities: vec![0; layouts.len()], bytes: vec![0; layouts.len()], ..Totals::default() };
        Self { layouts, share, standing: Standing::default(), table: HashTable::new(), dirty: Vec::new(), totals }
    }

    /// The same, where entities of which nothing is known yet stand so.
    pub(super) fn standing(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    pub(super) fn find(&self, entity: EntityId) -> Option<&Entry> {
        self.table.find(hash(entity), |entry| entry.id == entity).map(AsRef::as_ref)
    }

    /// All of them, in no order.
    pub(super) fn ids(&self) -> impl Iterator<Item = EntityId> + '_ {
        self.table.iter().map(|entry| entry.id)
    }

    /// Lends an entry, made when need be, keeps the accounts and lists it when it has something to flush.
    pub(super) fn change<T>(&mut self, entity: EntityId, now: Timestamp, change: impl FnOnce(&mut Entry, &Layout) -> T) -> Option<T> {
        let kind = entity.kind.index();
        let layout = self.layouts.get(kind)?;
        let (mut made, standing) = (false, self.standing);
        let entry = self.table.entry(hash(entity), |entry| entry.id == entity, |entry| hash(entry.id)).or_insert_with(|| {
            made = true;
            Box::new(Entry::new(entity, now, standing))
        });
        let entry = entry.into_mut();
        let (before, was_dirty) = (entry.weight, entry.is_dirty());
        let result = change(entry, layout);
        entry.weight = OVERHEAD + entry.bytes(layout);
        if entry.is_dirty() && !entry.queued {
            entry.queued = true;
            self.dirty.push(entity);
        }
        self.totals.dirty = self.totals.dirty + u64::from(entry.is_dirty()) - u64::from(was_dirty);
        if let (Some(entities), Some(bytes)) = (self.totals.entities.get_mut(kind), self.totals.bytes.get_mut(kind)) {
            *entities += u64::from(made);
            *bytes = *bytes + entry.weight - before;
        }
        if self.totals.bytes.iter().sum::<u64>() > self.share {
            self.evict(entity, now);
        }
        Some(result)
    }

    /// The same for what happens to the entity: history that its TTL has outlived is forgotten first.
    pub(super) fn happen<T>(&mut self, entity: EntityId, now: Timestamp, change: impl FnOnce(&mut Entry, &Layout) -> T) -> Option<T> {
        let mut expired = false;
        let result = self.change(entity, now, |entry, layout| {
            expired = entry.expired(layout, now);
            if expired {
                entry.renew(layout, now);
            }
            change(entry, layout)
        });
        self.totals.expired += u64::from(expired);
        result
    }

    /// The slots of an entity as they stand.
    pub(super) fn lend(&self, entity: EntityId, now: Timestamp, policy: &mut PolicyState) {
        let (Some(entry), Some(layout)) = (self.find(entity), self.layouts.get(entity.kind.index())) else { return };
        if !entry.expired(layout, now) {
            policy.slots.extend(entry.view.slots().map(|(tag, slot)| (entity.kind, tag, slot)));
        }
    }

    /// At most so many of the writes that are due, each with a flush of its own.
    pub(super) fn due(&mut self, most: usize, now: Timestamp, mut flush: impl FnMut() -> Flush) -> Vec<Write> {
        let most = most.min(self.dirty.len());
        let dirty: Vec<EntityId> = self.dirty.drain(..most).collect();
        let mut writes = Vec::with_capacity(most);
        for entity in dirty {
            if self.find(entity).is_none() {
                continue;
            }
            let write = self.change(entity, now, |entry, layout| {
                let write = entry.next_write(layout, flush());
                // Kept out of the list while its write is on its way: the answer puts it there again when need be.
                entry.queued = write.is_some() || entry.is_in_flight();
                write
            });
            writes.extend(write.flatten());
        }
        writes
    }

    /// What became of a write, and which token stood then.
    pub(super) fn answered(&mut self, (entity, flush): (EntityId, Flush), (written, token): (Written, Token), now: Timestamp) -> Outcome {
        if self.find(entity).is_none() {
            return Outcome::Stale;
        }
        let outcome = self.change(entity, now, |entry, layout| {
            let outcome = entry.answered(layout, flush, written, now);
            entry.stored_under(flush, token);
            if !matches!(outcome, Outcome::Stale) {
                entry.queued = entry.is_in_flight();
            }
            outcome
        });
        outcome.unwrap_or(Outcome::Stale)
    }

    /// Gives up what is worth least until the shard is within its share; never the one that changes.
    fn evict(&mut self, making: EntityId, now: Timestamp) {
        let mut order: Vec<(Worth, Timestamp, EntityId, u64)> = self
            .table
            .iter()
            .filter(|entry| entry.id != making)
            .map(|entry| (entry.worth(now), entry.touched, entry.id, entry.weight))
            .collect();
        order.sort_unstable();
        let mut held = self.totals.bytes.iter().sum::<u64>();
        let goal = self.share / KEEP.1 * KEEP.0;
        for (worth, _, id, weight) in order {
            let dirty = matches!(worth, Worth::Passing | Worth::Waiting);
            if held <= goal {
                break;
            }
            held -= weight;
            if let Ok(found) = self.table.find_entry(hash(id), |entry| entry.id == id) {
                let (entry, _) = found.remove();
                let kind = entry.id.kind.index();
                if let (Some(entities), Some(bytes)) = (self.totals.entities.get_mut(kind), self.totals.bytes.get_mut(kind)) {
                    *entities -= 1;
                    *bytes -= entry.weight;
                }
                self.totals.evicted += 1;
                self.totals.lost += u64::from(dirty);
                self.totals.dirty -= u64::from(dirty);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entity::{EntityKey, EntityType};
    use crate::event::Event;
    use crate::kernel::plan::{Accumulator, AccumulatorKind, EntityPlan, Read};

    const SHARE: u64 = 256 << 10;

    fn shard() -> Shard {
        let window = Duration::from_secs(3_600);
        let plan = EntityPlan {
            name: "thing".into(),
            ttl: Duration::from_secs(100_000),
            max_bytes: 64 << 10,
            filters: vec![1],
            values: vec![],
            members: vec![],
            accumulators: vec![Accumulator { tag: 11, kind: AccumulatorKind::Count { filter: 0, window } }],
            reads: vec![Read::Count(0)],
        };
        Shard::new(Arc::from([Layout::new(plan)]), SHARE)
    }

    fn id(number: u64) -> EntityId {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        EntityId { kind: EntityType(0), key: EntityKey(key) }
    }

    fn see(shard: &mut Shard, number: u64, now: Timestamp) {
        let event =
            Event { time: now, weight: 1, sign: 1, filters: 1, values: Default::default(), members: Default::default(), proves: false };
        let mut reads: Vec<f64> = Vec::new();
        shard.happen(id(number), now, |entry, layout| entry.observe(layout, &event, now, &mut reads));
    }

    /// Writes everything that waits, as a store that is there would take it.
    fn store(shard: &mut Shard, now: Timestamp) {
        let mut sequence = 0;
        let flush = || {
            sequence += 1;
            Flush { writer: 1, sequence, at: now }
        };
        for write in shard.due(usize::MAX, now, flush) {
            shard.answered((write.entity, write.flush), (Written::Stored, Token::NONE), now);
        }
        assert_eq!(shard.totals.dirty, 0);
    }

    /// A flood of made-up identifiers, each seen once or twice; the cache stays within its share whatever comes.
    fn flood(shard: &mut Shard, count: u64, now: Timestamp) {
        for number in 0..count {
            (0..=number % 2).for_each(|_| see(shard, 1_000_000 + number, now));
            assert!(shard.totals.bytes.iter().sum::<u64>() <= SHARE, "{:?}", shard.totals);
        }
        assert!(shard.totals.evicted > count / 2, "{:?}", shard.totals);
    }

    #[test]
    fn a_flood_pushes_out_neither_history_that_waits_nor_what_is_hot() {
        let (mut shard, begin) = (shard(), Timestamp::from_micros(1_767_225_600_000_000));
        (0..20).for_each(|number| (0..5).for_each(|_| see(&mut shard, number, begin)));
        store(&mut shard, begin);
        let now = begin.plus(Duration::from_secs(10));
        // Hot and stored; known to the store and changed since; new, but seen more than twice and not stored.
        (20..25).for_each(|number| (0..25).for_each(|_| see(&mut shard, number, now)));
        store(&mut shard, now);
        (0..10).for_each(|number| see(&mut shard, number, now));
        (30..40).for_each(|number| (0..3).for_each(|_| see(&mut shard, number, now)));
        // Redis is away: nothing is written.
        flood(&mut shard, 20_000, now);
        for number in (0..10).chain(20..25).chain(30..40) {
            assert!(shard.find(id(number)).is_some(), "{number} was pushed out");
        }
        assert!((10..20).all(|number| shard.find(id(number)).is_none()), "what is stored and quiet goes first");
        assert_eq!(shard.totals.dirty, shard.table.iter().filter(|entry| entry.is_dirty()).count() as u64);
        assert!(shard.totals.lost > 0 && shard.totals.lost <= 20_000);
    }

    #[test]
    fn a_flood_that_is_written_loses_nothing() {
        let (mut shard, now) = (shard(), Timestamp::from_micros(1_767_225_600_000_000));
        for round in 0..200 {
            for number in 0..50 {
                see(&mut shard, 10_000 + round * 50 + number, now);
            }
            store(&mut shard, now);
        }
        assert!(shard.totals.evicted > 5_000 && shard.totals.lost == 0, "{:?}", shard.totals);
    }
}
