//! A schema is rolled out over one Redis under load: two scorers restart one after the other with a schema that drops a feature and
//! has new ones. No call fails, every transaction counts once, no policy slot is lost, and what only one schema knows is carried by
//! the scorers that do not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use telltale_proto::v1::{Action, Transaction, Verdict};
use telltale_tests::http::Http;
use telltale_tests::redis::Redis;
use telltale_tests::stand::Scorer;
use telltale_tests::traffic::Traffic;
use tokio::task::JoinSet;

use crate::shared_state::{beside, metric, of_client};
use crate::stage::{score, telltale_ok, within};

const CALLERS: u64 = 4;
/// Events that an entity keeps one by one.
const RING: u64 = 16;
/// The client whose transactions are counted.
const WATCHED: u32 = 1;

/// One version of schema and policy, as files, and the sections that name them.
struct Version {
    sections: String,
    schema: PathBuf,
}

fn version(folder: &Path, name: &str, redis: SocketAddr, (windows, feature): (&str, &str)) -> Version {
    let shipped = include_str!("../../../features/schemas/http.yaml");
    let line = "{name: requests, aggregation: count, windows: [10s, 1m, 10m, 24h]";
    assert!(shipped.contains(line));
    let schema = shipped.replacen(line, &format!("{{name: requests, aggregation: count, windows: [{windows}]"), 1);
    let policy = format!(
        "version: 1\nmode: enforce\nrules:\n  - {{id: R-1, name: Once, when: 'http.path == \"/act/limit\"', action: rate-limit, entity: address, \
         rate: 1, period: 1h, burst: 1, score: 30, reason: \"once an hour\"}}\n  - {{id: R-2, name: Seen, when: '{feature} >= 1', action: log, \
         score: 0, reason: \"{{{feature}}} requests\"}}\n  - {{id: R-3, name: All, when: 'address.requests_10m >= 1', action: log, score: 0, \
         reason: \"{{address.requests_10m}} requests\"}}\n"
    );
    let file = |kind: &str, text: String| -> PathBuf {
        let path = folder.join(format!("{kind}-{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let (schema, policy) = (file("schema", schema), file("policy", policy));
    let store = format!("addresses = [\"{redis}\"]\nread_deadline_us = 500000\nidempotency = \"strict\"\nlag_ms = 0\n");
    let sections = format!(
        "threads = 1\n[store]\nkind = \"redis\"\nmax_mb = 64\n[store.redis]\n{store}[schema]\npath = {schema:?}\n[policy]\npath = {policy:?}\n"
    );
    Version { sections, schema }
}

fn told(verdict: &Verdict, feature: &str) -> u64 {
    let reason = verdict.reasons.iter().find(|reason| reason.feature == feature);
    reason.and_then(|reason| reason.value).unwrap_or_else(|| panic!("no {feature} in {:?}", verdict.reasons)) as u64
}

fn limited(traffic: &mut Traffic) -> Transaction {
    let mut transaction = of_client(traffic, 3);
    transaction.http.as_mut().unwrap().path = "/act/limit".to_owned();
    transaction
}

/// One transaction at any scorer that takes it, as a gateway does: where a scorer is gone, the next one is asked with the same.
pub async fn somewhere(scorers: &[SocketAddr], first: usize, transaction: &Transaction) -> Verdict {
    let mut last = None;
    for turn in 0..200 {
        let address = scorers[(first + turn) % scorers.len()];
        let client = telltale_proto::v1::scorer_client::ScorerClient::new(telltale_tests::stand::connect(address));
        match score(&client, transaction.clone()).await {
            Ok(verdict) => return verdict,
            Err(status) => last = Some(status),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no scorer took it: {last:?}");
}

/// Transactions of the watched client while there were only old scorers, both kinds, only new ones.
type Counted = [u64; 3];

/// Callers until the phase is past the last one.
fn load(scorers: [SocketAddr; 2], phase: &Arc<AtomicUsize>) -> JoinSet<Counted> {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let phase = Arc::clone(phase);
        callers.spawn(async move {
            let mut traffic = Traffic::new(90 + caller, 50);
            let mut counted = Counted::default();
            for number in 0_usize.. {
                let client = if number.is_multiple_of(3) { WATCHED } else { 10 + u32::try_from(number % 40).unwrap() };
                let transaction = of_client(&mut traffic, client);
                let Some(count) = counted.get_mut(phase.load(Ordering::Relaxed)) else { break };
                somewhere(&scorers, number + caller as usize, &transaction).await;
                *count += u64::from(client == WATCHED);
            }
            counted
        });
    }
    callers
}

pub async fn quiet(scorers: &[&Scorer]) {
    for scorer in scorers {
        within(Duration::from_secs(20), "everything is written", || async { metric(scorer, "backlog").await == 0 }).await;
        assert_eq!((metric(scorer, "flush_ambiguous").await, metric(scorer, "unreadable").await), (0, 0));
    }
}

async fn warming(scorer: &Scorer) -> u64 {
    let text = Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    text.lines().find_map(|line| line.strip_prefix("telltale_features_warming ")).unwrap().parse().unwrap()
}

/// Ends a scorer as a deployment does, and starts it again with that version.
pub async fn roll(mut scorer: Scorer, folder: &Path, sections: &str) -> Scorer {
    scorer.process.signal(Signal::TERM).unwrap();
    let (folder, sections, addresses) = (folder.to_path_buf(), sections.to_owned(), scorer.addresses());
    let restarted = tokio::task::spawn_blocking(move || {
        assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
        Scorer::start_at(&folder, &sections, addresses).unwrap()
    });
    restarted.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_rolled_out_under_load_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let old = version(folder.path(), "old", redis.address, ("10s, 1m, 10m, 24h", "address.requests_24h"));
    let new = version(folder.path(), "new", redis.address, ("10s, 1m, 10m, 7d", "address.requests_7d"));
    let folders = [folder.path().join("first"), folder.path().join("second")];
    folders.iter().for_each(|own| std::fs::create_dir_all(own).unwrap());
    let first = Scorer::start(&folders[0], &old.sections).unwrap();
    let second = beside(&first, &folders[1], &old.sections);
    let mut traffic = Traffic::new(89, 50);
    // One token an hour, spent before anything else.
    let spent = score(&first.client().await, limited(&mut traffic)).await.unwrap();
    assert_ne!(spent.action(), Action::RateLimit, "{spent:?}");

    assert_eq!(warming(&first).await, 0, "an installation begins warm");
    let phase = Arc::new(AtomicUsize::new(0));
    let callers = load([first.scoring, second.scoring], &phase);
    let next = async |to: usize| {
        tokio::time::sleep(Duration::from_secs(2)).await;
        phase.store(to, Ordering::Relaxed);
    };
    next(1).await;
    let second = roll(second, &folders[1], &new.sections).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = roll(first, &folders[0], &new.sections).await;
    next(2).await;
    next(3).await;
    let counted = callers.join_all().await;
    let [by_old, mixed, by_new] = [0, 1, 2].map(|phase| counted.iter().map(|caller| caller[phase]).sum::<u64>());
    println!("{by_old} by old scorers, {mixed} by both kinds, {by_new} by new ones");
    assert!(by_old > 60 && mixed > 60 && by_new > 60, "{counted:?}");
    quiet(&[&first, &second]).await;

    let all = by_old + mixed + by_new;
    let verdict = score(&first.client().await, of_client(&mut traffic, WATCHED)).await.unwrap();
    assert_eq!(told(&verdict, "address.requests_10m"), all + 1, "what both schemas know is whole");
    // Which schema an event of the ring counts for is decided by who spills it, so while both kinds write either may get it.
    let fresh = told(&verdict, "address.requests_7d");
    assert!((by_new + 1..=mixed + by_new + 1 + RING).contains(&fresh), "a new feature begins with its schema: {fresh}");
    for scorer in [&first, &second] {
        assert_eq!(warming(scorer).await, 1, "the new feature has no full window yet");
        let verdict = score(&scorer.client().await, limited(&mut traffic)).await.unwrap();
        assert_eq!(verdict.action(), Action::RateLimit, "the bucket was lost: {verdict:?}");
    }
    quiet(&[&first, &second]).await;

    // Taken back: what the new schema does not know is still there.
    let first = roll(first, &folders[0], &old.sections).await;
    let verdict = score(&first.client().await, of_client(&mut traffic, WATCHED)).await.unwrap();
    assert_eq!(told(&verdict, "address.requests_10m"), all + 2);
    let list = telltale_ok(&[
        "features",
        "list",
        "--output",
        "json",
        "--schema",
        old.schema.to_str().unwrap(),
        "--data",
        first.data.to_str().unwrap(),
    ]);
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).unwrap();
    let warming: Vec<&str> = list.iter().filter(|row| !row["warming_until_us"].is_null()).filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(warming, ["address.requests_24h"], "what was dropped begins anew");
    let kept = told(&verdict, "address.requests_24h");
    assert!((by_old - RING..=by_old + mixed + 1 + RING).contains(&kept), "the dropped feature's section was not carried: {kept}");
}
