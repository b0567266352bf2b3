//! The simulated world's values as wire messages, exactly as the proxy fills them. The only place that knows both.

use std::net::IpAddr;

use telltale_proto::v1::{Header, HttpRequest, HttpResponse, Source, Transaction};

use super::http::{HOST, Request, Response};

/// Service name that the proxy of the demo is configured with.
pub const SERVICE: &str = "shop";
/// Bytes of a body that the proxy keeps.
const SAMPLE: usize = 16 * 1024;

/// The transaction of a request at (time, address, port).
pub fn transaction(request: &Request, id: &str, (time, address, port): (i64, IpAddr, u32)) -> Transaction {
    let headers = request.headers.iter().map(|(name, value)| Header { name: (*name).to_owned(), value: value.clone() }).collect();
    let sample = request.body.get(..request.body.len().min(SAMPLE)).unwrap_or_default();
    Transaction {
        id: id.to_owned(),
        time: Some(timestamp(time)),
        source: Some(Source { ip: address.to_string(), port, ..Source::default() }),
        http: Some(HttpRequest {
            method: request.method.to_owned(),
            scheme: "http".to_owned(),
            host: HOST.to_owned(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers,
            body: sample.to_vec().into(),
            body_size: request.body.len() as u64,
            truncated: request.body.len() > SAMPLE,
            version: "1.1".to_owned(),
            ..HttpRequest::default()
        }),
        service: SERVICE.to_owned(),
        ..Transaction::default()
    }
}

/// The answer, with the headers that the proxy keeps.
pub fn response(response: &Response, duration_us: i64) -> HttpResponse {
    let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
    let mut headers = vec![header("content-type", response.content_type)];
    headers.extend(response.set_cookies.iter().map(|cookie| header("set-cookie", cookie)));
    HttpResponse {
        status: u32::from(response.status),
        body_size: response.body.len() as u64,
        duration_us: u64::try_from(duration_us).unwrap_or_default(),
        headers,
    }
}

/// Microseconds since the epoch as a wire timestamp.
pub fn timestamp(micros: i64) -> pbjson_types::Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    pbjson_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}
