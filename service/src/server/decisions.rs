//! Standing decisions: overrides by people and active denials by rules, versioned, pushed to every stream, saved, in force again
//! after a restart.
//!
//! Changes enter, deltas or whole tables leave. What decides live transactions is the snapshot in force (overrides) and policy
//! state (denials); this table is what enforcement points hold when the scorer is away.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use telltale_features::file::{self, Readers};
use telltale_features::schema::{Normalization, Place, Schema};
use telltale_features::time::Timestamp;
use telltale_policy::NewDenial;
use telltale_proto::{json, v1};
use tokio::sync::watch;

use crate::convert;
use crate::verdict::bare_mitigation;

/// Changes kept for streams that lag; one that lags more gets the whole table.
const CHANGES: usize = 4_096;
/// Most standing denials; beyond, the one that ends first makes room. Overrides are never given up.
const DENIALS: usize = 100_000;

/// The table.
pub struct Decisions {
    inner: Mutex<Inner>,
    saving: Mutex<()>,
    version: watch::Sender<u64>,
    file: Option<PathBuf>,
    selectors: Vec<v1::EntitySelector>,
    hash_key: [u8; 32],
}

#[derive(Default)]
struct Inner {
    version: u64,
    table: BTreeMap<String, v1::Decision>,
    changes: VecDeque<(u64, String)>,
    unsaved: bool,
}

impl Decisions {
    /// The table saved in that file, or an empty one; what has ended is left out.
    ///
    /// # Errors
    /// When the file cannot be read or a line of it is no decision.
    pub fn open(file: Option<PathBuf>, schema: &Schema, hash_key: [u8; 32], now: Timestamp) -> io::Result<Self> {
        let table = match &file {
            Some(path) if path.exists() => read(path, now)?,
            _ => BTreeMap::new(),
        };
        // Versions only grow, over restarts too: what a proxy holds from before must never look current by chance.
        let version = u64::try_from(now.micros()).unwrap_or_default().max(1);
        let inner = Inner { version, table, ..Inner::default() };
        let selectors = schema.selectors().iter().map(selector).collect();
        Ok(Self { inner: Mutex::new(inner), saving: Mutex::new(()), version: watch::Sender::new(version), file, selectors, hash_key })
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What somebody who holds that version lacks; `None` when it is current.
    pub fn since(&self, held: u64) -> Option<v1::StreamResponse> {
        let inner = self.inner.lock();
        if held == inner.version {
            return None;
        }
        let complete = held < inner.version && inner.changes.front().is_some_and(|(oldest, _)| *oldest <= held + 1);
        if !complete {
            return Some(v1::StreamResponse {
                version: inner.version,
                snapshot: true,
                decisions: inner.table.values().cloned().collect(),
                removed: Vec::new(),
                selectors: self.selectors.clone(),
                hash_key: self.hash_key.to_vec().into(),
            });
        }
        let mut ids: Vec<&String> = inner.changes.iter().filter(|(version, _)| *version > held).map(|(_, id)| id).collect();
        ids.sort();
        ids.dedup();
        let (present, gone): (Vec<&String>, Vec<&String>) = ids.into_iter().partition(|id| inner.table.contains_key(*id));
        Some(v1::StreamResponse {
            version: inner.version,
            snapshot: false,
            decisions: present.into_iter().filter_map(|id| inner.table.get(id).cloned()).collect(),
            removed: gone.into_iter().cloned().collect(),
            selectors: Vec::new(),
            hash_key: Default::default(),
        })
    }

    /// Sets an override, or removes the one of that identifier, and saves the table before it returns.
    ///
    /// # Errors
    /// When the table cannot be saved; the change holds all the same until a restart.
    pub fn set(&self, id: &str, decision: Option<v1::Decision>) -> io::Result<()> {
        self.set_all([(id.to_owned(), decision)])
    }

    /// As [`Decisions::set`], of several; the table is saved once.
    ///
    /// # Errors
    /// When the table cannot be saved; the changes hold all the same until a restart.
    pub fn set_all(&self, changes: impl IntoIterator<Item = (String, Option<v1::Decision>)>) -> io::Result<()> {
        let mut changed = false;
        {
            let mut inner = self.inner.lock();
            for (id, decision) in changes {
                match decision {
                    Some(decision) => {
                        inner.table.insert(id.clone(), decision);
                    }
                    None if inner.table.remove(&id).is_none() => continue,
                    None => {}
                }
                self.changed(&mut inner, id);
                changed = true;
            }
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Takes the denials that a decision starts. Saved by the next [`Decisions::tick`].
    pub fn deny(&self, denials: &[NewDenial], schema: &Schema, now: Timestamp) {
        if denials.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        for denial in denials {
            let decision = denial_to_proto(denial, schema, now);
            let known = inner.table.get(&decision.id);
            // One that already holds as long, to the second, is no news: a flood must not become a flood of pushes.
            let same = known.is_some_and(|known| {
                let until = |decision: &v1::Decision| decision.until.as_ref().map_or(0, |until| until.seconds);
                known.action == decision.action && until(known) + 1 >= until(&decision)
            });
            if !same {
                let id = decision.id.clone();
                inner.table.insert(id.clone(), decision);
                self.changed(&mut inner, id);
            }
        }
        inner.make_room();
    }

    /// Drops what has ended and saves what changed.
    ///
    /// # Errors
    /// When the table cannot be saved.
    pub fn tick(&self, now: Timestamp) -> io::Result<()> {
        let unsaved = {
            let mut inner = self.inner.lock();
            inner.table.retain(|_, decision| !has_ended(decision, now));
            std::mem::take(&mut inner.unsaved)
        };
        if unsaved { self.save() } else { Ok(()) }
    }

    /// The one of that identifier.
    pub fn find(&self, id: &str) -> Option<v1::Decision> {
        self.inner.lock().table.get(id).cloned()
    }

    /// All of them, newest first.
    pub fn list(&self) -> Vec<v1::Decision> {
        let mut all: Vec<v1::Decision> = self.inner.lock().table.values().cloned().collect();
        all.sort_by_key(|decision| std::cmp::Reverse(decision.created.as_ref().map_or((0, 0), |at| (at.seconds, at.nanos))));
        all
    }

    /// How many overrides and how many denials stand.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let denials = inner.table.values().filter(|decision| decision.origin == v1::DecisionOrigin::Rule as i32).count();
        (inner.table.len() - denials, denials)
    }

    fn changed(&self, inner: &mut Inner, id: String) {
        inner.version += 1;
        inner.unsaved = true;
        let version = inner.version;
        inner.changes.push_back((version, id));
        if inner.changes.len() > CHANGES {
            inner.changes.pop_front();
        }
        self.version.send_replace(version);
    }

    /// Writes the whole table beside the old one, then renames.
    fn save(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        // One at a time: an older table must not take the place of a newer one.
        let _one_at_a_time = self.saving.lock();
        let mut lines = {
            let mut inner = self.inner.lock();
            inner.unsaved = false;
            inner.table.values().map(json::write).collect::<Result<Vec<String>, _>>().map_err(io::Error::other)?
        };
        lines.push(String::new());
        file::replace(path, lines.join("\n").as_bytes(), Readers::Owner)
    }
}

impl Inner {
    fn make_room(&mut self) {
        if self.table.len() <= DENIALS {
            return;
        }
        let denials = self.table.values().filter(|decision| decision.origin == v1::DecisionOrigin::Rule as i32).count();
        if denials <= DENIALS {
            return;
        }
        let until = |decision: &v1::Decision| decision.until.as_ref().map_or(i64::MAX, |until| until.seconds);
        let ends_first = self.table.iter().filter(|(_, decision)| decision.origin == v1::DecisionOrigin::Rule as i32);
        if let Some(id) = ends_first.min_by_key(|(_, decision)| until(decision)).map(|(id, _)| id.clone()) {
            self.table.remove(&id);
        }
    }
}

/// Whether a decision holds no more.
pub(super) fn has_ended(decision: &v1::Decision, now: Timestamp) -> bool {
    decision.until.as_ref().is_some_and(|until| until.seconds * 1_000_000 + i64::from(until.nanos) / 1_000 <= now.micros())
}

fn read(path: &Path, now: Timestamp) -> io::Result<BTreeMap<String, v1::Decision>> {
    let mut table = BTreeMap::new();
    for (at, line) in std::fs::read_to_string(path)?.lines().enumerate() {
        let (decision, _): (v1::Decision, _) = json::parse(line, json::Unknown::Report)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {error}", path.display(), at + 1)))?;
        if !has_ended(&decision, now) {
            table.insert(decision.id.clone(), decision);
        }
    }
    Ok(table)
}

fn denial_to_proto(denial: &NewDenial, schema: &Schema, now: Timestamp) -> v1::Decision {
    let entity = convert::entity_to_proto(denial.entity, None, schema);
    v1::Decision {
        id: format!("{}/{}/{}", denial.rule, entity.r#type, convert::hex(&entity.key)),
        entity: Some(entity),
        action: convert::action(denial.action).into(),
        mitigation: Some(bare_mitigation(&denial.mitigation)),
        until: Some(convert::timestamp_to_proto(denial.until)),
        reason: denial.reason.clone(),
        origin: v1::DecisionOrigin::Rule.into(),
        author: denial.rule.to_string(),
        created: Some(convert::timestamp_to_proto(now)),
    }
}

fn selector(selector: &telltale_features::schema::Selector) -> v1::EntitySelector {
    use v1::location::Place as Wire;
    let location = |place: &Place| {
        let place = match place {
            Place::Address => Wire::Address(true),
            Place::Header(name) => Wire::Header(name.clone()),
            Place::Cookie(name) => Wire::Cookie(name.clone()),
            Place::Query(name) => Wire::Query(name.clone()),
            _ => return None,
        };
        Some(v1::Location { place: Some(place) })
    };
    let normalization = match selector.normalization {
        Normalization::None | Normalization::Digits => v1::Normalization::Unspecified,
        Normalization::Lowercase => v1::Normalization::Lowercase,
        Normalization::Address => v1::Normalization::Address,
    };
    v1::EntitySelector {
        r#type: selector.entity.clone(),
        locations: selector.places.iter().filter_map(location).collect(),
        normalization: normalization.into(),
    }
}
