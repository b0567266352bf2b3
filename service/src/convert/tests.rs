//! The table of bad input: what is refused with its path, what is cut and counted.

use telltale_proto::v1;

use super::*;

fn good() -> v1::Transaction {
    v1::Transaction {
        id: "a1".to_owned(),
        time: Some(pbjson_types::Timestamp { seconds: 1_790_000_000, nanos: 5_000 }),
        source: Some(v1::Source { ip: "192.0.2.7".to_owned(), port: 4711, ..Default::default() }),
        http: Some(v1::HttpRequest { method: "GET".to_owned(), path: "/".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn number(value: f64) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::Number(value)) }
}

fn refused(change: impl FnOnce(&mut v1::Transaction)) -> String {
    let mut wire = good();
    change(&mut wire);
    transaction(wire, "transaction").unwrap_err().to_string()
}

fn cut_of(change: impl FnOnce(&mut v1::HttpRequest)) -> (telltale_features::domain::HttpRequest, Clamps) {
    let mut wire = good();
    change(wire.http.as_mut().unwrap());
    let (tx, clamps) = transaction(wire, "transaction").unwrap();
    (tx.http.unwrap(), clamps)
}

#[test]
fn a_good_one_passes_unchanged() {
    let (tx, clamps) = transaction(good(), "transaction").unwrap();
    assert_eq!(clamps, Clamps::default());
    assert_eq!(tx.time.micros(), 1_790_000_000_000_005);
    let mut back = transaction_to_proto(&tx);
    back.http.as_mut().unwrap().version = String::new();
    let mut wanted = good();
    wanted.source.as_mut().unwrap().tls = None;
    assert_eq!(back, wanted);
}

#[test]
fn what_the_gateway_controls_is_refused_with_path_value_and_what_is_allowed() {
    type Change = fn(&mut v1::Transaction);
    let cases: [(Change, &[&str]); 16] = [
        (|tx| tx.id.clear(), &["transaction.id", "empty", "1 to 128 bytes"]),
        (|tx| tx.id = "x".repeat(129), &["transaction.id", "129 bytes", "1 to 128"]),
        (|tx| tx.time = None, &["transaction.time", "absent", "1970"]),
        (|tx| tx.time.as_mut().unwrap().seconds = -1, &["transaction.time", "-1 s", "1970-01-01 to 2100"]),
        (|tx| tx.time.as_mut().unwrap().seconds = i64::MAX, &["transaction.time", "2100"]),
        (|tx| tx.time.as_mut().unwrap().nanos = -1, &["transaction.time", "nanoseconds"]),
        (|tx| tx.source.as_mut().unwrap().ip = "here".to_owned(), &["transaction.source.ip", "`here`", "IPv4 or IPv6"]),
        (|tx| tx.source.as_mut().unwrap().port = 70_000, &["transaction.source.port", "70000", "65535"]),
        (|tx| tx.source.as_mut().unwrap().country = "Utopia".to_owned(), &["source.country", "Utopia", "two letters"]),
        (|tx| _ = tx.attributes.insert("amount".to_owned(), number(f64::NAN)), &["attributes.amount", "NaN", "finite"]),
        (|tx| _ = tx.attributes.insert("x".to_owned(), number(f64::INFINITY)), &["attributes.x", "inf", "finite"]),
        (|tx| _ = tx.attributes.insert("amount".to_owned(), number(-3.0)), &["attributes.amount", "-3", "0 or more"]),
        (|tx| _ = tx.attributes.insert("k".to_owned(), v1::Value::default()), &["attributes.k", "absent", "exactly one"]),
        (|tx| tx.attributes = (0..65).map(|at| (format!("a{at}"), number(1.0))).collect(), &["attributes", "65", "at most 64"]),
        (
            |tx| tx.identity = Some(v1::Identity { user: "u".repeat(2_000), ..Default::default() }),
            &["transaction.identity.user", "2000 bytes", "1,024"],
        ),
        (
            |tx| tx.response = Some(v1::HttpResponse { status: 7, ..Default::default() }),
            &["transaction.response.status", "`7`", "100 to 599"],
        ),
    ];
    for (change, parts) in cases {
        let error = refused(change);
        for part in parts {
            assert!(error.contains(part), "`{error}` lacks `{part}`");
        }
    }
}

#[test]
fn what_the_client_controls_is_cut_and_counted() {
    let (http, clamps) = cut_of(|http| http.path = "/".repeat(1 << 20));
    assert_eq!((http.path.len(), clamps.texts), (8 * 1024, 1));
    let (http, clamps) = cut_of(|http| http.headers = vec![v1::Header { name: "X".to_owned(), value: String::new() }; 100_000]);
    assert_eq!((http.headers.len(), clamps.headers, http.headers[0].name.as_str()), (128, 99_872, "x"));
    let (http, clamps) = cut_of(|http| http.body = vec![0; 100_000].into());
    assert_eq!((http.body.len(), http.truncated, clamps.bodies, http.body_size), (64 * 1024, true, 1, 100_000));
    let (http, clamps) = cut_of(|http| http.query = "ä".repeat(8 * 1024));
    assert_eq!((http.query.len(), clamps.texts), (8 * 1024, 1));
    let (http, _) = cut_of(|http| http.query = format!("a{}", "ä".repeat(8 * 1024)));
    assert_eq!(http.query.len(), 8 * 1024 - 1, "cut between characters");
}

#[test]
fn empty_identities_are_as_good_as_absent() {
    let mut wire = good();
    wire.identity = Some(v1::Identity { fields: [("card".to_owned(), String::new())].into(), ..Default::default() });
    let (tx, _) = transaction(wire, "transaction").unwrap();
    assert_eq!(tx.identity, telltale_features::domain::Identity::default());
}

#[test]
fn labels_and_aggregates_are_checked() {
    let time = good().time;
    let error = label(v1::Label { transaction_id: "a".to_owned(), time, ..Default::default() }, "label").unwrap_err().to_string();
    assert!(error.contains("label.kind") && error.contains("benign"), "{error}");
    let error = aggregate(v1::Aggregate { id: "a".to_owned(), count: 0, ..Default::default() }, "aggregate").unwrap_err().to_string();
    assert!(error.contains("aggregate.count") && error.contains("10,000,000"), "{error}");
    let error = aggregate(v1::Aggregate { id: "a".to_owned(), count: 1, ..Default::default() }, "aggregate").unwrap_err().to_string();
    assert!(error.contains("aggregate.sample"), "{error}");
}
