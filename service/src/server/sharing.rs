//! Tables shared by the replicas of one installation, standing decisions and endpoint templates: each a versioned table in Redis, looked
//! at four times a second.
//!
//! Local changes go out, others' changes come in, the later one of two wins. What comes in is put in force, journalled and saved as a
//! local change is. Without Redis the local table stands, and its changes go out when Redis is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telltale_features::store::redis::{RedisStore, TableError};
use telltale_features::time::Timestamp;
use telltale_proto::{json, v1};

use super::Service;
use super::decisions::{Decisions, has_ended};
use super::warm::change_override;
use crate::convert;

/// How often a shared table is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// A removal is remembered this long, so that a replica that was away does not bring the row back, microseconds.
const REMEMBERED: i64 = 30 * 86_400 * 1_000_000;

/// A table of this scorer that is shared: rows by identifier, each one text.
pub(super) trait Shared {
    /// Its name in Redis, of this installation.
    const TABLE: &'static str;
    /// What it holds, for messages.
    const WHAT: &'static str;

    /// The rows that stand here.
    fn local(service: &Service, now: Timestamp) -> BTreeMap<String, String>;

    /// Whether a row holds no more, everywhere and by itself.
    fn has_ended(row: &str, now: Timestamp) -> bool;

    /// Whether others must be told that a row, gone here, is gone.
    fn leaves_a_trace(row: &str, now: Timestamp) -> bool;

    /// Takes another replica's row, or its removal, as a local change is taken.
    fn put_in_force(service: &Service, id: &str, row: Option<&str>);
}

/// A row as it is shared.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Row {
    /// When it was changed, microseconds since 1970.
    at: i64,
    /// The row's text; none: removed. Named as the first of these tables had it.
    #[serde(rename = "decision")]
    content: Option<String>,
}

/// What this replica knows of the shared table.
#[derive(Default)]
struct Known {
    version: u64,
    rows: BTreeMap<String, Row>,
}

/// Keeps a local table and the shared one alike until the task is ended.
pub(super) async fn run<T: Shared>(service: Arc<Service>) {
    let Some(store) = service.engine.store.redis() else { return };
    let mut known = Known::default();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        every.tick().await;
        let shared = share::<T>(&service, store, &mut known).await;
        if let (Err(error), false) = (&shared, failing) {
            tracing::warn!(%error, "{} are not shared until they can be", T::WHAT);
        }
        failing = shared.is_err();
    }
}

async fn share<T: Shared>(service: &Service, store: &RedisStore, known: &mut Known) -> Result<(), TableError> {
    let version = store.table_version(T::TABLE).await?;
    if version != known.version {
        let table = store.table(T::TABLE).await?;
        take_in::<T>(service, known, table.rows);
        known.version = table.version;
    }
    let now = service.engine.clock().now();
    let own = own_changes::<T>(service, known, now, version == 0);
    if !own.is_empty() {
        let encode = |(id, row): &(String, Option<Row>)| match row {
            Some(row) => Some((id.clone(), serde_json::to_vec(row).ok()?)),
            None => Some((id.clone(), Vec::new())),
        };
        let rows: Vec<(String, Vec<u8>)> = own.iter().filter_map(encode).collect();
        // The version moves on by this write; others may have written just before, so the table is looked at again at the next turn.
        store.write_table(T::TABLE, &rows).await?;
        for (id, row) in own {
            match row {
                Some(row) => known.rows.insert(id, row),
                None => known.rows.remove(&id),
            };
        }
    }
    Ok(())
}

/// Others' changes: those later than what is known here.
fn take_in<T: Shared>(service: &Service, known: &mut Known, rows: Vec<(String, Vec<u8>)>) {
    let now = service.engine.clock().now();
    let local = T::local(service, now);
    let present: BTreeSet<&String> = rows.iter().map(|(id, _)| id).collect();
    known.rows.retain(|id, _| present.contains(id));
    for (id, value) in rows {
        let Ok(row) = serde_json::from_slice::<Row>(&value) else {
            tracing::error!(%id, "a shared row of {} cannot be read", T::WHAT);
            continue;
        };
        if known.rows.get(&id).is_some_and(|ours| ours.at > row.at || *ours == row) {
            continue;
        }
        let ended = row.content.as_deref().is_some_and(|row| T::has_ended(row, now));
        if local.get(&id) != row.content.as_ref() && !ended {
            T::put_in_force(service, &id, row.content.as_deref());
        }
        known.rows.insert(id, row);
    }
}

/// What changed here since it was last shared; everything when the shared table is gone.
fn own_changes<T: Shared>(service: &Service, known: &Known, now: Timestamp, all: bool) -> Vec<(String, Option<Row>)> {
    let local = T::local(service, now);
    let at = now.micros();
    let mut own = Vec::new();
    for (id, row) in &known.rows {
        match row.content.as_deref() {
            // What has ended, ended everywhere: nothing need be remembered of it.
            Some(was) if !local.contains_key(id) => {
                own.push((id.clone(), T::leaves_a_trace(was, now).then_some(Row { at, content: None })))
            }
            None if at - row.at > REMEMBERED => own.push((id.clone(), None)),
            _ => {}
        }
    }
    for (id, text) in local {
        let known = known.rows.get(&id);
        if all || known.and_then(|row| row.content.as_ref()) != Some(&text) {
            let at = known.filter(|row| row.content.as_ref() == Some(&text)).map_or(at, |row| row.at);
            own.push((id, Some(Row { at, content: Some(text) })));
        }
    }
    own
}

impl Shared for Decisions {
    const TABLE: &'static str = "decisions:default";
    const WHAT: &'static str = "standing decisions";

    fn local(service: &Service, now: Timestamp) -> BTreeMap<String, String> {
        let list = service.decisions.list();
        let standing = list.iter().filter(|decision| !has_ended(decision, now));
        standing.filter_map(|decision| Some((decision.id.clone(), json::write(decision).ok()?))).collect()
    }

    fn has_ended(row: &str, now: Timestamp) -> bool {
        decision(row).is_some_and(|decision| has_ended(&decision, now))
    }

    fn leaves_a_trace(row: &str, now: Timestamp) -> bool {
        decision(row).is_some_and(|was| !has_ended(&was, now) && was.origin == v1::DecisionOrigin::Override as i32)
    }

    fn put_in_force(service: &Service, id: &str, row: Option<&str>) {
        let decision = row.and_then(decision);
        let before = service.decisions.find(id);
        let Some(about) = decision.as_ref().or(before.as_ref()) else { return };
        if about.origin == v1::DecisionOrigin::Override as i32 {
            match convert::override_from_proto(about, &service.engine.schema) {
                Ok(ruling) => change_override(&service.engine, &ruling, decision.is_none()),
                Err(error) => {
                    tracing::error!(%error, %id, "a shared override cannot be used");
                    return;
                }
            }
        }
        if let Err(error) = service.decisions.set(id, decision) {
            tracing::error!(%error, "the standing decisions could not be saved");
        }
    }
}

fn decision(text: &str) -> Option<v1::Decision> {
    json::parse(text, json::Unknown::Report).ok().map(|(decision, _)| decision)
}
