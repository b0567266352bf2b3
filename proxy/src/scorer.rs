//! The way to the scorer: a few long-lived `ScoreStream`s that carry every transaction, outcome and aggregate.
//!
//! A transaction goes in and a verdict comes out, or the reason why there is none; nobody waits past the deadline. Frames
//! that are ready together leave in one write (tonic's encoder gathers them up to 32 KiB).

mod link;

pub(crate) use link::chain;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use telltale_proto::v1::score_stream_request::Payload;
use telltale_proto::v1::{Aggregate, Outcome, Transaction, Verdict};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::config::{ScorerAddress, ScorerSettings};
use crate::metrics::{Metrics, Report, Unscored};
use link::Link;

/// All streams of a thread to the scorer.
#[derive(Debug)]
pub struct Scorers {
    links: Vec<Arc<Link>>,
    next: AtomicUsize,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

impl Scorers {
    /// Opens the streams, and opens them again for as long as the value lives.
    pub fn start(settings: &ScorerSettings, metrics: &Arc<Metrics>) -> Self {
        let links = (0..settings.streams).map(|_| Link::start(settings.clone(), Arc::clone(metrics))).collect();
        Self { links, next: AtomicUsize::new(0), deadline: settings.deadline, metrics: Arc::clone(metrics) }
    }

    /// Asks for a verdict within the deadline.
    pub async fn score(&self, transaction: Transaction) -> Result<Verdict, Unscored> {
        self.score_within(transaction, self.deadline).await
    }

    /// Asks for a verdict; passive requests may wait longer, since nobody waits for them.
    pub async fn score_within(&self, transaction: Transaction, deadline: Duration) -> Result<Verdict, Unscored> {
        let Some(link) = self.pick() else { return Err(Unscored::Absent) };
        link.score(transaction, deadline).await
    }

    /// Hands an outcome to a stream; one that finds no room is counted and lost.
    pub fn outcome(&self, outcome: Outcome) {
        let sent = self.pick().is_some_and(|link| link.send(|| Payload::Outcome(outcome)).is_ok());
        self.metrics.reports.count(if sent { Report::Sent } else { Report::Dropped });
    }

    /// Hands an aggregate to a stream, if one has room; only then it is asked for.
    pub fn aggregate(&self, aggregate: impl FnOnce() -> Aggregate) -> bool {
        let sent = self.pick().is_some_and(|link| link.send(|| Payload::Aggregate(aggregate())).is_ok());
        if sent {
            self.metrics.reports.count(Report::Sent);
        }
        sent
    }

    /// Returns once the first attempt to open each stream has ended, well or not.
    pub async fn tried(&self) {
        for link in &self.links {
            link.tried().await;
        }
    }

    /// Returns once the scorer has acknowledged every outcome and aggregate that was handed to a stream that stands.
    pub async fn acknowledged(&self) {
        for link in &self.links {
            link.acknowledged().await;
        }
    }

    /// Whether a stream stands.
    pub fn stands(&self) -> bool {
        self.links.iter().any(|link| link.stands())
    }

    /// The next stream that stands, in turn.
    fn pick(&self) -> Option<&Arc<Link>> {
        let start = if self.links.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        (0..self.links.len()).filter_map(|step| self.links.get((start + step) % self.links.len())).find(|link| link.stands())
    }
}

impl Drop for Scorers {
    fn drop(&mut self) {
        for link in &self.links {
            link.stop();
        }
    }
}

/// Connects to the scorer.
pub(crate) async fn connect(settings: &ScorerSettings) -> Result<Channel, tonic::transport::Error> {
    let tune = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 21)
    };
    match &settings.address {
        ScorerAddress::Tcp(uri) => tune(Endpoint::from(uri.clone())).connect().await,
        ScorerAddress::Unix(path) => {
            let path = path.clone();
            let connector = service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            tune(Endpoint::from_static("http://scorer.local")).connect_with_connector(connector).await
        }
    }
}

/// A call with the token of the scorer role, if there is one.
pub(crate) fn call<T>(message: T, settings: &ScorerSettings) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let token = settings.token.as_ref().and_then(|token| token.to_str().ok()).and_then(|token| token.parse().ok());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    request
}

/// Waiting times between attempts to connect: doubled from 20 ms to 2 s, each with up to a quarter more, so that many
/// proxies do not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(crate) const fn new() -> Self {
        Self(Self::FIRST)
    }

    pub(crate) const fn reset(&mut self) {
        self.0 = Self::FIRST;
    }

    pub(crate) async fn wait(&mut self) {
        let jitter = self.0.mul_f64(crate::clock::jitter() / 4.0);
        tokio::time::sleep(self.0 + jitter).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }
}
