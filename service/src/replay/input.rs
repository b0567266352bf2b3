//! Opens what is to be replayed: a file, gzip or plain, or standard input. Lines leave in chunks of a fixed size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines in one chunk. Fixed: results must not depend on how the input arrives.
const CHUNK_LINES: usize = 1_024;
/// Longest line, bytes: a longer one is malformed, and is skipped without being kept.
const LINE_BYTES: usize = 8 << 20;

/// A line of the input, or why it is none.
pub type Line = (u64, Result<String, String>);

/// Lines of an input.
pub struct Input {
    reader: Box<dyn BufRead + Send>,
    read: Arc<AtomicU64>,
    total: Option<u64>,
    line: u64,
}

impl Input {
    /// Opens a path; `-` is standard input. Gzip is recognised by its first bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        if path == Path::new("-") {
            return Self::new(Counted { inner: io::stdin(), read: Arc::clone(&read) }, read, None);
        }
        let file = File::open(path)?;
        let total = file.metadata()?.len();
        Self::new(Counted { inner: file, read: Arc::clone(&read) }, read, Some(total))
    }

    fn new(raw: impl Read + Send + 'static, read: Arc<AtomicU64>, total: Option<u64>) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(1 << 20, raw);
        let gzip = raw.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn BufRead + Send> =
            if gzip { Box::new(BufReader::with_capacity(1 << 20, flate2::bufread::MultiGzDecoder::new(raw))) } else { Box::new(raw) };
        Ok(Self { reader, read, total, line: 0 })
    }

    /// Bytes of the input, where known: before decompression.
    pub const fn total(&self) -> Option<u64> {
        self.total
    }

    /// Bytes read so far: before decompression.
    pub fn position(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next lines with their numbers, from 1; empty at the end. Blank lines are left out.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub fn chunk(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::with_capacity(CHUNK_LINES);
        while lines.len() < CHUNK_LINES {
            let mut bytes = Vec::new();
            let limit = LINE_BYTES as u64 + 1;
            let found = (&mut self.reader).take(limit).read_until(b'\n', &mut bytes)?;
            if found == 0 {
                break;
            }
            self.line += 1;
            if found as u64 == limit && bytes.last() != Some(&b'\n') {
                self.reader.skip_until(b'\n')?;
                lines.push((self.line, Err("a line of more than 8 MiB; allowed are lines of up to 8 MiB".to_owned())));
                continue;
            }
            while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                bytes.pop();
            }
            if !bytes.is_empty() {
                let text = String::from_utf8(bytes);
                lines.push((self.line, text.map_err(|error| format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))));
            }
        }
        Ok(lines)
    }
}

/// Whether the path is a journal: a folder, or a file that begins as one.
pub fn is_journal(path: &Path) -> bool {
    if path.is_dir() {
        return true;
    }
    let mut magic = [0; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"telltale-jrnl-1\n"
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
