//! Keeps the connections up, probes for the breaker, and compares clocks.
//!
//! Nothing that a caller waits for happens here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Shared;
use super::link::Link;

/// How often connections are looked after and an open breaker is probed.
const EVERY: Duration = Duration::from_millis(100);
/// How often clocks are compared.
const CLOCKS: Duration = Duration::from_secs(1);
/// Probes in a row that were not answered before the connections are made anew: Redis may have moved.
const PATIENCE: u32 = 10;

/// The first connection and the first look at the clocks.
pub(super) async fn begin(shared: &Shared) {
    for link in [&shared.reads, &shared.writes] {
        if let Err(error) = link.connect().await {
            tracing::error!(%error, "Redis cannot be reached; state is kept here until it can");
            return;
        }
    }
    compare_clocks(shared, None).await;
    probe(shared).await;
    probe(shared).await;
}

/// Looks after everything until the store is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut compared = Instant::now();
    let mut unanswered = 0;
    let mut was_up = shared.writes.is_up();
    let mut reported = false;
    loop {
        tokio::time::sleep(EVERY).await;
        for link in [&shared.reads, &shared.writes] {
            reconnect(&shared, link).await;
        }
        if shared.breaker.is_closed() {
            unanswered = 0;
        } else {
            unanswered = if probe(&shared).await { 0 } else { unanswered + 1 };
        }
        if unanswered >= PATIENCE {
            // Paused, failed over or cut off: another server may be master by now.
            unanswered = 0;
            shared.reads.drop_connection();
            shared.writes.drop_connection();
        }
        let up = shared.writes.is_up() && shared.breaker.is_closed();
        if up != was_up {
            tracing::info!(up, backlog = shared.dirty(), "Redis");
            was_up = up;
        }
        let elapsed = compared.elapsed();
        if elapsed >= CLOCKS {
            compared = Instant::now();
            compare_clocks(&shared, Some(elapsed)).await;
            if shared.skew.is_large() && !reported {
                tracing::warn!(
                    microseconds = shared.skew.measured(),
                    "clock_skew: this machine's clock differs from Redis's by more than a second"
                );
            }
            reported = shared.skew.is_large();
        }
    }
}

async fn reconnect(shared: &Shared, link: &Link) {
    if link.is_up() {
        link.tend().await;
        return;
    }
    match link.connect().await {
        Ok(()) => {
            shared.counts.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => tracing::debug!(%error, "Redis cannot be reached"),
    }
}

/// One read, as a transaction would do it; whether it was answered at all. Answered in time it counts for the breaker.
async fn probe(shared: &Shared) -> bool {
    let key = format!("{}:{{probe}}", shared.options.prefix);
    let keys = std::slice::from_ref(&key);
    let asked = Instant::now();
    let answer = timeout(EVERY.max(shared.options.read_deadline), shared.reads.get(keys, None)).await;
    let answered = matches!(answer, Ok(Ok(_)));
    // A timer of a millisecond rings within two.
    shared.breaker.probed(answered && asked.elapsed() <= shared.options.read_deadline + Duration::from_millis(1));
    answered
}

async fn compare_clocks(shared: &Shared, elapsed: Option<Duration>) {
    let before = shared.clock.now();
    let Ok(Ok(clocks)) = timeout(Duration::from_millis(500), shared.writes.time()).await else { return };
    let after = shared.clock.now();
    let here = before.micros() + after.micros_since(before) / 2;
    let elapsed = elapsed.map(crate::time::micros);
    shared.skew.measure(clocks.into_iter().map(|there| there - here).collect(), elapsed);
}
