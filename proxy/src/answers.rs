//! Answers of our own: refusals, blocks, challenges, rate limits and decoys, in the form that fits the client.
//!
//! HTML goes only to a browser that asks for it.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use telltale_proto::v1::Mitigation;

use crate::config::Template;
use crate::download::Answer;
use crate::hygiene::Refusal;

/// What a client can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A person's browser that accepts HTML.
    Browser,
    /// A program that wants plain text and no JSON.
    Text,
    /// Any other program.
    Api,
}

impl Client {
    /// Judges by what the client accepts and calls itself.
    pub fn of(headers: &HeaderMap) -> Self {
        let has = |name: &header::HeaderName, part: &[u8]| {
            headers.get_all(name).iter().any(|value| value.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part)))
        };
        let browser = has(&header::USER_AGENT, b"mozilla/") || headers.contains_key("sec-fetch-mode");
        if browser && has(&header::ACCEPT, b"text/html") {
            Self::Browser
        } else if has(&header::ACCEPT, b"text/plain") && !has(&header::ACCEPT, b"json") {
            Self::Text
        } else {
            Self::Api
        }
    }
}

/// What a client is told: a code for programs and a sentence for people.
struct Message<'a> {
    status: StatusCode,
    code: &'a str,
    text: &'a str,
    reference: &'a str,
}

fn answer(client: Client, message: &Message<'_>) -> Response<Answer> {
    let Message { status, code, text, reference } = message;
    // INVARIANT: `code`, `text` and `reference` are our own words and hexadecimal digits: nothing here needs escaping.
    let (kind, body) = match client {
        Client::Browser => {
            let page = format!(
                "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status}</title><body><h1>{text}</h1><p>Reference: {reference}</p></body></html>\n"
            );
            ("text/html; charset=utf-8", page)
        }
        Client::Text => ("text/plain; charset=utf-8", format!("{text}\nReference: {reference}\n")),
        Client::Api => ("application/json", format!("{{\"error\":\"{code}\",\"message\":\"{text}\",\"reference\":\"{reference}\"}}\n")),
    };
    build(*status, HeaderValue::from_static(kind), body)
}

fn build(status: StatusCode, kind: HeaderValue, body: impl Into<bytes::Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::own(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Seconds for `Retry-After`, at least one.
fn retry_after(response: &mut Response<Answer>, wait: Duration) {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
}

/// 429.
pub fn rate_limited(client: Client, reference: &str, wait: Duration) -> Response<Answer> {
    let text = "Too many requests. Please try again later.";
    let mut response = answer(client, &Message { status: StatusCode::TOO_MANY_REQUESTS, code: "rate_limited", text, reference });
    retry_after(&mut response, wait);
    response
}

/// A plain 403 until the challenge's proof exists.
pub fn challenged(client: Client, reference: &str) -> Response<Answer> {
    let text = "We could not verify this request.";
    answer(client, &Message { status: StatusCode::FORBIDDEN, code: "verification_required", text, reference })
}

/// The status of the mitigation, else 403.
pub fn blocked(client: Client, reference: &str, mitigation: &Mitigation) -> Response<Answer> {
    let asked = u16::try_from(mitigation.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = asked.filter(|status| status.is_client_error() || status.is_server_error()).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = answer(client, &Message { status, code: "forbidden", text: "This request was refused.", reference });
    if mitigation.retry_after_ms > 0 {
        retry_after(&mut response, Duration::from_millis(u64::from(mitigation.retry_after_ms)));
    }
    response
}

/// 503 where a route fails closed.
pub fn unscored(client: Client, reference: &str) -> Response<Answer> {
    let text = "This request cannot be checked right now. Please try again.";
    let mut response = answer(client, &Message { status: StatusCode::SERVICE_UNAVAILABLE, code: "unavailable", text, reference });
    retry_after(&mut response, Duration::from_secs(1));
    response
}

/// 502 or 504.
pub fn upstream_failed(client: Client, reference: &str, status: StatusCode) -> Response<Answer> {
    let (code, text) = match status {
        StatusCode::GATEWAY_TIMEOUT => ("upstream_timeout", "The service did not answer in time."),
        _ => ("upstream_unavailable", "The service cannot be reached."),
    };
    answer(client, &Message { status, code, text, reference })
}

/// A decoy: nothing in it tells that it is one.
pub fn decoy(template: &Template) -> Response<Answer> {
    let mut response = Response::new(Answer::own(template.body.clone()));
    *response.status_mut() = template.status;
    response.headers_mut().insert(header::CONTENT_TYPE, template.content_type.clone());
    response
}

/// The answer to a request that is refused for its form; the connection ends with it.
pub fn refused(refusal: &Refusal) -> Response<Answer> {
    let body = format!("{}\n", refusal.message);
    let mut response = build(refusal.status, HeaderValue::from_static("text/plain; charset=utf-8"), body);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
