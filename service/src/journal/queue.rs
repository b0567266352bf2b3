//! What waits for the writer: records, encoded by who appends them, in one buffer behind a lock.
//!
//! Appending copies some hundred bytes and wakes nobody, apart from the first record of a block and the one that fills it: a
//! wake-up for each record would cost every transaction more than writing it.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use prost::Message;
use telltale_proto::journal::v1::{JournalRecord, journal_record::Kind};

use super::gaps::GapList;

/// Content at which a block is written before its time, bytes: snappy looks no further back than this.
const BLOCK_BYTES: usize = 64 << 10;
/// Content that may wait for the writer, bytes, however few records it is.
const QUEUE_BYTES: usize = 64 << 20;

/// Records that were taken and not yet written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Length-delimited records, in the order taken.
    pub content: Vec<u8>,
    /// Where each stands in it, with its sequence number.
    pub places: Vec<(u64, Range<usize>)>,
    /// Those among them that say what is in force.
    pub state: Vec<JournalRecord>,
    /// Who waits until all of this is on the disk.
    pub flushed: Vec<SyncSender<()>>,
    /// Who wants the next file begun after this, and its number.
    pub rotated: Vec<SyncSender<u64>>,
    /// When the first was taken.
    begun: Option<Instant>,
}

impl Pending {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.flushed.is_empty() && self.rotated.is_empty()
    }

    /// Forgets everything but the memory it had.
    pub fn clear(&mut self) {
        self.content.clear();
        self.places.clear();
        self.state.clear();
        self.flushed.clear();
        self.rotated.clear();
        self.begun = None;
    }
}

#[derive(Debug, Default)]
struct Inner {
    pending: Pending,
    closed: bool,
}

/// The queue between all workers and the writer.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// The writer sleeps here.
    work: Condvar,
    /// Patient appenders sleep here.
    room: Condvar,
    capacity: usize,
    patient: AtomicBool,
    /// Numbers that were lost and are not yet written as gaps.
    pub lost: Mutex<GapList>,
}

thread_local! {
    /// Where this thread encodes, so that the lock is held for a copy only.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Queue {
    /// A queue for that many records.
    pub fn new(capacity: usize) -> Self {
        Self {
            inner: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            capacity,
            patient: AtomicBool::new(false),
            lost: Mutex::default(),
        }
    }

    /// While patient, appending waits for room.
    pub fn set_patient(&self, patient: bool) {
        self.patient.store(patient, Ordering::Relaxed);
        self.room.notify_all();
    }

    /// Takes a record; false when there is no room, or nobody writes any more.
    pub fn append(&self, record: JournalRecord) -> bool {
        ENCODED.with_borrow_mut(|encoded| {
            encoded.clear();
            // A vector grows: there is always room in it.
            record.encode_length_delimited(encoded).is_ok() && self.put(encoded, record)
        })
    }

    fn put(&self, encoded: &[u8], record: JournalRecord) -> bool {
        let mut inner = self.inner.lock();
        let full = |pending: &Pending| pending.places.len() >= self.capacity || pending.content.len() >= QUEUE_BYTES;
        while full(&inner.pending) && !inner.closed && self.patient.load(Ordering::Relaxed) {
            self.room.wait(&mut inner);
        }
        if inner.closed || full(&inner.pending) {
            return false;
        }
        let pending = &mut inner.pending;
        let start = pending.content.len();
        pending.content.extend_from_slice(encoded);
        let end = pending.content.len();
        pending.places.push((record.sequence, start..end));
        if matches!(record.kind, Some(Kind::Changed(_) | Kind::Decision(_) | Kind::Template(_))) {
            pending.state.push(record);
        }
        let wake = pending.places.len() == 1 || (start < BLOCK_BYTES && end >= BLOCK_BYTES);
        if pending.begun.is_none() {
            pending.begun = Some(super::now());
        }
        drop(inner);
        if wake {
            self.work.notify_one();
        }
        true
    }

    /// Asks that everything taken so far be brought to the disk; false when nobody writes any more.
    pub fn ask(&self, done: SyncSender<()>) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed {
            return false;
        }
        inner.pending.flushed.push(done);
        drop(inner);
        self.work.notify_one();
        true
    }

    /// Asks that the next file be begun after everything taken so far; false when nobody writes any more.
    pub fn ask_for_file(&self, done: SyncSender<u64>) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed {
            return false;
        }
        inner.pending.rotated.push(done);
        drop(inner);
        self.work.notify_one();
        true
    }

    /// Takes no more from now on; the writer gets what there is.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.work.notify_one();
        self.room.notify_all();
    }

    /// Ends everything: what still waits is dropped, and with it whoever waits for it.
    pub fn abandon(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.pending.clear();
        drop(inner);
        self.room.notify_all();
    }

    /// Exchanges the empty `pending` for what waits once a block is due, somebody asks, or `idle` has passed without anything;
    /// false when the queue is closed and empty.
    pub fn take(&self, pending: &mut Pending, block_every: Duration, idle: Duration) -> bool {
        let mut inner = self.inner.lock();
        let quiet_until = super::now() + idle;
        loop {
            let due = match inner.pending.begun {
                _ if inner.closed || !inner.pending.flushed.is_empty() || !inner.pending.rotated.is_empty() => break,
                Some(_) if inner.pending.content.len() >= BLOCK_BYTES => break,
                Some(begun) => begun + block_every,
                None => quiet_until,
            };
            if self.sleep(&mut inner, due) {
                break;
            }
        }
        std::mem::swap(&mut inner.pending, pending);
        let more = !inner.closed || !pending.is_empty();
        drop(inner);
        self.room.notify_all();
        more
    }

    /// Sleeps until that moment or until woken; true when the moment has come.
    fn sleep(&self, inner: &mut MutexGuard<'_, Inner>, until: Instant) -> bool {
        self.work.wait_until(inner, until).timed_out()
    }
}
