//! The demo shop behind real sockets: requests enter, the state machine's answers leave. Loopback only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use telltale_features::time::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::http::{Body, Request, Response};
use super::shop::Shop;

/// A response header that every answer of the shop carries, and no answer of the proxy's own.
pub const MARK: &str = "x-shop";
/// The largest body that the shop reads.
const BODY_LIMIT: usize = 1 << 20;

/// A shop that serves until it is dropped.
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the shop on a free port of 127.0.0.1, or on the given one.
pub async fn serve(shop: Shop, port: u16, clock: Arc<dyn Clock>) -> io::Result<Serving> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let shop = Arc::new((Mutex::new(shop), clock));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shop = Arc::clone(&shop);
            let service = service_fn(move |request| answer(Arc::clone(&shop), request));
            tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(Serving { address, task })
}

async fn answer(
    shop: Arc<(Mutex<Shop>, Arc<dyn Clock>)>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return Ok(rendered(&Response::json(413, "{\"error\":\"too large\"}")));
    };
    let method = if parts.method == http::Method::POST { "POST" } else { "GET" };
    let kept = |name: &'static str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(|value| (name, value.to_owned()));
    let request = Request {
        method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: ["cookie", "authorization"].into_iter().filter_map(kept).collect(),
        body: body.to_bytes().to_vec(),
    };
    let now = shop.1.now().micros();
    let response = shop.0.lock().handle(&request, now);
    Ok(rendered(&response))
}

fn rendered(response: &Response) -> http::Response<Full<Bytes>> {
    let bytes = match &response.body {
        Body::Text(text) => Bytes::from(text.clone()),
        Body::Filler(size) => Bytes::from(vec![b' '; *size]),
    };
    let mut builder = http::Response::builder().status(response.status).header("content-type", response.content_type).header(MARK, "1");
    for cookie in &response.set_cookies {
        builder = builder.header("set-cookie", cookie);
    }
    builder.body(Full::new(bytes)).unwrap_or_default()
}
