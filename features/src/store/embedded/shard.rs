//! One shard: established entities, those on probation, what they weigh.
//!
//! Everything here depends on the order of operations on this shard and on their moments alone, never on threads or on what other
//! shards hold. An entity is on probation, and a [`Stub`], until it has been observed three times; from then on it is decoded and stays
//! so. What must go when the sequence crosses an epoch stands in `evict`, what a snapshot sees of all this in `cut`.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

use crate::entity::EntityId;
use crate::event::Event;
use crate::kernel::slots::{PROVED, PolicyState, Slot, SlotChange, SlotTag};
use crate::kernel::{EntityState, Layout};
use crate::store::{EntityReads, Moment};
use crate::time::Timestamp;

use super::EPOCH;
use super::cut::Saving;
use super::stub::{Dictionary, Stub};

/// A shard looks for entities whose TTL has passed once in so many epochs; shards take turns.
const SWEEP_EPOCHS: u64 = 64;
/// Bytes of an entry beside its state: the box, its place in the table, the allocator's part.
const OVERHEAD: usize = 48;
/// What an observed event and an outcome or label add to an entity's standing, and the standing up to which it is on probation: two
/// transactions with their outcomes and labels, as each id of a flood brings, are not enough.
const OBSERVED: u32 = 5;
const APPLIED: u32 = 1;
const PROBATION: u8 = 14;

/// An entity type as a shard needs it.
pub(super) struct Kind {
    pub layout: Layout,
    pub dictionary: Dictionary,
}

impl Kind {
    fn parts(&self) -> (&Layout, &Dictionary) {
        (&self.layout, &self.dictionary)
    }
}

/// What is kept of an entity beside its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub id: EntityId,
    /// How much it was seen, saturating: see `PROBATION`.
    pub standing: u8,
    /// The last cut that has it, or at which it was not there yet.
    pub generation: u32,
    /// Greatest sequence that changed it.
    pub last: u64,
    /// Clock of the last event applied: the TTL counts from here.
    pub touched: Timestamp,
    /// Sequence of the first proof of the mark that holds; a decision of an earlier sequence does not see it.
    pub proved: u64,
}

/// One established entity.
pub(super) struct Entry {
    pub meta: Meta,
    pub weight: u64,
    pub state: EntityState,
}

/// Entities, bytes, evictions and expiries of a shard.
#[derive(Default)]
pub(super) struct Totals {
    pub entities: Vec<u64>,
    pub bytes: Vec<u64>,
    pub stubs: u64,
    pub stub_bytes: u64,
    pub evicted: u64,
    pub evicted_established: u64,
    pub expired: u64,
}

pub(super) struct Shard {
    index: u64,
    pub(super) kinds: Arc<[Kind]>,
    pub(super) share: u64,
    pub(super) table: HashTable<Box<Entry>>,
    pub(super) stubs: HashTable<Stub>,
    pub(super) epoch: u64,
    /// The greatest clock of an operation on this shard.
    pub(super) now: Timestamp,
    pub(super) saving: Saving,
    pub totals: Totals,
}

/// Keys are keyed hashes already: no further hashing, only the type is mixed in.
pub(super) fn hash(id: EntityId) -> u64 {
    id.key.low64() ^ (u64::from(id.kind.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Shard {
    pub(super) fn new(index: u64, kinds: Arc<[Kind]>, share: u64) -> Self {
        let totals = Totals { entities: vec![0; kinds.len()], bytes: vec![0; kinds.len()], ..Totals::default() };
        let (table, stubs) = (HashTable::new(), HashTable::new());
        Self { index, kinds, share, table, stubs, epoch: 0, now: Timestamp::default(), saving: Saving::default(), totals }
    }

    pub(super) fn entities(&self) -> impl Iterator<Item = EntityId> + '_ {
        self.table.iter().map(|entry| entry.meta.id).chain(self.stubs.iter().map(|stub| stub.meta.id))
    }

    /// Every entity with the bytes that it takes in memory and those of its blob.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (EntityId, u64, usize)> + '_ {
        let blob = |id: EntityId| self.blob(id).map_or(0, |blob| blob.len());
        let established = self.table.iter().map(move |entry| (entry.meta.id, entry.weight, blob(entry.meta.id)));
        established.chain(self.stubs.iter().map(move |stub| (stub.meta.id, stub.weight(), blob(stub.meta.id))))
    }

    /// The blob of an entity.
    pub(super) fn blob(&self, entity: EntityId) -> Option<Vec<u8>> {
        let kind = self.kinds.get(entity.kind.index())?;
        let stub = || self.find_stub(entity).map(|stub| stub.blob(&kind.dictionary));
        self.find(entity).map(|entry| entry.state.encode(&kind.layout)).or_else(stub)
    }

    /// Opens the shard for an operation at that moment: a cut of that generation is made before it, then an epoch that has passed is
    /// closed, with the clock of what came before.
    pub(super) fn open(&mut self, moment: Moment, generation: u32) {
        self.cut(generation);
        let epoch = moment.sequence.0 / EPOCH;
        if epoch > self.epoch {
            let turn = |epoch: u64| epoch.wrapping_add(self.index) / SWEEP_EPOCHS;
            if turn(epoch) != turn(self.epoch) {
                self.sweep();
            }
            if self.totals.held() > self.share {
                self.evict();
            }
            self.epoch = epoch;
        }
        self.now = self.now.max(moment.now);
    }

    /// Applies an event and reads the features of its entity.
    pub(super) fn observe(&mut self, entity: EntityId, event: &Event, moment: Moment) -> EntityReads {
        let mut reads = EntityReads { entity, lateness: 0.0, reads: Default::default() };
        self.change(entity, moment, |meta, state, layout| {
            reads.lateness = state.observe(layout, event, &mut reads.reads);
            meta.prove(state, layout, (event, moment));
            OBSERVED.saturating_mul(event.weight)
        });
        reads
    }

    /// Applies an event. One that says nothing of its entity makes no entry.
    pub(super) fn apply(&mut self, entity: EntityId, event: &Event, moment: Moment) {
        let concerns = self.kinds.get(entity.kind.index()).is_some_and(|kind| event.filters & kind.layout.filters != 0);
        if !concerns && !event.proves {
            return;
        }
        self.change(entity, moment, |meta, state, layout| {
            state.apply(layout, event);
            meta.prove(state, layout, (event, moment));
            APPLIED
        });
    }

    /// The slots of an entity as a decision of that moment sees them.
    pub(super) fn lend(&self, entity: EntityId, moment: Moment, policy: &mut PolicyState) {
        let Some(kind) = self.kinds.get(entity.kind.index()) else { return };
        let mut add = |meta: &Meta, state: &EntityState| {
            let seen = state.slots().filter(|(tag, _)| *tag != PROVED || meta.proved < moment.sequence.0);
            policy.slots.extend(seen.map(|(tag, slot)| (entity.kind, tag, slot)));
        };
        if let Some(entry) = self.find(entity) {
            if !entry.meta.expired(&kind.layout, moment.now) {
                add(&entry.meta, &entry.state);
            }
        } else if let Some(stub) = self.find_stub(entity).filter(|stub| stub.has_slots())
            && !stub.meta.expired(&kind.layout, moment.now)
        {
            add(&stub.meta, &stub.unpack(kind.parts()));
        }
    }

    /// Writes a change that a decision made. An entity that is not held gets a small entry; its TTL is not renewed.
    pub(super) fn write(&mut self, entity: EntityId, tag: SlotTag, change: SlotChange, moment: Moment) {
        let meta = self.find(entity).map(|entry| &entry.meta).or_else(|| self.find_stub(entity).map(|stub| &stub.meta));
        let touched = meta.map(|meta| meta.touched);
        self.change(entity, moment, |meta, state, _| {
            if let Some(touched) = touched.filter(|_| !state.is_empty()) {
                meta.touched = touched;
            }
            if tag == PROVED {
                meta.mark_proved(state, moment);
            }
            state.change_slot(tag, change, moment.now);
            0
        });
    }

    /// Forgets an entity on request; the mark of it lives as long as history would.
    pub(super) fn bury(&mut self, entity: EntityId, moment: Moment) {
        self.change(entity, moment, |meta, state, _| {
            state.bury(moment.now);
            meta.proved = 0;
            0
        });
    }

    pub(super) fn find(&self, entity: EntityId) -> Option<&Entry> {
        self.table.find(hash(entity), |entry| entry.meta.id == entity).map(AsRef::as_ref)
    }

    pub(super) fn find_stub(&self, entity: EntityId) -> Option<&Stub> {
        self.stubs.find(hash(entity), |stub| stub.meta.id == entity)
    }

    /// The state of an entity.
    pub(super) fn state(&self, entity: EntityId) -> Option<EntityState> {
        let kind = self.kinds.get(entity.kind.index())?;
        let stub = || self.find_stub(entity).map(|stub| stub.unpack(kind.parts()));
        self.find(entity).map(|entry| entry.state.clone()).or_else(stub)
    }

    /// Shows the state of an entity, if there is one.
    pub(super) fn show(&self, entity: EntityId, see: impl FnOnce(&EntityState)) {
        match (self.find(entity), self.kinds.get(entity.kind.index())) {
            (Some(entry), _) => see(&entry.state),
            (None, Some(kind)) => {
                if let Some(stub) = self.find_stub(entity) {
                    see(&stub.unpack(kind.parts()));
                }
            }
            (None, None) => {}
        }
    }

    /// Up to when an entity was forgotten on request.
    pub(super) fn tombstone(&self, entity: EntityId) -> Option<Timestamp> {
        let mut tombstone = None;
        self.show(entity, |state| tombstone = state.tombstone());
        tombstone
    }

    /// Reads a little of everything that an entity has, for nothing but that it is in the cache afterwards.
    pub(super) fn touch(&self, entity: EntityId) -> i64 {
        self.find(entity).map_or(0, |entry| entry.state.touch())
    }

    /// Lends an entity's state, new or renewed when need be, and keeps the accounts. What `change` returns adds to its standing.
    fn change(&mut self, entity: EntityId, moment: Moment, change: impl FnOnce(&mut Meta, &mut EntityState, &Layout) -> u32) {
        let Self { kinds, table, stubs, totals, saving, .. } = self;
        let Some(kind) = kinds.get(entity.kind.index()) else { return };
        let change = |meta: &mut Meta, state: &mut EntityState| {
            meta.touched = meta.touched.max(moment.now);
            meta.last = meta.last.max(moment.sequence.0);
            let earned = change(meta, state, &kind.layout);
            meta.standing = u8::try_from(earned.saturating_add(meta.standing.into())).unwrap_or(u8::MAX);
        };
        if let Ok(mut found) = table.find_entry(hash(entity), |entry| entry.meta.id == entity) {
            let entry = &mut **found.get_mut();
            saving.keep(&mut entry.meta, kinds, |kind| entry.state.encode(&kind.layout));
            if !entry.meta.expired(&kind.layout, moment.now) {
                change(&mut entry.meta, &mut entry.state);
                let weight = entry_weight(&entry.state, &kind.layout);
                totals.weigh(entity, entry.weight, weight);
                entry.weight = weight;
                return;
            }
            // What its TTL has outlived begins anew, on probation.
            totals.remove(entity, entry.weight);
            totals.expired += 1;
            found.remove();
        }
        let fresh = Meta::new(entity, moment, saving.generation());
        let place = stubs.entry(hash(entity), |stub| stub.meta.id == entity, |stub| hash(stub.meta.id));
        let (mut meta, mut state) = (fresh, EntityState::default());
        let place = match place {
            Place::Occupied(mut found) => {
                let stub = found.get_mut();
                totals.remove_stub(stub);
                let mut kept = stub.meta;
                saving.keep(&mut kept, kinds, |kind| stub.blob(&kind.dictionary));
                if kept.expired(&kind.layout, moment.now) {
                    totals.expired += 1;
                } else {
                    (meta, state) = (kept, stub.unpack(kind.parts()));
                }
                Place::Occupied(found)
            }
            vacant @ Place::Vacant(_) => vacant,
        };
        change(&mut meta, &mut state);
        if meta.is_established() {
            if let Place::Occupied(found) = place {
                found.remove();
            }
            self.establish(meta, state);
        } else {
            let stub = Stub::pack(meta, &state, kind.parts());
            totals.add_stub(&stub);
            place.insert(stub);
        }
    }

    /// Puts a state in place: an established one, or a stub. An entity that is there already stays: a scan may have met it twice.
    pub(super) fn put(&mut self, meta: Meta, state: EntityState) {
        if self.find(meta.id).is_some() || self.find_stub(meta.id).is_some() {
            return;
        }
        if meta.is_established() {
            self.establish(meta, state);
        } else if let Some(kind) = self.kinds.get(meta.id.kind.index()) {
            let stub = Stub::pack(meta, &state, kind.parts());
            self.totals.add_stub(&stub);
            self.stubs.insert_unique(hash(meta.id), stub, |stub| hash(stub.meta.id));
        }
    }

    fn establish(&mut self, meta: Meta, state: EntityState) {
        let Some(kind) = self.kinds.get(meta.id.kind.index()) else { return };
        let weight = entry_weight(&state, &kind.layout);
        self.totals.add(meta.id, weight);
        self.table.insert_unique(hash(meta.id), Box::new(Entry { meta, weight, state }), |entry| hash(entry.meta.id));
    }
}

/// Bytes of an established entity, by content.
fn entry_weight(state: &EntityState, layout: &Layout) -> u64 {
    (OVERHEAD + size_of::<Entry>() - size_of::<EntityState>() + state.bytes(layout)) as u64
}

impl Totals {
    /// Bytes held.
    pub(super) fn held(&self) -> u64 {
        self.bytes.iter().sum()
    }

    fn of(&mut self, id: EntityId, change: impl FnOnce(&mut u64, &mut u64)) {
        let kind = id.kind.index();
        if let (Some(entities), Some(bytes)) = (self.entities.get_mut(kind), self.bytes.get_mut(kind)) {
            change(entities, bytes);
        }
    }

    fn add(&mut self, id: EntityId, weight: u64) {
        self.of(id, |entities, bytes| (*entities, *bytes) = (*entities + 1, *bytes + weight));
    }

    pub(super) fn remove(&mut self, id: EntityId, weight: u64) {
        self.of(id, |entities, bytes| (*entities, *bytes) = (*entities - 1, *bytes - weight));
    }

    fn weigh(&mut self, id: EntityId, before: u64, after: u64) {
        self.of(id, |_, bytes| *bytes = *bytes + after - before);
    }

    fn add_stub(&mut self, stub: &Stub) {
        self.stubs += 1;
        self.stub_bytes += stub.weight();
        self.add(stub.meta.id, stub.weight());
    }

    pub(super) fn remove_stub(&mut self, stub: &Stub) {
        self.stubs -= 1;
        self.stub_bytes -= stub.weight();
        self.remove(stub.meta.id, stub.weight());
    }
}

impl Meta {
    fn new(id: EntityId, moment: Moment, generation: u32) -> Self {
        Self { id, standing: 0, generation, last: moment.sequence.0, touched: moment.now, proved: 0 }
    }

    fn is_established(&self) -> bool {
        self.standing > PROBATION
    }

    pub(super) fn expired(&self, layout: &Layout, now: Timestamp) -> bool {
        now.micros_since(self.touched) > layout.ttl()
    }

    /// Marks the identity as proved when the event proves it; the mark holds as long as the history would.
    fn prove(&mut self, state: &mut EntityState, layout: &Layout, (event, moment): (&Event, Moment)) {
        if event.proves && state.tombstone().is_none_or(|until| event.time > until) {
            self.mark_proved(state, moment);
            // Nothing lapses here: in a batch an earlier decision is yet to come, and it must find what was there at its time.
            let until = moment.now.plus(layout.plan().ttl);
            state.change_slot(PROVED, SlotChange::Mark { until }, Timestamp::from_micros(i64::MIN));
        }
    }

    fn mark_proved(&mut self, state: &EntityState, moment: Moment) {
        let holds = matches!(state.slot(PROVED), Some(Slot::Mark { until }) if until > moment.now);
        if !holds {
            self.proved = moment.sequence.0;
        }
    }
}
