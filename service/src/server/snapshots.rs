//! Snapshots of a running scorer: taken every few minutes, read before the doors open.
//!
//! The store is cut at one number while it scores; entities, what transactions under way had read, verdicts given and sessions opened
//! leave for a file. Scoring never waits for the file, and for the cut only as long as a few dozen entities take to encode.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use telltale_features::door::SessionPlace;
use telltale_features::entity::EntityKey;
use telltale_features::store::History;
use telltale_features::store::embedded::{Cut, EmbeddedStore};
use telltale_features::time::Timestamp;

use super::wire::Sealed;
use super::{ServeError, ServeOptions, Service};
use crate::config::Config;
use crate::replay::Resume;
use crate::score::Engine;
use crate::snapshot::{self, Asked, Opened, PART, Sessions, SnapshotError, Verdicts, Writer, tag};

/// Longest wait for transactions that the cut found under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Verdicts or sessions that are copied under one lock.
const TOGETHER: usize = 256;

/// How snapshots go.
#[derive(Debug, Default)]
pub struct Snapshots {
    taken: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    millis: AtomicU64,
    entities: AtomicU64,
    /// Clock of the last one's cut, microseconds since 1970; 0: none yet.
    at: AtomicI64,
    stopping: AtomicBool,
    /// One at a time.
    taking: Mutex<()>,
}

impl Snapshots {
    /// For metrics: what, and how much. Age 0 stands for none yet.
    pub fn figures(&self, now: Timestamp) -> [(&'static str, u64); 6] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let at = Timestamp::from_micros(self.at.load(Ordering::Relaxed));
        let age = if at.micros() == 0 { 0 } else { now.micros_since(at).max(0) / 1_000_000 };
        [
            ("age_seconds", age.unsigned_abs()),
            ("duration_ms", load(&self.millis)),
            ("bytes", load(&self.bytes)),
            ("entities", load(&self.entities)),
            ("taken", load(&self.taken)),
            ("failed", load(&self.failed)),
        ]
    }

    /// Gives up the snapshot that is being written: the scorer stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

/// Takes one every `snapshot_minutes`, as long as the store is the embedded one.
pub async fn run(service: Arc<Service>, config: Config) {
    let minutes = config.store.snapshot_minutes;
    if minutes == 0.0 || service.engine.store.embedded().is_none() {
        return;
    }
    let mut every = tokio::time::interval(Duration::from_secs_f64(minutes * 60.0));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    every.tick().await;
    loop {
        every.tick().await;
        let (service, data) = (Arc::clone(&service), config.data.clone());
        // A thread of its own: encoding a million entities takes seconds.
        if tokio::task::spawn_blocking(move || take(&service, &data)).await.is_err() {
            tracing::error!("a snapshot ended in a panic");
        }
    }
}

/// Takes one now and deletes all that came before it: what was forgotten on request must not lie in an older one. Where there is none
/// nothing is done.
///
/// # Errors
/// When none could be taken, or an older one cannot be deleted; then those that are there stay.
pub fn renew(service: &Service, data: &Path) -> std::io::Result<()> {
    let folder = snapshot::folder(data);
    if snapshot::files(&folder)?.is_empty() {
        return Ok(());
    }
    if !take(service, data) {
        return Err(std::io::Error::other("no new snapshot could be taken; the older ones still hold what was to be forgotten"));
    }
    let older = snapshot::files(&folder)?.into_iter().skip(1).map(|(_, path)| path);
    for path in older.chain([folder.join(snapshot::STAGED)]) {
        match std::fs::remove_file(path) {
            // Deleted by itself meanwhile, or none was begun.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Takes one now; a failure is logged and counted, and costs nothing but a longer restart. Whether one was taken.
pub fn take(service: &Service, data: &Path) -> bool {
    let Some(store) = service.engine.store.embedded() else { return false };
    let folder = snapshot::folder(data);
    let _one_at_a_time = service.snapshots.taking.lock();
    let began = now();
    match write(service, store, &folder) {
        Ok((cut, bytes)) => {
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let snapshots = &service.snapshots;
            snapshots.taken.fetch_add(1, Ordering::Relaxed);
            snapshots.bytes.store(bytes, Ordering::Relaxed);
            snapshots.millis.store(millis, Ordering::Relaxed);
            snapshots.at.store(cut.moment.now.micros(), Ordering::Relaxed);
            let entities = snapshots.entities.load(Ordering::Relaxed);
            tracing::info!(sequence = cut.moment.sequence.0, entities, bytes, millis, "snapshot taken");
            true
        }
        Err(SnapshotError::Stopping) => false,
        Err(error) => {
            service.snapshots.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "no snapshot was taken; the one before stays");
            false
        }
    }
}

fn write(service: &Service, store: &EmbeddedStore, folder: &Path) -> Result<(Cut, u64), SnapshotError> {
    std::fs::create_dir_all(folder).map_err(SnapshotError::write(folder))?;
    let engine = &service.engine;
    let Some(cut) = store.cut() else { return Err(SnapshotError::UnderWay) };
    // What was applied up to the cut may still be on its way to this file or the one before; all that comes later is in this one or behind.
    let file = engine.journal().stats().map_or(0, |stats| stats.file.load(Ordering::Acquire).saturating_sub(1).max(1));
    let path = snapshot::path(folder, cut.moment.sequence.0);
    let fill = || -> Result<u64, SnapshotError> {
        let failed = SnapshotError::write(&path);
        let mut header = snapshot::header(&engine.schema, &engine.hasher);
        (header.sequence, header.now_us, header.journal_file) = (cut.moment.sequence.0, cut.moment.now.micros(), file);
        let mut writer = Writer::create(&path).map_err(SnapshotError::write(&path))?;
        let header = serde_json::to_vec(&header).map_err(std::io::Error::other).map_err(SnapshotError::write(&path))?;
        writer.part(tag::HEADER, &header).map_err(SnapshotError::write(&path))?;
        entities(service, store, (&cut, &path), &mut writer)?;
        let histories = settle(store, &cut)?;
        writer.part(tag::HISTORIES, &snapshot::histories(&histories)).map_err(SnapshotError::write(&path))?;
        verdicts(service, &mut writer).and_then(|()| sessions(engine, &mut writer)).map_err(SnapshotError::write(&path))?;
        // INVARIANT: the journal on the disk reaches as far as any snapshot that has its name, so that either gives the same store.
        engine.journal().flush();
        writer.part(tag::END, b"end").and_then(|()| writer.finish()).map_err(failed)
    };
    let bytes = fill().inspect_err(|_| {
        store.forget_cut();
        // A disk that is full needs the room.
        std::fs::remove_file(folder.join(snapshot::STAGED)).ok();
    })?;
    if let Err(error) = snapshot::prune(folder) {
        tracing::warn!(%error, "older snapshots could not be deleted");
    }
    Ok((cut, bytes))
}

fn entities(service: &Service, store: &EmbeddedStore, (cut, path): (&Cut, &Path), writer: &mut Writer) -> Result<(), SnapshotError> {
    let mut content = Vec::with_capacity(PART + (64 << 10));
    let mut count = 0;
    let marks = store.save(cut, |some| {
        let mut rest = some;
        while telltale_features::store::embedded::Record::take(&mut rest).is_some() {
            count += 1;
        }
        content.extend_from_slice(some);
        if content.len() >= PART {
            let written = writer.part(tag::ENTITIES, &content);
            content.clear();
            written.map_err(SnapshotError::write(path))?;
        }
        if service.snapshots.stopping.load(Ordering::Acquire) { Err(SnapshotError::Stopping) } else { Ok(()) }
    })?;
    service.snapshots.entities.store(count, Ordering::Relaxed);
    let written = writer.part(tag::ENTITIES, &content).and_then(|()| writer.part(tag::SHARDS, &snapshot::shards(&marks)));
    written.map_err(SnapshotError::write(path))
}

/// What transactions had read that the cut found under way, once they are decided.
fn settle(store: &EmbeddedStore, cut: &Cut) -> Result<Vec<History>, SnapshotError> {
    let began = now();
    loop {
        if let Some(histories) = store.straddling(cut) {
            return Ok(histories);
        }
        if began.elapsed() > PATIENCE {
            return Err(SnapshotError::Slow(PATIENCE.as_secs()));
        }
        // Each of them has a deadline of its own; nothing tells this thread when the last has ended.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn verdicts(service: &Service, writer: &mut Writer) -> std::io::Result<()> {
    let (mut turn, mut all) = (0, Verdicts::default());
    while let Some((some, last)) = service.memory.decided_after(turn, TOGETHER) {
        turn = last;
        all.all.extend(some);
        if all.all.len() >= TOGETHER * 8 {
            writer.part(tag::VERDICTS, &std::mem::take(&mut all).encode_to_vec())?;
        }
    }
    writer.part(tag::VERDICTS, &all.encode_to_vec())
}

fn sessions(engine: &Engine, writer: &mut Writer) -> std::io::Result<()> {
    let (mut place, mut all) = (SessionPlace::default(), Sessions::default());
    while let Some((some, next)) = engine.door.sessions(place, TOGETHER) {
        place = next;
        all.all.extend(some.into_iter().map(|(session, user)| Opened {
            session: session.0.to_vec(),
            user: user.id.key.0.to_vec(),
            verified: user.verified,
            name: user.name.map(String::from),
        }));
        if all.all.len() >= TOGETHER * 8 {
            writer.part(tag::SESSIONS, &std::mem::take(&mut all).encode_to_vec())?;
        }
    }
    let mut place = SessionPlace::default();
    while let Some((some, next)) = engine.door.session_routes(place, TOGETHER) {
        place = next;
        let asked = |(session, route): (EntityKey, Box<str>)| Asked { session: session.0.to_vec(), route: route.into() };
        all.routes.extend(some.into_iter().map(asked));
        if all.routes.len() >= TOGETHER * 8 {
            writer.part(tag::SESSIONS, &std::mem::take(&mut all).encode_to_vec())?;
        }
    }
    writer.part(tag::SESSIONS, &all.encode_to_vec())
}

/// Puts the newest snapshot that is whole into the store, and says from where the journal goes on; `None` when there is none, or the journal
/// knows better.
///
/// # Errors
/// When a snapshot is another installation's.
pub fn restore(service: &Service, config: &Config, options: &ServeOptions) -> Result<Option<Resume>, ServeError> {
    let engine = &service.engine;
    let folder = snapshot::folder(&config.data);
    let files = snapshot::files(&folder).map_err(|source| ServeError::Data { path: folder, source })?;
    let journal = config.data.join("journal");
    for (_, path) in files {
        match snapshot::restore_one(engine, (&path, &journal), options.progress) {
            Ok(None) => return Ok(None),
            Ok(Some(restored)) => return Ok(Some(take_over(service, restored))),
            Err(error @ SnapshotError::OtherKey { .. }) => return Err(ServeError::Snapshot(error)),
            Err(error) => tracing::error!(%error, "an older snapshot and more of the journal are used in its place"),
        }
    }
    Ok(None)
}

fn take_over(service: &Service, mut restored: snapshot::Restored) -> Resume {
    let door = &service.engine.door;
    for verdict in std::mem::take(&mut restored.verdicts) {
        let at = Timestamp::from_micros(verdict.at_us);
        service.memory.restore(&verdict.id, verdict.digest, Sealed::restored(verdict.verdict), at);
    }
    for Opened { session, user, verified, name } in std::mem::take(&mut restored.sessions) {
        if let (Some(session), Some(user)) = (snapshot::key(&session), snapshot::key(&user)) {
            door.restore_session(session, user, (verified, name.map(String::into_boxed_str)));
        }
    }
    for Asked { session, route } in std::mem::take(&mut restored.routes) {
        if let Some(session) = snapshot::key(&session) {
            door.restore_route(session, route.into_boxed_str());
        }
    }
    service.snapshots.at.store(restored.header.now_us, Ordering::Relaxed);
    snapshot::resume(&mut restored)
}

#[expect(clippy::disallowed_methods, reason = "how long a snapshot takes is about this process, not about events")]
fn now() -> Instant {
    Instant::now()
}
