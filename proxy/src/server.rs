//! Listeners and the life of a proxy: start, serve, drain. Connections beyond the limit get a 503 and are counted.
//!
//! Each thread serves its connections from the first byte to the last, with streams to the scorer and connections to the upstream
//! of its own: a request never waits for another thread to be woken, which costs more than scoring it.

mod connection;
mod framing;
mod observe;
mod pace;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::decisions::{self, Decisions, Kept};
use crate::hygiene::Reason;
use crate::metrics::Metrics;
use crate::proxy::Shared;
use worker::{Phase, Worker};

/// How long the first attempt to reach the scorer may keep the door closed.
const FIRST_TRY: Duration = Duration::from_secs(1);

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
    #[error("saved decisions in `{}` cannot be used: {source} (repair or remove the file, or name another one in `decisions.file`)", path.display())]
    Decisions {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The metrics are misdeclared.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A thread cannot be had.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A proxy that serves. Dropping it stops without draining.
pub struct Running {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where metrics are served.
    pub metrics_address: Option<SocketAddr>,
    connections: Arc<Semaphore>,
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
    workers: Vec<Worker>,
    shared: Arc<Shared>,
}

/// Starts a proxy. It serves once this returns, whether the scorer is there or not; a scorer that is there is connected by then.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let decisions = Arc::new(Decisions::default());
    let listener = listen(settings.listen, "clients").await?;
    let observed = match settings.metrics_listen {
        Some(address) => Some(listen(address, "metrics").await?),
        None => None,
    };
    let kept = saved(&settings, &decisions)?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    let metrics_address = observed.as_ref().and_then(|listener| listener.local_addr().ok());
    let (told, followed) = oneshot::channel();
    let following = decisions::follow(Arc::clone(&decisions), settings.scorer.clone(), Arc::clone(&metrics), told);
    let shared = Arc::new(Shared::new(settings, Arc::clone(&metrics), decisions, kept));
    let (phase, _) = watch::channel(Phase::Serving);
    let workers = (0..shared.settings.threads).map(|number| Worker::start(number, Arc::clone(&shared), phase.subscribe()));
    let workers = workers.collect::<Result<Vec<_>, _>>().map_err(StartError::Thread)?;
    let connections = Arc::new(Semaphore::new(shared.settings.limits.connections));
    let mut tasks = vec![tokio::spawn(following), tokio::spawn(tick(Arc::clone(&shared)))];
    // A restart must not let requests pass unscored while the streams are being opened. An absent scorer is known at once.
    let scorer_tried = async {
        for worker in &workers {
            worker.tried().await;
        }
        followed.await.unwrap_or_default();
    };
    if tokio::time::timeout(FIRST_TRY, scorer_tried).await.is_err() {
        tracing::warn!("the scorer does not answer; serving without it until it does");
    }
    let door = Door { shared: Arc::clone(&shared), connections: Arc::clone(&connections), workers: workers.clone() };
    tasks.push(tokio::spawn(accept(listener, door, phase.subscribe())));
    if let Some(listener) = observed {
        tasks.push(tokio::spawn(observe::serve(listener, metrics)));
    }
    tracing::info!(%address, ?metrics_address, threads = workers.len(), "telltale-proxy serves");
    Ok(Running { address, metrics_address, connections, phase, tasks, workers, shared })
}

impl Running {
    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Stops: takes no new connections, lets requests end within the drain time, and waits, within a second more, until the
    /// scorer has acknowledged every outcome. True when all ended.
    pub async fn stop(mut self) -> bool {
        let limits = &self.shared.settings.limits;
        self.phase.send_replace(Phase::Draining);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        let drained = tokio::time::timeout(limits.drain_time, self.connections.acquire_many(all)).await.is_ok();
        self.phase.send_replace(Phase::Ending);
        let mut reported = true;
        for worker in &self.workers {
            reported &= worker.ended().await;
        }
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Its end is an abortion, or it has ended before; both are an end.
            let _ended = task.await.is_ok();
        }
        self.shared.save();
        if let Some(kept) = &self.shared.kept {
            kept.release();
        }
        tracing::info!(drained, reported, "telltale-proxy stopped");
        drained
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Gone);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Puts the saved decisions in force, if they are kept.
fn saved(settings: &Settings, decisions: &Decisions) -> Result<Option<Kept>, StartError> {
    let Some(keep) = &settings.decisions else { return Ok(None) };
    let wrong = |source| StartError::Decisions { path: keep.file.clone(), source };
    let kept = match Kept::open(&keep.file) {
        Ok(kept) => kept,
        Err(error) if keep.named => return Err(wrong(error)),
        Err(error) => {
            let file = keep.file.display();
            tracing::warn!(%file, %error, "decisions are kept in memory only and end with this process; `decisions.file` names another file");
            return Ok(None);
        }
    };
    if let Some(saved) = kept.load().map_err(wrong)? {
        tracing::info!(decisions = saved.decisions.len(), file = %kept.path().display(), "saved decisions in force");
        decisions.apply(saved);
    }
    Ok(Some(kept))
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { purpose, address, source })
}

async fn tick(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let shared = Arc::clone(&shared);
        // Saving decisions writes to disk.
        let _done = tokio::task::spawn_blocking(move || shared.tick()).await;
    }
}

/// Who lets connections in.
struct Door {
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    workers: Vec<Worker>,
}

async fn accept(listener: TcpListener, door: Door, mut phase: watch::Receiver<Phase>) {
    for worker in door.workers.iter().cycle() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = Phase::reached(&mut phase, Phase::Draining) => return,
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
        match Arc::clone(&door.connections).try_acquire_owned() {
            Ok(permit) => worker.take(stream, peer, permit),
            Err(_) => {
                door.shared.metrics.refused.count(Reason::TooManyConnections);
                tokio::spawn(turn_away(stream));
            }
        }
    }
}

async fn turn_away(mut stream: TcpStream) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 46\r\nretry-after: 1\r\nconnection: close\r\n\r\ntoo many connections, please try again later.\n";
    let _gone = tokio::time::timeout(Duration::from_secs(1), stream.write_all(BUSY)).await;
}
