//! Standing decisions: in force without the scorer, after a restart, in the right order, and reported in bulk.

use std::time::{Duration, SystemTime};

use telltale_proto::v1::location::Place;
use telltale_proto::v1::{Action, Decision, DecisionOrigin, EntitySelector, Location, Mitigation, Normalization, StreamResponse};
use telltale_proxy::config::Keep;
use telltale_proxy::start;

use crate::support::{Stage, allow, entity, exchange, settings, until, verdict};

const SECRET: [u8; 32] = [7; 32];

pub fn key(secret: &[u8; 32], kind: &str, id: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(kind.as_bytes()).update(&[0]).update(id.as_bytes());
    hasher.finalize().as_bytes()[..16].try_into().unwrap()
}

fn decision(kind: &str, id: &str, name: &str, action: Action, origin: DecisionOrigin) -> Decision {
    Decision {
        id: name.to_owned(),
        entity: entity(kind, key(&SECRET, kind, id)),
        action: action.into(),
        origin: origin.into(),
        ..Decision::default()
    }
}

pub fn deny(kind: &str, id: &str, name: &str) -> Decision {
    decision(kind, id, name, Action::Block, DecisionOrigin::Rule)
}

/// A whole table with the selectors of the tests.
pub fn table(version: u64, decisions: Vec<Decision>) -> StreamResponse {
    let selector = |kind: &str, place: Place, normalization: Normalization| EntitySelector {
        r#type: kind.to_owned(),
        locations: vec![Location { place: Some(place) }],
        normalization: normalization.into(),
    };
    StreamResponse {
        version,
        snapshot: true,
        decisions,
        removed: Vec::new(),
        selectors: vec![
            selector("address", Place::Address(true), Normalization::Address),
            selector("session", Place::Cookie("sid".to_owned()), Normalization::Unspecified),
            selector("user", Place::Header("x-user".to_owned()), Normalization::Lowercase),
            selector("card", Place::Query("card".to_owned()), Normalization::Unspecified),
        ],
        hash_key: SECRET.to_vec().into(),
    }
}

fn get(target: &str, header: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{header}Connection: close\r\n\r\n")
}

async fn hold(stage: &Stage, decisions: Vec<Decision>) {
    let count = i64::try_from(decisions.len()).unwrap();
    stage.scorer.push(table(1, decisions));
    until(|| stage.proxy.metrics().decisions.get() == count).await;
}

#[tokio::test]
async fn entities_are_recognised_by_their_selectors() {
    let stage = Stage::new(|_| allow()).await;
    hold(&stage, vec![deny("session", "s-9", "1"), deny("user", "ann", "2"), deny("card", "4 2", "3")]).await;
    let table = [
        ("/", "", 200),
        ("/", "Cookie: a=b; sid=s-9\r\n", 403),
        ("/", "Cookie: sid=s-8\r\n", 200),
        ("/", "X-User:  ANN \r\n", 403),
        ("/?a=1&card=4%202", "", 403),
        ("/?card=42", "", 200),
    ];
    for (target, header, status) in table {
        assert_eq!(stage.send(&get(target, header)).await.status, status, "{target} {header}");
    }
}

#[tokio::test]
async fn precedence_is_human_deny_human_allow_rule_then_verdict() {
    use Action::{Allow, Block};
    use DecisionOrigin::{Override, Rule};
    let me = |name, action, origin| decision("address", "127.0.0.1", name, action, origin);
    let table = [
        (vec![], Block, 403),
        (vec![me("a", Allow, Override)], Block, 200),
        (vec![me("d", Block, Rule)], Allow, 403),
        (vec![me("d", Block, Rule), me("a", Allow, Override)], Block, 200),
        (vec![me("a", Allow, Override), me("d", Block, Override)], Allow, 403),
        (vec![me("a", Allow, Rule)], Block, 403),
    ];
    for (held, action, status) in table {
        let stage = Stage::new(move |_| verdict(action, Mitigation::default())).await;
        let names = format!("{:?}", held.iter().map(|held| (held.action(), held.origin())).collect::<Vec<_>>());
        hold(&stage, held).await;
        assert_eq!(stage.get("/").await.status, status, "{names}, verdict {action:?}");
    }
}

#[tokio::test]
async fn changes_and_ends_are_followed() {
    let stage = Stage::new(|_| allow()).await;
    let soon = telltale_proxy::transaction::timestamp(SystemTime::now() + Duration::from_secs(2));
    hold(&stage, vec![deny("user", "kept", "k"), Decision { until: Some(soon), ..deny("user", "ends", "e") }]).await;
    assert_eq!(stage.send(&get("/", "X-User: ends\r\n")).await.status, 403);
    stage.scorer.push(StreamResponse {
        version: 2,
        decisions: vec![deny("user", "new", "n")],
        removed: vec!["k".to_owned()],
        ..StreamResponse::default()
    });
    until(|| stage.proxy.metrics().decisions.get() == 1).await;
    for (user, status) in [("kept", 200), ("ends", 200), ("new", 403)] {
        assert_eq!(stage.send(&get("/", &format!("X-User: {user}\r\n"))).await.status, status, "{user}");
    }
}

#[tokio::test]
async fn they_hold_without_the_scorer_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("decisions.json");
    let path = file.clone();
    let mut stage = Stage::with(|_| allow(), move |settings| settings.decisions = Some(Keep { file: path, named: true })).await;
    hold(&stage, vec![deny("user", "ann", "1")]).await;
    // The empty table that the stream begins with may be saved first.
    until(|| std::fs::read_to_string(&file).is_ok_and(|saved| saved.contains("\"decisions\""))).await;
    stage.scorer.kill();
    until(|| stage.proxy.metrics().links.get() == 0).await;
    assert_eq!(stage.send(&get("/", "X-User: ann\r\n")).await.status, 403);
    let mut again = settings(&stage.upstream, stage.scorer.address);
    again.decisions = Some(Keep { file: file.clone(), named: true });
    let busy = start(again.clone()).await.err().expect("two proxies would overwrite each other's decisions").to_string();
    assert!(busy.contains("decisions.json") && busy.contains("another proxy"), "{busy}");
    stage.proxy.stop().await;
    let restarted = start(again.clone()).await.unwrap();
    assert_eq!(exchange(restarted.address, get("/", "X-User: ann\r\n")).await.status, 403);
    assert_eq!(exchange(restarted.address, get("/", "X-User: bob\r\n")).await.status, 200);
    restarted.stop().await;
    std::fs::write(&file, "{").unwrap();
    let refused = start(again).await.err().expect("a broken file lifts every denial").to_string();
    assert!(refused.contains("decisions.json") && refused.contains("EOF"), "{refused}");
}

#[tokio::test]
async fn a_file_that_nobody_named_may_be_unusable() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let impossible = folder.path().join("file/decisions.json");
    let stage = Stage::new(|_| allow()).await;
    let mut settings = settings(&stage.upstream, stage.scorer.address);
    settings.decisions = Some(Keep { file: impossible.clone(), named: true });
    let refused = start(settings.clone()).await.err().expect("a named file must be usable").to_string();
    assert!(refused.contains("file/decisions.json") && refused.contains("decisions.file"), "{refused}");
    settings.decisions = Some(Keep { file: impossible, named: false });
    let proxy = start(settings).await.unwrap();
    assert_eq!(exchange(proxy.address, get("/", "")).await.status, 200);
}

#[tokio::test]
async fn what_was_denied_here_is_reported_in_bulk() {
    let stage = Stage::new(|_| allow()).await;
    hold(&stage, vec![deny("user", "ann", "1")]).await;
    for _ in 0..7 {
        assert_eq!(stage.send(&get("/x", "X-User: ann\r\n")).await.status, 403);
    }
    let mut count = 0;
    while count < 7 {
        let aggregate = stage.scorer.aggregate().await;
        let sample = aggregate.sample.unwrap();
        assert_eq!((sample.http.unwrap().path.as_str(), sample.source.unwrap().ip.as_str()), ("/x", "127.0.0.1"));
        assert_eq!((aggregate.enforced, aggregate.id.len()), (Action::Block.into(), 32));
        count += aggregate.count;
    }
    assert_eq!(count, 7);
    assert!(stage.upstream.seen().is_empty());
}
