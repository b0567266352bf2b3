//! gRPC Score of the real server beside a trivial one that decodes the same Transaction and returns a Verdict of equal size.
//!
//! Saturation by a closed loop first; then both at half the scorer's saturation, open loop, five alternating runs, medians. Four
//! connections, as a gateway with four workers has them. The load shares the machine with the server and has one thread.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use prost::Message;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{ScoreRequest, Transaction};
use tonic::transport::Channel;

use super::{Bar, Failure, Row, median, size};
use crate::load::{closed_loop, open_loop};
use crate::process::{Process, built, free_address};
use crate::stand::{Scorer, shipped_models};
use crate::traffic::Traffic;

const RUNS: usize = 5;
const WORKERS: usize = 32;
const CONNECTIONS: usize = 4;
const CLIENTS: u32 = 20_000;

/// One side of the comparison.
struct Side {
    clients: Vec<ScorerClient<Channel>>,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    failed: u64,
}

/// Measures and returns the rows.
///
/// # Errors
/// When a server does not start.
pub async fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let calls = size("TELLTALE_BENCH_CALLS", 60_000);
    let scorer = Scorer::start(folder, &sections())?;
    let mut traffic = Traffic::new(21, CLIENTS);
    let mut make = |count: usize| -> Vec<Transaction> { (0..count).map(|_| traffic.next_transaction()).collect() };
    let verdict_bytes = warm(&scorer.client().await, make(2_000)).await?;
    let (trivial, address) = trivial(folder, verdict_bytes)?;
    let mut sides = [Side::new(scorer.scoring).await?, Side::new(address).await?];
    let mut saturation = [0.0; 2];
    for (side, rate) in sides.iter().zip(&mut saturation) {
        *rate = closed_loop(&side.clients, make(calls), WORKERS).await.rate();
    }
    let [ours, baseline] = saturation;
    let rate = ours / 2.0;
    for _ in 0..RUNS {
        for (side, process) in sides.iter_mut().zip([&scorer.process, &trivial]) {
            let transactions = make((rate * 3.0) as usize);
            let before = process.cpu()?.micros;
            let measured = open_loop(&side.clients, transactions, rate).await?;
            side.cpu.push((process.cpu()?.micros - before) as f64 / measured.answered.max(1) as f64);
            side.p50.push(measured.quantile_us(0.5));
            side.p99.push(measured.quantile_us(0.99));
            side.failed += measured.failed;
        }
    }
    let [ours_side, trivial_side] = sides;
    let beside = |name: &str, value: f64| (format!("trivial server {name}").trim().to_owned(), value);
    let row = |name: &str, ours: Vec<f64>, theirs: Vec<f64>| {
        let (label, value) = beside("", median(theirs));
        Row::new(name, median(ours), "µs").beside(label, value)
    };
    let (p99, limit) = (row("gRPC Score, half load, p99", ours_side.p99.clone(), trivial_side.p99), median(ours_side.p99));
    Ok(vec![
        Row::new("gRPC Score, saturation", ours, "calls/s").beside("trivial server", baseline),
        Row::new("gRPC Score, half load", rate, "calls/s"),
        row("gRPC Score, half load, p50", ours_side.p50, trivial_side.p50),
        p99.bar(Bar::Ratio(2.0)),
        Row::new("gRPC Score, half load, p99 absolute", limit / 1e3, "ms").goal(Bar::AtMost(1.0)),
        row("gRPC Score, server CPU a call", ours_side.cpu, trivial_side.cpu).bar(Bar::Ratio(4.0)),
        Row::new("gRPC Score, failed calls", (ours_side.failed + trivial_side.failed) as f64, "").bar(Bar::AtMost(0.0)),
        Row::new("gRPC Score, verdict", verdict_bytes as f64, "B"),
    ])
}

impl Side {
    async fn new(address: SocketAddr) -> Result<Self, Failure> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(ScorerClient::connect(format!("http://{address}")).await?);
        }
        Ok(Self { clients, cpu: Vec::new(), p50: Vec::new(), p99: Vec::new(), failed: 0 })
    }
}

/// Shipped rules, shipped models where they are, enough memory.
fn sections() -> String {
    let models = shipped_models().map(|path| format!("[models]\npath = {path:?}\nshipped_calibration = true\n")).unwrap_or_default();
    format!("{models}[store]\nmax_mb = 4096\n")
}

/// Scores these one after the other; returns the mean size of a verdict.
async fn warm(client: &ScorerClient<Channel>, transactions: Vec<Transaction>) -> Result<usize, Failure> {
    let mut client = client.clone();
    let (mut bytes, count) = (0, transactions.len());
    for transaction in transactions {
        let answer = client.score(ScoreRequest { transaction: Some(transaction) }).await?.into_inner();
        bytes += answer.verdict.map_or(0, |verdict| verdict.encoded_len());
    }
    Ok(bytes / count.max(1))
}

/// The trivial server; identifier and framing take about 40 bytes of the verdict.
fn trivial(folder: &Path, verdict_bytes: usize) -> Result<(Process, SocketAddr), Failure> {
    let address = free_address()?;
    let mut command = Command::new(built("trivial-scorer")?);
    let command = command.arg(address.to_string()).arg(verdict_bytes.saturating_sub(40).to_string());
    let mut process = Process::start("trivial-scorer", command, folder)?;
    process.wait_for_port(address)?;
    Ok((process, address))
}
