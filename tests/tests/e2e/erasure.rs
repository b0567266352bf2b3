//! Looking at entities and forgetting one: what was forgotten is in no file, no key and no journal, and late reports do not bring it back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use telltale_proto::journal::v1::journal_record::Kind;
use telltale_proto::v1::report_request::Payload;
use telltale_proto::v1::{
    Action, Entity, ForgetEntityRequest, GetEntityRequest, GetEntityResponse, HttpResponse, Outcome, OverrideRequest, ReportRequest,
    TopEntitiesRequest, Transaction, Verdict,
};
use telltale_service::journal::{Entry, JournalReader};
use telltale_service::snapshot;
use telltale_tests::redis::Redis;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;

use crate::shared_state::metric;
use crate::stage::{score, telltale_ok, within};

/// Who is to be forgotten, and who is not.
const GONE: &str = "margarethe.koenig@example.org";
const STAYS: &str = "walter.brandt@example.org";

fn entity(kind: &str, id: &str) -> Entity {
    Entity { r#type: kind.to_owned(), id: id.to_owned(), ..Default::default() }
}

/// A login of a user from an address of that number.
fn login(traffic: &mut Traffic, client: u32, user: &str) -> Transaction {
    let mut transaction = traffic.of_client(client);
    let http = transaction.http.as_mut().unwrap();
    let body = format!(r#"{{"username":"{user}","password":"pw-{user}"}}"#);
    (http.method, http.path) = ("POST".to_owned(), "/api/login".to_owned());
    (http.body_size, http.body) = (body.len() as u64, body.into());
    transaction
}

async fn report(scorer: &Scorer, verdict: &Verdict, status: u32) {
    let outcome = Outcome {
        transaction_id: verdict.transaction_id.clone(),
        context: verdict.context.clone(),
        time: Traffic::new(1, 1).next_transaction().time,
        response: Some(HttpResponse { status, ..Default::default() }),
        ..Default::default()
    };
    scorer.client().await.report(ReportRequest { payload: Some(Payload::Outcome(outcome)) }).await.unwrap();
}

async fn get(scorer: &Scorer, kind: &str, id: &str) -> GetEntityResponse {
    scorer.entities().await.get_entity(GetEntityRequest { entity: Some(entity(kind, id)) }).await.unwrap().into_inner()
}

fn feature(answer: &GetEntityResponse, name: &str) -> f64 {
    let found = answer.features.iter().find(|feature| feature.name == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {:?}", answer.features)).value.unwrap_or(0.0)
}

/// Files below a folder, the journal's apart.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("journal") {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window.eq_ignore_ascii_case(what))
}

/// How often the newest snapshot holds these bytes; 0 without one. One that is being replaced is looked at again by who waits.
fn snapshots(data: &Path, what: &[u8]) -> usize {
    let Some((_, newest)) = snapshot::files(&snapshot::folder(data)).unwrap().into_iter().next() else { return 0 };
    let Ok(mut reader) = snapshot::Reader::open(&newest) else { return 0 };
    let mut found = 0;
    while let Ok(Some((_, part))) = reader.next_part() {
        found += part.windows(what.len()).filter(|window| window.eq_ignore_ascii_case(what)).count();
    }
    found
}

/// Journal records that hold these bytes, and how many are marked as erased.
fn journal(data: &Path, what: &[u8]) -> (Vec<Kind>, usize) {
    let mut reader = JournalReader::open(&data.join("journal")).unwrap();
    let (mut found, mut erased) = (Vec::new(), 0);
    while let Some(entry) = reader.next_entry().unwrap() {
        let Entry::Record(record) = entry else { panic!("a gap in the journal") };
        erased += usize::from(matches!(record.kind, Some(Kind::Erased(_))));
        if holds(&record.encode_to_vec(), what) {
            found.extend(record.kind);
        }
    }
    (found, erased)
}

/// Logins of both, one who looks at the other's profile, an override that names the one to be forgotten; returns a verdict of theirs
/// whose outcome is still to come.
async fn lived(scorer: &Scorer, traffic: &mut Traffic) -> Verdict {
    let client = scorer.client().await;
    let mut late = None;
    for _ in 0..20 {
        for (number, user) in [(1, GONE), (1, STAYS), (2, STAYS)] {
            let verdict = score(&client, login(traffic, number, user)).await.unwrap();
            report(scorer, &verdict, 200).await;
        }
        late = Some(score(&client, login(traffic, 1, &GONE.to_uppercase())).await.unwrap());
    }
    let mut visit = traffic.of_client(2);
    visit.http.as_mut().unwrap().path = format!("/api/profiles/{GONE}");
    score(&client, visit).await.unwrap();
    let ruling = OverrideRequest {
        entity: Some(entity("user", GONE)),
        action: Action::Allow.into(),
        reason: format!("{GONE} asked for it"),
        ..Default::default()
    };
    scorer.entities().await.r#override(ruling).await.unwrap();
    late.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_user_is_in_no_file_and_late_reports_do_not_bring_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let sections = "[store]\nsnapshot_minutes = 0.01\n";
    let mut scorer = Scorer::start(folder.path(), sections).unwrap();
    let mut traffic = Traffic::new(61, 4);
    let late = lived(&scorer, &mut traffic).await;

    let before = get(&scorer, "user", GONE).await;
    let (logins, key) = (feature(&before, "user.requests_24h"), before.entity.clone().unwrap().key);
    assert_eq!((logins, before.known, before.decisions.len()), (40.0, true, 1));
    let stays = feature(&get(&scorer, "user", STAYS).await, "user.requests_24h");
    assert!(stays >= 40.0, "{stays}");
    let in_clear = |data: &Path| files(data).iter().filter(|path| holds(&std::fs::read(path).unwrap(), GONE.as_bytes())).count();
    assert!(in_clear(&scorer.data) > 0, "the audit and the saved decisions name them before");
    let in_snapshots = || std::future::ready(snapshots(&scorer.data, &key) > 0);
    within(Duration::from_secs(20), "a snapshot that has them", in_snapshots).await;

    let request = ForgetEntityRequest { entity: Some(entity("user", GONE)), reason: format!("request of {GONE}") };
    let answer = scorer.entities().await.forget_entity(request).await.unwrap().into_inner();
    assert!(answer.records > 60 && answer.files >= 1 && answer.decisions == 1, "{answer:?}");

    report(&scorer, &late, 200).await;
    let after = get(&scorer, "user", GONE).await;
    assert!(!after.known && after.forgotten.is_some() && after.decisions.is_empty() && !after.proved, "{after:?}");
    assert_eq!(feature(&after, "user.requests_24h"), 0.0);
    assert_eq!(feature(&get(&scorer, "user", STAYS).await, "user.requests_24h"), stays, "others keep theirs");

    // What they do from now on counts again, from nothing.
    score(&scorer.client().await, login(&mut traffic, 1, GONE)).await.unwrap();
    assert_eq!(feature(&get(&scorer, "user", GONE).await, "user.requests_24h"), 1.0);
    let again = ForgetEntityRequest { entity: Some(entity("user", GONE)), reason: String::new() };
    assert_eq!(scorer.entities().await.forget_entity(again).await.unwrap().into_inner().records, 1, "that transaction");

    scorer.process.signal(rustix::process::Signal::KILL).unwrap();
    scorer.process.wait().unwrap();
    assert_eq!(in_clear(&scorer.data), 0, "{:?}", files(&scorer.data));
    assert_eq!(snapshots(&scorer.data, GONE.as_bytes()), 0);
    assert_eq!(snapshots(&scorer.data, &key), 1, "the mark that they were forgotten, and nothing else");
    let (found, erased) = journal(&scorer.data, GONE.as_bytes());
    assert!(found.is_empty() && erased as u64 >= answer.records, "{found:?}");
    let (found, _) = journal(&scorer.data, &key);
    assert!(found.iter().all(|kind| matches!(kind, Kind::Forgotten(_))), "{found:?}");

    // A restart replays a journal with places that are empty, and knows who was forgotten.
    let scorer = Scorer::start_at(folder.path(), sections, scorer.addresses()).unwrap();
    let after = get(&scorer, "user", GONE).await;
    assert!(!after.known && after.forgotten.is_some(), "{after:?}");
    // The snapshot has what was erased from the journal, the visit to the profile too: it counts and does not tell.
    assert_eq!(feature(&get(&scorer, "user", STAYS).await, "user.requests_24h"), stays);
    let (journal, config) = (scorer.data.join("journal"), scorer.config.clone());
    let arguments = ["replay", journal.to_str().unwrap(), "--config", config.to_str().unwrap(), "--output", "json"];
    let summary: Value = serde_json::from_slice(&telltale_ok(&arguments)).unwrap();
    assert!(summary["compared"]["erased"].as_u64().unwrap() >= answer.records, "{summary}");
    assert_eq!(summary["compared"]["missing"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_replica_forgets_whom_one_was_asked_to_forget() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let sections = format!("[store]\nkind = \"redis\"\n[store.redis]\naddresses = [\"{}\"]\nread_deadline_us = 200000\n", redis.address);
    let places = ["one", "two"].map(|name| folder.path().join(name));
    places.iter().for_each(|place| std::fs::create_dir_all(place.join("data")).unwrap());
    let first = Scorer::start(&places[0], &sections).unwrap();
    std::fs::copy(first.data.join("telltale.key"), places[1].join("data/telltale.key")).unwrap();
    let mut second = Scorer::start(&places[1], &sections).unwrap();
    let mut traffic = Traffic::new(62, 4);
    lived(&first, &mut traffic).await;
    let late = lived(&second, &mut traffic).await;
    let known = || async { feature(&get(&second, "user", GONE).await, "user.requests_24h") == 80.0 };
    within(Duration::from_secs(10), "both scorers' logins counted", known).await;
    let stays = feature(&get(&second, "user", STAYS).await, "user.requests_24h");

    let request = ForgetEntityRequest { entity: Some(entity("user", GONE)), reason: String::new() };
    let answer = first.entities().await.forget_entity(request).await.unwrap().into_inner();
    assert!(answer.shared && answer.records > 60, "{answer:?}");
    let erased = || async { journal(&second.data, GONE.as_bytes()).0.is_empty() };
    within(Duration::from_secs(20), "the other replica's journal erased", erased).await;
    report(&second, &late, 200).await;
    for scorer in [&first, &second] {
        let forgotten = || async {
            let after = get(scorer, "user", GONE).await;
            !after.known && after.forgotten.is_some() && after.decisions.is_empty()
        };
        within(Duration::from_secs(10), "forgotten at every replica", forgotten).await;
        assert_eq!(feature(&get(scorer, "user", STAYS).await, "user.requests_24h"), stays);
        let clear = files(&scorer.data).into_iter().filter(|path| holds(&std::fs::read(path).unwrap(), GONE.as_bytes()));
        assert_eq!(clear.count(), 0);
    }

    // Who comes back begins anew, and a replica that lost its data directory does not take that away when it is told once more.
    for _ in 0..3 {
        score(&first.client().await, login(&mut traffic, 1, GONE)).await.unwrap();
    }
    let back = || async { feature(&get(&first, "user", GONE).await, "user.requests_24h") == 3.0 && metric(&first, "backlog").await == 0 };
    within(Duration::from_secs(10), "who came back is counted", back).await;
    second.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(second.process.wait().unwrap(), "{}", second.process.last_words());
    let addresses = second.addresses();
    std::fs::remove_dir_all(&second.data).unwrap();
    std::fs::create_dir_all(&second.data).unwrap();
    std::fs::copy(first.data.join("telltale.key"), second.data.join("telltale.key")).unwrap();
    let second = Scorer::start_at(&places[1], &sections, addresses).unwrap();
    within(Duration::from_secs(20), "told again", || async { second.data.join("forgotten.json").exists() }).await;
    for scorer in [&first, &second] {
        assert_eq!(feature(&get(scorer, "user", GONE).await, "user.requests_24h"), 3.0, "what came since was taken away");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_are_shown_and_ranked_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let scorer = Scorer::start(folder.path(), "").unwrap();
    let mut traffic = Traffic::new(63, 4);
    let client = scorer.client().await;
    for (number, count) in [(1, 3), (2, 9), (3, 6)] {
        for _ in 0..count {
            score(&client, traffic.of_client(number)).await.unwrap();
        }
    }
    let request = TopEntitiesRequest { r#type: "address".to_owned(), feature: "requests_24h".to_owned(), limit: 2 };
    let top = scorer.entities().await.top_entities(request).await.unwrap().into_inner();
    let ranked: Vec<(f64, &str)> = top.entities.iter().map(|one| (one.value, one.entity.as_ref().unwrap().id.as_str())).collect();
    assert_eq!((ranked, top.looked_at, top.partial), (vec![(9.0, "127.0.0.2"), (6.0, "127.0.0.3")], 3, false));

    let admin = scorer.admin.to_string();
    let shown = String::from_utf8(telltale_ok(&["entities", "show", "address", "127.0.0.2", "--admin", &admin])).unwrap();
    let line = shown.lines().find(|line| line.starts_with("address.requests_24h ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains(" 9 ") && line.contains('█'), "{shown}");
    let series = &get(&scorer, "address", "127.0.0.2").await;
    let hour = series.features.iter().find(|feature| feature.name == "address.requests_24h").unwrap();
    assert_eq!((hour.tiles.len(), hour.tiles.iter().sum::<f64>()), (12, 9.0));

    let nobody = get(&scorer, "address", "203.0.113.9").await;
    assert!(!nobody.known && nobody.features.iter().all(|feature| feature.value.is_none_or(|value| value == 0.0)), "{nobody:?}");
    for (kind, feature, says) in [("planet", "", "allowed: address"), ("address", "moons", "address.requests_24h")] {
        let request = TopEntitiesRequest { r#type: kind.to_owned(), feature: feature.to_owned(), limit: 0 };
        let refused = scorer.entities().await.top_entities(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(says), "{refused}");
    }
}
