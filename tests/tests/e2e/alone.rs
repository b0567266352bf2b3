//! A scorer that is alone at a Redis writes without a look at what stands there. Whatever comes in between (other scorers, lost answers, a
//! Redis that stops or loses keys) counts each event once: equal to the last bit to what a scorer that always compares has stored.

use std::path::Path;
use std::time::Duration;

use telltale_proto::v1::{FeaturesStatus, Transaction};
use telltale_tests::redis::{Redis, TcpProxy};
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;

use crate::many_scorers::{alone, end, equal, fleet, quiet, schema, send, transactions};
use crate::recovery::seen;
use crate::shared_state::{metric, one, sections};
use crate::stage::within;

/// Transactions between two pauses.
const TOGETHER: usize = 200;
/// A pause: long enough for a flush.
const PAUSE: Duration = Duration::from_millis(120);

/// Sends them over a few seconds, for a scorer needs one to find that it is alone.
async fn send_slowly(scorers: &[Scorer], transactions: &[Transaction]) {
    for some in transactions.chunks(TOGETHER) {
        send(scorers, some.to_vec()).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same by a scorer that waits for each write, and so compares each.
async fn compared(folder: &Path, redis: &Redis, schema: &str, transactions: Vec<Transaction>) {
    alone(folder, redis, &format!("acknowledge = \"sync\"\n{schema}"), transactions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scorer_that_was_alone_counts_on_when_others_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (schema, section) = schema(folder.path());
    let sent = transactions(65, 9_000, 0..400);
    let mut few = fleet(folder.path(), 3, redis.address, ("few", &section));
    let [first, second, third] = [&sent[..3_000], &sent[3_000..6_000], &sent[6_000..]];
    send_slowly(&few[..1], first).await;
    let before = metric(&few[0], "writes_sole").await;
    assert!(before > 0, "it never found that it is alone");
    send_slowly(&few, second).await;
    assert!(metric(&few[0], "write_conflicts").await > 0, "the scorers never met on a key");
    quiet(&few).await;
    few.truncate(1);
    let before = metric(&few[0], "writes_sole").await;
    send_slowly(&few, third).await;
    quiet(&few).await;
    assert!(metric(&few[0], "writes_sole").await > before, "the one that stayed never found that it is alone again");
    drop(few);
    let end = end(&sent);
    compared(folder.path(), &redis, &section, sent).await;
    assert!(equal(&redis, &schema, ("few", "alone"), end).await > 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scorer_that_is_alone_and_loses_answers_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (schema, section) = schema(folder.path());
    let proxy = TcpProxy::start(redis.address).await.unwrap();
    let sent = transactions(66, 8_000, 0..400);
    let one = fleet(folder.path(), 1, proxy.address, ("one", &section));
    let (calm, lossy) = sent.split_at(3_000);
    send_slowly(&one, calm).await;
    let before = metric(&one[0], "writes_sole").await;
    proxy.lose_one_in(400);
    send_slowly(&one, lossy).await;
    proxy.lose_one_in(0);
    quiet(&one).await;
    assert!(before > 0 && proxy.lost() > 0, "{before} writes without a look, {} answers lost", proxy.lost());
    drop(one);
    let end = end(&sent);
    compared(folder.path(), &redis, &section, sent).await;
    assert!(equal(&redis, &schema, ("one", "alone"), end).await > 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stops_under_a_scorer_that_is_alone_gets_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let scorer = Scorer::start(folder.path(), &sections(folder.path(), redis.address, "")).unwrap();
    let (mut traffic, mut sent) = (Traffic::new(67, 5), 0);
    for round in 0..3 {
        let before = metric(&scorer, "writes_sole").await;
        let mut waits = 0;
        while metric(&scorer, "writes_sole").await < before + 3 {
            one(&scorer, &mut traffic).await;
            (sent, waits) = (sent + 1, waits + 1);
            assert!(waits < 1_500, "round {round}: it never found that it is alone");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Long enough that the connections are given up, with a write on its way on the old one.
        redis.pause(true).unwrap();
        for _ in 0..60 {
            one(&scorer, &mut traffic).await;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        redis.pause(false).unwrap();
        within(Duration::from_secs(20), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    }
    assert_eq!(metric(&scorer, "flush_ambiguous").await, 0);
    assert_eq!(seen(&one(&scorer, &mut traffic).await), sent + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_gone_are_made_again_and_said_to_be_partial() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    // Without a lag every read asks Redis.
    let scorer = Scorer::start(folder.path(), &sections(folder.path(), redis.address, "lag_ms = 0")).unwrap();
    let (mut traffic, mut sent) = (Traffic::new(68, 5), 0);
    for round in 0..2 {
        let before = metric(&scorer, "writes_sole").await;
        while metric(&scorer, "writes_sole").await < before + 10 {
            assert_eq!(one(&scorer, &mut traffic).await.features_status(), FeaturesStatus::Full);
            sent += 1;
            assert!(sent < 1_500, "round {round}: it never found that it is alone");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What says that it is alone goes first; then it must find so again.
        if round == 0 {
            assert_eq!(redis.command(&["DEL", "tt:{writer}"]).unwrap().trim(), "1");
        }
    }
    within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    for key in redis.command(&["--scan", "--pattern", "tt:{*:*}"]).unwrap().lines() {
        redis.command(&["DEL", key]).unwrap();
    }
    let verdict = one(&scorer, &mut traffic).await;
    assert_eq!((seen(&verdict), verdict.features_status()), (sent + 1, FeaturesStatus::Partial));
    within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
    for key in redis.command(&["--scan", "--pattern", "tt:{*:*}"]).unwrap().lines() {
        let lives: i64 = redis.command(&["TTL", key]).unwrap().trim().parse().unwrap();
        assert!(lives > 0, "{key} lives for {lives} s");
    }
    assert_eq!(seen(&one(&scorer, &mut traffic).await), sent + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_run_transactions_goes_on_comparing() {
    for (more, may) in [(&["+info", "+watch", "+multi", "+exec"][..], true), (&["+info", "+watch", "+exec"], false), (&[], false)] {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(folder.path(), &[]).unwrap();
        let least = ["~tt:*", "+@read", "+@write", "+eval", "+evalsha", "+time", "+wait", "+ping"];
        let rights = [&["ACL", "SETUSER", "telltale", "on", ">right"][..], &least, more].concat();
        assert_eq!(redis.command(&rights).unwrap().trim(), "OK");
        let password = folder.path().join("password");
        std::fs::write(&password, "right\n").unwrap();
        let user = format!("username = \"telltale\"\npassword_file = {password:?}");
        let scorer = Scorer::start(folder.path(), &sections(folder.path(), redis.address, &user)).unwrap();
        let mut traffic = Traffic::new(69, 5);
        for count in 1..=150 {
            assert_eq!(seen(&one(&scorer, &mut traffic).await), count, "{more:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        within(Duration::from_secs(5), "everything is written", || async { metric(&scorer, "backlog").await == 0 }).await;
        assert_eq!(metric(&scorer, "writes_sole").await > 0, may, "{more:?}");
        assert_eq!(metric(&scorer, "writes_refused").await, 0, "{more:?}");
    }
}
