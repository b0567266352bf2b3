//! Tables shared by the replicas of one installation, standing decisions and endpoint templates: each a versioned table in Redis, looked
//! at four times a second.
//!
//! Local changes go out, others' changes come in, the later one of two wins. What comes in is put in force, journalled and saved as a
//! local change is. Without Redis the local table stands, and its changes go out when Redis is back, after a restart too; only what
//! was removed meanwhile and left no row comes back by a restart.
//!
//! Clocks differ, so a change gets a time behind that of the row it takes the place of, and a row that is older than what stands
//! here is written over: whoever wrote last, all replicas end alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telltale_features::store::redis::{RedisStore, TableError};
use telltale_features::time::Timestamp;
use telltale_proto::{json, v1};

use super::Service;
use super::decisions::{Decisions, has_ended};
use super::warm::change_overrides;
use crate::convert;

/// How often a shared table is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// A removal is remembered this long, so that a replica that was away does not bring the row back, microseconds.
const REMEMBERED: i64 = 30 * 86_400 * 1_000_000;

/// A table of this scorer that is shared: rows by identifier, each one text.
pub(super) trait Shared: 'static {
    /// Its name in Redis, of this installation.
    const TABLE: &'static str;
    /// What it holds, for messages.
    const WHAT: &'static str;

    /// The rows that stand here.
    fn local(service: &Service, now: Timestamp) -> BTreeMap<String, String>;

    /// When a row was changed, as itself says, microseconds since 1970.
    fn changed(row: &str) -> i64;

    /// Whether a row holds no more, everywhere and by itself.
    fn has_ended(row: &str, now: Timestamp) -> bool;

    /// Whether others must be told that a row, gone here, is gone.
    fn leaves_a_trace(row: &str, now: Timestamp) -> bool;

    /// Takes another replica's rows, or their removal, as a local change is taken: all together, and saved once.
    fn put_in_force(service: &Service, rows: &[(String, Option<String>)]);
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

async fn share<T: Shared>(service: &Arc<Service>, store: &RedisStore, known: &mut Known) -> Result<(), TableError> {
    let version = store.table_version(T::TABLE).await?;
    if version != known.version {
        let table = store.table(T::TABLE).await?;
        let now = service.engine.clock().now();
        let (rows, news) = merge::<T>(&known.rows, &T::local(service, now), table.rows, now);
        if !news.is_empty() {
            // Files are written: not on a thread that scores.
            let service = Arc::clone(service);
            if tokio::task::spawn_blocking(move || T::put_in_force(&service, &news)).await.is_err() {
                tracing::error!("taking in {} ended in a panic", T::WHAT);
                return Ok(());
            }
        }
        *known = Known { version: table.version, rows };
    }
    let now = service.engine.clock().now();
    let own = own_changes::<T>(&known.rows, T::local(service, now), now, version == 0);
    if !own.is_empty() {
        let encode = |(id, row): &(String, Option<Row>)| match row {
            Some(row) => Some((id.clone(), serde_json::to_vec(row).ok()?)),
            None => Some((id.clone(), Vec::new())),
        };
        let rows: Vec<(String, Vec<u8>)> = own.iter().filter_map(encode).collect();
        // The version moves on by this write; others may have written just before, so the table is looked at again at the next turn.
        store.write_table(T::TABLE, &rows).await?;
        known.sent(own);
    }
    Ok(())
}

impl Known {
    /// What was written is known from now on.
    fn sent(&mut self, own: Vec<(String, Option<Row>)>) {
        for (id, row) in own {
            match row {
                Some(row) => self.rows.insert(id, row),
                None => self.rows.remove(&id),
            };
        }
    }
}

/// Rows to put in force here, by id: their content, none where it was taken away.
type News = Vec<(String, Option<String>)>;

/// The rows that are known from now on, and those of them that are to be put in force here. Where what stands here is later the shared row
/// is only remembered: then the local one differs from it, and goes out again.
fn merge<T: Shared>(
    known: &BTreeMap<String, Row>,
    local: &BTreeMap<String, String>,
    rows: Vec<(String, Vec<u8>)>,
    now: Timestamp,
) -> (BTreeMap<String, Row>, News) {
    let (mut all, mut news) = (BTreeMap::new(), Vec::new());
    for (id, value) in rows {
        let before = known.get(&id);
        let Ok(row) = serde_json::from_slice::<Row>(&value) else {
            tracing::error!(%id, "a shared row of {} cannot be read", T::WHAT);
            all.extend(before.map(|before| (id, before.clone())));
            continue;
        };
        let here = local.get(&id);
        let ended = row.content.as_deref().is_some_and(|row| T::has_ended(row, now));
        if before != Some(&row) && here != row.content.as_ref() && !ended && row.at >= stands_since::<T>(before, here) {
            news.push((id.clone(), row.content.clone()));
        }
        all.insert(id, row);
    }
    (all, news)
}

/// When what stands here came to stand so: as it was shared, or as it says itself where it was not shared yet.
fn stands_since<T: Shared>(known: Option<&Row>, here: Option<&String>) -> i64 {
    match (known, here) {
        (Some(known), Some(here)) if known.content.as_ref() != Some(here) => T::changed(here).max(known.at.saturating_add(1)),
        (Some(known), _) => known.at,
        (None, Some(here)) => T::changed(here),
        (None, None) => i64::MIN,
    }
}

/// What changed here since it was last shared; everything when the shared table is gone.
fn own_changes<T: Shared>(
    known: &BTreeMap<String, Row>,
    local: BTreeMap<String, String>,
    now: Timestamp,
    all: bool,
) -> Vec<(String, Option<Row>)> {
    // Behind what it takes the place of, whatever the clocks say: else who knows that would not take it.
    let after = |row: &Row| now.micros().max(row.at.saturating_add(1));
    let mut own = Vec::new();
    for (id, row) in known {
        match row.content.as_deref() {
            // What has ended, ended everywhere: nothing need be remembered of it.
            Some(was) if !local.contains_key(id) => {
                own.push((id.clone(), T::leaves_a_trace(was, now).then(|| Row { at: after(row), content: None })))
            }
            None if now.micros() - row.at > REMEMBERED => own.push((id.clone(), None)),
            _ => {}
        }
    }
    for (id, text) in local {
        let known = known.get(&id);
        let same = known.filter(|row| row.content.as_ref() == Some(&text));
        if all || same.is_none() {
            let at = same.map_or_else(|| known.map_or(now.micros(), after), |row| row.at);
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

    fn changed(row: &str) -> i64 {
        let created = decision(row).and_then(|decision| decision.created);
        created.map_or(0, |at| at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000))
    }

    fn has_ended(row: &str, now: Timestamp) -> bool {
        decision(row).is_some_and(|decision| has_ended(&decision, now))
    }

    fn leaves_a_trace(row: &str, now: Timestamp) -> bool {
        decision(row).is_some_and(|was| !has_ended(&was, now) && was.origin == v1::DecisionOrigin::Override as i32)
    }

    fn put_in_force(service: &Service, rows: &[(String, Option<String>)]) {
        let (mut rulings, mut kept) = (Vec::new(), Vec::new());
        for (id, row) in rows {
            let decision = row.as_deref().and_then(decision);
            let before = service.decisions.find(id);
            let Some(about) = decision.as_ref().or(before.as_ref()) else { continue };
            if about.origin == v1::DecisionOrigin::Override as i32 {
                match convert::override_from_proto(about, &service.engine.schema) {
                    Ok(ruling) => rulings.push((ruling, decision.is_none())),
                    Err(error) => {
                        tracing::error!(%error, %id, "a shared override cannot be used");
                        continue;
                    }
                }
            }
            kept.push((id.clone(), decision));
        }
        change_overrides(&service.engine, &rulings);
        if let Err(error) = service.decisions.set_all(kept) {
            tracing::error!(%error, "the standing decisions could not be saved");
        }
    }
}

fn decision(text: &str) -> Option<v1::Decision> {
    json::parse(text, json::Unknown::Report).ok().map(|(decision, _)| decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table whose rows begin with the second of their change.
    struct Plain;

    impl Shared for Plain {
        const TABLE: &'static str = "plain";
        const WHAT: &'static str = "plain rows";

        fn local(_: &Service, _: Timestamp) -> BTreeMap<String, String> {
            BTreeMap::new()
        }

        fn changed(row: &str) -> i64 {
            seconds(row.split(' ').next().unwrap().parse().unwrap())
        }

        fn has_ended(_: &str, _: Timestamp) -> bool {
            false
        }

        fn leaves_a_trace(_: &str, _: Timestamp) -> bool {
            true
        }

        fn put_in_force(_: &Service, _: &[(String, Option<String>)]) {}
    }

    fn seconds(seconds: f64) -> i64 {
        (seconds * 1e6) as i64
    }

    /// What Redis holds.
    type Table = BTreeMap<String, Vec<u8>>;

    /// A replica whose clock is so far ahead, seconds.
    #[derive(Default)]
    struct Replica {
        ahead: f64,
        known: Known,
        local: BTreeMap<String, String>,
    }

    impl Replica {
        fn ahead(ahead: f64) -> Self {
            Self { ahead, ..Self::default() }
        }

        /// Changes its row, or removes it.
        fn change(&mut self, now: f64, what: Option<&str>) {
            match what {
                Some(what) => self.local.insert("row".to_owned(), format!("{} {what}", now + self.ahead)),
                None => self.local.remove("row"),
            };
        }

        fn look(&mut self, table: &mut Table, now: f64) {
            let now = Timestamp::from_micros(seconds(now + self.ahead));
            let rows = table.iter().map(|(id, row)| (id.clone(), row.clone())).collect();
            let (rows, news) = merge::<Plain>(&self.known.rows, &self.local, rows, now);
            for (id, row) in news {
                match row {
                    Some(row) => self.local.insert(id, row),
                    None => self.local.remove(&id),
                };
            }
            self.known.rows = rows;
            let own = own_changes::<Plain>(&self.known.rows, self.local.clone(), now, table.is_empty());
            for (id, row) in &own {
                match row {
                    Some(row) => table.insert(id.clone(), serde_json::to_vec(row).unwrap()),
                    None => table.remove(id),
                };
            }
            self.known.sent(own);
        }

        fn what(&self) -> Option<&str> {
            self.local.get("row").and_then(|row| row.split_once(' ')).map(|(_, what)| what)
        }
    }

    #[test]
    fn the_later_change_wins_although_its_clock_is_behind() {
        let (mut ahead, mut behind, mut table) = (Replica::ahead(1.0), Replica::default(), Table::new());
        ahead.change(99.0, Some("one"));
        ahead.look(&mut table, 99.0);
        behind.look(&mut table, 99.2);
        assert_eq!(behind.what(), Some("one"));
        // Half a second later by the clock on the wall, and half a second earlier by those of the two.
        behind.change(99.5, None);
        behind.look(&mut table, 99.5);
        ahead.look(&mut table, 99.7);
        assert_eq!((ahead.what(), behind.what()), (None, None));
        behind.change(99.8, Some("two"));
        behind.look(&mut table, 99.8);
        ahead.look(&mut table, 99.9);
        assert_eq!(ahead.what(), Some("two"));
    }

    #[test]
    fn who_was_written_over_by_an_older_change_says_it_again() {
        let (mut first, mut second, mut table) = (Replica::ahead(1.0), Replica::default(), Table::new());
        first.change(10.0, Some("first"));
        second.change(10.0, Some("second"));
        first.look(&mut table, 10.0);
        // The second one had looked before the first one wrote, and writes after it.
        let mut empty = Table::new();
        second.look(&mut empty, 10.0);
        table.append(&mut empty);
        for turn in 0..3 {
            let now = 10.25 + f64::from(turn);
            first.look(&mut table, now);
            second.look(&mut table, now);
        }
        assert_eq!((first.what(), second.what()), (Some("first"), Some("first")));
    }

    #[test]
    fn a_change_made_without_redis_outlives_a_restart() {
        let (mut first, mut second, mut table) = (Replica::default(), Replica::default(), Table::new());
        first.change(10.0, Some("old"));
        first.look(&mut table, 10.0);
        second.look(&mut table, 10.2);
        second.change(20.0, Some("new"));
        second.known = Known::default();
        second.look(&mut table, 30.0);
        first.look(&mut table, 30.1);
        assert_eq!((first.what(), second.what()), (Some("new"), Some("new")));
        // What others changed later still wins over what a restarted one has.
        first.change(40.0, Some("newest"));
        first.look(&mut table, 40.0);
        second.known = Known::default();
        second.look(&mut table, 40.1);
        assert_eq!(second.what(), Some("newest"));
    }
}
