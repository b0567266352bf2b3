//! One shard: entries by entity, what they weigh, and what must go when the sequence crosses an epoch.
//!
//! Everything here depends on the order of operations on this shard and on their moments alone, never on threads or on what other
//! shards hold.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::entity::EntityId;
use crate::event::Event;
use crate::kernel::slots::{PROVED, PolicyState, Slot, SlotChange, SlotTag};
use crate::kernel::{EntityState, Layout};
use crate::store::{EntityReads, Moment};
use crate::time::Timestamp;

use super::EPOCH;

/// A shard looks for entities whose TTL has passed once in so many epochs; shards take turns.
const SWEEP_EPOCHS: u64 = 64;
/// When a shard is over its share it goes down to this part of it, so that it need not look again at every epoch.
const KEEP: (u64, u64) = (15, 16);
/// Bytes of an entry beside its state: the box, its place in the table, the allocator's part.
const OVERHEAD: usize = 48;

/// One entity.
pub(super) struct Entry {
    pub id: EntityId,
    /// Sequence of the last observe, or of the creation.
    pub last: u64,
    /// Clock of the last event applied: the TTL counts from here.
    pub touched: Timestamp,
    /// Sequence of the first proof of the mark that holds; a decision of an earlier sequence does not see it.
    pub proved: u64,
    pub weight: u64,
    pub state: EntityState,
}

/// Entities, bytes, evictions and expiries of a shard.
#[derive(Default)]
pub(super) struct Totals {
    pub entities: Vec<u64>,
    pub bytes: Vec<u64>,
    pub evicted: u64,
    pub expired: u64,
}

pub(super) struct Shard {
    index: u64,
    layouts: Arc<[Layout]>,
    share: u64,
    table: HashTable<Box<Entry>>,
    epoch: u64,
    /// The greatest clock of an operation on this shard.
    now: Timestamp,
    pub totals: Totals,
}

/// Keys are keyed hashes already: no further hashing, only the type is mixed in.
pub(super) fn hash(id: EntityId) -> u64 {
    id.key.low64() ^ (u64::from(id.kind.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Shard {
    pub(super) fn new(index: u64, layouts: Arc<[Layout]>, share: u64) -> Self {
        let totals = Totals { entities: vec![0; layouts.len()], bytes: vec![0; layouts.len()], ..Totals::default() };
        Self { index, layouts, share, table: HashTable::new(), epoch: 0, now: Timestamp::default(), totals }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter().map(AsRef::as_ref)
    }

    /// Opens the shard for an operation at that moment: an epoch that has passed is closed first, with the clock of what came before.
    pub(super) fn open(&mut self, moment: Moment) {
        let epoch = moment.sequence.0 / EPOCH;
        if epoch > self.epoch {
            let turn = |epoch: u64| epoch.wrapping_add(self.index) / SWEEP_EPOCHS;
            if turn(epoch) != turn(self.epoch) {
                self.sweep();
            }
            if self.totals.bytes.iter().sum::<u64>() > self.share {
                self.evict();
            }
            self.epoch = epoch;
        }
        self.now = self.now.max(moment.now);
    }

    /// Applies an event and reads the features of its entity.
    pub(super) fn observe(&mut self, entity: EntityId, event: &Event, moment: Moment) -> EntityReads {
        let mut reads = EntityReads { entity, lateness: 0.0, reads: Default::default() };
        self.change(entity, moment, |entry, layout| {
            reads.lateness = entry.state.observe(layout, event, &mut reads.reads);
            entry.last = entry.last.max(moment.sequence.0);
            entry.prove(layout, event, moment);
        });
        reads
    }

    /// Applies an event. One that says nothing of its entity makes no entry.
    pub(super) fn apply(&mut self, entity: EntityId, event: &Event, moment: Moment) {
        let concerns = self.layouts.get(entity.kind.index()).is_some_and(|layout| event.filters & layout.filters != 0);
        if !concerns && !event.proves {
            return;
        }
        self.change(entity, moment, |entry, layout| {
            entry.state.apply(layout, event);
            entry.prove(layout, event, moment);
        });
    }

    /// The slots of an entity as a decision of that moment sees them.
    pub(super) fn lend(&self, entity: EntityId, moment: Moment, policy: &mut PolicyState) {
        let (Some(entry), Some(layout)) = (self.find(entity), self.layouts.get(entity.kind.index())) else { return };
        if !entry.expired(layout, moment.now) {
            let seen = entry.state.slots().filter(|(tag, _)| *tag != PROVED || entry.proved < moment.sequence.0);
            policy.slots.extend(seen.map(|(tag, slot)| (entity.kind, tag, slot)));
        }
    }

    /// Writes a change that a decision made. An entity that is not held gets a small entry; its TTL is not renewed.
    pub(super) fn write(&mut self, entity: EntityId, tag: SlotTag, change: SlotChange, moment: Moment) {
        let touched = self.find(entity).map(|entry| entry.touched);
        self.change(entity, moment, |entry, _| {
            if let Some(touched) = touched.filter(|_| !entry.state.is_empty()) {
                entry.touched = touched;
            }
            if tag == PROVED {
                entry.mark_proved(moment);
            }
            entry.state.change_slot(tag, change, moment.now);
        });
    }

    /// Forgets an entity on request; the mark of it lives as long as history would.
    pub(super) fn bury(&mut self, entity: EntityId, moment: Moment) {
        self.change(entity, moment, |entry, _| {
            entry.state.bury(moment.now);
            entry.proved = 0;
        });
    }

    pub(super) fn find(&self, entity: EntityId) -> Option<&Entry> {
        self.table.find(hash(entity), |entry| entry.id == entity).map(AsRef::as_ref)
    }

    /// Reads a little of everything that an entity has, for nothing but that it is in the cache afterwards.
    pub(super) fn touch(&self, entity: EntityId) -> i64 {
        self.find(entity).map_or(0, |entry| entry.state.touch())
    }

    /// Lends an entry, made or renewed when need be, and keeps the accounts.
    fn change(&mut self, entity: EntityId, moment: Moment, change: impl FnOnce(&mut Entry, &Layout)) {
        let kind = entity.kind.index();
        let Some(layout) = self.layouts.get(kind) else { return };
        let mut made = false;
        let entry = self.table.entry(hash(entity), |entry| entry.id == entity, |entry| hash(entry.id)).or_insert_with(|| {
            made = true;
            let state = EntityState::default();
            Box::new(Entry { id: entity, last: moment.sequence.0, touched: moment.now, proved: 0, weight: 0, state })
        });
        let entry = entry.into_mut();
        if entry.expired(layout, moment.now) {
            entry.state = EntityState::default();
            self.totals.expired += 1;
        }
        let before = entry.weight;
        entry.touched = entry.touched.max(moment.now);
        change(entry, layout);
        entry.weight = (OVERHEAD + size_of::<Entry>() - size_of::<EntityState>() + entry.state.bytes(layout)) as u64;
        if let (Some(entities), Some(bytes)) = (self.totals.entities.get_mut(kind), self.totals.bytes.get_mut(kind)) {
            *entities += u64::from(made);
            *bytes = *bytes + entry.weight - before;
        }
    }

    fn sweep(&mut self) {
        let Self { table, layouts, totals, now, .. } = self;
        table.retain(|entry| {
            let stays = layouts.get(entry.id.kind.index()).is_some_and(|layout| !entry.expired(layout, *now));
            if !stays {
                totals.expired += 1;
                totals.forget(entry);
            }
            stays
        });
    }

    /// Gives up the entities observed longest ago until the shard is within its share.
    fn evict(&mut self) {
        let mut order: Vec<(u64, EntityId, u64)> = self.table.iter().map(|entry| (entry.last, entry.id, entry.weight)).collect();
        order.sort_unstable();
        let mut held: u64 = order.iter().map(|(_, _, weight)| weight).sum();
        let goal = self.share / KEEP.1 * KEEP.0;
        for (_, id, weight) in order {
            if held <= goal {
                break;
            }
            held -= weight;
            if let Ok(found) = self.table.find_entry(hash(id), |entry| entry.id == id) {
                let (entry, _) = found.remove();
                self.totals.evicted += 1;
                self.totals.forget(&entry);
            }
        }
    }
}

impl Totals {
    fn forget(&mut self, entry: &Entry) {
        let kind = entry.id.kind.index();
        if let (Some(entities), Some(bytes)) = (self.entities.get_mut(kind), self.bytes.get_mut(kind)) {
            *entities -= 1;
            *bytes -= entry.weight;
        }
    }
}

impl Entry {
    fn expired(&self, layout: &Layout, now: Timestamp) -> bool {
        now.micros_since(self.touched) > layout.ttl()
    }

    /// Marks the identity as proved when the event proves it; the mark holds as long as the history would.
    fn prove(&mut self, layout: &Layout, event: &Event, moment: Moment) {
        if event.proves && self.state.tombstone().is_none_or(|until| event.time > until) {
            self.mark_proved(moment);
            // Nothing lapses here: in a batch an earlier decision is yet to come, and it must find what was there at its time.
            let until = moment.now.plus(layout.plan().ttl);
            self.state.change_slot(PROVED, SlotChange::Mark { until }, Timestamp::from_micros(i64::MIN));
        }
    }

    fn mark_proved(&mut self, moment: Moment) {
        let holds = matches!(self.state.slot(PROVED), Some(Slot::Mark { until }) if until > moment.now);
        if !holds {
            self.proved = moment.sequence.0;
        }
    }
}
