//! Forgetting on request: an entity's history, its name, decisions about it and every journal record that holds it.
//!
//! A request enters, what was erased leaves. State gets a tombstone that late reports do not pass; snapshots are taken anew and
//! closed journal files rewritten beside themselves; other replicas are told through the shared store, the identifier sealed under the installation's key, and do the
//! same. Process memory is not searched: verdicts that are remembered for repeated calls go with their time.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telltale_features::domain::Context;
use telltale_features::entity::EntityId;
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
use super::warm::change_override;
use crate::cipher::{self, Cipher};
use crate::convert;
use crate::journal::{ErasedCount, Erasure, erase};

/// What replicas share: who was forgotten, and when.
const TABLE: &str = "forgotten:default";
/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// A replica that was away for longer than this is not told any more, microseconds.
const REMEMBERED: i64 = 30 * 86_400 * 1_000_000;
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

/// Forgets an entity here, and tells the other replicas.
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
    let until = service.engine.clock().now();
    let told = convert::entity_to_proto(entity, None, &service.engine.schema);
    service.audit.write(&Change {
        time_us: until.micros(),
        caller: &caller.name,
        role: caller.role.map_or("any", super::access::Role::name),
        what: "forget",
        subject: &format!("{}/{}", told.r#type, convert::hex(&told.key)),
        detail: &erasure.without(&request.reason).unwrap_or(request.reason),
    });
    let shared = share(service, &told, identifier.as_deref(), until).await;
    if let Err(error) = &shared {
        tracing::error!(%error, "other replicas could not be told whom to forget; ask each of them");
    }
    let mut answer = here(service, Request { entity, identifier, until: None }).await?;
    answer.shared = matches!(shared, Ok(true));
    Ok(answer)
}

/// Tells the other replicas; false where there are none.
async fn share(service: &Service, told: &v1::Entity, identifier: Option<&str>, until: Timestamp) -> Result<bool, CallError> {
    let Some(redis) = service.engine.store.redis() else { return Ok(false) };
    let sealed = identifier.map(|identifier| service.forgetting.cipher.seal(identifier.as_bytes().to_vec())).transpose()?;
    let key = convert::hex(&told.key);
    let id = format!("{}/{key}", told.r#type);
    let row = Row { until: until.micros(), entity: told.r#type.clone(), key, identifier: sealed.unwrap_or_default() };
    // This replica does it at once and need not do it again.
    note(service, [(id.clone(), row.until)])?;
    let value = serde_json::to_vec(&row).map_err(io::Error::other)?;
    redis.write_table(TABLE, &[(id, value)]).await.map_err(io::Error::other)?;
    Ok(true)
}

/// Forgets an entity in this process and its data directory.
async fn here(service: &Arc<Service>, request: Request) -> Result<v1::ForgetEntityResponse, CallError> {
    let _one_at_a_time = service.forgetting.turn.lock().await;
    let Request { entity, identifier, until } = request;
    let engine = &service.engine;
    let erasure = Erasure::new(&entity.key.0, identifier.as_deref());
    let told = convert::entity_to_proto(entity, None, &engine.schema);
    let mut answer = v1::ForgetEntityResponse { decisions: remove_decisions(service, entity, &told)?, ..Default::default() };
    let moment = engine.store.forget(entity, engine.live());
    engine.journal().append(moment, || Kind::Forgotten(Forgotten { r#type: told.r#type, key: told.key }));
    answer.until = Some(convert::timestamp_to_proto(until.unwrap_or(moment.now)));
    answer.name = service.names.forget(entity)?;
    service.memory.forget(|verdict| verdict.holds(&erasure));
    service.audit.redact(&erasure)?;
    // Calls that were under way have ended by then, and their records stand in the files that are rewritten.
    tokio::time::sleep(service.longest).await;
    let ErasedCount { records, files } = rewrite(service, erasure).await?;
    (answer.records, answer.files) = (records, files);
    Ok(answer)
}

async fn rewrite(service: &Arc<Service>, erasure: Erasure) -> Result<ErasedCount, CallError> {
    let service = Arc::clone(service);
    let rewriting = tokio::task::spawn_blocking(move || {
        let data = &service.forgetting.data;
        snapshots::renew(&service, data)?;
        let Some(end) = service.engine.journal().rotate() else { return Ok(ErasedCount::default()) };
        erase(&data.join("journal"), end, &erasure, |number| tracing::info!(number, end, "looked through a journal file"))
    });
    let count = rewriting.await.map_err(io::Error::other)?;
    Ok(count?)
}

/// Overrides and denials of the entity end.
fn remove_decisions(service: &Service, entity: EntityId, told: &v1::Entity) -> Result<u32, CallError> {
    let now = service.engine.clock().now();
    if let Some(ruling) = service.engine.in_force().overrides.get(entity, now).cloned() {
        change_override(&service.engine, &ruling, true);
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
                    take_in(&service, table.rows).await;
                    Ok(table.version)
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

async fn take_in(service: &Arc<Service>, rows: Vec<(String, Vec<u8>)>) {
    let now = service.engine.clock().now().micros();
    let done = read_done(service);
    let mut old = Vec::new();
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
                Err(error) => tracing::error!(%error, %id, "whom another replica was asked to forget is not forgotten here"),
            }
        }
    }
    if let Some(redis) = service.engine.store.redis().filter(|_| !old.is_empty())
        && let Err(error) = redis.write_table(TABLE, &old).await
    {
        tracing::warn!(%error, "old requests to forget stay in the shared table for now");
    }
}

async fn forget_row(service: &Arc<Service>, row: &Row) -> Result<(), CallError> {
    let key = (0..32).step_by(2).map(|at| row.key.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    let key: Option<Vec<u8>> = key.collect();
    let wire = v1::Entity { r#type: row.entity.clone(), key: key.unwrap_or_default().into(), ..Default::default() };
    let entity = convert::entity_from_proto(&wire, "entity", &service.engine.schema)?;
    let identifier = match row.identifier.as_slice() {
        [] => service.names.of(entity),
        sealed => String::from_utf8(service.forgetting.cipher.open(sealed)?).ok(),
    };
    here(service, Request { entity, identifier, until: Some(Timestamp::from_micros(row.until)) }).await?;
    note(service, [(format!("{}/{}", row.entity, row.key), row.until)])
}

fn read_done(service: &Service) -> BTreeMap<String, i64> {
    let text = std::fs::read(&service.forgetting.done).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn note(service: &Service, done: impl IntoIterator<Item = (String, i64)>) -> Result<(), CallError> {
    let mut known = read_done(service);
    let now = service.engine.clock().now().micros();
    known.retain(|_, until| now - *until <= REMEMBERED);
    known.extend(done);
    Ok(cipher::replace(&service.forgetting.done, &serde_json::to_vec(&known).map_err(io::Error::other)?)?)
}
