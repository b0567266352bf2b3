//! Bad calls at the scorer: each is refused with what, where and what is allowed, or clamped and counted; the server goes on.

use pbjson_types::Timestamp;
use telltale_proto::v1::value::Kind;
use telltale_proto::v1::{
    Action, Entity, Header, Label, Outcome, OverrideRequest, ReportRequest, Transaction, Value, report_request, score_stream_response,
};
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tonic::{Code, Status};

use crate::stage::score;

type Change = fn(&mut Transaction);

/// Refused: what is changed, and what the message must say.
const REFUSED: &[(&str, Change, &[&str])] = &[
    ("no identifier", |tx| tx.id.clear(), &["id", "1 to 128 bytes"]),
    ("a long identifier", |tx| tx.id = "x".repeat(500), &["id", "500 bytes", "128"]),
    ("no time", |tx| tx.time = None, &["time", "absent", "1970"]),
    ("a time before 1970", |tx| tx.time = at(-5), &["time", "-5", "1970"]),
    ("a time after 2100", |tx| tx.time = at(9_999_999_999), &["time", "9999999999", "2100"]),
    ("NaN", |tx| attribute(tx, "amount", f64::NAN), &["attributes.amount", "NaN", "finite"]),
    ("infinity", |tx| attribute(tx, "speed", f64::INFINITY), &["attributes.speed", "inf", "finite"]),
    ("a negative amount", |tx| attribute(tx, "amount", -5.0), &["attributes.amount", "-5", "0 or more"]),
    ("an attribute of nothing", |tx| drop(tx.attributes.insert("empty".to_owned(), Value { kind: None })), &["attributes.empty", "absent"]),
    ("too many attributes", |tx| (0..100).for_each(|n| attribute(tx, &format!("n{n}"), 1.0)), &["attributes", "100 entries", "64"]),
    ("no address", |tx| tx.source.get_or_insert_default().ip = "nowhere".to_owned(), &["source.ip", "nowhere", "IPv4"]),
    ("no port", |tx| tx.source.get_or_insert_default().port = 70_000, &["source.port", "70000", "65535"]),
    ("a status of 42", |tx| tx.response.get_or_insert_default().status = 42, &["response.status", "42", "100 to 599"]),
    ("a long user", |tx| tx.identity.get_or_insert_default().user = "u".repeat(5_000), &["identity.user", "5000 bytes", "1,024"]),
];

/// Taken: cut to the limits, or as good as absent.
const TAKEN: &[(&str, Change)] = &[
    ("a path of 1 MB", |tx| http(tx).path = "/".repeat(1 << 20)),
    ("100,000 headers", |tx| http(tx).headers = vec![Header { name: "x".to_owned(), value: "y".to_owned() }; 100_000]),
    ("a header of 1 MB", |tx| http(tx).headers.push(Header { name: "x".to_owned(), value: "v".repeat(1 << 20) })),
    ("a body that is no JSON", |tx| http(tx).body = b"\xff\xfe{\"username\":".to_vec().into()),
    ("a body of nested brackets", |tx| http(tx).body = vec![b'['; 60_000].into()),
    ("empty identities", |tx| tx.identity = Some(Default::default())),
    ("nothing but an identifier", |tx| *tx = Transaction { id: tx.id.clone(), time: tx.time, ..Transaction::default() }),
    ("the year 1970", |tx| tx.time = at(1)),
    ("the year 2100", |tx| tx.time = at(4_110_000_000)),
    ("control characters", |tx| http(tx).path = "/\u{0}\u{1b}[31m\u{202e}".to_owned()),
];

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn attribute(tx: &mut Transaction, name: &str, value: f64) {
    tx.attributes.insert(name.to_owned(), Value { kind: Some(Kind::Number(value)) });
}

fn http(tx: &mut Transaction) -> &mut telltale_proto::v1::HttpRequest {
    tx.http.get_or_insert_default()
}

fn says(what: &str, status: &Status, code: Code, parts: &[&str]) {
    assert_eq!(status.code(), code, "{what}: {status:?}");
    for part in parts {
        assert!(status.message().contains(part), "{what}: `{}` lacks `{part}`", status.message());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_transactions_are_refused_or_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let client = scorer.client().await;
    let mut traffic = Traffic::new(51, 10);
    for (what, change, parts) in REFUSED {
        let mut transaction = traffic.next_transaction();
        change(&mut transaction);
        says(what, &score(&client, transaction).await.unwrap_err(), Code::InvalidArgument, parts);
        score(&client, traffic.next_transaction()).await.unwrap();
    }
    for (what, change) in TAKEN {
        let mut transaction = traffic.next_transaction();
        change(&mut transaction);
        let verdict = score(&client, transaction).await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
        assert!((0.0..=100.0).contains(&verdict.risk), "{what}: risk {}", verdict.risk);
    }
    let metrics = metrics(&scorer).await;
    assert!(counter(&metrics, "telltale_cut_total") >= 3.0, "what was cut is not counted:\n{metrics}");
    assert!(counter(&metrics, "telltale_clamped_times_total") >= 2.0, "clamped times are not counted:\n{metrics}");
    ends_well(&mut scorer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_reports_and_overrides_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let mut client = scorer.client().await;
    let mut traffic = Traffic::new(52, 10);
    let (first, second) = (traffic.next_transaction(), traffic.next_transaction());
    let time = first.time;
    let verdict = score(&client, first).await.unwrap();
    let other = score(&client, second).await.unwrap();
    let outcome = |id: &str, context: Vec<u8>| {
        let outcome = Outcome { transaction_id: id.to_owned(), context: context.into(), time, ..Outcome::default() };
        ReportRequest { payload: Some(report_request::Payload::Outcome(outcome)) }
    };
    let mut forged = verdict.context.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let id = verdict.transaction_id.as_str();
    let cases = [
        ("a forged token", outcome(id, forged), Code::PermissionDenied, &["context", "forged"][..]),
        ("no token at all", outcome(id, b"nonsense".to_vec()), Code::InvalidArgument, &["context", "not a context token"]),
        ("another's token", outcome(id, other.context.to_vec()), Code::InvalidArgument, &["belongs to transaction", id]),
        ("an empty report", ReportRequest { payload: None }, Code::InvalidArgument, &["absent"]),
        ("no identifier", outcome("", Vec::new()), Code::InvalidArgument, &["transaction_id", "empty"]),
    ];
    for (what, request, code, parts) in cases {
        says(what, &client.report(request).await.unwrap_err(), code, parts);
    }
    let label = Label { transaction_id: id.to_owned(), context: verdict.context.clone(), time, ..Label::default() };
    let refused = client.feedback(telltale_proto::v1::FeedbackRequest { label: Some(label) }).await.unwrap_err();
    says("a label of no kind", &refused, Code::InvalidArgument, &["kind", "benign"]);

    let ask = |kind: &str, id: &str, action: Action| OverrideRequest {
        entity: Some(Entity { r#type: kind.to_owned(), id: id.to_owned(), ..Entity::default() }),
        action: action.into(),
        ..OverrideRequest::default()
    };
    let overrides = [
        ("an unknown type", ask("planet", "earth", Action::Block), &["planet", "address"][..]),
        ("a mild action", ask("address", "127.0.0.1", Action::Log), &["action", "BLOCK"]),
        ("nobody", ask("address", "", Action::Block), &["id"]),
    ];
    for (what, request, parts) in overrides {
        says(what, &scorer.entities().await.r#override(request).await.unwrap_err(), Code::InvalidArgument, parts);
    }
    ends_well(&mut scorer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_frame_never_ends_the_stream() {
    use telltale_proto::v1::{ScoreStreamRequest, score_stream_request::Payload};
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let mut traffic = Traffic::new(53, 10);
    let mut frame = |sequence: u64, change: Option<Change>| {
        let mut transaction = traffic.next_transaction();
        if let Some(change) = change {
            change(&mut transaction);
        }
        ScoreStreamRequest { sequence, deadline_us: 0, payload: Some(Payload::Transaction(transaction)) }
    };
    let frames = vec![
        frame(1, None),
        frame(2, Some(|tx| attribute(tx, "amount", f64::NAN))),
        ScoreStreamRequest { sequence: 3, deadline_us: 0, payload: None },
        frame(4, None),
    ];
    let mut answers = scorer.client().await.score_stream(tokio_stream::iter(frames)).await.unwrap().into_inner();
    let mut verdicts = Vec::new();
    let mut errors = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.payload.unwrap() {
            score_stream_response::Payload::Verdict(_) => verdicts.push(answer.sequence),
            score_stream_response::Payload::Error(error) => {
                assert_eq!(error.code, Code::InvalidArgument as i32, "{error:?}");
                errors.push(answer.sequence);
            }
            score_stream_response::Payload::Acknowledgement(_) => panic!("an acknowledgement of nothing"),
        }
    }
    verdicts.sort_unstable();
    errors.sort_unstable();
    assert_eq!((verdicts, errors), (vec![1, 4], vec![2, 3]));
    ends_well(&mut scorer);
}

async fn metrics(scorer: &Scorer) -> String {
    telltale_tests::http::Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await.unwrap().text()
}

fn counter(metrics: &str, name: &str) -> f64 {
    metrics.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).sum()
}

fn ends_well(scorer: &mut Scorer) {
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    assert!(!scorer.process.last_words().contains("panicked"), "{}", scorer.process.last_words());
}
