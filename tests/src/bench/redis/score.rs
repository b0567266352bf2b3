//! Score of a scorer on Redis beside one on the embedded store: both at half of the first one's saturation, open loop, alternating.
//!
//! Both scorers, Redis and the load share one machine, so the absolute times say as much of it as of the scorer.

use std::path::Path;

use telltale_proto::v1::Transaction;
use telltale_proto::v1::scorer_client::ScorerClient;
use tonic::transport::Channel;

use crate::bench::{Bar, Failure, Row, median, size};
use crate::http::Http;
use crate::load::{closed_loop, open_loop};
use crate::redis::Redis;
use crate::stand::Scorer;
use crate::traffic::Traffic;

const RUNS: usize = 5;
const WORKERS: usize = 32;
const CONNECTIONS: usize = 4;
const CLIENTS: u32 = 20_000;

/// Measures; the rows, and half of the saturation over Redis, calls a second.
///
/// # Errors
/// When a server does not start.
pub async fn run(folder: &Path) -> Result<(Vec<Row>, f64), Failure> {
    let calls = size("TELLTALE_BENCH_CALLS", 60_000) / 3;
    let redis = Redis::start(folder, &[])?;
    let store = format!("[store]\nkind = \"redis\"\nmax_mb = 4096\n[store.redis]\naddresses = [\"{}\"]\n", redis.address);
    let mut sides = Vec::new();
    for (name, sections) in [("on-redis", store.as_str()), ("embedded", "[store]\nmax_mb = 4096\n")] {
        let own = folder.join(name);
        std::fs::create_dir_all(&own)?;
        let scorer = Scorer::start(&own, sections)?;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(ScorerClient::connect(format!("http://{}", scorer.scoring)).await?);
        }
        sides.push(Side { scorer, clients, p50: Vec::new(), p99: Vec::new(), failed: 0 });
    }
    let mut traffic = Traffic::new(23, CLIENTS);
    let mut make = |count: usize| -> Vec<Transaction> { (0..count).map(|_| traffic.next_transaction()).collect() };
    let mut saturation = Vec::new();
    for side in &sides {
        saturation.push(closed_loop(&side.clients, make(calls), WORKERS).await.rate());
    }
    let rate = saturation.first().copied().unwrap_or(f64::NAN) / 2.0;
    let (asked, missed) = reads(&sides).await?;
    for _ in 0..RUNS {
        for side in &mut sides {
            let measured = open_loop(&side.clients, make((rate * 3.0) as usize), rate).await?;
            side.p50.push(measured.quantile_us(0.5));
            side.p99.push(measured.quantile_us(0.99));
            side.failed += measured.failed;
        }
    }
    let (asked_after, missed_after) = reads(&sides).await?;
    let late = (missed_after - missed) / (asked_after - asked).max(1.0) * 100.0;
    let [ours, embedded] = sides.as_slice() else { return Err("two scorers were started".into()) };
    let row = |name: &str, of: &dyn Fn(&Side) -> Vec<f64>| {
        Row::new(format!("gRPC Score over Redis, half load, {name}"), median(of(ours)), "µs").beside("embedded store", median(of(embedded)))
    };
    let rows = vec![
        Row::new("gRPC Score over Redis, saturation", rate * 2.0, "calls/s")
            .beside("embedded store", saturation.get(1).copied().unwrap_or(f64::NAN)),
        row("p50", &|side| side.p50.clone()),
        row("p99", &|side| side.p99.clone()),
        Row::new("gRPC Score over Redis, reads not answered within 1 ms", late, "%"),
        Row::new("gRPC Score over Redis, failed calls", (ours.failed + embedded.failed) as f64, "").bar(Bar::AtMost(0.0)),
    ];
    Ok((rows, rate))
}

struct Side {
    scorer: Scorer,
    clients: Vec<ScorerClient<Channel>>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    failed: u64,
}

/// Reads that the scorer on Redis asked for so far, and those that were not answered in time.
async fn reads(sides: &[Side]) -> Result<(f64, f64), Failure> {
    let scorer = &sides.first().ok_or("no scorer")?.scorer;
    let text = Http::new(scorer.metrics).send("GET", "/metrics", &[], "").await?.text();
    let of = |what: &str| -> Result<f64, Failure> {
        let line = format!("telltale_store_shared{{what=\"{what}\"}} ");
        let found = text.lines().find_map(|found| found.strip_prefix(&line)).ok_or_else(|| format!("no {line}"))?;
        Ok(found.trim().parse()?)
    };
    Ok((of("reads")?, of("reads_missed")?))
}
