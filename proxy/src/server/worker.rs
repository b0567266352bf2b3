//! One thread that serves: a runtime of its own, streams and upstream connections of its own, and the connections given to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::connection;
use crate::proxy::{Proxy, Shared};

/// How long the scorer may take to acknowledge the last reports.
const LAST_REPORTS: Duration = Duration::from_secs(1);

/// Where a proxy stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Takes connections.
    Serving,
    /// Takes no more; those that it has end with their request.
    Draining,
    /// No connection is left, or the time for them is over: the last reports leave.
    Ending,
    /// Dropped.
    Gone,
}

impl Phase {
    /// Returns once that phase has come.
    pub(super) async fn reached(phase: &mut watch::Receiver<Self>, wanted: Self) {
        // An error means that the sender is gone, and with it the proxy.
        let _gone = phase.wait_for(|phase| *phase >= wanted).await.is_err();
    }
}

/// A connection on its way to its thread.
struct Given {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
}

/// The handle to a thread.
#[derive(Clone)]
pub(super) struct Worker {
    connections: mpsc::UnboundedSender<Given>,
    /// Whether it has tried to reach the scorer.
    tried: watch::Receiver<bool>,
    /// Whether its last reports have been acknowledged; `None` until it ended.
    ended: watch::Receiver<Option<bool>>,
}

impl Worker {
    /// Starts a thread.
    pub(super) fn start(number: usize, shared: Arc<Shared>, phase: watch::Receiver<Phase>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (connections, given) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        let (try_told, tried) = watch::channel(false);
        std::thread::Builder::new().name(format!("proxy-{number}")).spawn(move || {
            let proxy = {
                let _runtime = runtime.enter();
                Arc::new(Proxy::new(&shared))
            };
            let reported = runtime.block_on(async {
                let trying = Arc::clone(&proxy);
                tokio::spawn(async move {
                    trying.scorers.tried().await;
                    try_told.send_replace(true);
                });
                serve(&proxy, given, phase).await
            });
            // Nothing of this thread holds anything when its end is told.
            drop(runtime);
            drop((proxy, shared));
            end.send_replace(Some(reported));
        })?;
        Ok(Self { connections, tried, ended })
    }

    /// Gives it a connection. The permit is given back when the connection ends.
    pub(super) fn take(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        // A connection whose thread has ended, or that cannot leave its runtime, is closed by being dropped.
        if let Ok(stream) = stream.into_std() {
            let _closed = self.connections.send(Given { stream, peer, permit }).is_err();
        }
    }

    /// Returns once each of its streams stands, or could not be opened.
    pub(super) async fn tried(&self) {
        let mut tried = self.tried.clone();
        // An error means that the thread is gone: there is nothing to wait for.
        let _gone = tried.wait_for(|tried| *tried).await.is_err();
    }

    /// Waits for its end; whether the scorer has acknowledged everything.
    pub(super) async fn ended(&self) -> bool {
        let mut ended = self.ended.clone();
        let reported = ended.wait_for(Option::is_some).await;
        reported.is_ok_and(|reported| *reported == Some(true))
    }
}

async fn serve(proxy: &Arc<Proxy>, mut given: mpsc::UnboundedReceiver<Given>, mut phase: watch::Receiver<Phase>) -> bool {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut until = phase.clone();
    loop {
        tokio::select! {
            Some(connection) = given.recv() => begin(connection, proxy, &phase),
            _ = every.tick() => proxy.flush(),
            () = Phase::reached(&mut until, Phase::Ending) => break,
        }
    }
    if *phase.borrow_and_update() == Phase::Gone {
        return false;
    }
    proxy.flush();
    tokio::time::timeout(LAST_REPORTS, proxy.scorers.acknowledged()).await.is_ok()
}

fn begin(given: Given, proxy: &Arc<Proxy>, phase: &watch::Receiver<Phase>) {
    let stream = match TcpStream::from_std(given.stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::error!(%error, "a connection cannot be served"),
    };
    let serving = connection::serve(stream, given.peer, Arc::clone(proxy), phase.clone());
    tokio::spawn(async move {
        serving.await;
        drop(given.permit);
    });
}
