//! Load on a Scorer: saturation with a closed loop, latency with an open loop.
//!
//! Latency counts from the moment at which a call was meant to be sent, so a server that stalls cannot hide it
//! (coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{ScoreRequest, Transaction};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tonic::transport::Channel;

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

/// As many calls as `workers` concurrent callers can make of the given transactions: the saturation of the server.
pub async fn closed_loop(client: &ScorerClient<Channel>, transactions: Vec<Transaction>, workers: usize) -> Measured {
    let started = Instant::now();
    let queue = Arc::new(Mutex::new(transactions));
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (queue, answered, failed, mut client) = (queue.clone(), answered.clone(), failed.clone(), client.clone());
        tasks.spawn(async move {
            loop {
                // One lock for eight calls, so that the queue is not what is measured.
                let batch: Vec<Transaction> = {
                    let mut queue = queue.lock().await;
                    let keep = queue.len().saturating_sub(8);
                    queue.split_off(keep)
                };
                if batch.is_empty() {
                    break;
                }
                for transaction in batch {
                    let counter = match client.score(ScoreRequest { transaction: Some(transaction) }).await {
                        Ok(_) => &answered,
                        Err(_) => &failed,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Measured {
        answered: answered.load(Ordering::Relaxed),
        failed: failed.load(Ordering::Relaxed),
        seconds: started.elapsed().as_secs_f64(),
        latency: histogram(),
    }
}

/// The given transactions at a constant rate, each at its time whether earlier ones were answered or not; at most 4,096 in flight.
pub async fn open_loop(client: &ScorerClient<Channel>, transactions: Vec<Transaction>, rate: f64) -> Measured {
    let started = Instant::now();
    let latency = Arc::new(Mutex::new(histogram()));
    let failed = Arc::new(AtomicU64::new(0));
    let room = Arc::new(Semaphore::new(4_096));
    let mut tasks = tokio::task::JoinSet::new();
    for (index, transaction) in transactions.into_iter().enumerate() {
        let meant = started + Duration::from_secs_f64(index as f64 / rate);
        tokio::time::sleep_until(meant).await;
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let (latency, failed, mut client) = (latency.clone(), failed.clone(), client.clone());
        tasks.spawn(async move {
            let answer = client.score(ScoreRequest { transaction: Some(transaction) }).await;
            let nanos = u64::try_from(meant.elapsed().as_nanos()).unwrap_or(u64::MAX);
            match answer {
                Ok(_) => latency.lock().await.saturating_record(nanos),
                Err(_) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(permit);
        });
    }
    while tasks.join_next().await.is_some() {}
    let latency = latency.lock().await.clone();
    Measured { answered: latency.len(), failed: failed.load(Ordering::Relaxed), seconds: started.elapsed().as_secs_f64(), latency }
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
