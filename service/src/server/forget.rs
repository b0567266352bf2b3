//! Forgetting on request: an entity's history, its name, decisions about it and every journal record that holds it.
//!
//! A request enters, what was erased leaves. State gets a tombstone that late reports do not pass; snapshots are taken anew and
//! closed journal files rewritten beside themselves; other replicas are told through the shared store, the identifier sealed under the installation's key, and do the
//! same. Verdicts remembered for repeated calls go too.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telltale_features::domain::Context;
use telltale_features::entity::EntityId;
use telltale_features::file::{self, Readers};
use telltale_features::store::Store;
use telltale_features::store::redis::TableError;
use telltale_features::time::Timestamp;
use telltale_proto::journal::v1::{Forgotten, journal_record::Kind};
use telltale_proto::v1;

use super::Service;
use super::access::Caller;
use super::audit::Change;
use super::errors::CallError;
use super::overrides::{self, REASON_BYTES};
use super::snapshots;
use super::templates;
use super::warm::change_override;
use crate::cipher::Cipher;
use crate::convert;
use crate::journal::{ErasedCount, Erasure, erase};

/// What replicas share: who was forgotten, and when.
const TABLE: &str = "forgotten:default";
/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// A replica that was away for longer than this is not told any more, microseconds.
const REMEMBERED: i64 = 30 * 86_400 * 1_000_000;
/// Clocks of replicas differ by less than this; more than a second is reported as `clock_skew`.
const CLOCKS: Duration = Duration::from_secs(2);
/// Rows that this replica has dealt with.
const DONE: &str = "forgotten.json";

/// Where and with what this scorer forgets.
pub struct Forgetting {
    data: PathBuf,
    done: PathBuf,
    cipher: Cipher,
    /// One at a time: two would rewrite the same files.
    turn: tokio::sync::Mutex<()>,
}

/// A row of the shared table.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    /// Up to when, microseconds since 1970.
    until: i64,
    entity: String,
    /// Keyed hash, hexadecimal.
    key: String,
    /// The identifier, sealed; empty where it is not known.
    identifier: Vec<u8>,
}

impl Forgetting {
    /// For the scorer of that data directory, which shares that secret with its replicas.
    pub fn new(data: &std::path::Path, secret: &[u8; 32]) -> Self {
        let secret = blake3::derive_key("telltale 2026 identifiers to be forgotten", secret);
        Self {
            data: data.to_path_buf(),
            done: data.join(DONE),
            cipher: Cipher::new(&secret, b"telltale forget 1"),
            turn: tokio::sync::Mutex::new(()),
        }
    }
}

/// Who is to be forgotten.
struct Request {
    entity: EntityId,
    identifier: Option<String>,
    /// Up to when; `None`: now.
    until: Option<Timestamp>,
}

/// Forgets an entity here, and tells the other replicas. Goes on to its end when the caller does not wait for it: half a rewrite is none.
///
/// # Errors
/// When the request names no entity of this schema, or something cannot be written: what was erased until then stays erased, and the
/// request may be repeated.
pub async fn change(
    service: &Arc<Service>,
    caller: &Caller,
    request: v1::ForgetEntityRequest,
) -> Result<v1::ForgetEntityResponse, CallError> {
    let wire = request.entity.ok_or(CallError::Empty("entity"))?;
    let entity = overrides::entity(service, &service.engine.schema, &wire)?;
    if request.reason.len() > REASON_BYTES {
        return Err(CallError::Override(format!("`reason` is {} bytes long; allowed: at most 512", request.reason.len())));
    }
    let identifier = (!wire.id.is_empty()).then_some(wire.id).or_else(|| service.names.of(entity));
    let erasure = Erasure::new(&entity.key.0, identifier.as_deref());
    let told = convert::entity_to_proto(entity, None, &service.engine.schema);
    service.audit.write(&Change {
        time_us: service.engine.clock().now().micros(),
        caller: &caller.name,
        role: caller.role.map_or("any", super::access::Role::name),
        what: "forget",
        subject: &format!("{}/{}", told.r#type, convert::hex(&told.key)),
        detail: &erasure.without(&request.reason).unwrap_or(request.reason),
    });
    to_its_end(service, Request { entity, identifier, until: None }).await
}

async fn to_its_end(service: &Arc<Service>, request: Request) -> Result<v1::ForgetEntityResponse, CallError> {
    let service = Arc::clone(service);
    tokio::spawn(async move { here(&service, request).await }).await.map_err(io::Error::other)?
}

/// Tells the other replicas; false where there are none, or they cannot be told.
async fn share(service: &Service, told: &v1::Entity, identifier: Option<&str>, until: Timestamp) -> bool {
    let Some(redis) = service.engine.store.redis() else { return false };
    let tell = async {
        let sealed = identifier.map(|identifier| service.forgetting.cipher.seal(identifier.as_bytes().to_vec())).transpose()?;
        let row = Row {
            until: until.micros(),
            entity: told.r#type.clone(),
            key: convert::hex(&told.key),
            identifier: sealed.unwrap_or_default(),
        };
        let value = serde_json::to_vec(&row).map_err(io::Error::other)?;
        redis.write_table(TABLE, &[(row.id(), value)]).await.map_err(io::Error::other)
    };
    match tell.await {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(%error, "other replicas could not be told whom to forget; ask each of them");
            false
        }
    }
}

/// Forgets an entity in this process and its data directory.
async fn here(service: &Arc<Service>, request: Request) -> Result<v1::ForgetEntityResponse, CallError> {
    let _one_at_a_time = service.forgetting.turn.lock().await;
    let Request { entity, identifier, until } = request;
    let engine = &service.engine;
    let told = convert::entity_to_proto(entity, None, &engine.schema);
    let mut answer = v1::ForgetEntityResponse { decisions: remove_decisions(service, entity, &told)?, ..Default::default() };
    // Where the store is shared the replica that was asked may have done it; what came since then must stay.
    let known = match until {
        Some(until) => engine.store.look(entity).await.and_then(|state| state.tombstone()).filter(|known| *known >= until),
        None => None,
    };
    let moment = if known.is_some() { engine.store.moment(engine.live()) } else { engine.store.forget(entity, engine.live()) };
    let until = until.unwrap_or(moment.now);
    engine.journal().append(moment, || Kind::Forgotten(Forgotten { r#type: told.r#type.clone(), key: told.key.clone() }));
    answer.until = Some(convert::timestamp_to_proto(until));
    answer.shared = request.until.is_none() && share(service, &told, identifier.as_deref(), until).await;
    engine.door.forget(entity);
    answer.name = service.names.of(entity).is_some();
    // Calls that were under way have ended by then, and their records stand in the files that are rewritten.
    tokio::time::sleep(service.longest).await;
    let erasure = Erasure::new(&entity.key.0, identifier.as_deref());
    // Another replica's clock may be behind this one's, by which records here were told their time.
    let recorded = if request.until.is_some() { until.plus(CLOCKS) } else { until };
    let ErasedCount { records, files } = erase_files(service, entity, (recorded, erasure)).await?;
    (answer.records, answer.files) = (records, files);
    note(service, (format!("{}/{}", told.r#type, convert::hex(&told.key)), until.micros()))?;
    Ok(answer)
}

/// Takes it out of memory and out of every file.
async fn erase_files(service: &Arc<Service>, entity: EntityId, (until, erasure): (Timestamp, Erasure)) -> Result<ErasedCount, CallError> {
    let service = Arc::clone(service);
    let erasing = tokio::task::spawn_blocking(move || {
        service.names.forget(entity)?;
        service.memory.forget(|verdict| verdict.holds(&erasure));
        service.audit.redact(&erasure)?;
        templates::forget(&service, &erasure)?;
        let data = &service.forgetting.data;
        snapshots::renew(&service, data)?;
        let journal = service.engine.journal();
        let end = match journal.stats() {
            None => u64::MAX,
            Some(_) => {
                journal.rotate().ok_or_else(|| io::Error::other("no new journal file can be begun; nothing was erased from the journal"))?
            }
        };
        let progress = |number| tracing::info!(number, end, "looked through a journal file");
        erase(&data.join("journal"), (end, until), &erasure, progress)
    });
    Ok(erasing.await.map_err(io::Error::other)??)
}

/// Overrides and denials of the entity end.
fn remove_decisions(service: &Service, entity: EntityId, told: &v1::Entity) -> Result<u32, CallError> {
    // Those that have ended as well: a journal goes on saying what was ruled until it is told otherwise.
    for ruling in service.engine.in_force().overrides.iter().filter(|ruling| ruling.entity == entity) {
        change_override(&service.engine, ruling, true);
    }
    let about = |decision: &v1::Decision| decision.entity.as_ref().is_some_and(|of| (&of.key, &of.r#type) == (&told.key, &told.r#type));
    let mut removed = 0;
    for decision in service.decisions.list().iter().filter(|decision| about(decision)) {
        service.decisions.set(&decision.id, None)?;
        removed += 1;
    }
    Ok(removed)
}

/// A context without those who were forgotten since: a report of what happened before is none of theirs any more.
pub fn remaining(service: &Service, mut context: Context) -> Context {
    let until = |entity| service.engine.store.tombstone(entity);
    let gone = |entity| until(entity).is_some_and(|until| context.event_time <= until);
    if context.subjects.iter().any(|subject| gone(subject.id)) {
        context.subjects = context.subjects.without(gone);
    }
    context
}

/// Forgets whom other replicas were asked to forget, until the task is ended.
pub async fn run(service: Arc<Service>) {
    let Some(store) = service.engine.store.redis() else { return };
    let (mut version, mut failing) = (0, false);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let looked: Result<u64, TableError> = async {
            match store.table_version(TABLE).await? {
                known if known == version => Ok(version),
                _ => {
                    let table = store.table(TABLE).await?;
                    // What could not be done is tried again at the next turn.
                    Ok(if take_in(&service, table.rows).await { table.version } else { version })
                }
            }
        }
        .await;
        if let (Err(error), false) = (&looked, failing) {
            tracing::warn!(%error, "whom other replicas forget is not known until it can be reached");
        }
        failing = looked.is_err();
        version = looked.unwrap_or(version);
    }
}

/// Does what the rows ask for; whether all of it is done.
async fn take_in(service: &Arc<Service>, rows: Vec<(String, Vec<u8>)>) -> bool {
    let now = service.engine.clock().now().micros();
    let done = read_done(service);
    let (mut old, mut all) = (Vec::new(), true);
    for (id, value) in rows {
        let Ok(row) = serde_json::from_slice::<Row>(&value) else {
            tracing::error!(%id, "a shared request to forget cannot be read");
            continue;
        };
        if now - row.until > REMEMBERED {
            old.push((id, Vec::new()));
        } else if done.get(&id).is_none_or(|until| *until < row.until) {
            match forget_row(service, &row).await {
                Ok(()) => tracing::info!(%id, "forgotten, as another replica was asked to"),
                Err(error) => {
                    all = false;
                    tracing::error!(%error, %id, "whom another replica was asked to forget is not forgotten here yet");
                }
            }
        }
    }
    if let Some(redis) = service.engine.store.redis().filter(|_| !old.is_empty())
        && let Err(error) = redis.write_table(TABLE, &old).await
    {
        tracing::warn!(%error, "old requests to forget stay in the shared table for now");
    }
    all
}

async fn forget_row(service: &Arc<Service>, row: &Row) -> Result<(), CallError> {
    let key = convert::unhex(&row.key).unwrap_or_default();
    let wire = v1::Entity { r#type: row.entity.clone(), key: key.into(), ..Default::default() };
    let entity = convert::entity_from_proto(&wire, "entity", &service.engine.schema)?;
    let identifier = match row.identifier.as_slice() {
        [] => service.names.of(entity),
        sealed => String::from_utf8(service.forgetting.cipher.open(sealed)?).ok(),
    };
    to_its_end(service, Request { entity, identifier, until: Some(Timestamp::from_micros(row.until)) }).await?;
    Ok(())
}

impl Row {
    fn id(&self) -> String {
        format!("{}/{}", self.entity, self.key)
    }
}

fn read_done(service: &Service) -> BTreeMap<String, i64> {
    let text = std::fs::read(&service.forgetting.done).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Notes that a row was dealt with. Only ever called by who has the turn.
fn note(service: &Service, (id, until): (String, i64)) -> Result<(), CallError> {
    let mut known = read_done(service);
    let now = service.engine.clock().now().micros();
    known.retain(|_, until| now - *until <= REMEMBERED);
    known.insert(id, until);
    Ok(file::replace(&service.forgetting.done, &serde_json::to_vec(&known).map_err(io::Error::other)?, Readers::Owner)?)
}
