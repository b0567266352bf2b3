//! Load on a Scorer: saturation with a closed loop, latency with an open loop.
//!
//! Latency counts from the moment at which a call was meant to be sent, so a server that stalls cannot hide it
//! (coordinated omission). Everything runs on the caller's runtime: give it one thread, so that the load takes little of the
//! machine that it shares with what it measures.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{ScoreRequest, Transaction};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::pacer::Pacer;

/// Calls that may be in flight at once in an open loop; beyond, sending waits while the latency counts on.
const IN_FLIGHT: u32 = 4_096;

/// What a run of load measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Latency in nanoseconds; empty for a closed loop.
    pub latency: Histogram<u64>,
}

impl Measured {
    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// A quantile of the latency, microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Counts what comes back.
#[derive(Clone, Debug)]
pub struct Tally {
    begun: Instant,
    measured: Arc<Mutex<Measured>>,
}

impl Tally {
    /// Begins now.
    pub fn begin() -> Self {
        let measured = Measured { answered: 0, failed: 0, seconds: 0.0, latency: histogram() };
        Self { begun: Instant::now(), measured: Arc::new(Mutex::new(measured)) }
    }

    /// The moment at which something is meant to be sent at a constant rate.
    pub fn meant(&self, index: usize, rate: f64) -> Instant {
        self.begun + Duration::from_secs_f64(index as f64 / rate)
    }

    /// Notes an answer, and its latency where it was meant to be sent at a certain moment.
    pub fn note(&self, good: bool, meant: Option<Instant>) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = if good { &mut measured.answered } else { &mut measured.failed };
        *counter += 1;
        if let Some(meant) = meant.filter(|_| good) {
            let nanos = u64::try_from(meant.elapsed().as_nanos()).unwrap_or(u64::MAX);
            measured.latency.saturating_record(nanos);
        }
    }

    /// What was measured until now.
    pub fn end(&self) -> Measured {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Measured { seconds: self.begun.elapsed().as_secs_f64(), ..measured }
    }
}

/// As many calls as `workers` concurrent callers can make of the given transactions: the saturation of the server.
/// Each caller uses one of the clients.
pub async fn closed_loop(clients: &[ScorerClient<Channel>], transactions: Vec<Transaction>, workers: usize) -> Measured {
    let tally = Tally::begin();
    let queue = Arc::new(Mutex::new(transactions));
    let mut callers = tokio::task::JoinSet::new();
    for client in clients.iter().cycle().take(workers) {
        let (tally, queue, mut client) = (tally.clone(), Arc::clone(&queue), client.clone());
        let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        callers.spawn(async move {
            while let Some(transaction) = next() {
                let answer = client.score(ScoreRequest { transaction: Some(transaction) }).await;
                tally.note(answer.is_ok(), None);
            }
        });
    }
    while callers.join_next().await.is_some() {}
    tally.end()
}

/// The given transactions at a constant rate over the clients in turn, each at its time whether earlier ones were answered or not.
///
/// # Errors
/// When the kernel gives no timer.
pub async fn open_loop(clients: &[ScorerClient<Channel>], transactions: Vec<Transaction>, rate: f64) -> io::Result<Measured> {
    let (pacer, tally) = (Pacer::new()?, Tally::begin());
    let room = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    for ((index, transaction), client) in transactions.into_iter().enumerate().zip(clients.iter().cycle()) {
        let meant = tally.meant(index, rate);
        pacer.until(meant).await?;
        let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        let (tally, mut client) = (tally.clone(), client.clone());
        tokio::spawn(async move {
            let answer = client.score(ScoreRequest { transaction: Some(transaction) }).await;
            tally.note(answer.is_ok(), Some(meant));
            drop(permit);
        });
    }
    let _all_answered = room.acquire_many(IN_FLIGHT).await.map_err(io::Error::other)?;
    Ok(tally.end())
}

/// An empty histogram of nanoseconds, from 1 µs to a minute, three significant digits; what is beyond counts as a minute.
// Bounds are fixed: a histogram that grows by itself does not grow under `saturating_record`, it cuts every value to its first range.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!("these bounds are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_as_they_are() {
        let mut histogram = histogram();
        histogram.saturating_record(2_000_000);
        assert!((1_990_000..2_010_000).contains(&histogram.value_at_quantile(0.5)));
    }
}
