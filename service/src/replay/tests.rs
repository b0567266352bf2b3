//! Replay of lines: what is read, what is counted, and that threads change nothing.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use telltale_features::time::ManualClock;
use telltale_proto::{json, v1};

use super::*;
use crate::config::Config;
use crate::journal::Journal;
use crate::score::Engine;
use crate::{convert, setup, token};

fn engine() -> Arc<Engine> {
    let hasher = token::replay_keyring().hasher();
    setup::engine(&Config::default(), 2, hasher, Arc::new(ManualClock::default()), Journal::default()).unwrap()
}

fn options(input: &Path) -> ReplayOptions {
    ReplayOptions {
        input: input.to_path_buf(),
        format: Format::Ndjson,
        strict: false,
        threads: 1,
        verdicts: None,
        features: None,
        progress: false,
        recorded_policy: true,
    }
}

fn at(second: i64) -> Option<pbjson_types::Timestamp> {
    Some(pbjson_types::Timestamp { seconds: 1_790_000_000 + second, nanos: 0 })
}

fn transaction(number: i64) -> v1::Record {
    v1::Record {
        kind: Some(v1::record::Kind::Transaction(v1::Transaction {
            id: format!("t{number}"),
            time: at(number),
            source: Some(v1::Source { ip: format!("192.0.2.{}", number % 7), ..Default::default() }),
            http: Some(v1::HttpRequest {
                method: "GET".to_owned(),
                path: format!("/api/orders/{}", number % 50),
                version: "1.1".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        })),
    }
}

fn outcome(number: i64) -> v1::Record {
    let response = Some(v1::HttpResponse { status: if number % 3 == 0 { 404 } else { 200 }, ..Default::default() });
    v1::Record {
        kind: Some(v1::record::Kind::Outcome(v1::Outcome {
            transaction_id: format!("t{number}"),
            time: at(number),
            response,
            ..Default::default()
        })),
    }
}

fn label(number: i64) -> v1::Record {
    v1::Record {
        kind: Some(v1::record::Kind::Label(v1::Label {
            transaction_id: format!("t{number}"),
            time: at(10_000),
            kind: v1::LabelKind::Abuse.into(),
            detail: "scraping".to_owned(),
            ..Default::default()
        })),
    }
}

/// Two thousand transactions with outcomes (every ninth before its transaction), repetitions, labels and bad lines.
fn traffic() -> String {
    let mut lines = Vec::new();
    for number in 0..2_000 {
        let (tx, answer) = (json::write(&transaction(number)).unwrap(), json::write(&outcome(number)).unwrap());
        if number % 9 == 0 {
            lines.extend([answer, tx])
        } else {
            lines.extend([tx, answer])
        }
        if number % 100 == 0 {
            lines.push(json::write(&transaction(number)).unwrap());
            lines.push(json::write(&label(number)).unwrap());
        }
    }
    lines.insert(10, "{\"transaction\": 7}".to_owned());
    lines.insert(20, "{\"transaction\":{\"id\":\"\"}}".to_owned());
    lines.insert(30, String::new());
    lines.join("\n")
}

#[test]
fn lines_are_scored_joined_and_counted_and_threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("traffic.ndjson");
    std::fs::write(&plain, traffic()).unwrap();
    let packed = folder.path().join("traffic.ndjson.gz");
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&packed).unwrap(), flate2::Compression::fast());
    gzip.write_all(traffic().as_bytes()).unwrap();
    gzip.finish().unwrap();
    let mut files = Vec::new();
    for (input, threads) in [(&plain, 1), (&plain, 2), (&packed, 3)] {
        let (verdicts, features) = (folder.path().join("v"), folder.path().join("f"));
        let options = ReplayOptions { threads, verdicts: Some(verdicts.clone()), features: Some(features.clone()), ..options(input) };
        let engine = engine();
        let summary = replay(&engine, &options).unwrap();
        assert_eq!((summary.transactions, summary.outcomes, summary.labels), (2_000, 2_000, 20));
        assert_eq!((summary.duplicates, summary.unmatched, summary.malformed), (20, 0, 2));
        assert_eq!(summary.malformed_first.iter().map(|bad| bad.line).collect::<Vec<_>>(), [11, 21]);
        assert!(summary.malformed_first[1].message.contains("transaction.id"), "{:?}", summary.malformed_first);
        assert_eq!(summary.by_label["abuse scraping"].transactions, 20);
        files.push((std::fs::read(verdicts).unwrap(), std::fs::read(features).unwrap(), engine.store.digest()));
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]), "threads or compression changed a result");
    assert_eq!(files[0].0.iter().filter(|byte| **byte == b'\n').count(), 2_000);
}

#[test]
fn strict_stops_at_the_line_and_unknown_fields_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.ndjson");
    let good = json::write(&transaction(1)).unwrap();
    std::fs::write(&path, format!("{good}\n{}\n", good.replace("\"id\"", "\"colour\":\"red\",\"id\""))).unwrap();
    assert_eq!(replay(&engine(), &options(&path)).unwrap().unknown_fields, 1);
    let error = replay(&engine(), &ReplayOptions { strict: true, ..options(&path) }).unwrap_err().to_string();
    assert!(error.contains("x.ndjson`, line 2") && error.contains("transaction.colour"), "{error}");
    let journal = folder.path().join("x.ttj");
    std::fs::write(&journal, &good).unwrap();
    let error = replay(&engine(), &options(&journal)).unwrap_err().to_string();
    assert!(error.contains("x.ttj") && error.contains("does not begin as a journal"), "{error}");
    let error = replay(&engine(), &options(&folder.path().join("absent"))).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn access_logs_become_transactions_with_their_answers() {
    let line = r#"203.0.113.9 - anna [10/Oct/2025:13:55:36 +0200] "GET /a%20b?q=\"x\" HTTP/1.1" 404 123 "-" "curl/8.5 \x41""#;
    let tx = access_log::combined(line, 3).unwrap();
    let http = tx.http.as_ref().unwrap();
    assert_eq!((http.method.as_str(), http.path.as_str(), http.query.as_str(), http.version.as_str()), ("GET", "/a%20b", "q=\"x\"", "1.1"));
    assert_eq!(tx.response.as_ref().unwrap().status, 404);
    assert_eq!(tx.time.as_ref().unwrap().seconds, 1_760_097_336);
    assert_eq!((http.headers.len(), http.headers[0].value.as_str()), (1, "curl/8.5 A"));
    assert_eq!(tx.identity.as_ref().unwrap().user, "anna");
    let garbage = r#"203.0.113.9 - - [10/Oct/2025:13:55:36 +0000] "\x16\x03\x01" 400 0 "-" "-""#;
    assert_eq!(access_log::combined(garbage, 1).unwrap().http.unwrap().path, "\u{16}\u{3}\u{1}");
    for (line, part) in [
        ("", "client address"),
        ("1.2.3.4 - -", "time"),
        ("1.2.3.4 - - [now] \"\" 1", "now"),
        ("1.2.3.4 - - [10/Oct/2025:13:55:36 +0000] \"GET / HTTP/1.1\" x 1", "status"),
    ] {
        let error = access_log::combined(line, 1).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
    let line = r#"{"remote_addr":"203.0.113.9","time_iso8601":"2025-10-10T13:55:36+02:00","request":"POST /login HTTP/1.1","status":"401","body_bytes_sent":"9","http_user_agent":"x","request_time":"0.25","extra":1}"#;
    let tx = access_log::nginx_json(line, 1).unwrap();
    let answer = tx.response.unwrap();
    assert_eq!((answer.status, answer.body_size, answer.duration_us), (401, 9, 250_000));
    assert!(access_log::nginx_json("{}", 1).unwrap_err().contains("remote_addr"));
}

#[test]
fn a_log_is_replayed_with_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let line =
        |second: u32| format!("192.0.2.1 - - [10/Oct/2025:13:55:{second:02} +0000] \"GET /x{second} HTTP/1.1\" 200 5 \"-\" \"curl/8\"\n");
    std::fs::write(&path, (0..50).map(line).collect::<String>() + "rubbish\n").unwrap();
    let summary = replay(&engine(), &ReplayOptions { format: Format::Combined, ..options(&path) }).unwrap();
    assert_eq!((summary.transactions, summary.outcomes, summary.malformed), (50, 50, 1));
    assert!(summary.table().contains("line 51"), "{}", summary.table());
}

#[test]
fn what_goes_through_the_journal_comes_back_unchanged() {
    let engine = engine();
    let Some(v1::record::Kind::Transaction(wire)) = transaction(5).kind else { unreachable!() };
    let (tx, _) = convert::transaction(wire, "transaction").unwrap();
    let admitted = engine.door.admit(tx).unwrap();
    let time = admitted.tx.time;
    let back = convert::admitted(convert::observed(&admitted, time, &engine.schema), &engine.schema).unwrap();
    assert_eq!(back, admitted);
}
