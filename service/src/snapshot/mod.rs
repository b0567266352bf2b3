//! Snapshots of the embedded store: everything up to one sequence number, in one file; the journal has what came after.
//!
//! A store that is in use enters and a file leaves; at a start the newest file that is whole enters and a store leaves, which goes on
//! from the journal as if it had never ended. The two newest are kept: where one is broken, the other and more of the journal serve. A
//! snapshot of another installation's key is refused, because its entities would never be met again.

mod file;
mod parts;
mod resume;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use telltale_features::entity::{EntityId, EntityType};
use telltale_features::hash::Hasher;
use telltale_features::schema::Schema;
use telltale_features::store::History;
use telltale_features::store::embedded::{EmbeddedStore, Record};

use crate::convert;

pub use file::{Reader, STAGED, Writer};
pub use parts::{Asked, Header, Opened, Remembered, Sessions, Verdicts, histories, key, shards, tag};
pub use resume::{restore_one, resume};

/// Snapshots that are kept.
const KEPT: usize = 2;
/// Content of one part with entities, bytes.
pub const PART: usize = 1 << 20;

/// Why a snapshot was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be written.
    #[error("the snapshot `{}` cannot be written: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be read, or is damaged.
    #[error("the snapshot `{}` cannot be used: {source}", path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its entities are hashed with another key.
    #[error(
        "the snapshot `{}` was made with key {found}, another one than key {known} of this data directory; allowed: the `telltale.key` \
         that it was made with, or the snapshot put elsewhere",
        path.display()
    )]
    OtherKey {
        /// Which.
        path: PathBuf,
        /// The snapshot's key.
        found: u32,
        /// The installation's key.
        known: u32,
    },
    /// Transactions were under way for too long.
    #[error("transactions that began before the snapshot are still under way after {0} s; the next one is tried at its time")]
    Slow(u64),
    /// An earlier cut is still open.
    #[error("transactions that an earlier snapshot found under way have not ended yet; the next one is tried at its time")]
    UnderWay,
    /// The scorer stops.
    #[error("the scorer stops")]
    Stopping,
}

impl SnapshotError {
    /// A failure to write that file.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }

    /// A failure to read that file.
    pub fn broken(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Broken { path, source }
    }
}

/// Shows whether two keys are the same without telling either.
pub fn key_check(hasher: &Hasher) -> String {
    convert::hex(&hasher.context_mac(hasher.id, b"telltale snapshot"))
}

/// The header of a snapshot that is taken here and now.
pub fn header(schema: &Schema, hasher: &Hasher) -> Header {
    Header {
        key_id: hasher.id,
        key_check: key_check(hasher),
        schema: schema.digest().to_owned(),
        types: schema.entity_types().iter().map(|spec| spec.name.clone()).collect(),
        ..Header::default()
    }
}

/// The folder of the snapshots of a data directory.
pub fn folder(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// The path of the snapshot up to that number.
pub fn path(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("snapshot-{sequence:020}.tts"))
}

/// A folder's snapshots, newest first, with their numbers. None when there is no folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("snapshot-")?.strip_suffix(".tts")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    found.reverse();
    Ok(found)
}

/// Deletes all but the newest.
///
/// # Errors
/// When one cannot be deleted.
pub fn prune(folder: &Path) -> io::Result<()> {
    files(folder)?.into_iter().skip(KEPT).try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// What was in a snapshot beside the entities.
#[derive(Debug, Default)]
pub struct Restored {
    /// What it is of.
    pub header: Header,
    /// Entities put into the store.
    pub entities: u64,
    /// Entities of types that the schema does not have any more.
    pub unknown: u64,
    /// Histories of transactions that were under way; empty under another schema.
    pub histories: Vec<History>,
    /// Verdicts given.
    pub verdicts: Vec<Remembered>,
    /// Sessions opened.
    pub sessions: Vec<Opened>,
    /// Routes that sessions asked for last.
    pub routes: Vec<Asked>,
}

/// Checks that a header's entities are hashed with this key.
///
/// # Errors
/// When they are not.
pub fn check_key(path: &Path, header: &Header, hasher: &Hasher) -> Result<(), SnapshotError> {
    if header.key_id == hasher.id && header.key_check == key_check(hasher) {
        return Ok(());
    }
    Err(SnapshotError::OtherKey { path: path.to_path_buf(), found: header.key_id, known: hasher.id })
}

/// Reads the header of a snapshot that is whole.
///
/// # Errors
/// When it is not, or begins with another part.
pub fn read_header(reader: &mut Reader) -> io::Result<Header> {
    match reader.next_part()? {
        Some((tag::HEADER, content)) => serde_json::from_slice(&content).map_err(io::Error::other),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it has no header")),
    }
}

/// Puts a snapshot into an empty store. `progress` is told the bytes of the file and how many are left.
///
/// # Errors
/// When it cannot be used; the store is empty then.
pub fn restore(
    store: &EmbeddedStore,
    (path, schema, hasher): (&Path, &Schema, &Hasher),
    mut progress: impl FnMut(u64, u64),
) -> Result<Restored, SnapshotError> {
    let mut reader = Reader::open(path).map_err(SnapshotError::broken(path))?;
    let header = read_header(&mut reader).map_err(SnapshotError::broken(path))?;
    check_key(path, &header, hasher)?;
    let restored = fill(store, header, (&mut reader, schema), &mut progress);
    restored.map_err(|source| {
        store.clear();
        SnapshotError::broken(path)(source)
    })
}

fn fill(
    store: &EmbeddedStore,
    header: Header,
    (reader, schema): (&mut Reader, &Schema),
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Restored> {
    let same = header.schema == schema.digest();
    let known = |name: &String| schema.entity_types().iter().position(|spec| spec.name == *name).and_then(|at| u8::try_from(at).ok());
    let kinds: Vec<Option<EntityType>> = header.types.iter().map(|name| known(name).map(EntityType)).collect();
    let mut restored = Restored { header, ..Restored::default() };
    let mut marks = Vec::new();
    loop {
        let Some((part, content)) = reader.next_part()? else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has no end"));
        };
        match part {
            tag::ENTITIES => entities(store, &content, &kinds, &mut restored)?,
            tag::SHARDS => marks = parts::shards_from(&content),
            tag::HISTORIES if same => restored.histories.extend(parts::histories_from(&content).map_err(io::Error::other)?),
            tag::VERDICTS => restored.verdicts.extend(Verdicts::decode(content.as_slice()).map_err(io::Error::other)?.all),
            tag::SESSIONS => {
                let Sessions { all, routes } = Sessions::decode(content.as_slice()).map_err(io::Error::other)?;
                restored.sessions.extend(all);
                restored.routes.extend(routes);
            }
            tag::END => break,
            _ => {}
        }
        let (size, left) = reader.progress();
        progress(size, left);
    }
    store.resume(restored.header.moment(), &marks);
    Ok(restored)
}

fn entities(store: &EmbeddedStore, content: &[u8], kinds: &[Option<EntityType>], restored: &mut Restored) -> io::Result<()> {
    let mut rest = content;
    while let Some(record) = Record::take(&mut rest) {
        let Some(kind) = kinds.get(record.entity.kind.index()).copied().flatten() else {
            restored.unknown += 1;
            continue;
        };
        store.restore(&Record { entity: EntityId { kind, ..record.entity }, ..record }).map_err(io::Error::other)?;
        restored.entities += 1;
    }
    if rest.is_empty() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "an entity ends early")) }
}
