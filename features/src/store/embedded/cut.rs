//! An exact cut through the store while it is in use: everything up to one sequence number and nothing after it.
//!
//! A cut takes the number under the head's lock and counts the generation up. The first operation of a later number that opens a shard
//! finds the new generation there: from then on, whatever is about to change, or to go, and is not saved yet is written aside first. A
//! walker saves the rest, a few entities under the lock at a time. So scoring waits for a few dozen blobs to be encoded at most, and
//! never for the whole.
//!
//! A transaction that was observed before the cut and is decided after it needs what it had read. Transactions are counted from before
//! they are observed until they are decided ([`Passage`]); those that a cut finds under way leave their history with it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::entity::{EntityId, EntityKey, EntityType};
use crate::kernel::{DecodeError, EntityState};
use crate::store::{History, Moment, Sequence};
use crate::time::Timestamp;

use super::EmbeddedStore;
use super::shard::{Kind, Meta, Shard};

/// Entities that are encoded under one lock: about 100 µs.
const TOGETHER: usize = 32;
/// What shards that still wait for the walker have written aside is fetched beyond this, bytes.
const ASIDE: usize = 256 << 10;
/// Bytes of a record before its blob.
const HEAD: usize = 1 + 16 + 8 + 8 + 8 + 1 + 4;

/// One entity as a snapshot has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which.
    pub entity: EntityId,
    /// Greatest sequence that changed it: the order of eviction.
    pub last: u64,
    /// Clock of its last event: the TTL counts from here.
    pub touched: Timestamp,
    /// Sequence of the first proof of its mark.
    pub proved: u64,
    /// How much it was seen: whether it is on probation.
    pub standing: u8,
    /// The kernel's blob.
    pub blob: &'a [u8],
}

/// Where a shard stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardMark {
    /// The last epoch that it had opened.
    pub epoch: u64,
    /// The greatest clock that it had seen.
    pub now: Timestamp,
}

/// A cut: everything up to its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The last operation that belongs to it.
    pub moment: Moment,
    generation: u32,
}

impl<'a> Record<'a> {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(self.entity.kind.0);
        out.extend_from_slice(&self.entity.key.0);
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.touched.micros().to_le_bytes());
        out.extend_from_slice(&self.proved.to_le_bytes());
        out.push(self.standing);
        // No blob comes near four gigabytes.
        out.extend_from_slice(&u32::try_from(self.blob.len()).unwrap_or_default().to_le_bytes());
        out.extend_from_slice(self.blob);
    }

    /// Takes the next one from the front; `None` at the end and where the bytes are none.
    pub fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let (kind, head) = head.split_first()?;
        let (key, head) = head.split_first_chunk::<16>()?;
        let (last, head) = head.split_first_chunk::<8>()?;
        let (touched, head) = head.split_first_chunk::<8>()?;
        let (proved, head) = head.split_first_chunk::<8>()?;
        let (standing, length) = head.split_first()?;
        let length = usize::try_from(u32::from_le_bytes(*length.first_chunk()?)).ok()?;
        let (blob, rest) = rest.split_at_checked(length)?;
        *bytes = rest;
        Some(Self {
            entity: EntityId { kind: EntityType(*kind), key: EntityKey(*key) },
            last: u64::from_le_bytes(*last),
            touched: Timestamp::from_micros(i64::from_le_bytes(*touched)),
            proved: u64::from_le_bytes(*proved),
            standing: *standing,
            blob,
        })
    }
}

/// What a shard writes aside for the cut that is being saved.
#[derive(Default)]
pub(super) struct Saving {
    generation: u32,
    /// Whether entities are left that are not saved yet.
    active: bool,
    aside: Vec<u8>,
    mark: ShardMark,
}

impl Saving {
    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Writes an entity aside that is about to change, unless the cut has it or it came after it.
    pub(super) fn keep(&mut self, meta: &mut Meta, kinds: &[Kind], blob: impl FnOnce(&Kind) -> Vec<u8>) {
        if self.active && meta.generation != self.generation {
            put(meta, kinds, blob, &mut self.aside);
            meta.generation = self.generation;
        }
    }
}

fn put(meta: &Meta, kinds: &[Kind], blob: impl FnOnce(&Kind) -> Vec<u8>, out: &mut Vec<u8>) {
    if let Some(kind) = kinds.get(meta.id.kind.index()) {
        let blob = blob(kind);
        let Meta { id, standing, last, touched, proved, .. } = *meta;
        Record { entity: id, last, touched, proved, standing, blob: &blob }.put(out);
    }
}

impl Shard {
    /// Begins with a cut, if it is a new one: called before the first operation that comes after it.
    pub(super) fn cut(&mut self, generation: u32) {
        if self.saving.generation != generation {
            let mark = ShardMark { epoch: self.epoch, now: self.now };
            // What an earlier cut that was given up had written aside is nothing of this one.
            self.saving = Saving { generation, active: true, aside: Vec::new(), mark };
        }
    }

    fn unsaved(&self) -> Vec<EntityId> {
        let metas = self.table.iter().map(|entry| &entry.meta).chain(self.stubs.iter().map(|stub| &stub.meta));
        metas.filter(|meta| meta.generation != self.saving.generation).map(|meta| meta.id).collect()
    }

    fn save(&mut self, entity: EntityId, out: &mut Vec<u8>) {
        let Self { table, stubs, kinds, saving, .. } = self;
        let hash = super::shard::hash(entity);
        if let Some(entry) = table.find_mut(hash, |entry| entry.meta.id == entity) {
            if entry.meta.generation != saving.generation {
                put(&entry.meta, kinds, |kind| entry.state.encode(&kind.layout), out);
                entry.meta.generation = saving.generation;
            }
        } else if let Some(stub) = stubs.find_mut(hash, |stub| stub.meta.id == entity)
            && stub.meta.generation != saving.generation
        {
            put(&stub.meta, kinds, |kind| stub.blob(&kind.dictionary), out);
            stub.meta.generation = saving.generation;
        }
    }
}

impl EmbeddedStore {
    /// Cuts here: what [`EmbeddedStore::save`] then saves is what was applied up to now, whatever is applied meanwhile. One cut at a time;
    /// `None` while transactions are under way that the cut before this one was given up for.
    pub fn cut(&self) -> Option<Cut> {
        let mut head = self.head.lock();
        if self.passages.are_old(head.generation) {
            return None;
        }
        head.generation = head.generation.wrapping_add(1);
        self.passages.cut(head.moment.sequence, head.generation);
        Some(Cut { moment: head.moment, generation: head.generation })
    }

    /// Gives every entity of a cut to `sink`, some at a time ([`Record::take`] reads them), and returns where the shards stood.
    ///
    /// # Errors
    /// Whatever `sink` answers; the cut is given up then.
    pub fn save<E>(&self, cut: &Cut, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<Vec<ShardMark>, E> {
        let mut marks = Vec::with_capacity(self.shards.len());
        let mut out = Vec::with_capacity(64 << 10);
        let mut failed = None;
        for (index, shard) in self.shards.iter().enumerate() {
            let unsaved = {
                let mut shard = shard.lock();
                shard.cut(cut.generation);
                shard.unsaved()
            };
            for some in unsaved.chunks(TOGETHER) {
                let mut shard = shard.lock();
                some.iter().for_each(|entity| shard.save(*entity, &mut out));
                // Whoever waits for the shard goes first.
                MutexGuard::unlock_fair(shard);
                // What could not be written is still walked: every entity must know the generation.
                if failed.is_none() {
                    failed = sink(&out).err();
                }
                out.clear();
            }
            let (aside, mark) = {
                let mut shard = shard.lock();
                shard.saving.active = false;
                (std::mem::take(&mut shard.saving.aside), shard.saving.mark)
            };
            if failed.is_none() {
                failed = sink(&aside).err();
            }
            marks.push(mark);
            for waiting in self.shards.iter().skip(index + 1) {
                let mut shard = waiting.lock();
                if shard.saving.aside.len() > ASIDE {
                    let aside = std::mem::take(&mut shard.saving.aside);
                    drop(shard);
                    if failed.is_none() {
                        failed = sink(&aside).err();
                    }
                }
            }
        }
        failed.map_or(Ok(marks), Err)
    }

    /// What transactions had read that a cut found under way, once all of them are decided; `None` while some are not.
    pub fn straddling(&self, cut: &Cut) -> Option<Vec<History>> {
        self.passages.end(cut.generation)
    }

    /// Gives a cut up: nothing is written aside for it any more.
    pub fn forget_cut(&self) {
        self.passages.close();
        let generation = self.head.lock().generation;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.cut(generation);
            (shard.saving.active, shard.saving.aside) = (false, Vec::new());
        }
    }

    /// Puts an entity of a snapshot in place; the store has been given no operation yet.
    ///
    /// # Errors
    /// When its blob cannot be read.
    pub fn restore(&self, record: &Record<'_>) -> Result<(), DecodeError> {
        let Some(kind) = self.kinds.get(record.entity.kind.index()) else { return Ok(()) };
        let state = EntityState::decode(&kind.layout, record.blob)?;
        if let Some(shard) = self.shards.get(super::shard_of(record.entity)) {
            let Record { entity: id, last, touched, proved, standing, .. } = *record;
            let mut shard = shard.lock();
            let generation = shard.saving.generation();
            shard.put(Meta { id, standing, generation, last, touched, proved }, state);
        }
        Ok(())
    }

    /// Goes on from there: the next number follows that moment, and shards close their epochs from where they stood.
    pub fn resume(&self, moment: Moment, marks: &[ShardMark]) {
        self.take(crate::store::Order::Recorded(moment));
        for (shard, mark) in self.shards.iter().zip(marks) {
            let mut shard = shard.lock();
            (shard.epoch, shard.now) = (mark.epoch, mark.now);
        }
    }

    /// Empties the store: a snapshot turned out to be broken.
    pub fn clear(&self) {
        for (shard, index) in self.shards.iter().zip(0..) {
            let mut shard = shard.lock();
            *shard = Shard::new(index, std::sync::Arc::clone(&self.kinds), shard.share);
        }
        *self.head.lock() = super::Head::default();
    }
}

/// Transactions under way, as far as a cut must know of them.
#[derive(Debug, Default)]
pub(super) struct Passages {
    generation: AtomicU32,
    /// How many began in an even generation and in an odd one, and have not ended.
    open: [AtomicU64; 2],
    /// Sequence of the cut that is being saved; 0: none is.
    at: AtomicU64,
    straddling: Mutex<Vec<History>>,
}

impl Passages {
    /// Called under the head's lock, so that whoever takes a later number sees it.
    fn cut(&self, at: Sequence, generation: u32) {
        self.straddling.lock().clear();
        self.at.store(at.0, Ordering::Release);
        self.generation.store(generation, Ordering::Release);
    }

    /// Whether any began before the last cut.
    fn are_old(&self, generation: u32) -> bool {
        self.open.get(parity(generation.wrapping_sub(1))).is_some_and(|open| open.load(Ordering::Acquire) > 0)
    }

    fn end(&self, generation: u32) -> Option<Vec<History>> {
        if self.are_old(generation) {
            return None;
        }
        self.close();
        Some(std::mem::take(&mut *self.straddling.lock()))
    }

    fn close(&self) {
        self.at.store(0, Ordering::Release);
    }

    pub(super) fn enter(&self) -> Passage<'_> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(open) = self.open.get(parity(generation)) {
            open.fetch_add(1, Ordering::AcqRel);
        }
        Passage(Some((self, generation)))
    }
}

fn parity(generation: u32) -> usize {
    usize::from(generation % 2 == 1)
}

/// A transaction from before it is observed until after it is decided, however it ends.
#[derive(Debug)]
pub struct Passage<'a>(Option<(&'a Passages, u32)>);

impl Passage<'_> {
    /// Nobody counts: a store that needs no snapshots.
    pub const fn uncounted() -> Self {
        Self(None)
    }

    /// The transaction of that history was decided.
    pub fn decided(&self, history: &History, decided: Moment) {
        let Some((passages, _)) = self.0 else { return };
        let at = passages.at.load(Ordering::Acquire);
        if at > 0 && history.moment.sequence.0 <= at && decided.sequence.0 > at {
            passages.straddling.lock().push(history.clone());
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if let Some((passages, generation)) = self.0
            && let Some(open) = passages.open.get(parity(generation))
        {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
