//! Which features do not have the history yet that their window asks for: those that a change of schema brought.
//!
//! Schema and moments enter, what warms and until when leaves. Known by the definition's hash, kept in `features.json` of the data
//! directory and, over Redis, in a table that all scorers share. What an installation began with counts as warm: nobody has more
//! history than it has. A feature that was dropped and comes back begins anew.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use telltale_features::file::{self, Readers};
use telltale_features::schema::Schema;
use telltale_features::store::redis::{RedisStore, TableError};
use telltale_features::time::Timestamp;

/// File in the data directory.
const FILE: &str = "features.json";
/// Table that scorers share.
const TABLE: &str = "features";
/// Since when: since the beginning.
const ALWAYS: i64 = 0;

/// One feature of the schema.
#[derive(Clone, Debug)]
struct Feature {
    name: String,
    hash: String,
    window_us: i64,
}

/// A feature that warms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warm {
    /// Its name.
    pub name: String,
    /// When its window will have passed.
    pub until: Timestamp,
}

/// Since when each feature of the schema is counted.
#[derive(Debug)]
pub struct Warming {
    path: PathBuf,
    features: Vec<Feature>,
    since: Mutex<BTreeMap<String, i64>>,
    /// When the last of them will be warm, microseconds since 1970: asked with every transaction.
    ends: AtomicI64,
    /// Nothing was known here before this start.
    fresh: bool,
}

impl Warming {
    /// What the data directory knows; features that it does not know are counted from `now` on.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read(data: &Path, schema: &Schema, now: Timestamp) -> io::Result<Self> {
        let path = data.join(FILE);
        let known: Option<BTreeMap<String, i64>> = match std::fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| {
                let allowed = "allowed: one object of definition hashes with microseconds since 1970";
                io::Error::new(ErrorKind::InvalidData, format!("`{}`: {error}; {allowed}", path.display()))
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let features = schema.list().into_iter().map(|feature| Feature {
            window_us: i64::try_from(feature.window.unwrap_or_default().as_micros()).unwrap_or(i64::MAX),
            name: feature.name,
            hash: feature.hash,
        });
        let features: Vec<Feature> = features.collect();
        let since = |feature: &Feature| match &known {
            None => ALWAYS,
            Some(known) => known.get(&feature.hash).copied().unwrap_or(now.micros()),
        };
        let since = features.iter().map(|feature| (feature.hash.clone(), since(feature))).collect();
        let warming = Self { path, features, since: Mutex::new(since), ends: AtomicI64::new(0), fresh: known.is_none() };
        warming.ends.store(warming.until(&warming.since.lock()), Ordering::Relaxed);
        Ok(warming)
    }

    /// The same, and the file brought up to date.
    ///
    /// # Errors
    /// As [`Warming::read`], and when the file cannot be written.
    pub fn open(data: &Path, schema: &Schema, now: Timestamp) -> io::Result<Self> {
        let warming = Self::read(data, schema, now)?;
        warming.save()?;
        Ok(warming)
    }

    fn save(&self) -> io::Result<()> {
        let text = {
            let since = self.since.lock();
            self.ends.store(self.until(&since), Ordering::Relaxed);
            serde_json::to_vec_pretty(&*since)?
        };
        file::replace(&self.path, &text, Readers::Umask)
    }

    /// Learns what the other scorers know and tells them the rest: the later moment holds, because until then one of them did not count.
    ///
    /// # Errors
    /// When Redis does not answer; then what is known here holds.
    pub async fn share(&self, store: &RedisStore, now: Timestamp) -> Result<(), TableError> {
        let table = store.table(TABLE).await?;
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<i64>().ok();
        let shared: BTreeMap<&str, i64> = table.rows.iter().filter_map(|(hash, at)| Some((hash.as_str(), number(at)?))).collect();
        let told: Vec<(String, Vec<u8>)> = {
            let mut since = self.since.lock();
            for (hash, at) in since.iter_mut() {
                *at = match shared.get(hash.as_str()) {
                    Some(shared) if self.fresh => *shared,
                    Some(shared) => (*at).max(*shared),
                    None if self.fresh && table.version > 0 => now.micros(),
                    None => *at,
                };
            }
            let changed = since.iter().filter(|(hash, at)| shared.get(hash.as_str()) != Some(at));
            changed.map(|(hash, at)| (hash.clone(), at.to_string().into_bytes())).collect()
        };
        if !told.is_empty() {
            store.write_table(TABLE, &told).await?;
        }
        if let Err(error) = self.save() {
            tracing::error!(%error, "since when features are counted could not be saved");
        }
        Ok(())
    }

    /// History was replayed into the store from that moment on; `whole`: all that the installation ever had.
    pub fn backfilled(&self, from: Timestamp, whole: bool) {
        let from = if whole { ALWAYS } else { from.micros() };
        self.since.lock().values_mut().for_each(|at| *at = (*at).min(from));
        if let Err(error) = self.save() {
            tracing::error!(%error, "since when features are counted could not be saved");
        }
    }

    fn until(&self, since: &BTreeMap<String, i64>) -> i64 {
        let until = |feature: &Feature| {
            let since = since.get(&feature.hash).copied().filter(|since| *since != ALWAYS)?;
            Some(since.saturating_add(feature.window_us))
        };
        self.features.iter().filter_map(until).max().unwrap_or(0)
    }

    /// Whether anything warms at that moment.
    pub fn is_any(&self, now: Timestamp) -> bool {
        self.ends.load(Ordering::Relaxed) > now.micros()
    }

    /// What warms at that moment, in the schema's order.
    pub fn warming(&self, now: Timestamp) -> Vec<Warm> {
        let since = self.since.lock();
        let until = |feature: &Feature| {
            let since = since.get(&feature.hash).copied().filter(|since| *since != ALWAYS)?;
            let until = Timestamp::from_micros(since.saturating_add(feature.window_us));
            (until > now).then(|| Warm { name: feature.name.clone(), until })
        };
        self.features.iter().filter_map(until).collect()
    }

    /// Why a model with these inputs must wait; `None` when it need not.
    pub fn refusal<'a>(&self, inputs: impl Iterator<Item = &'a str>, now: Timestamp) -> Option<String> {
        let warming = self.warming(now);
        let read: Vec<&Warm> = inputs.filter_map(|input| warming.iter().find(|warm| warm.name == input)).collect();
        let last = read.iter().map(|warm| warm.until).max()?;
        let hours = last.micros_since(now) as f64 / 3.6e9;
        let names: Vec<&str> = read.iter().map(|warm| warm.name.as_str()).collect();
        Some(format!("it reads features that have no full window yet ({}); wait {hours:.1} h", some(&names)))
    }
}

/// The first three names, and how many more there are.
pub fn some(names: &[&str]) -> String {
    match names.split_at_checked(3) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_micros(1_767_225_600_000_000 + days * DAY)
    }

    fn schema(windows: &str) -> Schema {
        let shipped = include_str!("../../features/schemas/http.yaml");
        let line = "{name: requests, aggregation: count, windows: [10s, 1m, 10m, 24h]";
        assert!(shipped.contains(line));
        let text = shipped.replacen(line, &format!("{{name: requests, aggregation: count, windows: [{windows}]"), 1);
        Schema::from_sources(&[("http.yaml".to_owned(), text)]).unwrap()
    }

    fn names(warming: &Warming, now: Timestamp) -> Vec<String> {
        warming.warming(now).into_iter().map(|warm| warm.name).collect()
    }

    #[test]
    fn a_new_feature_warms_until_its_window_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (schema("10s, 1m, 10m, 24h"), schema("10s, 1m, 10m, 7d"));
        assert!(names(&Warming::open(folder.path(), &old, at(0)).unwrap(), at(0)).is_empty(), "an installation begins warm");
        Warming::open(folder.path(), &new, at(10)).unwrap();
        let again = Warming::open(folder.path(), &new, at(12)).unwrap();
        assert_eq!(names(&again, at(12)), ["address.requests_7d"]);
        assert_eq!(again.warming(at(12))[0].until, at(17));
        assert!(again.is_any(at(12)) && !again.is_any(at(17)));
        assert!(names(&again, at(17)).is_empty());
        let why = again.refusal(["address.requests_7d", "address.requests_1m"].into_iter(), at(12)).unwrap();
        assert!(why.contains("address.requests_7d") && why.contains("120.0 h"), "{why}");
        assert_eq!(again.refusal(["address.requests_1m"].into_iter(), at(12)), None);
        // What was dropped begins anew.
        assert_eq!(names(&Warming::open(folder.path(), &old, at(20)).unwrap(), at(20)), ["address.requests_24h"]);
    }

    #[test]
    fn replayed_history_warms() {
        let folder = tempfile::tempdir().unwrap();
        Warming::open(folder.path(), &schema("10m"), at(0)).unwrap();
        let warming = Warming::open(folder.path(), &schema("10m, 7d"), at(10)).unwrap();
        warming.backfilled(at(5), false);
        assert_eq!(warming.warming(at(10))[0].until, at(12));
        warming.backfilled(at(8), true);
        assert!(names(&warming, at(10)).is_empty() && !warming.is_any(at(10)));
        assert!(names(&Warming::open(folder.path(), &schema("10m, 7d"), at(10)).unwrap(), at(10)).is_empty(), "it is kept");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "[]").unwrap();
        let error = Warming::open(folder.path(), &schema("10m"), at(0)).unwrap_err().to_string();
        assert!(error.contains("features.json") && error.contains("allowed"), "{error}");
    }
}
