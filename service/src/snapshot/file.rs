//! A snapshot's file: parts in, compressed and checked bytes out, and back.
//!
//! ```text
//! file = magic part* digest:32          digest: BLAKE3 of everything before it
//! part = tag:u8 length:u32 compressed:u32 bytes      little endian, snappy (raw format)
//! ```
//! It is written aside, brought to the disk, and renamed: what has its name is whole, unless the disk damaged it, which the digest tells.
//! Nothing of a file is believed before its digest is right.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use telltale_features::file::{self, Readers};

/// First bytes of every snapshot.
const MAGIC: &[u8; 16] = b"telltale-snap-1\n";
/// Largest part that is believed, bytes.
const PART_BYTES: u32 = 256 << 20;
const DIGEST: u64 = 32;

/// Name of a snapshot that is being written.
pub const STAGED: &str = "snapshot.new";

/// Writes a snapshot aside.
pub struct Writer {
    file: BufWriter<File>,
    digest: blake3::Hasher,
    path: PathBuf,
    staged: PathBuf,
    bytes: u64,
}

impl Writer {
    /// Begins one that will have that path.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        // One name for all: what a failed one left is overwritten by the next.
        let staged = path.with_file_name(STAGED);
        let file = BufWriter::with_capacity(1 << 20, file::begin(&staged, Readers::Owner)?);
        let mut writer = Self { file, digest: blake3::Hasher::new(), path: path.to_path_buf(), staged, bytes: 0 };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    /// Adds a part; an empty one is nothing.
    ///
    /// # Errors
    /// When it is too large or cannot be written.
    pub fn part(&mut self, tag: u8, content: &[u8]) -> io::Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        let compressed = snap::raw::Encoder::new().compress_vec(content).map_err(io::Error::other)?;
        let length = |bytes: usize| {
            let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= PART_BYTES);
            bytes.ok_or_else(|| io::Error::other("a part of a snapshot is too large"))
        };
        self.put(&[tag])?;
        self.put(&length(content.len())?.to_le_bytes())?;
        self.put(&length(compressed.len())?.to_le_bytes())?;
        self.put(&compressed)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Brings it to the disk and gives it its name; returns its size, bytes.
    ///
    /// # Errors
    /// When that fails; the file then keeps its other name and is overwritten by the next one.
    pub fn finish(mut self) -> io::Result<u64> {
        let digest = *self.digest.finalize().as_bytes();
        self.file.write_all(&digest)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file::put(&file, &self.staged, &self.path)?;
        Ok(self.bytes + DIGEST)
    }
}

/// Reads a snapshot whose digest was right.
pub struct Reader {
    file: io::Take<BufReader<File>>,
    size: u64,
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Reader {
    /// Opens one and checks it as a whole.
    ///
    /// # Errors
    /// When it cannot be read, is no snapshot, or is not as it was written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let content = size.checked_sub(DIGEST).ok_or_else(|| damaged("it ends early"))?;
        let mut digest = blake3::Hasher::new();
        digest.update_reader((&mut file).take(content))?;
        let mut told = [0; DIGEST as usize];
        file.read_exact(&mut told)?;
        if *digest.finalize().as_bytes() != told {
            return Err(damaged("its digest is wrong: it is truncated or damaged"));
        }
        file.seek(SeekFrom::Start(0))?;
        let mut file = BufReader::with_capacity(1 << 20, file).take(content);
        let mut magic = [0; 16];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it is no snapshot that this version can read"));
        }
        Ok(Self { file, size })
    }

    /// Size of the file and how much of it is still to be read, bytes.
    pub fn progress(&self) -> (u64, u64) {
        (self.size, self.file.limit())
    }

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_part(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if self.file.limit() == 0 {
            return Ok(None);
        }
        let mut head = [0; 9];
        self.file.read_exact(&mut head)?;
        let [tag, l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let (length, compressed) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        if length > PART_BYTES || u64::from(compressed) > self.file.limit() {
            return Err(damaged("a part is longer than the file"));
        }
        let mut content = vec![0; compressed as usize];
        self.file.read_exact(&mut content)?;
        let content = snap::raw::Decoder::new().decompress_vec(&content).map_err(|error| damaged(error.to_string()))?;
        if content.len() != length as usize { Err(damaged("a part has another length")) } else { Ok(Some((tag, content))) }
    }
}
