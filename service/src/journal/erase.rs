//! Erasure on request: records that hold an entity's key, or its identifier in clear, give up their content and keep their number.
//!
//! Closed files enter, rewritten ones take their places, each in one rename; a file without such a record is not touched. Replay says
//! how many records were erased and claims nothing about what they held. The file that is being written is never touched: rotate first.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use memchr::memmem::Finder;
use prost::Message;
use telltale_proto::journal::v1::{Erased, JournalRecord, journal_record::Kind};

use super::block::{self, FILE_MAGIC, Found};
use super::reader::files;

/// Identifiers shorter than this are found by their key only: they stand in half of all texts.
const SHORTEST: usize = 4;

/// What is to be erased.
pub struct Erasure {
    key: Finder<'static>,
    /// In lower case.
    identifier: Option<Finder<'static>>,
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedCount {
    /// Records that gave up their content.
    pub records: u64,
    /// Files that were rewritten.
    pub files: u32,
}

impl Erasure {
    /// An entity by its key and, where it is known, by its identifier. One of at least four bytes is looked for in all text, in
    /// whatever case it stands; it is better to erase a record too many than one too few.
    pub fn new(key: &[u8; 16], identifier: Option<&str>) -> Self {
        let identifier = identifier.map(str::trim).filter(|identifier| identifier.len() >= SHORTEST);
        let identifier = identifier.map(|identifier| Finder::new(&identifier.to_ascii_lowercase()).into_owned());
        Self { key: Finder::new(key).into_owned(), identifier }
    }

    /// Whether these bytes hold it.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.key.find(bytes).is_some() || self.identifier.as_ref().is_some_and(|finder| finder.find(&bytes.to_ascii_lowercase()).is_some())
    }

    /// Text without the identifier; `None` when it is not in there.
    pub fn without(&self, text: &str) -> Option<String> {
        let finder = self.identifier.as_ref()?;
        let lower = text.to_ascii_lowercase();
        let mut rest = 0;
        let mut kept = String::new();
        for at in finder.find_iter(lower.as_bytes()) {
            kept.push_str(text.get(rest..at)?);
            kept.push_str("[forgotten]");
            rest = at + finder.needle().len();
        }
        (rest > 0).then(|| kept + text.get(rest..).unwrap_or_default())
    }
}

/// Erases from every file whose number is below `end`; `progress` is told of each file that was looked at.
///
/// # Errors
/// When a file cannot be read or written; those before it are done.
pub fn erase(folder: &Path, end: u64, erasure: &Erasure, mut progress: impl FnMut(u64)) -> io::Result<ErasedCount> {
    let mut count = ErasedCount::default();
    for (number, path) in files(folder)?.into_iter().filter(|(number, _)| *number < end) {
        let erased = rewrite(&path, erasure)?;
        count.records += erased;
        count.files += u32::from(erased > 0);
        progress(number);
    }
    Ok(count)
}

/// Writes a file anew beside itself and takes its place. A damaged tail is left out: nobody can tell what it holds.
fn rewrite(path: &Path, erasure: &Erasure) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut magic = [0; FILE_MAGIC.len()];
    if io::Read::read_exact(&mut file, &mut magic).is_err() || magic != *FILE_MAGIC {
        return Ok(0);
    }
    let mut erased = 0;
    let mut blocks = Vec::new();
    loop {
        match block::read(&mut file)? {
            Found::End => break,
            Found::Damaged(what) => {
                tracing::warn!(path = %path.display(), %what, "what follows in this journal file is erased: it cannot be read");
                erased += 1;
                break;
            }
            Found::Records(mut records) => {
                for record in &mut records {
                    erased += u64::from(empty(record, erasure));
                }
                blocks.push(block::encode(&records)?);
            }
        }
    }
    if erased > 0 {
        let staged = path.with_extension("ttj.new");
        let mut file = File::create(&staged)?;
        file.write_all(FILE_MAGIC)?;
        blocks.iter().try_for_each(|block| file.write_all(block))?;
        file.sync_all()?;
        std::fs::rename(&staged, path)?;
    }
    Ok(erased)
}

/// Empties a record that holds it. That it was forgotten stays: without that, a replay would bring late reports back.
fn empty(record: &mut JournalRecord, erasure: &Erasure) -> bool {
    let holds = !matches!(record.kind, Some(Kind::Forgotten(_) | Kind::Erased(_)) | None) && erasure.is_in(&record.encode_to_vec());
    if holds {
        record.kind = Some(Kind::Erased(Erased {}));
    }
    holds
}
