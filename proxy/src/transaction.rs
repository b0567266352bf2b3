//! Conversion: a clean request becomes a `Transaction`, an answer becomes an `Outcome`. The only place that fills wire types.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version, header};
use pbjson_types::Timestamp;
use telltale_proto::v1::{Header, HttpRequest, HttpResponse, Source, Transaction};

use crate::hygiene::Clean;

/// The first bytes of a body and what is known of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The first bytes.
    pub bytes: Bytes,
    /// Size of the whole body, or what was seen of it.
    pub size: u64,
    /// Whether `bytes` is shorter than the body.
    pub truncated: bool,
}

/// The transaction of a request. The header list is what the upstream gets, without what the proxy adds.
pub fn transaction(parts: &Parts, clean: &Clean, service: &str, time: SystemTime) -> Transaction {
    let headers =
        clean.headers.iter().map(|(name, value)| Header { name: name.as_str().to_owned(), value: text(value).into_owned() }).collect();
    Transaction {
        id: crate::id::fresh(),
        time: Some(timestamp(time)),
        source: Some(Source { ip: clean.client.to_string(), port: u32::from(clean.port), ..Source::default() }),
        http: Some(HttpRequest {
            method: parts.method.as_str().to_owned(),
            scheme: clean.scheme.to_owned(),
            host: clean.host.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers,
            version: if parts.version == Version::HTTP_10 { "1.0" } else { "1.1" }.to_owned(),
            ..HttpRequest::default()
        }),
        service: service.to_owned(),
        ..Transaction::default()
    }
}

/// Adds the body's sample.
pub fn with_sample(mut transaction: Transaction, sample: Sample) -> Transaction {
    if let Some(http) = &mut transaction.http {
        http.body = sample.bytes;
        http.body_size = sample.size;
        http.truncated = sample.truncated;
    }
    transaction
}

/// What the scorer learns of an answer: its status, and the headers that open sessions and tell the kind of content.
pub fn response(status: u16, headers: &HeaderMap) -> HttpResponse {
    let kept = |name: &http::HeaderName| *name == header::SET_COOKIE || *name == header::CONTENT_TYPE;
    let headers = headers.iter().filter(|(name, _)| kept(name));
    HttpResponse {
        status: u32::from(status),
        headers: headers.map(|(name, value)| Header { name: name.as_str().to_owned(), value: text(value).into_owned() }).collect(),
        ..HttpResponse::default()
    }
}

/// A header's value as text; bytes that are not UTF-8 are read as Latin-1.
pub(crate) fn text(value: &HeaderValue) -> Cow<'_, str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.as_bytes().iter().map(|byte| char::from(*byte)).collect()),
    }
}

/// A wire timestamp, microsecond precision.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_micros()).unwrap_or_default().saturating_mul(1_000),
    }
}
