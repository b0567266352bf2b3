//! An upstream that remembers what it was asked.
//!
//! `/slow` answers when it is released, `/big` with fifty megabytes, `/early` before it read the body, anything else with its path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
pub struct State {
    pub seen: Mutex<Vec<Seen>>,
    pub connections: AtomicU64,
    /// Body bytes received so far, whole or not.
    pub received: AtomicU64,
    pub release: Notify,
}

pub struct FakeUpstream {
    pub address: SocketAddr,
    pub state: Arc<State>,
}

pub const BIG: usize = 50 << 20;

impl FakeUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, state }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream saw no request")
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed()
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut kept = Vec::new();
    while path != "/early"
        && let Some(Ok(frame)) = body.frame().await
    {
        let data = frame.into_data().unwrap_or_default();
        state.received.fetch_add(data.len() as u64, Ordering::SeqCst);
        if kept.len() < 1 << 20 {
            kept.extend_from_slice(&data);
        }
    }
    let target = parts.uri.to_string();
    state.seen.lock().push(Seen { target, headers: parts.headers, body: kept.into() });
    let mut response = match path.as_str() {
        "/slow" => {
            state.release.notified().await;
            Response::new(whole("slow".to_owned()))
        }
        "/big" => {
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(async move {
                let block = Bytes::from(vec![b'x'; 64 << 10]);
                for _ in 0..BIG / block.len() {
                    if sender.send(Ok(Frame::data(block.clone()))).await.is_err() {
                        return;
                    }
                }
            });
            Response::new(BoxBody::new(StreamBody::new(ReceiverStream::new(receiver))))
        }
        other => Response::new(whole(format!("upstream {other}"))),
    };
    let headers = response.headers_mut();
    headers.insert("content-type", "text/plain".parse().unwrap());
    headers.insert("set-cookie", "sid=s-1; Path=/".parse().unwrap());
    headers.insert("x-telltale-secret", "never leaves".parse().unwrap());
    Ok(response)
}
