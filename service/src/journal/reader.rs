//! Reads a journal back in the order applied, across blocks and files.
//!
//! Files enter, records and gaps leave, each sequence number once. A torn tail ends a file; damage is reported, never guessed at.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use telltale_proto::journal::v1::{JournalRecord, journal_record::Kind};

use super::block::{self, FILE_MAGIC, Found};

/// Most records that wait for a missing number before it is taken for lost.
const WAITING: usize = 1 << 18;
/// The same where the journal's beginning is missing and the first number must be found: blocks are about 200 records, and what is out of
/// order is so by a few of them.
const FIRST: usize = 1 << 14;

/// One step of a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A record; sequence 0 says what was in force at the beginning.
    Record(Box<JournalRecord>),
    /// Numbers that are missing.
    Gap {
        /// First missing.
        first: u64,
        /// Last missing.
        last: u64,
    },
}

/// What reading met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Bytes read so far.
    pub bytes: u64,
    /// Files with a torn tail or damage: name and what was found.
    pub damaged: Vec<String>,
    /// Numbers missing.
    pub missing: u64,
}

/// A journal's files, oldest first, with their numbers.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".ttj")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

struct Waiting(JournalRecord);

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.0.sequence == other.0.sequence
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.sequence.cmp(&other.0.sequence)
    }
}

/// Reads a journal's files in order.
pub struct JournalReader {
    files: VecDeque<PathBuf>,
    open: Option<(PathBuf, BufReader<File>)>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    gaps: BTreeMap<u64, u64>,
    next: Option<u64>,
    /// Number of the file being read, from 1, and of the one whose beginning says what was in force.
    file: usize,
    described_by: Option<usize>,
    ready: VecDeque<JournalRecord>,
    stats: ReadStats,
}

impl JournalReader {
    /// A journal's folder, or one of its files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_from(path, 0)
    }

    /// The same, of a folder from the file of that number on: its beginning says what was in force.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_from(path: &Path, first: u64) -> io::Result<Self> {
        let found = if path.is_dir() { files(path)? } else { vec![(first, path.to_path_buf())] };
        let files = found.into_iter().filter(|(number, _)| *number >= first).map(|(_, path)| path).collect();
        Ok(Self {
            files,
            open: None,
            waiting: BinaryHeap::new(),
            gaps: BTreeMap::new(),
            next: None,
            file: 0,
            described_by: None,
            ready: VecDeque::new(),
            stats: ReadStats::default(),
        })
    }

    /// Size of all its files, bytes.
    pub fn total_bytes(&self) -> u64 {
        let sizes = self.files.iter().filter_map(|path| Some(path.metadata().ok()?.len()));
        sizes.sum()
    }

    /// What was met so far.
    pub const fn stats(&self) -> &ReadStats {
        &self.stats
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(Entry::Record(Box::new(record))));
            }
            let ended = self.waiting.len() < self.most() && !self.read_until_contiguous()?;
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(Entry::Record(Box::new(record))));
            }
            if let Some(entry) = self.contiguous() {
                return Ok(Some(entry));
            }
            if ended || self.waiting.len() >= self.most() {
                return Ok(self.skip());
            }
        }
    }

    const fn most(&self) -> usize {
        if self.next.is_none() { FIRST } else { WAITING }
    }

    /// Reads blocks until the next number is there; false at the end of all files.
    fn read_until_contiguous(&mut self) -> io::Result<bool> {
        while !self.is_contiguous() && self.ready.is_empty() {
            let Some(records) = self.next_block()? else { return Ok(false) };
            for record in records {
                self.take(record);
            }
            if self.waiting.len() >= self.most() {
                break;
            }
        }
        Ok(true)
    }

    fn take(&mut self, record: JournalRecord) {
        match &record.kind {
            Some(Kind::Gap(gap)) => {
                self.gaps.insert(gap.first, gap.last);
            }
            // The beginning of each later file repeats what the order has said already.
            _ if record.sequence == 0 => {
                if self.next.is_none() && *self.described_by.get_or_insert(self.file) == self.file {
                    self.ready.push_back(record);
                }
            }
            _ => {
                if self.next.is_none_or(|next| record.sequence >= next) {
                    self.waiting.push(Reverse(Waiting(record)));
                }
            }
        }
    }

    fn is_contiguous(&self) -> bool {
        let Some(Reverse(Waiting(record))) = self.waiting.peek() else { return false };
        // A journal begins at 1, or wherever its oldest file does; that one is known only after a few blocks.
        match self.next {
            Some(next) => record.sequence <= next || self.gap_at(next).is_some(),
            None => record.sequence == 1,
        }
    }

    /// The last number of the gap that covers this one.
    fn gap_at(&self, sequence: u64) -> Option<u64> {
        self.gaps.range(..=sequence).map(|(_, last)| *last).filter(|last| *last >= sequence).max()
    }

    fn contiguous(&mut self) -> Option<Entry> {
        let Reverse(Waiting(record)) = self.waiting.peek()?;
        let next = self.next.unwrap_or(1);
        if record.sequence <= next {
            let Reverse(Waiting(record)) = self.waiting.pop()?;
            self.next = Some(record.sequence.max(next.saturating_sub(1)) + 1);
            return Some(Entry::Record(Box::new(record)));
        }
        self.next?;
        let last = self.gap_at(next)?.min(record.sequence - 1);
        Some(self.miss(next, last))
    }

    /// Takes what is missing for lost and goes on with what there is.
    fn skip(&mut self) -> Option<Entry> {
        let Reverse(Waiting(record)) = self.waiting.peek()?;
        let sequence = record.sequence;
        match self.next {
            // The oldest files were deleted: the journal begins here.
            None => {
                self.next = Some(sequence);
                self.contiguous()
            }
            Some(next) => Some(self.miss(next, sequence.saturating_sub(1))),
        }
    }

    fn miss(&mut self, first: u64, last: u64) -> Entry {
        self.stats.missing += last.saturating_sub(first) + 1;
        self.next = Some(last + 1);
        Entry::Gap { first, last }
    }

    fn next_block(&mut self) -> io::Result<Option<Vec<JournalRecord>>> {
        loop {
            let Some((path, file)) = &mut self.open else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            match block::read(file)? {
                Found::Records(records) => return Ok(Some(records)),
                Found::End => {}
                Found::Damaged(what) => self.stats.damaged.push(format!("{}: {what}", path.display())),
            }
            self.stats.bytes += path.metadata().map(|metadata| metadata.len()).unwrap_or_default();
            self.open = None;
        }
    }

    fn open_next(&mut self) -> io::Result<bool> {
        let Some(path) = self.files.pop_front() else { return Ok(false) };
        let mut file = BufReader::with_capacity(1 << 20, File::open(&path)?);
        let mut magic = [0; 16];
        if file.read_exact(&mut magic).is_err() || magic != *FILE_MAGIC {
            self.stats.damaged.push(format!("{}: no journal file", path.display()));
            return Ok(true);
        }
        self.open = Some((path, file));
        self.file += 1;
        Ok(true)
    }
}
