//! One block: records in, checked and compressed bytes out, and back.
//!
//! Layout, little endian: magic `TTB1`, length of the content, length once compressed, CRC-32 of the compressed bytes; then the
//! compressed (snappy, raw format) concatenation of length-delimited `JournalRecord`s.

use std::io::{self, Read};

use prost::Message;
use telltale_proto::journal::v1::JournalRecord;

/// First bytes of every journal file.
pub const FILE_MAGIC: &[u8; 16] = b"telltale-jrnl-1\n";
const BLOCK_MAGIC: [u8; 4] = *b"TTB1";
/// Largest content that is believed, bytes: a damaged length must not allocate the memory away.
const CONTENT_BYTES: u32 = 256 << 20;

/// What stood where a block was expected.
pub enum Found {
    /// A whole, right block.
    Records(Vec<JournalRecord>),
    /// The end of the file, at a block's border.
    End,
    /// Bytes that are no block: a torn tail, or damage.
    Damaged(String),
}

/// Encodes the records as one block.
///
/// # Errors
/// When the block would be too large.
pub fn encode(records: &[JournalRecord]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    for record in records {
        record.encode_length_delimited(&mut content).map_err(io::Error::other)?;
    }
    seal(&content)
}

/// Makes a block of length-delimited records.
///
/// # Errors
/// When it would be too large.
pub fn seal(content: &[u8]) -> io::Result<Vec<u8>> {
    let compressed = snap::raw::Encoder::new().compress_vec(content).map_err(io::Error::other)?;
    let length =
        |bytes: usize| u32::try_from(bytes).ok().filter(|bytes| *bytes <= CONTENT_BYTES).ok_or_else(|| io::Error::other("block too large"));
    let mut block = Vec::with_capacity(16 + compressed.len());
    block.extend_from_slice(&BLOCK_MAGIC);
    block.extend_from_slice(&length(content.len())?.to_le_bytes());
    block.extend_from_slice(&length(compressed.len())?.to_le_bytes());
    block.extend_from_slice(&crc32fast::hash(&compressed).to_le_bytes());
    block.extend_from_slice(&compressed);
    Ok(block)
}

/// Reads the next block.
///
/// # Errors
/// When the file cannot be read; damage is an answer, not an error.
pub fn read(file: &mut impl Read) -> io::Result<Found> {
    let mut header = [0; 16];
    match fill(file, &mut header)? {
        0 => return Ok(Found::End),
        16 => {}
        found => return Ok(Found::Damaged(format!("{found} bytes instead of a block's header"))),
    }
    let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3, s0, s1, s2, s3] = header;
    let (length, compressed) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
    if [m0, m1, m2, m3] != BLOCK_MAGIC || length > CONTENT_BYTES || compressed > CONTENT_BYTES {
        return Ok(Found::Damaged("no block's header".to_owned()));
    }
    let mut content = Vec::new();
    file.take(u64::from(compressed)).read_to_end(&mut content)?;
    if content.len() != compressed as usize {
        return Ok(Found::Damaged(format!("{} of a block's {compressed} bytes", content.len())));
    }
    if crc32fast::hash(&content) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Ok(Found::Damaged("a block whose checksum is wrong".to_owned()));
    }
    Ok(decode(&content).map_or_else(|error| Found::Damaged(error.to_string()), Found::Records))
}

fn decode(compressed: &[u8]) -> io::Result<Vec<JournalRecord>> {
    let content = snap::raw::Decoder::new().decompress_vec(compressed).map_err(io::Error::other)?;
    let mut rest = content.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        records.push(JournalRecord::decode_length_delimited(&mut rest).map_err(io::Error::other)?);
    }
    Ok(records)
}

/// Reads until the buffer is full or the file ends; how many bytes there were.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
