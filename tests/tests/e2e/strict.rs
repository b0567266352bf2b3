//! `idempotency = "strict"`: a transaction that two scorers are given counts once, and who comes later hears what was decided.

use std::path::Path;
use std::time::Duration;

use telltale_proto::v1::report_request::Payload;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{Action, Entity, GetEntityRequest, Header, HttpResponse, Outcome, ReportRequest, Transaction};
use telltale_tests::redis::Redis;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tonic::transport::Channel;

use crate::recovery::seen;
use crate::shared_state::{beside, metric, of_client, sections_with};
use crate::stage::{score, within};

/// Two scorers of one installation; lines for each of them go into `[store.redis]`, and after everything.
fn two(folder: &Path, redis: &Redis, more: [(&str, &str); 2]) -> [Scorer; 2] {
    let folders = [folder.join("first"), folder.join("second")];
    for own in &folders {
        std::fs::create_dir_all(own).unwrap();
    }
    let sections = more.map(|(store, last)| {
        let store = format!("idempotency = \"strict\"\nlag_ms = 0\n{store}");
        sections_with(folder, redis.address, Duration::from_secs(1), &store) + last
    });
    let first = Scorer::start(&folders[0], &sections[0]).unwrap();
    let second = beside(&first, &folders[1], &sections[1]);
    [first, second]
}

async fn quiet(scorers: &[Scorer; 2]) {
    for scorer in scorers {
        within(Duration::from_secs(20), "everything is written", || async { metric(scorer, "backlog").await == 0 }).await;
    }
}

fn asking(traffic: &mut Traffic, path: &str) -> Transaction {
    let mut transaction = of_client(traffic, 1);
    transaction.http.as_mut().unwrap().path = path.to_owned();
    transaction
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_identifier_at_two_scorers_at_once_counts_once() {
    const TIMES: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let scorers = two(folder.path(), &redis, [("", ""); 2]);
    let clients = [scorers[0].client().await, scorers[1].client().await];
    let mut traffic = Traffic::new(81, 5);
    for _ in 0..TIMES {
        let transaction = of_client(&mut traffic, 1);
        let both = tokio::join!(score(&clients[0], transaction.clone()), score(&clients[1], transaction));
        let (one, other) = (both.0.unwrap(), both.1.unwrap());
        assert_eq!(one.action, other.action);
        let repeated = [&one, &other].iter().filter(|verdict| verdict.degraded.iter().any(|word| word.starts_with("a repeated"))).count();
        assert_eq!(repeated, 1, "{one:?} {other:?}");
    }
    quiet(&scorers).await;
    let mut lost = Vec::new();
    for scorer in &scorers {
        assert_eq!(metric(scorer, "claims_unanswered").await, 0);
        lost.push(metric(scorer, "claims_lost").await);
    }
    assert_eq!(lost.iter().sum::<u64>(), TIMES);
    assert!(lost.iter().all(|lost| *lost > 0), "one scorer was always the first: {lost:?}");
    for (client, counted) in clients.iter().zip([TIMES + 1, TIMES + 2]) {
        assert_eq!(seen(&score(client, of_client(&mut traffic, 1)).await.unwrap()), counted);
        quiet(&scorers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_repetition_hears_what_was_decided() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    // The second one would let everything pass: what it says of the first one's transactions is not its own word.
    let scorers = two(folder.path(), &redis, [("", ""), ("", "mode = \"off\"\n")]);
    let clients = [scorers[0].client().await, scorers[1].client().await];
    let mut traffic = Traffic::new(82, 5);
    let transaction = asking(&mut traffic, "/act/block");
    let first = score(&clients[0], transaction.clone()).await.unwrap();
    assert_eq!(first.action(), Action::Block);
    within(Duration::from_secs(5), "the decision stands in Redis", || async {
        let keys = redis.command(&["--scan", "--pattern", "tt:{claim:*"]).unwrap();
        let key = keys.lines().next().expect("a claim was made");
        !redis.command(&["GET", key.trim()]).unwrap().trim().is_empty()
    })
    .await;
    let later = score(&clients[1], transaction.clone()).await.unwrap();
    assert_eq!((later.action(), later.risk), (Action::Block, first.risk), "{later:?}");
    assert_eq!(score(&clients[1], asking(&mut traffic, "/act/block")).await.unwrap().action(), Action::Allow, "its own word");
    // The same identifier with another content is another transaction.
    let mut other = asking(&mut traffic, "/api/products/8");
    other.id = transaction.id;
    let other = score(&clients[1], other).await.unwrap();
    assert!(other.degraded.iter().all(|word| !word.starts_with("a repeated")), "{other:?}");
    let keys = redis.command(&["--scan", "--pattern", "tt:{claim:*"]).unwrap();
    for key in keys.lines() {
        let lives: i64 = redis.command(&["PTTL", key.trim()]).unwrap().trim().parse().unwrap();
        assert!((1..=86_400_000).contains(&lives), "{key} lives {lives} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_being_decided_a_repetition_is_scored_and_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    // The first one writes nothing for ten seconds: its decision is not known to the other.
    let scorers = two(folder.path(), &redis, [("flush_ms = 10000", ""), ("", "")]);
    let clients = [scorers[0].client().await, scorers[1].client().await];
    let mut traffic = Traffic::new(83, 5);
    let transaction = asking(&mut traffic, "/act/challenge");
    assert_eq!(score(&clients[0], transaction.clone()).await.unwrap().action(), Action::Challenge);
    let pending = score(&clients[1], transaction).await.unwrap();
    assert!(pending.degraded.iter().any(|word| word.contains("is deciding")), "{pending:?}");
    assert_eq!((pending.action(), seen(&pending)), (Action::Challenge, 1));
    assert_eq!(seen(&score(&clients[1], of_client(&mut traffic, 1)).await.unwrap()), 1, "the repetition was counted");
}

/// A login that opens a session at one scorer, whose answer sets the cookie.
async fn log_in(client: &ScorerClient<Channel>, traffic: &mut Traffic, session: &str) {
    let mut transaction = asking(traffic, "/api/login");
    let http = transaction.http.as_mut().unwrap();
    let body = r#"{"username":"anna","password":"hers"}"#;
    (http.method, http.body_size, http.body) = ("POST".to_owned(), body.len() as u64, body.as_bytes().to_vec().into());
    let verdict = score(client, transaction).await.unwrap();
    let cookie = Header { name: "set-cookie".to_owned(), value: format!("sid={session}; HttpOnly") };
    let outcome = Outcome {
        transaction_id: verdict.transaction_id.clone(),
        context: verdict.context,
        time: traffic.next_transaction().time,
        response: Some(HttpResponse { status: 200, headers: vec![cookie], ..Default::default() }),
        ..Default::default()
    };
    client.clone().report(ReportRequest { payload: Some(Payload::Outcome(outcome)) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whom_only_one_scorer_knows_is_counted_once_all_the_same() {
    const TIMES: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let scorers = two(folder.path(), &redis, [("", ""); 2]);
    let clients = [scorers[0].client().await, scorers[1].client().await];
    let mut traffic = Traffic::new(84, 5);
    log_in(&clients[0], &mut traffic, "a-session-of-anna").await;
    quiet(&scorers).await;
    for _ in 0..TIMES {
        let mut transaction = of_client(&mut traffic, 1);
        let headers = &mut transaction.http.as_mut().unwrap().headers;
        headers.retain(|header| header.name != "cookie");
        headers.push(Header { name: "cookie".to_owned(), value: "sid=a-session-of-anna".to_owned() });
        let both = tokio::join!(score(&clients[0], transaction.clone()), score(&clients[1], transaction));
        let both = [both.0.unwrap(), both.1.unwrap()];
        let repeated = both.iter().filter(|verdict| verdict.degraded.iter().any(|word| word.starts_with("a repeated"))).count();
        assert_eq!(repeated, 1, "{both:?}");
    }
    quiet(&scorers).await;
    assert_eq!(seen(&score(&clients[1], of_client(&mut traffic, 1)).await.unwrap()), TIMES + 2);
    let user = Entity { r#type: "user".to_owned(), id: "anna".to_owned(), ..Default::default() };
    let shown = scorers[0].entities().await.get_entity(GetEntityRequest { entity: Some(user) }).await.unwrap().into_inner();
    let requests = shown.features.iter().find(|feature| feature.name == "user.requests_24h").and_then(|feature| feature.value).unwrap();
    // Only the transactions that the scorer of the login was the first to claim are known to be hers.
    let lost = metric(&scorers[0], "claims_lost").await;
    assert_eq!(requests as u64, 1 + TIMES - lost, "{lost} of {TIMES} were the other scorer's");
}
