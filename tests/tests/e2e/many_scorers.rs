//! Several scorer processes over one Redis beside a single process that gets everything: whatever merges exactly is equal to the last
//! bit for every entity, also when Redis is killed in the middle, when answers of Redis are lost, and with twelve writers on one key.
//!
//! CI sizes; `TELLTALE_SIZE=full` sends 100,000 transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_features::entity::{EntityId, EntityKey, EntityType};
use telltale_features::event::{EntityEvents, Event};
use telltale_features::kernel::plan::{AccumulatorKind, EntityPlan, Read, Scale};
use telltale_features::schema::Schema;
use telltale_features::store::redis::{RedisOptions, RedisStore};
use telltale_features::store::{Moment, Order, Sequence, Status, Store};
use telltale_features::time::{Clock, Timestamp};
use telltale_proto::v1::{FeedbackRequest, HttpResponse, Label, LabelKind, Transaction, Value, value};
use telltale_service::setup::SystemClock;
use telltale_tests::redis::{Redis, TcpProxy};
use telltale_tests::stand::{Addresses, Scorer};
use telltale_tests::traffic::Traffic;
use tokio::task::JoinSet;

use crate::shared_state::metric;
use crate::stage::{score, within};
use crate::stores::patient;

/// Time that the transactions are spread over, and how long ago the first one was: within the hour that a scorer believes.
const SPAN_US: i64 = 20 * 60 * 1_000_000;
const BEGAN_US: i64 = 45 * 60 * 1_000_000;
/// Longest wait until everything is stored.
const QUIET: Duration = Duration::from_secs(120);
/// Callers of each scorer.
const CALLERS: usize = 4;

/// Aggregations that the shipped views lack, for what sessions and the service do.
const MORE: &str = r#"
  - name: parts
    entity: ENTITY
    aggregations:
      - {name: amount, aggregation: sum, of: attributes.amount, windows: [1m, 1h], meaning: "Sum of amounts in the last {window}"}
      - {name: amount_mean, aggregation: mean, of: attributes.amount, windows: [1h], meaning: "Mean amount in the last {window}"}
      - {name: amount_min, aggregation: min, of: attributes.amount, windows: [10m], meaning: "Least amount in the last {window}"}
      - {name: amount_max, aggregation: max, of: attributes.amount, windows: [10m], meaning: "Greatest amount in the last {window}"}
      - {name: amount_spread, aggregation: stddev, of: attributes.amount, windows: [1h], meaning: "Spread of amounts in the last {window}"}
      - {name: amount_before, aggregation: last, of: attributes.amount, meaning: "Amount before this one"}
      - {name: kinds, aggregation: entropy, of: http.route, windows: [1h], meaning: "How varied the routes of the last {window} were"}
      - {name: labelled, aggregation: label_rate, part: 'label == "fraud"', delay: 1m, windows: [1h], meaning: "Share of frauds in the {window} that ended a minute ago"}
"#;

fn full() -> bool {
    std::env::var("TELLTALE_SIZE").is_ok_and(|size| size == "full")
}

/// The shipped schema with those aggregations, written below the folder.
pub fn schema(folder: &Path) -> (Schema, String) {
    let shipped = include_str!("../../../features/schemas/http.yaml");
    let text = format!(
        "{}\n{}",
        shipped.trim_end(),
        ["session", "service"].map(|of| MORE.replace("parts", &format!("of_{of}")).replace("ENTITY", of)).concat()
    );
    let path = folder.join("schema.yaml");
    std::fs::write(&path, &text).unwrap();
    (Schema::from_sources(&[("schema.yaml".to_owned(), text)]).unwrap(), format!("[schema]\npath = {path:?}\n"))
}

/// So many scorers of one installation, each with one scoring thread.
pub fn fleet(folder: &Path, count: usize, redis: SocketAddr, (prefix, more): (&str, &str)) -> Vec<Scorer> {
    let sections = format!(
        "threads = 1\ndeadline_ms = 10000\n[store]\nkind = \"redis\"\nmax_mb = 256\n[store.redis]\naddresses = [\"{redis}\"]\n\
         prefix = \"{prefix}\"\nread_deadline_us = 500000\nflush_deadline_ms = 500\n{more}\n"
    );
    (0..count)
        .map(|number| {
            let own = folder.join(format!("{prefix}-{number}"));
            std::fs::create_dir_all(own.join("data")).unwrap();
            std::fs::write(own.join("data/telltale.key"), [&[1, 0, 0, 0][..], &[73; 32]].concat()).unwrap();
            Scorer::start_at(&own, &sections, Addresses::free().unwrap()).unwrap()
        })
        .collect()
}

/// Half of them of five hot clients, the others of many; answers and amounts as they come in life.
pub fn transactions(seed: u64, count: usize, clients: std::ops::Range<u32>) -> Vec<Transaction> {
    let (mut rng, mut traffic) = (ChaCha8Rng::seed_from_u64(seed), Traffic::new(seed, 1));
    let began = SystemClock.now().micros() - BEGAN_US;
    let step = SPAN_US / i64::try_from(count).unwrap();
    (0..i64::try_from(count).unwrap())
        .map(|number| {
            let client = if rng.random_bool(0.5) { rng.random_range(0..clients.end.min(5)) } else { rng.random_range(clients.clone()) };
            let mut transaction = traffic.of_client(client);
            let micros = began + number * step;
            let (seconds, nanos) = (micros.div_euclid(1_000_000), i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap());
            transaction.time = Some(pbjson_types::Timestamp { seconds, nanos });
            let login = transaction.http.as_ref().is_some_and(|http| http.path == "/api/login");
            // A login that succeeds tells this scorer alone whose the session is: that is identity, not what is counted here.
            let status = if login { 401 } else { [200, 200, 200, 403, 404][rng.random_range(0..5_usize)] };
            transaction.response = Some(HttpResponse { status, body_size: rng.random_range(100..9_000), ..HttpResponse::default() });
            let amount = Value { kind: Some(value::Kind::Number(f64::from(rng.random_range(1..100_000_u32)) / 100.0)) };
            transaction.attributes.insert("amount".to_owned(), amount);
            transaction
        })
        .collect()
}

/// Sends all of them, spread over the scorers, every 25th with a label that another scorer is told. Nothing may fail.
pub async fn send(scorers: &[Scorer], transactions: Vec<Transaction>) {
    let mut queues: Vec<Vec<(usize, Transaction)>> = vec![Vec::new(); scorers.len() * CALLERS];
    let count = queues.len();
    transactions.into_iter().enumerate().for_each(|(number, transaction)| queues[number % count].push((number, transaction)));
    let mut callers = JoinSet::new();
    for (number, queue) in queues.into_iter().enumerate() {
        let client = scorers[number % scorers.len()].client().await;
        let mut other = scorers[(number + 1) % scorers.len()].client().await;
        callers.spawn(async move {
            for (number, transaction) in queue {
                let time = transaction.time;
                let verdict = score(&client, transaction).await.unwrap();
                if number % 25 == 0 {
                    let kind = if number % 50 == 0 { LabelKind::Fraud } else { LabelKind::Benign };
                    let label = Label {
                        transaction_id: verdict.transaction_id,
                        context: verdict.context,
                        time,
                        kind: kind.into(),
                        ..Label::default()
                    };
                    other.feedback(FeedbackRequest { label: Some(label) }).await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

/// Waits until everything is stored; nothing may have been given up.
pub async fn quiet(scorers: &[Scorer]) {
    for scorer in scorers {
        within(QUIET, "everything is stored", || async { metric(scorer, "backlog").await == 0 }).await;
        for what in ["flush_ambiguous", "unreadable", "backlog_lost"] {
            assert_eq!(metric(scorer, what).await, 0, "{what}");
        }
    }
}

/// The entities under a prefix.
fn entities(redis: &Redis, schema: &Schema, prefix: &str) -> BTreeSet<EntityId> {
    let listed = redis.command(&["--scan", "--pattern", &format!("{prefix}:*")]).unwrap();
    let parse = |key: &str| {
        let (name, hex) = key.trim().strip_prefix(prefix)?.strip_prefix(":{")?.strip_suffix('}')?.split_once(':')?;
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(EntityId { kind: schema.entity_type(name)?, key: EntityKey(bytes) })
    };
    listed.lines().filter_map(parse).collect()
}

/// Whether a read merges exactly (STATE §5): gaps and steps merge within a bound.
fn is_exact(plan: &EntityPlan, read: &Read) -> bool {
    let steps = |of: u16| matches!(plan.accumulators[usize::from(of)].kind, AccumulatorKind::Histogram { scale: Scale::Successions, .. });
    match read {
        Read::Interarrival { .. } | Read::TransitionRarity(_) => false,
        Read::Entropy(of) | Read::TopShare(of) => !steps(*of),
        _ => true,
    }
}

/// Compares every exact read of every entity under both prefixes, at the end of the traffic and five minutes later; returns how many
/// readings said something.
pub async fn equal(redis: &Redis, schema: &Schema, (one, other): (&str, &str), end: Timestamp) -> usize {
    let plans = schema.plans();
    let everybody = entities(redis, schema, one);
    assert_eq!(everybody, entities(redis, schema, other), "the same entities");
    let mut readers = Vec::new();
    for (prefix, writer) in [(one, 901), (other, 902)] {
        let options = RedisOptions { prefix: prefix.to_owned(), ..patient(redis.address, writer) };
        readers.push(RedisStore::start(options, Arc::clone(&plans), Arc::new(SystemClock)).await.unwrap());
    }
    let mut pages = 0;
    let mut told: BTreeMap<(EntityType, usize), usize> = BTreeMap::new();
    for (sequence, now) in [(1, end), (2, end.plus(Duration::from_secs(300)))] {
        for entity in &everybody {
            let question =
                Event { time: now, weight: 0, sign: 1, filters: 0, values: Default::default(), members: Default::default(), proves: false };
            let asked = EntityEvents { events: smallvec::smallvec![(*entity, question)] };
            let order = Order::Recorded(Moment { sequence: Sequence(sequence), now });
            let found = readers[0].observe(asked.clone().into(), order).await;
            let wanted = readers[1].observe(asked.into(), order).await;
            assert_eq!((found.status, wanted.status), (Status::Full, Status::Full));
            let plan = &plans[entity.kind.index()];
            for (at, read) in plan.reads.iter().enumerate().filter(|(_, read)| is_exact(plan, read)) {
                let (found, wanted) = (found.entities[0].reads[at], wanted.entities[0].reads[at]);
                // An empty page says −0.
                let same = found.to_bits() == wanted.to_bits() || found == wanted;
                // A set on one side and a page on the other: what a full set forgets is a matter of order (STATE §5).
                let one_page = matches!(read, Read::Distinct { .. }) && (found.fract() == 0.0) != (wanted.fract() == 0.0);
                let close = one_page && (found - wanted).abs() <= 3.0_f64.max(0.12 * found.max(wanted));
                assert!(same || close, "{} {:?} {read:?}: {found} beside {wanted}", plan.name, entity.key);
                pages += usize::from(!same);
                *told.entry((entity.kind, at)).or_default() += usize::from(wanted.is_finite() && wanted != 0.0);
            }
        }
    }
    let lively = told.values().filter(|count| **count > 0).count();
    let all = told.values().sum();
    println!(
        "{} entities, {lively} of {} exact reads say something, {pages} of {all} counted by a set on one side only",
        everybody.len(),
        told.len()
    );
    assert!(pages * 200 <= all, "{pages} of {all}");
    all
}

/// One process gets everything, under the prefix `alone`.
pub async fn alone(folder: &Path, redis: &Redis, schema: &str, transactions: Vec<Transaction>) {
    let one = fleet(folder, 1, redis.address, ("alone", schema));
    send(&one, transactions).await;
    quiet(&one).await;
}

pub fn end(transactions: &[Transaction]) -> Timestamp {
    let last = transactions.last().unwrap().time.unwrap();
    Timestamp::from_micros(last.seconds * 1_000_000 + i64::from(last.nanos / 1_000) + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_scorers_count_what_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (schema, section) = schema(folder.path());
    let sent = transactions(61, if full() { 100_000 } else { 8_000 }, 0..if full() { 20_000 } else { 1_500 });
    let four = fleet(folder.path(), 4, redis.address, ("four", &section));
    send(&four, sent.clone()).await;
    quiet(&four).await;
    let conflicts = metric(&four[0], "write_conflicts").await;
    assert!(conflicts > 0, "the scorers never met on a key");
    drop(four);
    let end = end(&sent);
    alone(folder.path(), &redis, &section, sent).await;
    assert!(equal(&redis, &schema, ("four", "alone"), end).await > 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_killed_under_four_synchronous_scorers_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path(), &["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let (schema, section) = schema(folder.path());
    let mut sent = transactions(62, if full() { 100_000 } else { 4_000 }, 0..if full() { 20_000 } else { 800 });
    let end = end(&sent);
    let all = sent.clone();
    let four = fleet(folder.path(), 4, redis.address, ("four", &format!("acknowledge = \"sync\"\n{section}")));
    let later = sent.split_off(sent.len() / 2);
    send(&four, sent).await;
    let kill = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis.kill().unwrap();
        let restarted = tokio::task::spawn_blocking(move || redis.restart()).await.unwrap();
        restarted.unwrap()
    };
    let ((), redis) = tokio::join!(send(&four, later), kill);
    quiet(&four).await;
    for scorer in &four {
        assert!(metric(scorer, "reconnects").await > 0, "nobody noticed");
    }
    drop(four);
    alone(folder.path(), &redis, &section, all).await;
    assert!(equal(&redis, &schema, ("four", "alone"), end).await > 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_scorers_that_lose_a_hundredth_of_the_answers_count_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (schema, section) = schema(folder.path());
    let proxy = TcpProxy::start(redis.address).await.unwrap();
    let sent = transactions(63, if full() { 100_000 } else { 6_000 }, 0..if full() { 20_000 } else { 800 });
    let four = fleet(folder.path(), 4, proxy.address, ("four", &section));
    proxy.lose_one_in(100);
    send(&four, sent.clone()).await;
    quiet(&four).await;
    assert!(proxy.lost() > 4, "only {} answers were lost", proxy.lost());
    drop(four);
    let end = end(&sent);
    alone(folder.path(), &redis, &section, sent).await;
    assert!(equal(&redis, &schema, ("four", "alone"), end).await > 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_scorers_write_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let (schema, section) = schema(folder.path());
    let proxy = TcpProxy::start(redis.address).await.unwrap();
    let sent = transactions(64, if full() { 24_000 } else { 2_400 }, 0..1);
    let twelve = fleet(folder.path(), 12, proxy.address, ("twelve", &section));
    proxy.lose_one_in(100);
    send(&twelve, sent.clone()).await;
    quiet(&twelve).await;
    drop(twelve);
    let end = end(&sent);
    alone(folder.path(), &redis, &section, sent).await;
    assert!(equal(&redis, &schema, ("twelve", "alone"), end).await > 100);
}
