//! HTTP against the proxy, one request at a time: whole answers for tests to look at.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

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
