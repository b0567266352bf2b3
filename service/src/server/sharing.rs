//! Standing decisions shared by the replicas of one installation: a versioned table in Redis, looked at four times a second.
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
use super::decisions::has_ended;
use super::warm::change_override;
use crate::convert;

/// How often the shared table is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// The table of this installation.
const TABLE: &str = "decisions:default";
/// A removal is remembered this long, so that a replica that was away does not bring the decision back, microseconds.
const REMEMBERED: i64 = 30 * 86_400 * 1_000_000;

/// A row as it is shared.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Row {
    /// When it was changed, microseconds since 1970.
    at: i64,
    /// The decision as canonical JSON; none: removed.
    decision: Option<String>,
}

/// What this replica knows of the shared table.
#[derive(Default)]
struct Known {
    version: u64,
    rows: BTreeMap<String, Row>,
}

/// Keeps the local table and the shared one alike until the task is ended.
pub async fn run(service: Arc<Service>) {
    let Some(store) = service.engine.store.redis() else { return };
    let mut known = Known::default();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        every.tick().await;
        let shared = share(&service, store, &mut known).await;
        if let (Err(error), false) = (&shared, failing) {
            tracing::warn!(%error, "standing decisions are not shared until it can be");
        }
        failing = shared.is_err();
    }
}

async fn share(service: &Service, store: &RedisStore, known: &mut Known) -> Result<(), TableError> {
    let version = store.table_version(TABLE).await?;
    if version != known.version {
        let table = store.table(TABLE).await?;
        take_in(service, known, table.rows);
        known.version = table.version;
    }
    let now = service.engine.clock().now();
    let own = own_changes(service, known, now, version == 0);
    if !own.is_empty() {
        let encode = |(id, row): &(String, Option<Row>)| match row {
            Some(row) => Some((id.clone(), serde_json::to_vec(row).ok()?)),
            None => Some((id.clone(), Vec::new())),
        };
        let rows: Vec<(String, Vec<u8>)> = own.iter().filter_map(encode).collect();
        // The version moves on by this write; others may have written just before, so the table is looked at again at the next turn.
        store.write_table(TABLE, &rows).await?;
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
fn take_in(service: &Service, known: &mut Known, rows: Vec<(String, Vec<u8>)>) {
    let now = service.engine.clock().now();
    let local = local(service, now);
    let present: BTreeSet<&String> = rows.iter().map(|(id, _)| id).collect();
    known.rows.retain(|id, _| present.contains(id));
    for (id, value) in rows {
        let Ok(row) = serde_json::from_slice::<Row>(&value) else {
            tracing::error!(%id, "a shared decision cannot be read");
            continue;
        };
        if known.rows.get(&id).is_some_and(|ours| ours.at > row.at || *ours == row) {
            continue;
        }
        let ended = row.decision.as_deref().and_then(decision).is_some_and(|decision| has_ended(&decision, now));
        if local.get(&id) != row.decision.as_ref() && !ended {
            put_in_force(service, &id, row.decision.as_deref());
        }
        known.rows.insert(id, row);
    }
}

fn put_in_force(service: &Service, id: &str, text: Option<&str>) {
    let decision = text.and_then(decision);
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

/// What changed here since it was last shared; everything when the shared table is gone.
fn own_changes(service: &Service, known: &Known, now: Timestamp, all: bool) -> Vec<(String, Option<Row>)> {
    let local = local(service, now);
    let at = now.micros();
    let mut own = Vec::new();
    for (id, row) in &known.rows {
        let (was, old) = (row.decision.as_deref().and_then(decision), at - row.at > REMEMBERED);
        match was {
            // What has ended, ended everywhere: nothing need be remembered of it.
            Some(was) if !local.contains_key(id) => {
                let ended = has_ended(&was, now) || was.origin != v1::DecisionOrigin::Override as i32;
                own.push((id.clone(), (!ended).then_some(Row { at, decision: None })));
            }
            None if old => own.push((id.clone(), None)),
            _ => {}
        }
    }
    for (id, text) in local {
        let known = known.rows.get(&id);
        if all || known.and_then(|row| row.decision.as_ref()) != Some(&text) {
            let at = known.filter(|row| row.decision.as_ref() == Some(&text)).map_or(at, |row| row.at);
            own.push((id, Some(Row { at, decision: Some(text) })));
        }
    }
    own
}

fn decision(text: &str) -> Option<v1::Decision> {
    json::parse(text, json::Unknown::Report).ok().map(|(decision, _)| decision)
}

fn local(service: &Service, now: Timestamp) -> BTreeMap<String, String> {
    let list = service.decisions.list();
    let standing = list.iter().filter(|decision| !has_ended(decision, now));
    standing.filter_map(|decision| Some((decision.id.clone(), json::write(decision).ok()?))).collect()
}
