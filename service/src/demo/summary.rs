//! The end of the demonstration: counts and latencies enter, a table for people or JSON for programs leaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::tally::{Tally, harm_words};
use super::{Shape, plain_http};
use crate::error::CommandError;

/// What scoring added to a request, by the proxy's own histogram, microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_us: Option<f64>,
    /// The 99th percentile.
    pub p99_us: Option<f64>,
}

impl Latency {
    /// Asks the proxy.
    pub async fn read(metrics: SocketAddr) -> Self {
        let text = plain_http::get(metrics, "/metrics").await.map(|(_, text)| text).unwrap_or_default();
        let micros = |seconds: Option<&Option<f64>>| seconds.copied().flatten().map(|seconds| seconds * 1e6);
        let found = plain_http::quantiles(&text, "telltale_proxy_added_seconds", &[0.5, 0.99]);
        Self { p50_us: micros(found.first()), p99_us: micros(found.get(1)) }
    }
}

/// Everything that the demonstration found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seed of the world.
    pub seed: u64,
    /// Length of the live part.
    pub seconds: f64,
    /// Transactions replayed before.
    pub replayed: u64,
    /// Who did what and what became of it.
    pub tally: Tally,
    /// What scoring added.
    pub latency: Latency,
    /// Verdicts that were not shown one by one.
    pub held: u64,
    /// Requests of customers that were stopped, by the rule that did it, where the answer named its transaction.
    pub wrongly_stopped_by: BTreeMap<String, u64>,
}

impl Report {
    /// Prints it.
    pub fn print(&self, shape: Shape) -> Result<(), CommandError> {
        match shape {
            Shape::Json => println!("{}", serde_json::to_string_pretty(self).map_err(CommandError::failed)?),
            Shape::Table => println!("{}", self.table()),
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut lines = vec![String::new()];
        if self.held > 0 {
            lines.push(format!("({} more verdicts like these were not shown)", self.held));
        }
        lines.push(format!(
            "\n{:<30} {:>8} {:>24} {:>9}  harm done before the first stop",
            "attack", "requests", "first stopped", "stopped"
        ));
        for (name, attack) in &self.tally.attacks {
            let first = match (attack.first_stopped_request, attack.first_stopped_seconds) {
                (Some(request), Some(seconds)) => format!("request {request}, {seconds:.1} s"),
                _ => "never".to_owned(),
            };
            let words = harm_words(name);
            let harm = if words.is_empty() { "-".to_owned() } else { format!("{} {words}", attack.harm_before) };
            lines.push(format!("{name:<30} {:>8} {first:>24} {:>8.1}%  {harm}", attack.requests, attack.share_stopped * 100.0));
        }
        for (name, guests) in [("customers", &self.tally.customers), ("crawlers and partners", &self.tally.machines)] {
            lines.push(format!(
                "\n{name}: {} sessions, {} requests; wrongly stopped: {} sessions, {} requests",
                guests.sessions, guests.requests, guests.sessions_stopped, guests.requests_stopped
            ));
        }
        if !self.wrongly_stopped_by.is_empty() {
            let rules: Vec<String> = self.wrongly_stopped_by.iter().map(|(rule, requests)| format!("{rule} {requests}")).collect();
            lines.push(format!("customers' requests wrongly stopped, by rule: {}", rules.join(", ")));
        }
        let figure = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.0} µs"));
        lines.push(format!("\nlatency added by the proxy: p50 {}, p99 {}", figure(self.latency.p50_us), figure(self.latency.p99_us)));
        lines.join("\n")
    }
}
