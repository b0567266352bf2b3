//! Where a client address is: MaxMind-format databases, asked before the door for what the transaction does not say itself.
//!
//! A transaction enters and leaves with coordinates, country and autonomous system filled in, so that everything later, the journal
//! included, holds them and replay needs no database. What the gateway says is never replaced, and an address that no database
//! knows changes nothing. Files are checked as a whole before they serve and are replaced in one step.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use parking_lot::Mutex;
use serde::Deserialize;
use telltale_features::domain::limits::ATTRIBUTES;
use telltale_features::domain::{Source, Transaction, Value, Values};

use crate::stamp::{Stamp, stamps};

/// Attribute that holds degrees north.
pub const LATITUDE: &str = "latitude";
/// Attribute that holds degrees east.
pub const LONGITUDE: &str = "longitude";
/// Records looked at to tell what a database has, once one told a place; where none does, all of them.
const SAMPLE: usize = 100_000;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// It cannot be read.
    #[error("`geo.databases`: cannot read `{}`: {source}; allowed: files in the MaxMind format (.mmdb)", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is none, or damaged.
    #[error("`geo.databases`: `{}` is no MaxMind-format database, or is damaged: {source}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: MaxMindDbError,
    },
    /// It is sound and tells nothing that is asked.
    #[error(
        "`geo.databases`: `{}` ({kind}) has no location data; allowed: records with `location.latitude` and `location.longitude`, \
         `country.iso_code` or `autonomous_system_number`",
        path.display()
    )]
    Nothing {
        /// Which.
        path: PathBuf,
        /// What it says it is.
        kind: String,
    },
}

/// What is read of a record; everything else is skipped. The names are those of GeoIP2 and GeoLite2
/// (<https://dev.maxmind.com/geoip/docs/databases>), which others keep.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: Country<'a>,
    location: Location,
    autonomous_system_number: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Country<'a> {
    #[serde(borrow)]
    iso_code: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

/// What databases tell of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place {
    /// Degrees north and east.
    coordinates: Option<(f64, f64)>,
    /// ISO 3166-1 alpha-2, upper case.
    country: Option<[u8; 2]>,
    /// Autonomous system.
    asn: Option<u32>,
}

impl Place {
    /// What of a record is usable: a place off the globe or a country of three letters is none.
    fn of(record: &Record<'_>) -> Self {
        let Location { latitude, longitude } = record.location;
        let on_globe = |(north, east): &(f64, f64)| (-90.0..=90.0).contains(north) && (-180.0..=180.0).contains(east);
        let country = record.country.iso_code.map(str::as_bytes).and_then(|code| <[u8; 2]>::try_from(code).ok());
        Self {
            coordinates: latitude.zip(longitude).filter(on_globe),
            country: country.filter(|code| code.iter().all(u8::is_ascii_alphabetic)).map(|code| code.map(|byte| byte.to_ascii_uppercase())),
            asn: record.autonomous_system_number.filter(|number| *number > 0),
        }
    }

    /// The same, completed by what another database tells.
    fn or(self, other: Self) -> Self {
        Self { coordinates: self.coordinates.or(other.coordinates), country: self.country.or(other.country), asn: self.asn.or(other.asn) }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether another database could add nothing.
    const fn is_complete(&self) -> bool {
        self.coordinates.is_some() && self.country.is_some() && self.asn.is_some()
    }
}

/// One database, whole in memory: a mapped file that is changed in place would change under its readers.
struct Database(Reader<Vec<u8>>);

impl Database {
    fn open(path: &Path) -> Result<Self, GeoError> {
        let damaged = |source| GeoError::Format { path: path.to_path_buf(), source };
        let bytes = std::fs::read(path).map_err(|source| GeoError::Read { path: path.to_path_buf(), source })?;
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        reader.verify().map_err(damaged)?;
        let database = Self(reader);
        let told = database.told().map_err(damaged)?;
        let kind = database.0.metadata().database_type.clone();
        if told.is_empty() {
            return Err(GeoError::Nothing { path: path.to_path_buf(), kind });
        }
        let (coordinates, country, asn) = (told.coordinates.is_some(), told.country.is_some(), told.asn.is_some());
        tracing::info!(path = %path.display(), %kind, coordinates, country, asn, "database of places opened");
        Ok(database)
    }

    /// What its records tell, each by one example.
    fn told(&self) -> Result<Place, MaxMindDbError> {
        let mut told = Place::default();
        for (at, network) in self.0.networks(WithinOptions::default())?.enumerate() {
            // A record of another shape tells nothing; whether the bytes are sound was looked at before.
            let record: Option<Record<'_>> = network?.decode().unwrap_or_default();
            told = told.or(record.as_ref().map(Place::of).unwrap_or_default());
            if told.is_complete() || (at >= SAMPLE && !told.is_empty()) {
                break;
            }
        }
        Ok(told)
    }

    fn find(&self, address: IpAddr) -> Result<Place, MaxMindDbError> {
        if address.is_ipv6() && self.0.metadata().ip_version == 4 {
            return Ok(Place::default());
        }
        let record: Option<Record<'_>> = self.0.lookup(address)?.decode()?;
        Ok(record.as_ref().map(Place::of).unwrap_or_default())
    }
}

/// How look-ups went since the start.
#[derive(Debug, Default)]
struct Counts {
    hit: AtomicU64,
    miss: AtomicU64,
    failed: AtomicU64,
    given: AtomicU64,
}

/// The databases of a configuration.
pub struct Geo {
    paths: Vec<PathBuf>,
    databases: ArcSwap<Vec<Database>>,
    seen: Mutex<Vec<Vec<Stamp>>>,
    /// One at a time: the last file read must be the one in force.
    changing: Mutex<()>,
    counts: Counts,
}

impl Geo {
    /// Opens the databases; of two that tell the same the first is believed. `None` when there are none.
    ///
    /// # Errors
    /// When one cannot be read, is damaged, or tells no place.
    pub fn open(paths: &[PathBuf]) -> Result<Option<Arc<Self>>, GeoError> {
        if paths.is_empty() {
            return Ok(None);
        }
        // Looked at before they are read: what changes meanwhile is read again.
        let seen = Mutex::new(paths.iter().map(|path| stamps(path)).collect());
        let databases = ArcSwap::from_pointee(read(paths)?);
        let (changing, counts) = (Mutex::new(()), Counts::default());
        Ok(Some(Arc::new(Self { paths: paths.to_vec(), databases, seen, changing, counts })))
    }

    /// Fills in what the transaction does not say of its client address: both coordinates or neither, country, autonomous system.
    pub fn locate(&self, tx: &mut Transaction) {
        let coordinates = !tx.attributes.contains_key(LATITUDE) && !tx.attributes.contains_key(LONGITUDE);
        if !coordinates && !tx.source.country.is_empty() && tx.source.asn != 0 {
            self.counts.given.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Ok(address) = tx.source.ip.parse::<IpAddr>() else { return };
        let (place, failed) = self.find(address.to_canonical());
        let outcome = match (failed, place.is_empty()) {
            (_, false) => &self.counts.hit,
            (true, true) => &self.counts.failed,
            (false, true) => &self.counts.miss,
        };
        outcome.fetch_add(1, Ordering::Relaxed);
        complete(&mut tx.source, &place);
        if coordinates {
            add_coordinates(&mut tx.attributes, &place);
        }
    }

    fn find(&self, address: IpAddr) -> (Place, bool) {
        let (mut place, mut failed) = (Place::default(), false);
        for database in self.databases.load().iter() {
            match database.find(address) {
                Ok(found) => place = place.or(found),
                Err(_) => failed = true,
            }
            if place.is_complete() {
                break;
            }
        }
        (place, failed)
    }

    /// Whether a file has changed since it was last looked at.
    pub fn has_changed(&self) -> bool {
        let now: Vec<Vec<Stamp>> = self.paths.iter().map(|path| stamps(path)).collect();
        let mut seen = self.seen.lock();
        let changed = *seen != now;
        *seen = now;
        changed
    }

    /// Reads all files again and puts them in force together; on an error the old ones stay.
    ///
    /// # Errors
    /// As [`Geo::open`].
    pub fn reload(&self) -> Result<(), GeoError> {
        let _one_at_a_time = self.changing.lock();
        self.databases.store(Arc::new(read(&self.paths)?));
        Ok(())
    }

    /// Look-ups since the start, by how they went: an address was known, was not, its record could not be read, or the transaction
    /// said everything itself.
    pub fn figures(&self) -> [(&'static str, u64); 4] {
        let Counts { hit, miss, failed, given } = &self.counts;
        [("hit", hit), ("miss", miss), ("failed", failed), ("given", given)].map(|(what, count)| (what, count.load(Ordering::Relaxed)))
    }

    /// When the oldest of the databases was built, seconds since 1970.
    pub fn built(&self) -> u64 {
        self.databases.load().iter().map(|database| database.0.metadata().build_epoch).min().unwrap_or_default()
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<Database>, GeoError> {
    paths.iter().map(|path| Database::open(path)).collect()
}

fn complete(source: &mut Source, place: &Place) {
    if let (true, Some(country)) = (source.country.is_empty(), place.country) {
        source.country = country.iter().copied().map(char::from).collect();
    }
    if source.asn == 0 {
        source.asn = place.asn.unwrap_or_default();
    }
}

/// Both or neither; a transaction that has hardly room for attributes is not refused for what was added here.
fn add_coordinates(attributes: &mut Values, place: &Place) {
    if let Some((north, east)) = place.coordinates.filter(|_| attributes.len() + 2 <= ATTRIBUTES) {
        attributes.insert(LATITUDE.to_owned(), Value::Number(north));
        attributes.insert(LONGITUDE.to_owned(), Value::Number(east));
    }
}
