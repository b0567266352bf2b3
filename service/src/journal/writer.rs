//! The writer's thread: gathers records into blocks, rotates files, keeps within the total, writes gaps.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use prost::Message;
use telltale_proto::journal::v1::{Changed, Gap, JournalRecord, journal_record::Kind};
use telltale_proto::v1::{Template, TemplateState};

use super::block::{self, FILE_MAGIC};
use super::queue::{Pending, Queue};
use super::reader::files;
use super::{JournalOptions, JournalStats, now};

/// Writes blocks to the current file.
pub(super) struct Writer {
    options: JournalOptions,
    queue: Arc<Queue>,
    stats: Arc<JournalStats>,
    file: File,
    number: u64,
    size: u64,
    state: BTreeMap<String, JournalRecord>,
    synced: Instant,
    unsynced: bool,
}

impl Writer {
    /// A writer at the beginning of a new file.
    pub(super) fn create(options: JournalOptions, queue: Arc<Queue>, stats: Arc<JournalStats>) -> io::Result<Self> {
        std::fs::create_dir_all(&options.folder)?;
        let number = files(&options.folder)?.last().map_or(1, |(number, _)| number + 1);
        let file = new_file(&path(&options, number))?;
        let size = FILE_MAGIC.len() as u64;
        stats.file.store(number, Ordering::Release);
        Ok(Self { options, queue, stats, file, number, size, state: BTreeMap::new(), synced: now(), unsynced: false })
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let end = Abandon(Arc::clone(&self.queue));
        let mut pending = Pending::default();
        while self.queue.take(&mut pending, self.options.block_every, self.options.sync_every) {
            self.write(&pending);
            if !pending.flushed.is_empty() || self.synced.elapsed() >= self.options.sync_every {
                self.sync();
            }
            if !pending.rotated.is_empty() {
                self.begin_file(&pending.rotated);
            }
            for done in &pending.flushed {
                // Who asked may have gone.
                done.send(()).ok();
            }
            pending.clear();
        }
        self.sync();
        drop(end);
    }

    /// Writes the gaps known and the records.
    fn write(&mut self, pending: &Pending) {
        let gaps = self.queue.lost.lock().take();
        if pending.places.is_empty() && gaps.is_empty() {
            return;
        }
        for record in &pending.state {
            self.remember(record);
        }
        match self.write_records(&gaps, pending) {
            Ok(()) => {
                self.stats.written.fetch_add(pending.places.len() as u64, Ordering::Relaxed);
                self.stats.gaps.fetch_add(gaps.len() as u64, Ordering::Relaxed);
            }
            Err(error) => self.lose(&gaps, pending, &error),
        }
    }

    fn write_records(&mut self, gaps: &[(u64, u64)], pending: &Pending) -> io::Result<()> {
        let mut content = Vec::with_capacity(pending.content.len() + gaps.len() * 32);
        for (first, last) in gaps {
            gap(*first, *last).encode_length_delimited(&mut content).map_err(io::Error::other)?;
        }
        let mut places: Vec<&(u64, Range<usize>)> = pending.places.iter().collect();
        places.sort_by_key(|(sequence, _)| *sequence);
        for (_, place) in places {
            content.extend_from_slice(pending.content.get(place.clone()).unwrap_or_default());
        }
        let block = block::seal(&content)?;
        if self.size + block.len() as u64 > self.options.file_bytes && self.size > FILE_MAGIC.len() as u64 {
            self.rotate()?;
        }
        self.put(&block)
    }

    fn put(&mut self, block: &[u8]) -> io::Result<()> {
        self.file.write_all(block)?;
        self.unsynced = true;
        self.size += block.len() as u64;
        self.stats.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
        if self.synced.elapsed() >= self.options.sync_every {
            self.sync();
        }
        Ok(())
    }

    /// What could not be written becomes gaps. The half-written block is cut off; where that fails, the next file is begun.
    fn lose(&mut self, gaps: &[(u64, u64)], pending: &Pending, error: &io::Error) {
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        self.stats.lost.fetch_add(pending.places.len() as u64, Ordering::Relaxed);
        tracing::error!(%error, records = pending.places.len(), "the journal cannot be written; scoring goes on without it");
        let mut lost = self.queue.lost.lock();
        gaps.iter().for_each(|(first, last)| lost.add_range(*first, *last));
        pending.places.iter().for_each(|(sequence, _)| lost.add(*sequence));
        drop(lost);
        if self.file.set_len(self.size).is_err()
            && let Err(error) = self.rotate()
        {
            tracing::error!(%error, "no new journal file can be begun");
        }
    }

    /// Begins the next file for those who asked; one that cannot be begun is told by nobody's being told a number.
    fn begin_file(&mut self, asked: &[SyncSender<u64>]) {
        match self.rotate() {
            // Who asked may have gone.
            Ok(()) => asked.iter().for_each(|done| {
                done.send(self.number).ok();
            }),
            Err(error) => tracing::error!(%error, "no new journal file can be begun"),
        }
    }

    /// Ends this file and begins the next with what is in force; deletes the oldest beyond the total.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync();
        self.number += 1;
        self.file = new_file(&path(&self.options, self.number))?;
        self.stats.file.store(self.number, Ordering::Release);
        self.size = FILE_MAGIC.len() as u64;
        let state: Vec<JournalRecord> = self.state.values().cloned().collect();
        if !state.is_empty() {
            self.put(&block::encode(&state)?)?;
        }
        let known = files(&self.options.folder)?;
        let mut total: u64 = known.iter().filter_map(|(_, path)| Some(path.metadata().ok()?.len())).sum();
        for (number, path) in known {
            if total <= self.options.total_bytes || number == self.number {
                break;
            }
            total = total.saturating_sub(path.metadata()?.len());
            std::fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Keeps the latest state of everything that verdicts depend on: the preamble of the next file, under sequence 0. The keys give
    /// the order in which a replay can repeat it: models before their calibrations and profiles, the epoch that names all of it last.
    fn remember(&mut self, record: &JournalRecord) {
        let (key, stands) = match &record.kind {
            Some(Kind::Changed(changed)) => match changed.what.as_str() {
                "model" => (format!("3 model {}", changed.name), true),
                what @ ("calibration" | "profile") => (format!("4 {what} {}", changed.name), true),
                what => (format!("2 {what}"), true),
            },
            Some(Kind::Decision(change)) => {
                let id = change.decision.as_ref().map(|decision| decision.id.clone()).unwrap_or_default();
                (format!("5 decision {id}"), !change.removed)
            }
            Some(Kind::Template(change)) => {
                let Template { service, method, path, .. } = change.template.clone().unwrap_or_default();
                let in_force = change.template.as_ref().is_some_and(|template| template.state() == TemplateState::InForce);
                (format!("6 template {service} {method} {path}"), in_force)
            }
            _ => return,
        };
        if stands {
            self.state.insert(key, JournalRecord { sequence: 0, ..record.clone() });
        } else {
            self.state.remove(&key);
        }
        self.remember_epoch(record.sequence);
    }

    fn remember_epoch(&mut self, sequence: u64) {
        if sequence > 0 {
            let epoch = Changed { what: "epoch".to_owned(), name: sequence.to_string(), ..Changed::default() };
            self.state.insert("9 epoch".to_owned(), JournalRecord { sequence: 0, now_us: 0, kind: Some(Kind::Changed(epoch)) });
        }
    }

    fn sync(&mut self) {
        self.synced = now();
        if std::mem::take(&mut self.unsynced)
            && let Err(error) = self.file.sync_data()
        {
            tracing::warn!(%error, "the journal could not be synced");
        }
    }
}

fn gap(first: u64, last: u64) -> JournalRecord {
    JournalRecord { sequence: first, now_us: 0, kind: Some(Kind::Gap(Gap { first, last })) }
}

fn path(options: &JournalOptions, number: u64) -> PathBuf {
    options.folder.join(format!("journal-{number:08}.ttj"))
}

fn new_file(path: &std::path::Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(FILE_MAGIC)?;
    Ok(file)
}

/// Lets nobody wait for a writer that has ended, however it ended.
struct Abandon(Arc<Queue>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
