//! What the proxy and its verdict add: the upstream alone, the proxy without a scorer, the proxy with verdicts; real processes.
//!
//! Everything shares the machine: load (one thread), proxy, scorer and upstream. Half of what they manage together leaves half of
//! it idle. The proxy waits for its verdicts no longer than by default, 5 ms; what goes without one is a figure of its own.

use std::net::SocketAddr;
use std::path::Path;

use super::{Bar, Failure, Row, median, size};
use crate::http::Http;
use crate::process::{Process, free_address};
use crate::stand::{Between, Proxy, Scorer, Upstream, shipped_models};
use crate::web::{closed_loop, open_loop};

const RUNS: usize = 5;
const WORKERS: usize = 16;

#[derive(Default)]
struct Side {
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
    failed: u64,
    answered: u64,
}

/// Measures and returns the rows.
///
/// # Errors
/// When a server does not start.
pub async fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let requests = size("TELLTALE_BENCH_REQUESTS", 30_000);
    let upstream = Upstream::start(folder)?;
    let models = shipped_models().map(|path| format!("[models]\npath = {path:?}\nshipped_calibration = true\n")).unwrap_or_default();
    let scorer = Scorer::start(folder, &models)?;
    let between = |scorer| Between { upstream: upstream.listen, scorer, deadline_ms: 5 };
    let with = Proxy::start("with", folder, between(scorer.scoring), "")?;
    // Nobody listens there: the proxy lets everything through unscored, which is its work without a verdict.
    let without = Proxy::start("without", folder, between(free_address()?), "")?;
    let ways: [(SocketAddr, Option<&Process>); 3] =
        [(upstream.listen, None), (without.listen, Some(&without.process)), (with.listen, Some(&with.process))];
    let saturation = closed_loop(with.listen, requests, WORKERS).await?.rate();
    let rate = saturation / 2.0;
    let mut sides: [Side; 3] = Default::default();
    let unscored_before = unscored(with.metrics).await?;
    for _ in 0..RUNS {
        for ((address, process), side) in ways.iter().zip(&mut sides) {
            let cpu = || -> Result<u64, Failure> { Ok(process.map(Process::cpu).transpose()?.map_or(0, |cpu| cpu.micros)) };
            let before = cpu()?;
            let measured = open_loop(*address, (rate * 3.0) as usize, rate).await?;
            side.cpu.push((cpu()? - before) as f64 / measured.answered.max(1) as f64);
            side.p50.push(measured.quantile_us(0.5));
            side.p99.push(measured.quantile_us(0.99));
            side.failed += measured.failed;
            side.answered += measured.answered;
        }
    }
    let unscored = unscored(with.metrics).await? - unscored_before;
    let [direct, without, with] = sides;
    let asked = with.answered.max(1);
    let failed = direct.failed + without.failed + with.failed;
    let (direct, without, with) = (direct.medians(), without.medians(), with.medians());
    Ok(vec![
        Row::new("proxy with verdict, saturation", saturation, "req/s"),
        Row::new("proxy with verdict, added p50", with.p50 - direct.p50, "µs")
            .beside("proxy without verdict adds", without.p50 - direct.p50)
            .goal(Bar::AtMost(100.0)),
        Row::new("proxy with verdict, added p99", with.p99 - direct.p99, "µs")
            .beside("proxy without verdict adds", without.p99 - direct.p99),
        Row::new("proxy with verdict, CPU a request", with.cpu, "µs").beside("proxy without verdict", without.cpu),
        Row::new("proxy: failed requests", failed as f64, "").bar(Bar::AtMost(0.0)),
        Row::new("proxy: requests without a verdict in 5 ms", unscored / asked as f64 * 100.0, "%").goal(Bar::AtMost(0.1)),
    ])
}

/// Requests of a proxy that went without a verdict, so far.
async fn unscored(metrics: SocketAddr) -> Result<f64, Failure> {
    let text = Http::new(metrics).send("GET", "/metrics", &[], "").await?.text();
    let lines = text.lines().filter(|line| line.starts_with("telltale_proxy_unscored_total{"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

struct Medians {
    p50: f64,
    p99: f64,
    cpu: f64,
}

impl Side {
    fn medians(self) -> Medians {
        Medians { p50: median(self.p50), p99: median(self.p99), cpu: median(self.cpu) }
    }
}
