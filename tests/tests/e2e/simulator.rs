//! The simulator tells the truth: what it writes as NDJSON is, field by field, what the proxy sends of the same traffic sent live.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use telltale_features::time::{Clock, Timestamp};
use telltale_proto::json::{Unknown, parse};
use telltale_proto::v1::record::Kind;
use telltale_proto::v1::{Outcome, Record, Transaction};
use telltale_service::simulate::DEFAULT_START;
use telltale_service::simulate::attack::{Attack, Intensity, Variants};
use telltale_service::simulate::live::{LiveOptions, Source, drive};
use telltale_service::simulate::serve::serve;
use telltale_service::simulate::world::{World, WorldOptions};
use telltale_tests::http::Http;
use telltale_tests::stand::{Between, Proxy};

use crate::recorder::{Recorded, Recorder};
use crate::stage::{telltale_ok, within};

const REQUESTS: usize = 3_000;
const SEED: u64 = 22;
const DAYS: f64 = 0.12;
const CUSTOMERS: usize = 400;
/// Ten in the morning, when customers are awake.
const START: i64 = DEFAULT_START + 10 * 3_600_000_000;
const ATTACKS: [Attack; 6] = [
    Attack::StuffingLoud,
    Attack::StuffingDistributed,
    Attack::BruteForce,
    Attack::ObjectEnumeration,
    Attack::CardTesting,
    Attack::Scanner,
];

/// The instants at which the simulated shop was asked, one after the other, for the shop that is asked now.
struct Instants {
    times: Vec<i64>,
    next: AtomicUsize,
}

impl Clock for Instants {
    fn now(&self) -> Timestamp {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_micros(self.times.get(at).or(self.times.last()).copied().unwrap_or(START))
    }
}

/// What the command writes: the first transactions, and their outcomes in the same order.
fn written(folder: &Path) -> (Vec<Transaction>, Vec<Outcome>, Vec<String>) {
    let (out, truth) = (folder.join("traffic.ndjson"), folder.join("truth.ndjson"));
    let (seed, days, customers) = (SEED.to_string(), DAYS.to_string(), CUSTOMERS.to_string());
    let (to, true_to) = (out.to_str().unwrap(), truth.to_str().unwrap());
    let attacks = ATTACKS.map(Attack::name).join(",");
    let world = ["simulate", "--seed", &seed, "--days", &days, "--customers", &customers, "--start", "2026-10-05T10:00:00Z"];
    let shown = ["--attacks", &attacks, "--addresses", "loopback", "--out", to, "--truth", true_to];
    telltale_ok(&[&world[..], &shown].concat());
    let (mut transactions, mut outcomes) = (Vec::new(), HashMap::new());
    for line in std::fs::read_to_string(out).unwrap().lines() {
        let (record, _) = parse::<Record>(line, Unknown::Refuse).unwrap();
        match record.kind.unwrap() {
            Kind::Transaction(transaction) if transactions.len() < REQUESTS => transactions.push(transaction),
            Kind::Outcome(outcome) => drop(outcomes.insert(outcome.transaction_id.clone(), outcome)),
            _ => {}
        }
    }
    let outcomes = transactions.iter().map(|transaction| outcomes.remove(&transaction.id).unwrap()).collect();
    let natures = std::fs::read_to_string(truth).unwrap();
    let natures = natures.lines().take(REQUESTS).map(|line| {
        let truth: serde_json::Value = serde_json::from_str(line).unwrap();
        let attack = truth["attack"].as_str().unwrap().split('/').next().unwrap().to_owned();
        if attack.is_empty() { truth["nature"].as_str().unwrap().to_owned() } else { attack }
    });
    (transactions, outcomes, natures.collect())
}

/// The same world, driven through the real proxy.
async fn sent(folder: &Path, times: Vec<i64>) -> Recorded {
    let world = WorldOptions {
        seed: SEED,
        customers: CUSTOMERS,
        start: START,
        end: START + (DAYS * 86_400e6) as i64,
        attacks: ATTACKS.to_vec(),
        intensities: vec![Intensity::Medium],
        variants: Variants::default(),
        campaigns: 1,
    };
    let World { mut engine, shop, .. } = World::new(&world);
    let shop = serve(shop, 0, Arc::new(Instants { times, next: AtomicUsize::new(0) })).await.unwrap();
    let recorder = Recorder::start().await;
    let between = Between { upstream: shop.address, scorer: recorder.address, deadline_ms: 5_000 };
    let mut proxy = Proxy::start("proxy", folder, between, "").unwrap();
    let metrics = Http::new(proxy.metrics);
    within(Duration::from_secs(15), "the proxy's stream to the recorder", || {
        let metrics = metrics.clone();
        async move {
            let text = metrics.send("GET", "/metrics", &[], "").await.unwrap().text();
            text.lines().any(|line| line.starts_with("telltale_proxy_scorer_streams ") && !line.ends_with(" 0"))
        }
    })
    .await;
    let options = LiveOptions {
        target: proxy.listen,
        source: Source::Bound,
        from: world.start,
        // Without waiting it is the simulated time that must suffice.
        lasts: Duration::from_secs_f64(DAYS * 86_400.0),
        speed: None,
        requests: REQUESTS as u64,
        in_flight: 1,
    };
    let mut lost = 0;
    let driven = drive(&mut engine, &options, &mut |_, exchange| lost += usize::from(exchange.response.is_none())).await;
    assert_eq!((driven, lost), (REQUESTS as u64, 0), "{}", proxy.process.last_words());
    within(Duration::from_secs(10), "all outcomes", || async { recorder.recorded().outcomes.len() == REQUESTS }).await;
    proxy.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(proxy.process.wait().unwrap(), "{}", proxy.process.last_words());
    recorder.recorded()
}

fn micros(time: Option<pbjson_types::Timestamp>) -> i64 {
    let time = time.unwrap();
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// Everything but what no two runs share: identifier, instant, client port, how long the answer took.
fn comparable(transaction: &Transaction, outcome: &Outcome) -> (Transaction, Outcome) {
    let (mut transaction, mut outcome) = (transaction.clone(), outcome.clone());
    let source = transaction.source.as_mut().unwrap();
    assert!(source.port >= 1_024, "a client's port is {}", source.port);
    source.port = 0;
    transaction.id.clear();
    assert!(transaction.time.take().is_some());
    outcome.transaction_id.clear();
    assert!(outcome.time.take().is_some());
    let response = outcome.response.as_mut().unwrap();
    assert!(response.duration_us > 0, "{response:?}");
    response.duration_us = 0;
    (transaction, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ndjson_holds_what_the_proxy_sends() {
    let folder = tempfile::tempdir().unwrap();
    let (transactions, outcomes, natures) = written(folder.path());
    assert_eq!(transactions.len(), REQUESTS);
    let mut mix = std::collections::BTreeMap::<&str, usize>::new();
    natures.iter().for_each(|nature| *mix.entry(nature).or_default() += 1);
    println!("simulated against sent: {mix:?}");
    assert!(["customer", "machine", "scanner"].iter().all(|nature| mix.contains_key(nature)) && mix.len() >= 6, "{mix:?}");

    let times = transactions.iter().map(|transaction| micros(transaction.time)).collect();
    let recorded = sent(folder.path(), times).await;
    assert_eq!(recorded.transactions.len(), REQUESTS);
    let mut ended: HashMap<String, Outcome> =
        recorded.outcomes.into_iter().map(|outcome| (outcome.transaction_id.clone(), outcome)).collect();
    let mut different = Vec::new();
    for (at, (transaction, outcome)) in transactions.iter().zip(&outcomes).enumerate() {
        let live = &recorded.transactions[at];
        let simulated = comparable(transaction, outcome);
        let sent = comparable(live, &ended.remove(&live.id).unwrap());
        if simulated != sent {
            different.push(format!("{at} ({}):\n  simulated {simulated:?}\n  sent      {sent:?}", natures[at]));
        }
    }
    println!("simulated against sent: {REQUESTS} requests, {} different", different.len());
    assert!(
        different.is_empty(),
        "{} of {REQUESTS} differ:\n{}",
        different.len(),
        different.into_iter().take(5).collect::<Vec<_>>().join("\n")
    );
}
