//! Listeners and the life of a proxy: start, serve, drain. Connections beyond the limit get a 503 and are counted.

mod framing;
mod observe;
mod pace;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::decisions::{self, Decisions};
use crate::hygiene::{Reason, Refusal};
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use pace::{Pace, Paced};

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}` for {purpose}: {source}")]
    Listen {
        /// What the address is for.
        purpose: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The saved decisions cannot be read. Starting without them would lift every denial.
    #[error("saved decisions cannot be read: {0} (repair or remove the file)")]
    Decisions(#[source] io::Error),
    /// The metrics are misdeclared.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A proxy that serves. Dropping it stops without draining.
pub struct Running {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where metrics are served.
    pub metrics_address: Option<SocketAddr>,
    metrics: Arc<Metrics>,
    connections: Arc<Semaphore>,
    most: usize,
    stop: watch::Sender<bool>,
    drain_time: Duration,
    tasks: Vec<JoinHandle<()>>,
    proxy: Arc<Proxy>,
}

/// Starts a proxy. It serves once this returns, whether the scorer is there or not.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let decisions = Arc::new(Decisions::default());
    if let Some(path) = &settings.decisions_file
        && let Some(saved) = decisions::load(path).map_err(StartError::Decisions)?
    {
        tracing::info!(decisions = saved.decisions.len(), file = %path.display(), "saved decisions in force");
        decisions.apply(saved);
    }
    let listener = listen(settings.listen, "clients").await?;
    let observed = match settings.metrics_listen {
        Some(address) => Some(listen(address, "metrics").await?),
        None => None,
    };
    let address = listener.local_addr().unwrap_or(settings.listen);
    let metrics_address = observed.as_ref().and_then(|listener| listener.local_addr().ok());
    let following = decisions::follow(Arc::clone(&decisions), settings.scorer.clone(), Arc::clone(&metrics));
    let (stop, stopping) = watch::channel(false);
    let (most, drain_time) = (settings.limits.connections, settings.limits.drain_time);
    let connections = Arc::new(Semaphore::new(most));
    let proxy = Arc::new(Proxy::new(settings, Arc::clone(&metrics), decisions));
    let mut tasks = vec![tokio::spawn(following), tokio::spawn(tick(Arc::clone(&proxy)))];
    tasks.push(tokio::spawn(accept(listener, Arc::clone(&proxy), Arc::clone(&connections), stopping)));
    if let Some(listener) = observed {
        tasks.push(tokio::spawn(observe::serve(listener, Arc::clone(&metrics))));
    }
    tracing::info!(%address, ?metrics_address, "telltale-proxy serves");
    Ok(Running { address, metrics_address, metrics, connections, most, stop, drain_time, tasks, proxy })
}

impl Running {
    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Stops: takes no new connections, lets requests end within the drain time, sends the last reports. True when all ended.
    pub async fn stop(self) -> bool {
        self.stop.send_replace(true);
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        let drained = tokio::time::timeout(self.drain_time, self.connections.acquire_many(all)).await.is_ok();
        self.proxy.tick();
        // The last outcomes are in the stream's queue: one turn of the runtime hands them to the socket.
        tokio::time::sleep(Duration::from_millis(20)).await;
        tracing::info!(drained, "telltale-proxy stopped");
        drained
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { purpose, address, source })
}

async fn tick(proxy: Arc<Proxy>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let proxy = Arc::clone(&proxy);
        // Saving decisions writes to disk.
        let _done = tokio::task::spawn_blocking(move || proxy.tick()).await;
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>, connections: Arc<Semaphore>, mut stopping: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to close instead of spinning.
                tracing::error!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            proxy.metrics.refused.count(Reason::TooManyConnections);
            tokio::spawn(turn_away(stream));
            continue;
        };
        let serving = connection(stream, peer, Arc::clone(&proxy), stopping.clone());
        tokio::spawn(async move {
            serving.await;
            drop(permit);
        });
    }
}

/// Returns once the proxy is to stop.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the proxy.
    let _stop = stopping.wait_for(|stop| *stop).await.is_ok();
}

async fn turn_away(mut stream: TcpStream) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 46\r\nretry-after: 1\r\nconnection: close\r\n\r\ntoo many connections, please try again later.\n";
    let _gone = tokio::time::timeout(Duration::from_secs(1), stream.write_all(BUSY)).await;
}

/// One client connection until its end.
async fn connection(stream: TcpStream, peer: SocketAddr, proxy: Arc<Proxy>, mut stopping: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let limits = proxy.settings.limits.clone();
    proxy.metrics.connections.inc();
    let pace = Arc::new(Pace::default());
    let io = TokioIo::new(Paced::new(stream, Arc::clone(&pace), limits.header_time, limits.idle_time));
    let serving = Arc::clone(&proxy);
    let service = service_fn(move |request| {
        let pace = Arc::clone(&pace);
        let framing = pace.request_began();
        let serving = Arc::clone(&serving);
        async move {
            let response = match framing {
                Ok(()) => serving.serve(peer, request).await,
                Err(wrong) => Ok(serving.refuse(&Refusal::new(Reason::AmbiguousFraming, StatusCode::BAD_REQUEST, wrong))),
            };
            pace.request_ended();
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time)
        .max_headers(limits.headers.saturating_mul(2))
        .max_buf_size((limits.header_bytes.saturating_mul(2)).max(16_384))
        .serve_connection(io, service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    proxy.metrics.connections.dec();
    if let Err(error) = result {
        if error.is_parse() || error.is_parse_too_large() {
            proxy.metrics.refused.count(Reason::Malformed);
        } else if error.is_timeout() {
            proxy.metrics.refused.count(Reason::TooSlow);
        }
        tracing::debug!(%error, %peer, "connection ended");
    }
}
