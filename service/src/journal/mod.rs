//! The journal: everything that came in, as it stood behind the door, in the order applied.
//!
//! Records enter from every worker, encoded, through a bounded queue and leave to files in checked, compressed blocks. Scoring
//! never waits for the disk: what cannot be queued or written is lost, counted, and a gap record says which numbers are missing.

pub mod block;
mod erase;
mod gaps;
mod queue;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use telltale_features::store::Moment;
use telltale_proto::journal::v1::{JournalRecord, journal_record::Kind};

pub use erase::{ErasedCount, Erasure, erase};
pub use gaps::GapList;
pub use reader::{Entry, JournalReader, ReadStats, files};

use queue::Queue;

/// How the journal is written.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Folder of its files.
    pub folder: PathBuf,
    /// A file is closed at this size, bytes.
    pub file_bytes: u64,
    /// The oldest files are deleted beyond this total, bytes.
    pub total_bytes: u64,
    /// Records that may wait for the writer.
    pub queue: usize,
    /// Longest time that a record waits before it is handed to the operating system. A killed process loses at most this and one write.
    pub block_every: Duration,
    /// How often the operating system is asked to bring it to the disk; only a power cut loses what lies between.
    pub sync_every: Duration,
}

impl JournalOptions {
    /// Ordinary sizes in that folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            file_bytes: 64 << 20,
            total_bytes: 8 << 30,
            queue: 65_536,
            block_every: Duration::from_millis(50),
            sync_every: Duration::from_secs(1),
        }
    }
}

/// What the journal tells of itself.
#[derive(Debug, Default)]
pub struct JournalStats {
    /// Records written.
    pub written: AtomicU64,
    /// Records lost to a full queue or disk.
    pub lost: AtomicU64,
    /// Gap records written.
    pub gaps: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Failed writes.
    pub failures: AtomicU64,
    /// Number of the file that is being written.
    pub file: AtomicU64,
}

struct Shared {
    queue: Arc<Queue>,
    stats: Arc<JournalStats>,
}

/// The handle that workers write through. Closed until [`Journal::open`]; a closed one takes nothing.
#[derive(Clone, Default)]
pub struct Journal {
    shared: Arc<OnceLock<Shared>>,
}

impl Journal {
    /// Begins a new file in the folder and starts the writer.
    ///
    /// # Errors
    /// When the folder cannot be made or written, or the journal is open already.
    pub fn open(&self, options: JournalOptions) -> std::io::Result<()> {
        let queue = Arc::new(Queue::new(options.queue));
        let stats = Arc::new(JournalStats::default());
        let writer = writer::Writer::create(options, Arc::clone(&queue), Arc::clone(&stats))?;
        self.shared
            .set(Shared { queue, stats })
            .map_err(|_| std::io::Error::new(std::io::ErrorKind::AlreadyExists, "the journal is open already"))?;
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run())?;
        Ok(())
    }

    /// While patient, a full queue is waited for: warm-up, where nobody waits for an answer.
    pub fn set_patient(&self, patient: bool) {
        if let Some(shared) = self.shared.get() {
            shared.queue.set_patient(patient);
        }
    }

    /// Takes one record. Never blocks while scoring: a full queue costs the record, and a gap says so.
    pub fn append(&self, moment: Moment, kind: impl FnOnce() -> Kind) {
        let Some(shared) = self.shared.get() else { return };
        let sequence = moment.sequence.0;
        if !shared.queue.append(JournalRecord { sequence, now_us: moment.now.micros(), kind: Some(kind()) }) {
            shared.queue.lost.lock().add(sequence);
            shared.stats.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says what is in force now, outside the order: the beginning of a journal.
    pub fn state(&self, kind: Kind) {
        self.append(Moment::default(), || kind);
    }

    /// Waits until everything taken so far is handed to the disk. Returns false when the writer is gone.
    pub fn flush(&self) -> bool {
        let Some(shared) = self.shared.get() else { return true };
        let (done, finished) = sync_channel(1);
        shared.queue.ask(done) && finished.recv().is_ok()
    }

    /// Writes everything taken so far and begins a new file; the new file's number, or `None` when nothing is written here.
    pub fn rotate(&self) -> Option<u64> {
        let shared = self.shared.get()?;
        let (done, begun) = sync_channel(1);
        if shared.queue.ask_for_file(done) { begun.recv().ok() } else { None }
    }

    /// Writes what is left and ends the writer. Returns false when it was gone already.
    pub fn close(&self) -> bool {
        let Some(shared) = self.shared.get() else { return true };
        let (done, finished) = sync_channel(1);
        let asked = shared.queue.ask(done);
        shared.queue.close();
        asked && finished.recv().is_ok()
    }

    /// Its counters; `None` while closed.
    pub fn stats(&self) -> Option<&JournalStats> {
        self.shared.get().map(|shared| &*shared.stats)
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a block has waited is about this process, not about events")]
fn now() -> Instant {
    Instant::now()
}
