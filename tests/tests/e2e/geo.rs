//! Databases of places: what a transaction lacks is filled in before the door, what it says stands, files are replaced while it scores,
//! and a replay needs none of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use telltale_features::domain::{Source, Transaction, Value};
use telltale_proto::v1::{self, Verdict};
use telltale_service::geo::Geo;
use telltale_tests::http::Http;
use telltale_tests::mmdb::{BUILT, Mmdb};
use telltale_tests::stand::Scorer;

use crate::stage::{score, telltale, telltale_ok, within};

/// Degrees north and east.
const BERLIN: (f64, f64) = (52.52, 13.405);
const SYDNEY: (f64, f64) = (-33.868, 151.207);

fn city(country: &str, (latitude, longitude): (f64, f64)) -> serde_json::Value {
    json!({
        "city": {"names": {"en": "a city with a name that is longer than twenty-nine bytes"}},
        "country": {"geoname_id": 1, "iso_code": country, "is_in_european_union": false},
        "location": {"accuracy_radius": 20, "latitude": latitude, "longitude": longitude, "time_zone": "Etc/UTC"},
    })
}

fn cities(version: u16) -> Mmdb {
    let cities = Mmdb::new("Test-City", version).with("192.0.2.0/24", &city("DE", BERLIN)).with("198.51.100.0/25", &city("au", SYDNEY));
    if version == 4 { cities } else { cities.with("2001:db8:7::/48", &city("JP", (35.0, 135.5))) }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(paths: &[PathBuf]) -> Arc<Geo> {
    Geo::open(paths).unwrap().unwrap()
}

fn from(ip: &str) -> Transaction {
    Transaction { source: Source { ip: ip.to_owned(), ..Source::default() }, ..Transaction::default() }
}

type Found = (Option<f64>, Option<f64>, String, u32);

fn located(geo: &Geo, mut tx: Transaction) -> Found {
    geo.locate(&mut tx);
    let number = |name: &str| match tx.attributes.get(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    (number("latitude"), number("longitude"), tx.source.country.clone(), tx.source.asn)
}

fn none() -> Found {
    (None, None, String::new(), 0)
}

#[test]
fn addresses_of_both_families_are_found_and_what_is_said_stands() {
    let folder = tempfile::tempdir().unwrap();
    let geo = open(&[write(folder.path(), "city.mmdb", &cities(6).bytes())]);
    let berlin: Found = (Some(BERLIN.0), Some(BERLIN.1), "DE".to_owned(), 0);
    assert_eq!(located(&geo, from("192.0.2.9")), berlin);
    assert_eq!(located(&geo, from("::ffff:192.0.2.9")), berlin, "an IPv4 address however it is written");
    assert_eq!(located(&geo, from("2001:db8:7:1::9")), (Some(35.0), Some(135.5), "JP".to_owned(), 0));
    assert_eq!(located(&geo, from("198.51.100.4")), (Some(SYDNEY.0), Some(SYDNEY.1), "AU".to_owned(), 0));
    for unknown in ["198.51.100.200", "10.0.0.1", "2001:db8:8::1", "::1", "", "no address"] {
        assert_eq!(located(&geo, from(unknown)), none(), "{unknown}");
    }
    assert_eq!(geo.figures(), [("hit", 4), ("miss", 4), ("failed", 0), ("given", 0)], "what is no address is not looked up");

    // One coordinate is as good as a place of its own: two halves of different places would be a third one.
    let mut tx = from("192.0.2.9");
    tx.attributes.insert("latitude".to_owned(), Value::Number(1.0));
    assert_eq!(located(&geo, tx.clone()), (Some(1.0), None, "DE".to_owned(), 0));
    tx.attributes.insert("longitude".to_owned(), Value::Number(2.0));
    (tx.source.country, tx.source.asn) = ("FR".to_owned(), 64_500);
    assert_eq!(located(&geo, tx), (Some(1.0), Some(2.0), "FR".to_owned(), 64_500));
    assert_eq!(geo.figures()[3], ("given", 1));

    // A transaction that is full is not made too large for the door.
    let mut full = from("192.0.2.9");
    full.attributes = (0..63).map(|number| (format!("a{number}"), Value::Flag(true))).collect();
    assert_eq!(located(&geo, full), (None, None, "DE".to_owned(), 0));

    let old = open(&[write(folder.path(), "four.mmdb", &cities(4).bytes())]);
    assert_eq!(located(&old, from("192.0.2.9")), berlin);
    assert_eq!(located(&old, from("2001:db8:7:1::9")), none(), "a database of IPv4 knows no other address");
    assert_eq!(old.figures()[2], ("failed", 0));
}

#[test]
fn several_databases_complete_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let country = Mmdb::new("Test-Country", 6).with("192.0.2.0/24", &json!({"country": {"iso_code": "DE"}}));
    let system = Mmdb::new("Test-ASN", 6).with("192.0.0.0/16", &json!({"autonomous_system_number": 64_501, "country": {"iso_code": "XX"}}));
    let country = write(folder.path(), "country.mmdb", &country.bytes());
    let system = write(folder.path(), "asn.mmdb", &system.bytes());
    assert_eq!(located(&open(std::slice::from_ref(&country)), from("192.0.2.9")), (None, None, "DE".to_owned(), 0));
    let both = open(&[country, system]);
    assert_eq!(located(&both, from("192.0.2.9")), (None, None, "DE".to_owned(), 64_501), "the first is believed");
    assert_eq!(located(&both, from("192.0.7.9")), (None, None, "XX".to_owned(), 64_501));
    assert_eq!(both.built(), BUILT);
    // Off the globe, three letters, no number: nothing of it is a place.
    let odd = json!({"country": {"iso_code": "DEU"}, "location": {"latitude": 91.5, "longitude": 3.5}, "autonomous_system_number": 0});
    let odd = Mmdb::new("Odd", 6).with("192.0.2.0/24", &odd).with("192.0.3.0/24", &city("DE", BERLIN));
    let odd = open(&[write(folder.path(), "odd.mmdb", &odd.bytes())]);
    assert_eq!(located(&odd, from("192.0.2.9")), none());
    let shape = json!({"location": {"latitude": "north", "longitude": "east"}});
    let shape = Mmdb::new("Shape", 6).with("192.0.2.0/24", &shape).with("192.0.3.0/24", &city("DE", BERLIN));
    let shape = open(&[write(folder.path(), "shape.mmdb", &shape.bytes())]);
    assert_eq!(located(&shape, from("192.0.2.9")), none());
    assert_eq!(shape.figures()[2], ("failed", 1));
}

/// File, its bytes, and what is said of it.
type Case<'a> = (&'a str, Option<&'a [u8]>, &'a [&'a str]);

#[test]
fn what_is_no_database_of_places_is_refused_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = cities(6).bytes();
    let domains = Mmdb::new("Test-Domain", 6).with("192.0.2.0/24", &json!({"domain": "example.org"}));
    let cases: [Case<'_>; 5] = [
        ("absent.mmdb", None, &["absent.mmdb", "geo.databases", "No such file"]),
        ("text.mmdb", Some(b"not a database"), &["text.mmdb", "no MaxMind-format database"]),
        ("empty.mmdb", Some(b""), &["empty.mmdb", "no MaxMind-format database"]),
        ("cut.mmdb", Some(&whole[whole.len() / 2..]), &["cut.mmdb", "damaged"]),
        ("domain.mmdb", Some(&domains.bytes()), &["domain.mmdb", "Test-Domain", "no location data", "location.latitude"]),
    ];
    for (name, bytes, parts) in cases {
        let path = folder.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let config = write(folder.path(), "telltale.toml", format!("[geo]\ndatabases = [{path:?}]\n").as_bytes());
        let output = telltale(&["config", "check", config.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{name}: {said}");
        for part in parts {
            assert!(said.contains(part), "{name}: `{said}` lacks `{part}`");
        }
    }
    let good = write(folder.path(), "good.mmdb", &whole);
    let config = write(folder.path(), "telltale.toml", format!("[geo]\ndatabases = [{good:?}]\n").as_bytes());
    telltale_ok(&["config", "check", config.to_str().unwrap()]);
}

#[test]
fn a_damaged_byte_is_refused_or_changes_what_is_found_and_never_more() {
    let folder = tempfile::tempdir().unwrap();
    let whole = cities(6).bytes();
    let path = folder.path().join("damaged.mmdb");
    std::fs::write(&path, &whole).unwrap();
    assert!(Geo::open(std::slice::from_ref(&path)).is_ok());
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        match Geo::open(std::slice::from_ref(&path)) {
            Err(_) => refused += 1,
            Ok(geo) => {
                for ip in ["192.0.2.9", "198.51.100.4", "2001:db8:7:1::9", "10.0.0.1", "ffff::1"] {
                    let (latitude, longitude, country, _) = located(geo.as_ref().unwrap(), from(ip));
                    assert!(latitude.is_none_or(|north| north.abs() <= 90.0) && longitude.is_none_or(|east| east.abs() <= 180.0));
                    assert!(country.is_empty() || country.len() == 2);
                }
            }
        }
    }
    assert!(refused > 0 && refused < whole.len(), "{refused} of {}", whole.len());
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(Geo::open(std::slice::from_ref(&path)).is_err(), "{length} of {} bytes", whole.len());
    }
}

/// A payment of the same customer, `ago` seconds ago.
fn payment(id: &str, ip: &str, ago: i64) -> v1::Transaction {
    let text = |text: &str| v1::Value { kind: Some(v1::value::Kind::Text(text.to_owned())) };
    let amount = v1::Value { kind: Some(v1::value::Kind::Number(12.5)) };
    let now = telltale_features::time::Clock::now(&telltale_service::setup::SystemClock).micros() / 1_000_000;
    v1::Transaction {
        id: id.to_owned(),
        time: Some(pbjson_types::Timestamp { seconds: now - ago, nanos: 0 }),
        source: Some(v1::Source { ip: ip.to_owned(), ..v1::Source::default() }),
        attributes: [("customer".to_owned(), text("anna")), ("amount".to_owned(), amount)].into(),
        service: "pay".to_owned(),
        ..v1::Transaction::default()
    }
}

fn speed(verdict: &Verdict) -> Option<f64> {
    verdict.reasons.iter().find(|reason| reason.feature == "customer.speed").and_then(|reason| reason.value)
}

async fn metric(scorer: &Scorer, line: &str) -> u64 {
    let text = Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    text.lines().find_map(|found| found.strip_prefix(&format!("{line} "))).map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journey_is_seen_files_are_replaced_and_the_replay_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "version: 1\nmode: enforce\nrules:\n  - {id: GEO-1, name: Far, when: 'customer.speed > 1.0', action: log, score: 5, \
                  reason: \"{customer.speed} km/h\"}\n  - {id: GEO-2, name: Abroad, when: 'source.country == \"AU\"', action: log, score: 5, \
                  reason: \"from Australia\"}\n";
    let policy = write(folder.path(), "policy.yaml", policy.as_bytes());
    let database = write(folder.path(), "city.mmdb", &cities(6).bytes());
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../features/schemas/payments.yaml");
    let sections = format!("[schema]\npath = {schema:?}\n[policy]\npath = {policy:?}\n[geo]\ndatabases = [{database:?}]\n");
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let client = scorer.client().await;
    assert_eq!(speed(&score(&client, payment("a", "192.0.2.9", 1_800)).await.unwrap()), None);
    let far = score(&client, payment("b", "198.51.100.4", 900)).await.unwrap();
    // 16,090 km by the great circle, in a quarter of an hour.
    assert!(speed(&far).is_some_and(|speed| (60_000.0..68_000.0).contains(&speed)), "{far:?}");
    assert!(far.rules.iter().any(|rule| rule.id == "GEO-2"), "{far:?}");
    assert_eq!(metric(&scorer, "telltale_geo_lookups{result=\"hit\"}").await, 2);

    // Another edition: Sydney's addresses are Berlin's now.
    let moved = Mmdb::new("Test-City", 6).with("198.51.100.0/24", &city("DE", BERLIN));
    let staged = write(folder.path(), "staged", &moved.bytes());
    std::fs::rename(staged, &database).unwrap();
    within(Duration::from_secs(20), "the new database in force", || async {
        metric(&scorer, "telltale_geo_reloads_total{result=\"changed\"}").await == 1
    })
    .await;
    let back = score(&client, payment("c", "198.51.100.4", 600)).await.unwrap();
    assert!(speed(&back).is_some_and(|speed| speed > 100_000.0), "{back:?}");
    assert!(!back.rules.iter().any(|rule| rule.id == "GEO-2"), "{back:?}");
    // A damaged one is not used.
    std::fs::write(&database, b"half a file").unwrap();
    within(Duration::from_secs(20), "the damaged database refused", || async {
        metric(&scorer, "telltale_geo_reloads_total{result=\"refused\"}").await == 1
    })
    .await;
    assert_eq!(speed(&score(&client, payment("d", "198.51.100.4", 300)).await.unwrap()), None, "Berlin again, so nobody moved");
    assert_eq!(metric(&scorer, "telltale_geo_lookups{result=\"hit\"}").await, 4);
    scorer.process.signal(Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());

    std::fs::remove_file(&database).unwrap();
    let printed = telltale_ok(&[
        "replay",
        scorer.data.join("journal").to_str().unwrap(),
        "--config",
        scorer.config.to_str().unwrap(),
        "--key-from",
        scorer.data.to_str().unwrap(),
        "--output",
        "json",
    ]);
    let summary: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    let count = |name: &str| summary["compared"][name].as_u64().unwrap();
    assert_eq!((count("decisions"), count("different_vectors"), count("different_decisions"), count("missing")), (4, 0, 0, 0));
}
