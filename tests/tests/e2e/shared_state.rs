//! Scorers over one Redis, and what happens when Redis, the way to it, or a scorer fails: real processes, answers in time, a status
//! that tells the truth, and recovery without a hand.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use telltale_proto::v1::{Action, Entity, FeaturesStatus, OverrideRequest, ScoreRequest, Transaction, Verdict};
use telltale_tests::http::Http;
use telltale_tests::process::free_address;
use telltale_tests::redis::{Certificates, Redis, TcpProxy};
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tokio::time::Instant;
use tonic::Request;

use crate::recovery::seen;
use crate::stage::{acting_policy, score, within};

/// No answer may take longer: the caller's deadline.
const DEADLINE: Duration = Duration::from_secs(1);

/// The sections that put a scorer on Redis at that address. Reads are given the time that a busy test machine needs.
pub fn sections(folder: &Path, address: SocketAddr, more: &str) -> String {
    sections_with(folder, address, Duration::from_millis(200), more)
}

pub fn sections_with(folder: &Path, address: SocketAddr, read_deadline: Duration, more: &str) -> String {
    let (policy, micros) = (acting_policy(folder), read_deadline.as_micros());
    let redis = format!("addresses = [\"{address}\"]\nread_deadline_us = {micros}\nflush_deadline_ms = 500\n{more}");
    format!("[store]\nkind = \"redis\"\nmax_mb = 64\n[store.redis]\n{redis}\n{policy}")
}

/// A second scorer of the same installation: it has the same key.
pub fn beside(first: &Scorer, folder: &Path, sections: &str) -> Scorer {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::copy(first.data.join("telltale.key"), data.join("telltale.key")).unwrap();
    Scorer::start(folder, sections).unwrap()
}

/// A transaction of that client that is about the same entities each time.
pub fn of_client(traffic: &mut Traffic, client: u32) -> Transaction {
    let mut transaction = traffic.of_client(client);
    let http = transaction.http.as_mut().unwrap();
    (http.method, http.path) = ("GET".to_owned(), "/api/products/7".to_owned());
    (http.body, http.body_size) = (Vec::new().into(), 0);
    transaction
}

/// One transaction of the same client; the answer must be there before the caller's deadline.
pub async fn one(scorer: &Scorer, traffic: &mut Traffic) -> Verdict {
    let mut request = Request::new(ScoreRequest { transaction: Some(of_client(traffic, 1)) });
    request.set_timeout(DEADLINE);
    let began = Instant::now();
    let verdict = scorer.client().await.score(request).await.unwrap().into_inner().verdict.unwrap();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    verdict
}

/// Scores until an answer has that status; returns how many it took.
async fn until(scorer: &Scorer, traffic: &mut Traffic, wanted: FeaturesStatus) -> u64 {
    let end = Instant::now() + Duration::from_secs(30);
    for count in 1.. {
        let verdict = one(scorer, traffic).await;
        if verdict.features_status() == wanted {
            return count;
        }
        assert!(Instant::now() < end, "no answer with {wanted:?} within 30 s; last: {:?}", verdict.features_status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!()
}

pub async fn metric(scorer: &Scorer, what: &str) -> u64 {
    let text = Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    let line = format!("telltale_store_shared{{what=\"{what}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).unwrap_or_else(|| panic!("no {line}in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_scorers_share_what_they_saw_and_a_killed_one_loses_a_flush_interval() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (first_folder, second_folder) = (folder.path().join("first"), folder.path().join("second"));
    for folder in [&first_folder, &second_folder] {
        std::fs::create_dir_all(folder).unwrap();
    }
    // Without a lag every read asks Redis, so that the one sees at once what the other wrote.
    let sections = sections(folder.path(), redis.address, "lag_ms = 0");
    let mut first = Scorer::start(&first_folder, &sections).unwrap();
    let second = beside(&first, &second_folder, &sections);
    let mut traffic = Traffic::new(51, 5);
    let mut answered = Vec::new();
    for count in 1..=20 {
        let verdict = one(&first, &mut traffic).await;
        assert_eq!((seen(&verdict), verdict.features_status()), (count, FeaturesStatus::Full));
    }
    within(Duration::from_secs(5), "everything is written", || async { metric(&first, "backlog").await == 0 }).await;
    assert_eq!(seen(&one(&second, &mut traffic).await), 21, "the second one knows what the first one saw");
    within(Duration::from_secs(5), "everything is written", || async { metric(&second, "backlog").await == 0 }).await;
    for count in 22..=60 {
        assert_eq!(seen(&one(&first, &mut traffic).await), count);
        answered.push(Instant::now());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.process.signal(rustix::process::Signal::KILL).unwrap();
    let killed = Instant::now();
    assert!(!first.process.wait().unwrap());
    // An interval of 100 ms, 20 % more at most, and the way to Redis on a busy machine.
    let recent = answered.iter().filter(|at| killed.duration_since(**at) <= Duration::from_millis(400)).count() as u64;
    let found = seen(&one(&second, &mut traffic).await);
    assert!(found + recent >= 61, "{found} of 61 are known, {recent} were answered in the last 400 ms");
    // It comes back with its journal, and counts nothing twice.
    let addresses = first.addresses();
    let first = Scorer::start_at(&first_folder, &sections, addresses).unwrap();
    within(Duration::from_secs(5), "everything is written", || async { metric(&second, "backlog").await == 0 }).await;
    assert_eq!(seen(&one(&first, &mut traffic).await), found + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_redis_makes_nobody_wait_and_gets_everything_later() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let scorer = Scorer::start(folder.path(), &sections(folder.path(), redis.address, "")).unwrap();
    let mut traffic = Traffic::new(52, 5);
    for count in 1..=5 {
        assert_eq!(seen(&one(&scorer, &mut traffic).await), count);
    }
    redis.pause(true).unwrap();
    // A copy counts as current while it is younger than `lag_ms`.
    let mut sent = 5 + until(&scorer, &mut traffic, FeaturesStatus::Stale).await;
    for _ in 0..50 {
        sent += 1;
        let verdict = one(&scorer, &mut traffic).await;
        assert_eq!((seen(&verdict), verdict.features_status()), (sent, FeaturesStatus::Stale), "the copy held here answers");
    }
    // Nobody has seen this one before, and nobody can say so.
    let stranger = score(&scorer.client().await, of_client(&mut traffic, 4)).await.unwrap();
    assert_eq!(stranger.features_status(), FeaturesStatus::Partial, "{stranger:?}");
    assert!(metric(&scorer, "breaker_openings").await >= 1);
    redis.pause(false).unwrap();
    sent += until(&scorer, &mut traffic, FeaturesStatus::Full).await;
    within(Duration::from_secs(10), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    assert_eq!(metric(&scorer, "flush_ambiguous").await, 0);
    assert_eq!(seen(&one(&scorer, &mut traffic).await), sent + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_filled_again_and_said_to_be_partial() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path(), &[]).unwrap();
    let sections = sections(folder.path(), redis.address, "");
    let scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(53, 5);
    for count in 1..=10 {
        assert_eq!(seen(&one(&scorer, &mut traffic).await), count);
    }
    within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    redis.kill().unwrap();
    let mut sent = 10;
    for _ in 0..20 {
        sent += 1;
        assert_eq!(seen(&one(&scorer, &mut traffic).await), sent);
    }
    let redis = redis.restart().unwrap();
    sent += until(&scorer, &mut traffic, FeaturesStatus::Partial).await;
    within(Duration::from_secs(10), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    let second_folder = folder.path().join("second");
    std::fs::create_dir_all(&second_folder).unwrap();
    let second = beside(&scorer, &second_folder, &sections);
    assert_eq!(seen(&one(&second, &mut traffic).await), sent + 1, "what was lost came back from the first one's memory");
    assert!(redis.command(&["DBSIZE"]).unwrap().trim().parse::<u64>().unwrap() > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_and_mends_itself_once_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let rules = ["~tt:*", "+@read", "+@write", "+eval", "+evalsha", "+time", "+wait", "+ping"];
    let mut user = vec!["ACL", "SETUSER", "telltale", "on", ">right"];
    user.extend(rules);
    assert_eq!(redis.command(&user).unwrap().trim(), "OK");
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let more = format!("username = \"telltale\"\npassword_file = {password:?}");
    let scorer = Scorer::start(folder.path(), &sections(folder.path(), redis.address, &more)).unwrap();
    let mut traffic = Traffic::new(54, 5);
    let verdict = one(&scorer, &mut traffic).await;
    assert_eq!(verdict.features_status(), FeaturesStatus::None);
    assert!(scorer.process.last_words().contains("Redis cannot be reached"), "{}", scorer.process.last_words());
    assert!(!scorer.process.last_words().contains("wrong"), "passwords are never shown");
    redis.command(&["ACL", "SETUSER", "telltale", ">wrong"]).unwrap();
    let sent = until(&scorer, &mut traffic, FeaturesStatus::Full).await;
    assert_eq!(seen(&one(&scorer, &mut traffic).await), sent + 2);
    within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_redis_delays_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let proxy = TcpProxy::start(redis.address).await.unwrap();
    let scorer = Scorer::start(folder.path(), &sections_with(folder.path(), proxy.address, Duration::from_millis(20), "")).unwrap();
    let mut traffic = Traffic::new(55, 5);
    for count in 1..=5 {
        assert_eq!(seen(&one(&scorer, &mut traffic).await), count);
    }
    proxy.delay(Duration::from_millis(200));
    let mut took = Vec::new();
    for count in 6..=60 {
        let began = Instant::now();
        let verdict = one(&scorer, &mut traffic).await;
        took.push(began.elapsed());
        // A write that is answered shows that the copy is what is stored: then it is current, else it may lag.
        assert!(matches!(verdict.features_status(), FeaturesStatus::Full | FeaturesStatus::Stale), "{verdict:?}");
        assert_eq!(seen(&verdict), count);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(metric(&scorer, "breaker_openings").await >= 1);
    took.sort_unstable();
    assert!(took[took.len() / 2] < Duration::from_millis(100), "{took:?}");
    proxy.delay(Duration::ZERO);
    until(&scorer, &mut traffic, FeaturesStatus::Full).await;
    within(Duration::from_secs(10), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let sections = sections(folder.path(), redis.address, "");
    let scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(56, 5);
    one(&scorer, &mut traffic).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    for count in 2..=30 {
        assert_eq!(seen(&one(&scorer, &mut traffic).await), count);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    within(Duration::from_secs(5), "writes are refused", || async { metric(&scorer, "writes_refused").await > 0 }).await;
    assert!(metric(&scorer, "backlog").await > 0);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    let second_folder = folder.path().join("second");
    std::fs::create_dir_all(&second_folder).unwrap();
    assert_eq!(seen(&one(&beside(&scorer, &second_folder, &sections), &mut traffic).await), 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_sync_mode_the_answer_says_whether_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let sections = sections(folder.path(), redis.address, "acknowledge = \"sync\"");
    let mut scorer = Scorer::start(folder.path(), &sections).unwrap();
    let mut traffic = Traffic::new(57, 5);
    for count in 1..=10 {
        let verdict = one(&scorer, &mut traffic).await;
        assert_eq!((seen(&verdict), verdict.durability.as_str()), (count, "durable"));
    }
    // Whatever was acknowledged outlives the scorer, without a moment's grace.
    scorer.process.signal(rustix::process::Signal::KILL).unwrap();
    scorer.process.wait().unwrap();
    let addresses = scorer.addresses();
    let scorer = Scorer::start_at(folder.path(), &sections, addresses).unwrap();
    assert_eq!(seen(&one(&scorer, &mut traffic).await), 11);
    redis.pause(true).unwrap();
    let verdict = one(&scorer, &mut traffic).await;
    assert_eq!((seen(&verdict), verdict.durability.as_str()), (12, "pending"));
    redis.pause(false).unwrap();
    until(&scorer, &mut traffic, FeaturesStatus::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_soon_holds_on_every_scorer() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (first_folder, second_folder) = (folder.path().join("first"), folder.path().join("second"));
    for folder in [&first_folder, &second_folder] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let sections = sections(folder.path(), redis.address, "");
    let first = Scorer::start(&first_folder, &sections).unwrap();
    let second = beside(&first, &second_folder, &sections);
    let mut traffic = Traffic::new(58, 5);
    let action = async |traffic: &mut Traffic| one(&second, traffic).await.action();
    assert_ne!(action(&mut traffic).await, Action::Block);
    let request = |action: Action| OverrideRequest {
        entity: Some(Entity { r#type: "address".to_owned(), id: "127.0.0.1".to_owned(), ..Entity::default() }),
        action: action.into(),
        reason: "a test".to_owned(),
        ..OverrideRequest::default()
    };
    for (wanted, expected) in [(Action::Block, true), (Action::Unspecified, false), (Action::Block, true)] {
        first.entities().await.r#override(request(wanted)).await.unwrap();
        let began = Instant::now();
        while (action(&mut traffic).await == Action::Block) != expected {
            assert!(began.elapsed() < Duration::from_secs(3), "{wanted:?} does not hold on the other scorer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // It stands in Redis, and the second one saved it too: it holds without the first one and without Redis.
    drop((first, redis));
    let addresses = second.addresses();
    drop(second);
    let second = Scorer::start_at(&second_folder, &sections, addresses).unwrap();
    assert_eq!(one(&second, &mut traffic).await.action(), Action::Block);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_way_asks_both_sides_for_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let made = Certificates::make(folder.path()).unwrap();
    let port = free_address().unwrap();
    let [authority, certificate, key] = [&made.authority, &made.certificate, &made.key].map(|path| path.to_str().unwrap());
    let number = port.port().to_string();
    let files = ["--tls-ca-cert-file", authority, "--tls-cert-file", certificate, "--tls-key-file", key];
    let redis = Redis::start(folder.path(), &[&["--tls-port", &number, "--tls-auth-clients", "yes"], &files[..]].concat()).unwrap();
    let trusting = format!("tls = true\nca = {authority:?}");
    let known = format!("{trusting}\ncertificate = {certificate:?}\nkey = {key:?}");
    for (name, more, status) in [("unknown", trusting, FeaturesStatus::None), ("known", known, FeaturesStatus::Full)] {
        let own = folder.path().join(name);
        std::fs::create_dir_all(&own).unwrap();
        let scorer = Scorer::start(&own, &sections(folder.path(), port, &more)).unwrap();
        let mut traffic = Traffic::new(59, 5);
        let (first, second) = (one(&scorer, &mut traffic).await, one(&scorer, &mut traffic).await);
        assert_eq!((first.features_status(), seen(&second)), (status, 2), "{name}: {}", scorer.process.last_words());
        if status == FeaturesStatus::Full {
            within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
        }
    }
    assert_ne!(redis.command(&["DBSIZE"]).unwrap().trim(), "0");
}
