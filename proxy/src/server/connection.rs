//! One client connection: requests in, answers out, until either side ends it or the proxy drains.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::pace::{Pace, Paced};
use super::worker::Phase;
use crate::hygiene::{Reason, Refusal};
use crate::proxy::Proxy;

/// One client connection until its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, proxy: Arc<Proxy>, mut phase: watch::Receiver<Phase>) {
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
        () = Phase::reached(&mut phase, Phase::Draining) => {
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
