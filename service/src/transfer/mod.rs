//! Moves entity state: out of a data directory or Redis into a file, and back into either.
//!
//! A data directory is read as a restart reads it, snapshot and journal, and never written; one that is filled gets a snapshot. Redis gets
//! what it does not have yet. Keys of entities are hashed with the installation's key, so nothing moves to another key.

pub mod parquet;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use telltale_features::entity::{EntityId, EntityKey, EntityType};
use telltale_features::hash::Hasher;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::Record;
use telltale_features::store::redis::{Created, RedisOptions, Stored, Transfer, TransferError};
use telltale_features::time::{Clock, ManualClock, Timestamp};

use crate::config::{Config, GeoSection};
use crate::journal::{self, Journal};
use crate::replay::{self, Format, Progress, ReplayError, ReplayOptions};
use crate::setup::{self, SetupError, SystemClock};
use crate::snapshot::{self, PART, SnapshotError, tag};
use crate::{cli, token};

use self::parquet::{Origin, Reader, Row, Writer};

/// Standing of an entity of which the store does not tell how often it was seen.
const SEEN: u8 = u8::MAX;
/// Redis tells no sequence: the order of eviction is that of times then, milliseconds after the earliest that a time to live leaves.
const EARLIEST_MS: i64 = 400 * 86_400 * 1_000;

/// Why state could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The file cannot be written or read.
    #[error("`{}`: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: ::parquet::errors::ParquetError,
    },
    /// The data directory cannot be used.
    #[error("the data directory `{}` cannot be used: {reason}", path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The state is hashed with another key.
    #[error(
        "the state in `{}` was made with key {found}, another one than key {known} of `{}`; allowed: a data directory with the \
         `telltale.key` of the installation that the state is of", path.display(), data.display()
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// The data directory.
        data: PathBuf,
        /// The file's key.
        found: u32,
        /// The directory's key.
        known: u32,
    },
    /// A snapshot cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The journal cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The engine cannot be put together.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Redis does not answer.
    #[error(transparent)]
    Redis(#[from] TransferError),
}

/// What was moved.
#[derive(Debug, Default, Serialize)]
pub struct Moved {
    /// By entity type.
    pub types: BTreeMap<String, Sizes>,
    /// Into Redis: there already, left as they were.
    pub present: u64,
    /// Left out: their time to live had passed.
    pub expired: u64,
    /// Left out: no entities of this schema.
    pub unknown: u64,
}

/// How many of one type, and how large.
#[derive(Debug, Default, Serialize)]
pub struct Sizes {
    /// Entities.
    pub entities: u64,
    /// Bytes of their blobs.
    pub bytes: u64,
    /// The middle one.
    pub p50: u64,
    /// One in a hundred is larger.
    pub p99: u64,
    #[serde(skip)]
    all: Vec<u32>,
}

impl Moved {
    fn count(&mut self, row: &Row) {
        if !self.types.contains_key(&row.kind) {
            self.types.insert(row.kind.clone(), Sizes::default());
        }
        if let Some(sizes) = self.types.get_mut(&row.kind) {
            sizes.entities += 1;
            sizes.bytes += row.blob.len() as u64;
            sizes.all.push(u32::try_from(row.blob.len()).unwrap_or(u32::MAX));
        }
    }

    fn finish(mut self) -> Self {
        for sizes in self.types.values_mut() {
            sizes.all.sort_unstable();
            let at = |hundredths: usize| sizes.all.get((sizes.all.len() * hundredths / 100).min(sizes.all.len().saturating_sub(1)));
            (sizes.p50, sizes.p99) = (at(50).copied().unwrap_or_default().into(), at(99).copied().unwrap_or_default().into());
        }
        self
    }

    /// Entities of all types.
    pub fn entities(&self) -> u64 {
        self.types.values().map(|sizes| sizes.entities).sum()
    }
}

/// The key of a data directory that has one.
fn hasher(data: &Path) -> Result<Hasher, MoveError> {
    let failed = |reason: String| MoveError::Data { path: data.to_path_buf(), reason };
    if !data.join("telltale.key").is_file() {
        return Err(failed(
            "it has no `telltale.key`; allowed: the data directory of a scorer, or a folder with a copy of its key".to_owned(),
        ));
    }
    token::keyring(data).map(|keys| keys.hasher()).map_err(|error| failed(error.to_string()))
}

fn origin(schema: &Schema, hasher: &Hasher) -> Origin {
    let snapshot::Header { key_id, key_check, schema, .. } = snapshot::header(schema, hasher);
    Origin { schema, key_id, key_check, sequence: 0, now_us: 0 }
}

/// Writes the state of the configured store to a file.
///
/// # Errors
/// When the store cannot be read or the file not be written.
pub fn export(config: &Config, path: &Path, shown: bool) -> Result<Moved, MoveError> {
    let hasher = hasher(&config.data)?;
    if config.store.kind == "redis" { export_redis(config, (path, &hasher)) } else { export_embedded(config, (path, hasher), shown) }
}

fn export_embedded(config: &Config, (path, hasher): (&Path, Hasher), shown: bool) -> Result<Moved, MoveError> {
    let threads = cli::threads(0);
    let clock = Arc::new(ManualClock::default());
    // Nothing is scored, so nobody asks where an address is.
    let bare = Config { geo: GeoSection::default(), ..config.clone() };
    let engine = setup::engine(&bare, threads, hasher, clock, Journal::default())?;
    let store = engine.store.embedded().ok_or_else(|| nothing(&config.data))?;
    let folder = config.data.join("journal");
    let unreadable = |error: std::io::Error| MoveError::Data { path: config.data.clone(), reason: error.to_string() };
    let mut resume = None;
    for (_, path) in snapshot::files(&snapshot::folder(&config.data)).map_err(unreadable)? {
        match snapshot::restore_one(&engine, (&path, &folder), shown) {
            Ok(restored) => {
                resume = restored.map(|mut restored| snapshot::resume(&mut restored));
                break;
            }
            Err(error @ SnapshotError::OtherKey { .. }) => return Err(error.into()),
            Err(error) => tracing::error!(%error, "an older snapshot and more of the journal are used in its place"),
        }
    }
    let own = journal::files(&folder).is_ok_and(|files| !files.is_empty());
    if resume.is_none() && !own {
        return Err(nothing(&config.data));
    }
    if own {
        let options = ReplayOptions {
            input: folder,
            format: Format::Ndjson,
            strict: false,
            threads,
            verdicts: None,
            features: None,
            progress: shown,
            recorded_policy: true,
        };
        replay::resume(&engine, (&options, resume.unwrap_or_default()), &mut |_| Ok(()))?;
    }
    let Some(cut) = store.cut() else { return Err(nothing(&config.data)) };
    let mut origin = origin(&engine.schema, &engine.hasher);
    (origin.sequence, origin.now_us) = (cut.moment.sequence.0, cut.moment.now.micros());
    let failed = |source| MoveError::File { path: path.to_path_buf(), source };
    let mut writer = Writer::create(path, &origin).map_err(failed)?;
    let mut moved = Moved::default();
    store.save(&cut, |some| {
        let mut rest = some;
        while let Some(record) = Record::take(&mut rest) {
            let row = row(&record, &engine.schema);
            moved.count(&row);
            writer.add(row).map_err(failed)?;
        }
        Ok::<(), MoveError>(())
    })?;
    writer.finish().map_err(failed)?;
    Ok(moved.finish())
}

fn nothing(data: &Path) -> MoveError {
    MoveError::Data { path: data.to_path_buf(), reason: "it has neither a snapshot nor a journal".to_owned() }
}

fn row(record: &Record<'_>, schema: &Schema) -> Row {
    let kind = schema.entity_types().get(record.entity.kind.index()).map(|spec| spec.name.clone()).unwrap_or_default();
    let Record { entity, last, touched, proved, standing, blob } = *record;
    Row { kind, key: entity.key.0, blob: blob.to_vec(), last, touched_us: touched.micros(), proved, standing }
}

fn runtime() -> Result<tokio::runtime::Runtime, MoveError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| MoveError::Data { path: PathBuf::new(), reason: error.to_string() })
}

fn export_redis(config: &Config, (path, hasher): (&Path, &Hasher)) -> Result<Moved, MoveError> {
    let schema = setup::schema(config.schema.path.as_deref())?;
    let options: RedisOptions = setup::redis_options(config)?;
    let now = SystemClock.now();
    let mut origin = origin(&schema, hasher);
    (origin.sequence, origin.now_us) = (u64::try_from(EARLIEST_MS).unwrap_or_default() + 1, now.micros());
    let failed = |source| MoveError::File { path: path.to_path_buf(), source };
    let mut writer = Writer::create(path, &origin).map_err(failed)?;
    let mut moved = Moved::default();
    runtime()?.block_on(async {
        let transfer = Transfer::connect(options, &schema.plans()).await?;
        let unknown = transfer.each(now, |stored: Stored| {
            let age_ms = now.micros_since(stored.touched).max(0) / 1_000;
            let last = u64::try_from((EARLIEST_MS - age_ms).max(1)).unwrap_or(1);
            let Stored { entity, blob, touched } = stored;
            let row = row(&Record { entity, last, touched, proved: 0, standing: SEEN, blob: &blob }, &schema);
            moved.count(&row);
            writer.add(row).map_err(failed)
        });
        moved.unknown = unknown.await?;
        Ok::<(), MoveError>(())
    })?;
    writer.finish().map_err(failed)?;
    Ok(moved.finish())
}

/// Puts the state of a file into the configured store.
///
/// # Errors
/// When the file cannot be read or is another installation's, or the store cannot take it.
pub fn import(config: &Config, path: &Path, shown: bool) -> Result<Moved, MoveError> {
    let hasher = hasher(&config.data)?;
    let reader = Reader::open(path).map_err(|source| MoveError::File { path: path.to_path_buf(), source })?;
    let Origin { key_id, key_check, .. } = &reader.origin;
    if *key_id != hasher.id || *key_check != snapshot::key_check(&hasher) {
        let (path, data) = (path.to_path_buf(), config.data.clone());
        return Err(MoveError::OtherKey { path, data, found: *key_id, known: hasher.id });
    }
    if config.store.kind == "redis" {
        import_redis(config, (path, &reader), shown)
    } else {
        import_embedded(config, (path, &reader), (&hasher, shown))
    }
}

/// Gives every row to `take`, a group at a time.
fn each((path, reader): (&Path, &Reader), shown: bool, mut take: impl FnMut(Vec<Row>) -> Result<(), MoveError>) -> Result<(), MoveError> {
    let bar = Progress::new(Some(reader.groups() as u64), shown);
    for group in 0..reader.groups() {
        take(reader.group(group).map_err(|source| MoveError::File { path: path.to_path_buf(), source })?)?;
        bar.at(group as u64 + 1, 0);
    }
    bar.finish();
    Ok(())
}

fn import_embedded(config: &Config, file: (&Path, &Reader), (hasher, shown): (&Hasher, bool)) -> Result<Moved, MoveError> {
    let data = |reason: String| MoveError::Data { path: config.data.clone(), reason };
    let folder = snapshot::folder(&config.data);
    let used = journal::files(&config.data.join("journal")).is_ok_and(|files| !files.is_empty());
    if used || snapshot::files(&folder).is_ok_and(|files| !files.is_empty()) {
        return Err(data("it has a journal or snapshots already; allowed: one with its `telltale.key` alone".to_owned()));
    }
    std::fs::create_dir_all(&folder).map_err(|error| data(error.to_string()))?;
    let schema = setup::schema(config.schema.path.as_deref())?;
    let origin = &file.1.origin;
    let mut header = snapshot::header(&schema, hasher);
    (header.sequence, header.now_us) = (origin.sequence, origin.now_us);
    header.schema.clone_from(&origin.schema);
    let path = snapshot::path(&folder, origin.sequence);
    let failed = |error: std::io::Error| MoveError::Snapshot(SnapshotError::write(&path)(error));
    let mut writer = snapshot::Writer::create(&path).map_err(failed)?;
    let text = serde_json::to_vec(&header).map_err(|error| data(error.to_string()))?;
    writer.part(tag::HEADER, &text).map_err(failed)?;
    let mut moved = Moved::default();
    let mut content = Vec::with_capacity(PART);
    each(file, shown, |rows| {
        for row in rows {
            let Some(entity) = entity(&row, &schema) else {
                moved.unknown += 1;
                continue;
            };
            let Row { last, touched_us, proved, standing, blob, .. } = &row;
            let touched = Timestamp::from_micros(*touched_us);
            Record { entity, last: *last, touched, proved: *proved, standing: *standing, blob }.put(&mut content);
            moved.count(&row);
            if content.len() >= PART {
                writer.part(tag::ENTITIES, &content).map_err(failed)?;
                content.clear();
            }
        }
        Ok(())
    })?;
    writer.part(tag::ENTITIES, &content).map_err(failed)?;
    writer.part(tag::END, b"end").and_then(|()| writer.finish()).map_err(failed)?;
    Ok(moved.finish())
}

fn entity(row: &Row, schema: &Schema) -> Option<EntityId> {
    let kind = schema.entity_types().iter().position(|spec| spec.name == row.kind)?;
    Some(EntityId { kind: EntityType(u8::try_from(kind).ok()?), key: EntityKey(row.key) })
}

fn import_redis(config: &Config, file: (&Path, &Reader), shown: bool) -> Result<Moved, MoveError> {
    /// Entities in one pipeline.
    const TOGETHER: usize = 256;
    let schema = setup::schema(config.schema.path.as_deref())?;
    let options = setup::redis_options(config)?;
    let runtime = runtime()?;
    let mut transfer = runtime.block_on(Transfer::connect(options, &schema.plans()))?;
    let mut moved = Moved::default();
    each(file, shown, |rows| {
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            match entity(&row, &schema) {
                Some(entity) => {
                    moved.count(&row);
                    all.push(Stored { entity, touched: Timestamp::from_micros(row.touched_us), blob: row.blob });
                }
                None => moved.unknown += 1,
            }
        }
        for some in all.chunks(TOGETHER) {
            let Created { present, expired, .. } = runtime.block_on(transfer.create(some, SystemClock.now()))?;
            moved.present += present;
            moved.expired += expired;
        }
        Ok(())
    })?;
    Ok(moved.finish())
}
