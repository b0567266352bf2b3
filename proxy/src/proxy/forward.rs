//! The upstream's side: a kept-alive client, the re-serialised request, and the answer streamed back.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use telltale_proto::v1::Action;
use tokio::time::Instant;

use super::{Asked, Proxy, Scored};
use crate::config::Settings;
use crate::download::Answer;
use crate::metrics::UpstreamError;
use crate::upload::{Upload, UploadError};
use crate::{answers, hygiene, transaction};

const TRANSACTION_ID: HeaderName = HeaderName::from_static("x-telltale-transaction-id");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The one upstream and its connections.
pub(super) struct Upstream {
    client: Client<HttpConnector, Upload>,
    authority: Authority,
}

impl Upstream {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.limits.connect_time));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(std::time::Duration::from_secs(60))
            .set_host(false)
            .build(connector);
        Self { client, authority: settings.upstream.clone() }
    }
}

impl Proxy {
    /// Sends a request on and streams its answer back; the outcome is reported when the last byte has left.
    pub(super) async fn forward(self: &Arc<Self>, asked: Asked, upload: Upload, scored: Scored, done: Action) -> Response<Answer> {
        let deadline = Instant::from_std(asked.arrival.at) + self.settings.limits.request_time;
        let client = asked.client;
        let Some(request) = self.request(asked, upload, &scored.id) else {
            let refusal =
                hygiene::Refusal::new(hygiene::Reason::BadTarget, StatusCode::BAD_REQUEST, "the request's target cannot be forwarded");
            let response = self.refuse(&refusal);
            return self.report_own(&scored, done, response);
        };
        let failed = |error: UpstreamError, status: StatusCode| {
            self.metrics.upstream_errors.count(error);
            self.report_own(&scored, done, answers::upstream_failed(client, &scored.id, status))
        };
        match tokio::time::timeout_at(deadline, self.upstream.client.request(request)).await {
            Err(_) => failed(UpstreamError::Timeout, StatusCode::GATEWAY_TIMEOUT),
            Ok(Err(error)) => {
                if let Some(upload) = cause::<UploadError>(&error) {
                    let response = self.refuse(&self.broken(*upload));
                    return self.report_own(&scored, done, response);
                }
                tracing::warn!(error = %crate::scorer::chain(&error), "upstream failed");
                failed(if error.is_connect() { UpstreamError::Connect } else { UpstreamError::Broken }, StatusCode::BAD_GATEWAY)
            }
            Ok(Ok(response)) => self.stream_back(response, deadline, scored, done),
        }
    }

    fn request(&self, asked: Asked, upload: Upload, id: &str) -> Option<Request<Upload>> {
        let Asked { parts, mut clean, .. } = asked;
        let target = parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.authority.clone());
        uri.path_and_query = Some(target);
        if clean.host.is_empty() {
            clean.headers.insert(header::HOST, HeaderValue::from_str(self.upstream.authority.as_str()).ok()?);
        }
        clean.headers.insert(REAL_IP, address(clean.client)?);
        clean.headers.insert(TRANSACTION_ID, HeaderValue::from_str(id).ok()?);
        for (name, value) in clean.forwarding {
            clean.headers.insert(name, value);
        }
        let mut request = Request::new(upload);
        *request.method_mut() = parts.method;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = clean.headers;
        Some(request)
    }

    fn stream_back(
        self: &Arc<Self>,
        response: Response<hyper::body::Incoming>,
        deadline: Instant,
        scored: Scored,
        done: Action,
    ) -> Response<Answer> {
        let (mut parts, body) = response.into_parts();
        let ours: Vec<HeaderName> = parts.headers.keys().filter(|name| hygiene::ends_here(name)).cloned().collect();
        for name in ours {
            parts.headers.remove(name);
        }
        parts.version = Version::HTTP_11;
        let outcome = transaction::response(parts.status.as_u16(), &parts.headers);
        let proxy = Arc::clone(self);
        let closing = Box::new(move |sent| proxy.report(&scored, done, outcome, sent));
        Response::from_parts(parts, Answer::stream(body, deadline, closing))
    }
}

fn address(client: IpAddr) -> Option<HeaderValue> {
    HeaderValue::from_str(&client.to_string()).ok()
}

/// The first cause of that type.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
