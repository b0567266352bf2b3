//! HTTP against the proxy: single requests, and open-loop load over kept-alive connections with honest latencies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::load::{Measured, histogram};

/// What may go wrong with a request.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client with kept-alive connections to one server.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
}

impl Http {
    /// A client of that server.
    pub fn new(server: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), server }
    }

    /// Sends a request with these headers and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails or the request cannot be built.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.server));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.client.request(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?).await?;
        let (parts, body) = answer.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }

    /// Sends a GET as a client with that forwarded address.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn get(&self, path: &str, address: &str) -> Result<Answer, Failure> {
        self.send("GET", path, &[("x-forwarded-for", address), ("user-agent", "e2e/1.0"), ("accept", "application/json")], "").await
    }
}

/// GETs of many clients at a constant rate, each at its time whether earlier ones were answered or not; at most 1,024 in flight.
pub async fn open_loop(http: &Http, count: usize, rate: f64) -> Measured {
    let started = Instant::now();
    let latency = Arc::new(Mutex::new(histogram()));
    let failed = Arc::new(AtomicU64::new(0));
    let room = Arc::new(Semaphore::new(1_024));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..count {
        let meant = started + Duration::from_secs_f64(index as f64 / rate);
        tokio::time::sleep_until(meant).await;
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let (latency, failed, http) = (latency.clone(), failed.clone(), http.clone());
        tasks.spawn(async move {
            let answer = http.get(&format!("/api/products/{}", index % 400), &client(index)).await;
            let nanos = u64::try_from(meant.elapsed().as_nanos()).unwrap_or(u64::MAX);
            match answer {
                Ok(answer) if answer.status.is_success() => latency.lock().await.saturating_record(nanos),
                _ => {
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

/// As many GETs as `workers` can make: the saturation of what stands behind.
pub async fn closed_loop(http: &Http, count: usize, workers: usize) -> Measured {
    let started = Instant::now();
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..workers {
        let (answered, failed, http) = (answered.clone(), failed.clone(), http.clone());
        tasks.spawn(async move {
            for index in (worker..count).step_by(workers) {
                match http.get(&format!("/api/products/{}", index % 400), &client(index)).await {
                    Ok(answer) if answer.status.is_success() => answered.fetch_add(1, Ordering::Relaxed),
                    _ => failed.fetch_add(1, Ordering::Relaxed),
                };
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

/// One of five thousand forwarded addresses.
fn client(index: usize) -> String {
    let client = index.wrapping_mul(2_654_435_761) % 5_000;
    format!("127.9.{}.{}", client / 250, client % 250 + 1)
}
