//! The writer's thread: gathers records into blocks, rotates files, keeps within the total, writes gaps.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use parking_lot::Mutex;
use telltale_proto::journal::v1::{Changed, Gap, JournalRecord, journal_record::Kind};

use super::block::{self, FILE_MAGIC};
use super::reader::files;
use super::{JournalOptions, JournalStats, Message};

/// Most records in one block.
const BLOCK_RECORDS: usize = 8_192;
/// Most separate ranges that are remembered; beyond, neighbours are joined. A gap that covers a present number is harmless.
const GAP_RANGES: usize = 1_024;

/// Sequence numbers that were lost and not yet written down as gaps.
#[derive(Debug, Default)]
pub struct GapList {
    ranges: BTreeMap<u64, u64>,
}

impl GapList {
    /// Notes one lost number.
    pub fn add(&mut self, sequence: u64) {
        if sequence == 0 {
            return;
        }
        let before = self.ranges.range_mut(..=sequence).next_back();
        match before {
            Some((_, last)) if *last + 1 >= sequence => *last = (*last).max(sequence),
            _ => {
                self.ranges.insert(sequence, sequence);
            }
        }
        if self.ranges.len() > GAP_RANGES {
            self.join_nearest();
        }
    }

    /// The ranges noted so far, neighbours joined; the list is empty afterwards.
    pub fn take(&mut self) -> Vec<(u64, u64)> {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, last) in std::mem::take(&mut self.ranges) {
            match joined.last_mut() {
                Some((_, end)) if *end + 1 >= first => *end = (*end).max(last),
                _ => joined.push((first, last)),
            }
        }
        joined
    }

    fn join_nearest(&mut self) {
        let starts: Vec<(u64, u64)> = self.ranges.iter().map(|(first, last)| (*first, *last)).collect();
        let nearest = starts.windows(2).filter_map(|pair| match pair {
            [(first, last), (next, end)] => Some((next.saturating_sub(*last), *first, *next, *end)),
            _ => None,
        });
        if let Some((_, first, next, end)) = nearest.min() {
            self.ranges.remove(&next);
            self.ranges.insert(first, end);
        }
    }
}

/// Writes blocks to the current file.
pub(super) struct Writer {
    options: JournalOptions,
    lost: Arc<Mutex<GapList>>,
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
    pub(super) fn create(options: JournalOptions, lost: Arc<Mutex<GapList>>, stats: Arc<JournalStats>) -> io::Result<Self> {
        std::fs::create_dir_all(&options.folder)?;
        let number = files(&options.folder)?.last().map_or(1, |(number, _)| number + 1);
        let file = new_file(&path(&options, number))?;
        let size = FILE_MAGIC.len() as u64;
        Ok(Self { options, lost, stats, file, number, size, state: BTreeMap::new(), synced: now(), unsynced: false })
    }

    /// Runs until it is closed or nobody is left to write.
    pub(super) fn run(mut self, received: &Receiver<Message>) {
        let mut block = Vec::new();
        let mut begun = now();
        loop {
            let wait = if block.is_empty() { self.options.sync_every } else { self.options.block_every.saturating_sub(begun.elapsed()) };
            match received.recv_timeout(wait) {
                Ok(Message::Record(record)) => {
                    if block.is_empty() {
                        begun = now();
                    }
                    block.push(*record);
                    if block.len() >= BLOCK_RECORDS || begun.elapsed() >= self.options.block_every {
                        self.write(&mut block);
                    }
                }
                Ok(Message::Flush(done)) => {
                    self.write(&mut block);
                    self.sync();
                    done.send(()).ok();
                }
                Ok(Message::Close(done)) => {
                    self.write(&mut block);
                    self.sync();
                    done.send(()).ok();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.write(&mut block);
                    if self.synced.elapsed() >= self.options.sync_every {
                        self.sync();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.write(&mut block);
                    self.sync();
                    return;
                }
            }
        }
    }

    /// Writes the gaps known and the records; empties the block whether that succeeds or not.
    fn write(&mut self, block: &mut Vec<JournalRecord>) {
        let gaps = self.lost.lock().take();
        if block.is_empty() && gaps.is_empty() {
            return;
        }
        block.sort_by_key(|record| record.sequence);
        let mut records: Vec<JournalRecord> = gaps.iter().map(|(first, last)| gap(*first, *last)).collect();
        records.append(block);
        for record in &records {
            self.remember(record);
        }
        match self.write_records(&records) {
            Ok(()) => {
                self.stats.written.fetch_add((records.len() - gaps.len()) as u64, Ordering::Relaxed);
                self.stats.gaps.fetch_add(gaps.len() as u64, Ordering::Relaxed);
            }
            Err(error) => self.lose(&records, &error),
        }
    }

    fn write_records(&mut self, records: &[JournalRecord]) -> io::Result<()> {
        let block = block::encode(records)?;
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
    fn lose(&mut self, records: &[JournalRecord], error: &io::Error) {
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, records = records.len(), "the journal cannot be written; scoring goes on without it");
        let mut lost = self.lost.lock();
        for record in records {
            match &record.kind {
                Some(Kind::Gap(gap)) => (gap.first..=gap.last).for_each(|sequence| lost.add(sequence)),
                _ => {
                    lost.add(record.sequence);
                    self.stats.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        drop(lost);
        if self.file.set_len(self.size).is_err()
            && let Err(error) = self.rotate()
        {
            tracing::error!(%error, "no new journal file can be begun");
        }
    }

    /// Ends this file and begins the next with what is in force; deletes the oldest beyond the total.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync();
        self.number += 1;
        self.file = new_file(&path(&self.options, self.number))?;
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

    /// Keeps the latest state of everything that verdicts depend on: the preamble of the next file, under sequence 0.
    fn remember(&mut self, record: &JournalRecord) {
        let key = match &record.kind {
            Some(Kind::Changed(changed)) if changed.what == "calibration" => format!("calibration {}", changed.name),
            Some(Kind::Changed(changed)) => changed.what.clone(),
            Some(Kind::Decision(change)) => {
                let id = change.decision.as_ref().map(|decision| decision.id.clone()).unwrap_or_default();
                if change.removed {
                    self.state.remove(&format!("decision {id}"));
                    self.remember_epoch(record.sequence);
                    return;
                }
                format!("decision {id}")
            }
            _ => return,
        };
        self.state.insert(key, JournalRecord { sequence: 0, ..record.clone() });
        self.remember_epoch(record.sequence);
    }

    fn remember_epoch(&mut self, sequence: u64) {
        if sequence > 0 {
            let epoch = Changed { what: "epoch".to_owned(), name: sequence.to_string(), ..Changed::default() };
            self.state.insert("epoch".to_owned(), JournalRecord { sequence: 0, now_us: 0, kind: Some(Kind::Changed(epoch)) });
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

#[expect(clippy::disallowed_methods, reason = "how long a block has waited is about this process, not about events")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod gap_tests {
    use super::GapList;

    #[test]
    fn neighbours_join_and_the_list_stays_bounded() {
        let mut list = GapList::default();
        for sequence in [5, 6, 7, 10, 9, 3] {
            list.add(sequence);
        }
        assert_eq!(list.take(), [(3, 3), (5, 7), (9, 10)]);
        for sequence in (0..10_000).map(|step| step * 2 + 1) {
            list.add(sequence);
        }
        let ranges = list.take();
        assert!(ranges.len() <= super::GAP_RANGES, "{}", ranges.len());
        assert!((0..10_000_u64).all(|step| ranges.iter().any(|(first, last)| (first..=last).contains(&&(step * 2 + 1)))));
    }
}
