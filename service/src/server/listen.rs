//! Addresses and doors: an address is taken when the server starts, and becomes a door, open to connections, when it can serve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::ServerTlsConfig;
use tonic::transport::server::TcpIncoming;

use super::access::Access;
use super::run::ServeError;
use super::{Service, http};
use crate::config::{Config, Listen};

/// An address that is taken, and where nobody is let in yet: a connection is refused.
pub enum Bound {
    /// TCP.
    Tcp(TcpSocket),
    /// A Unix socket.
    Unix(UnixSocket),
}

/// An open door.
pub enum Open {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Takes an address; `key` is where it stands in the configuration.
///
/// # Errors
/// When it is no address, or somebody else has it.
pub async fn bind(key: &'static str, listen: &str) -> Result<Bound, ServeError> {
    let at = |source| ServeError::Listen { key, listen: listen.to_owned(), source };
    match Listen::parse(listen).map_err(|allowed| at(std::io::Error::new(std::io::ErrorKind::InvalidInput, allowed)))? {
        Listen::Tcp(address) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(at)?;
            // A restart must not wait for the connections of the one before to be forgotten.
            socket.set_reuseaddr(true).map_err(at)?;
            socket.bind(address).map_err(at)?;
            Ok(Bound::Tcp(socket))
        }
        Listen::Unix(path) => {
            // A socket that nobody answers was left behind by a killed process.
            if path.exists() && tokio::net::UnixStream::connect(&path).await.is_err() {
                std::fs::remove_file(&path).map_err(at)?;
            }
            let socket = UnixSocket::new_stream().map_err(at)?;
            socket.bind(&path).map_err(at)?;
            Ok(Bound::Unix(socket))
        }
    }
}

impl Bound {
    /// The TCP address, with the port that it got.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Lets connections in.
    ///
    /// # Errors
    /// When somebody else was faster.
    pub fn open(self, key: &'static str, listen: &str) -> Result<Open, ServeError> {
        let at = |source| ServeError::Listen { key, listen: listen.to_owned(), source };
        Ok(match self {
            Self::Tcp(socket) => Open::Tcp(socket.listen(BACKLOG).map_err(at)?),
            Self::Unix(socket) => Open::Unix(socket.listen(BACKLOG).map_err(at)?),
        })
    }
}

/// Where the configuration names Unix sockets: the files to remove at the end.
pub fn sockets(config: &Config) -> Vec<PathBuf> {
    let listeners = [&config.scoring.listen, &config.admin.listen, &config.metrics.listen];
    let parsed = listeners.into_iter().filter_map(|listen| Listen::parse(listen).ok());
    parsed.filter_map(|listen| if let Listen::Unix(path) = listen { Some(path) } else { None }).collect()
}

/// A gRPC server with or without TLS.
///
/// # Errors
/// When the certificate or key cannot be used.
pub fn server(tls: &Option<ServerTlsConfig>) -> Result<Server, ServeError> {
    let server = Server::builder().max_concurrent_streams(Some(4_096));
    Ok(match tls {
        Some(tls) => server.tls_config(tls.clone())?,
        None => server,
    })
}

/// Serves until it is stopped.
pub fn serve_grpc(
    door: Open,
    router: tonic::transport::server::Router<tower::layer::util::Stack<Access, tower::layer::util::Identity>>,
    stop: &watch::Sender<bool>,
) -> JoinHandle<Result<(), ServeError>> {
    let stopped = stopped(stop);
    tokio::spawn(async move {
        match door {
            // The server's own `tcp_nodelay` does not reach connections of a listener that is handed in; without it every answer
            // waits 40 ms for the client's delayed acknowledgement.
            Open::Tcp(listener) => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                router.serve_with_incoming_shutdown(incoming, stopped).await?;
            }
            Open::Unix(listener) => {
                router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped).await?;
            }
        }
        Ok(())
    })
}

/// Serves until it is stopped.
pub fn serve_http(door: Open, service: &Arc<Service>, stop: &watch::Sender<bool>) -> JoinHandle<Result<(), ServeError>> {
    let routes = http::routes(Arc::clone(service));
    let stopped = stopped(stop);
    tokio::spawn(async move {
        let served = match door {
            Open::Tcp(listener) => axum::serve(listener, routes).with_graceful_shutdown(stopped).await,
            Open::Unix(listener) => axum::serve(listener, routes).with_graceful_shutdown(stopped).await,
        };
        served.map_err(|error| ServeError::Task(error.to_string()))
    })
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.subscribe();
    async move {
        // An error means that the sender is gone, which is a stop as well.
        stop.wait_for(|stop| *stop).await.map(|_| ()).unwrap_or_default();
    }
}
