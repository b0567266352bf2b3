//! What a client may not claim: a request's head goes in, a clean head and the client's address come out, or a refusal.
//!
//! Never changes a header's value and never reorders them: what is scored is what the upstream gets.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use crate::config::{Limits, Settings};
use crate::metrics::{Label as _, labels};

labels! {
    /// Why a request was refused before it was scored.
    Reason {
        /// More header lines than allowed.
        TooManyHeaders => "too_many_headers",
        /// A larger head than allowed.
        HeadTooLarge => "head_too_large",
        /// A larger body than allowed.
        BodyTooLarge => "body_too_large",
        /// Content-Length beside Transfer-Encoding, conflicting lengths, bare line feeds.
        AmbiguousFraming => "ambiguous_framing",
        /// The host is missing, given twice, or no host.
        BadHost => "bad_host",
        /// The target is neither a path nor this host's URL.
        BadTarget => "bad_target",
        /// A header that must not be there, or with a value that must not be there.
        BadHeader => "bad_header",
        /// A method that is not served.
        BadMethod => "bad_method",
        /// Bytes that are no HTTP request.
        Malformed => "malformed",
        /// The head or body did not come in time.
        TooSlow => "too_slow",
        /// Too many connections.
        TooManyConnections => "too_many_connections",
        /// The body broke off.
        BrokenBody => "broken_body",
    }
}

/// A refusal: what is counted and what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.name())]
pub struct Refusal {
    /// What is counted.
    pub reason: Reason,
    /// Status of the answer.
    pub status: StatusCode,
    /// What is wrong and what is allowed, in one line.
    pub message: String,
}

impl Refusal {
    /// A refusal with its status and message.
    pub fn new(reason: Reason, status: StatusCode, message: impl Into<String>) -> Self {
        Self { reason, status, message: message.into() }
    }

    fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(reason, StatusCode::BAD_REQUEST, message)
    }
}

/// A head that may be scored and forwarded.
#[derive(Debug)]
pub struct Clean {
    /// The client after the trusted hops.
    pub client: IpAddr,
    /// Its port; 0 behind a trusted hop.
    pub port: u16,
    /// Host in lower case, with its port if the client gave one; empty for an HTTP/1.0 request without one.
    pub host: String,
    /// The headers that are left, in the order received.
    pub headers: HeaderMap,
    /// `https` where a trusted hop says that it ended TLS, else `http`.
    pub scheme: &'static str,
    /// Forwarding headers as the upstream shall see them.
    pub forwarding: Vec<(HeaderName, HeaderValue)>,
}

/// Checks a head and strips it; `parts.headers` is left empty.
pub fn clean(parts: &mut Parts, peer: SocketAddr, settings: &Settings) -> Result<Clean, Refusal> {
    size(parts, &settings.limits)?;
    method(parts)?;
    framing(&parts.headers, &settings.limits)?;
    let host = host(parts)?;
    let client = settings.trusted_hops.client(peer.ip(), &parts.headers);
    let port = if client == peer.ip().to_canonical() { peer.port() } else { 0 };
    let (scheme, forwarding) = forwarding(&parts.headers, peer.ip().to_canonical(), settings);
    let headers = strip(std::mem::take(&mut parts.headers))?;
    Ok(Clean { client, port, host, scheme, forwarding, headers })
}

fn size(parts: &Parts, limits: &Limits) -> Result<(), Refusal> {
    let lines = parts.headers.len();
    if lines > limits.headers {
        let message = format!("the request has {lines} header lines, at most {} are allowed", limits.headers);
        return Err(Refusal::new(Reason::TooManyHeaders, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message));
    }
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let bytes = target + parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if bytes > limits.header_bytes {
        let status = if target > limits.header_bytes / 2 { StatusCode::URI_TOO_LONG } else { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE };
        let message = format!("the request's head has {bytes} bytes, at most {} are allowed", limits.header_bytes);
        return Err(Refusal::new(Reason::HeadTooLarge, status, message));
    }
    Ok(())
}

fn method(parts: &Parts) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        let message = format!("the method {} is not served here", parts.method);
        return Err(Refusal::new(Reason::BadMethod, StatusCode::METHOD_NOT_ALLOWED, message));
    }
    Ok(())
}

/// The framing that is left to check after `framing::Watch`: the announced size.
fn framing(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    if headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::bad(Reason::AmbiguousFraming, "Content-Length and Transfer-Encoding exclude each other"));
    }
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.trim().parse::<u64>().ok());
    match announced {
        Some(bytes) if bytes > limits.body_bytes => Err(too_large(limits.body_bytes)),
        _ => Ok(()),
    }
}

/// The refusal of a body beyond the limit.
pub fn too_large(limit: u64) -> Refusal {
    Refusal::new(Reason::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, format!("the body is too large, at most {limit} bytes are allowed"))
}

fn host(parts: &Parts) -> Result<String, Refusal> {
    let refused = |message: &str| Refusal::bad(Reason::BadHost, message);
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(refused("the Host header is given more than once"));
    }
    let Some(line) = first else {
        return if parts.version == Version::HTTP_11 { Err(refused("the Host header is missing")) } else { Ok(String::new()) };
    };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'%');
    let bytes = line.as_bytes();
    let authority: Option<http::uri::Authority> = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    let Some(authority) = authority.filter(|_| bytes.len() <= 255 && bytes.iter().all(fits)) else {
        return Err(refused("the Host header is no host name or address with an optional port"));
    };
    let given = authority.as_str();
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    if target.is_some_and(|target| !target.eq_ignore_ascii_case(given)) {
        return Err(Refusal::bad(Reason::BadTarget, "the request's URL and its Host header name different hosts"));
    }
    let path = parts.uri.path();
    let served = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
    if !served {
        return Err(Refusal::bad(Reason::BadTarget, "the request's target must begin with `/`"));
    }
    Ok(given.to_ascii_lowercase())
}

/// What the upstream is told of the way: from a trusted hop its own words with that hop added, else the peer alone.
fn forwarding(headers: &HeaderMap, peer: IpAddr, settings: &Settings) -> (&'static str, Vec<(HeaderName, HeaderValue)>) {
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const KEPT: [HeaderName; 3] = [
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-forwarded-port"),
        HeaderName::from_static("x-forwarded-prefix"),
    ];
    let mut chain = String::new();
    let mut scheme = "http";
    let mut forwarding = Vec::with_capacity(2);
    if settings.trusted_hops.holds(peer) {
        for line in headers.get_all(crate::hops::FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()) {
            chain.push_str(line);
            chain.push_str(", ");
        }
        if headers.get(&PROTO).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https")) {
            scheme = "https";
        }
        forwarding.extend(KEPT.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))));
    }
    chain.push_str(&peer.to_string());
    forwarding.push((PROTO, HeaderValue::from_static(scheme)));
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        forwarding.push((crate::hops::FORWARDED_FOR, chain));
    }
    (scheme, forwarding)
}

/// Headers that end at this hop or that only this proxy may set.
fn ours(name: &HeaderName) -> bool {
    let text = name.as_str();
    matches!(
        text,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
            | "forwarded"
            | "x-real-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "via"
    ) || text.starts_with("x-telltale-")
        || text.starts_with("x-forwarded-")
}

/// Headers that an option of `Connection` must not name: they belong to the request, not to the hop.
fn essential(name: &str) -> bool {
    ["host", "content-length", "content-type", "content-encoding", "cookie", "authorization", "cache-control"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

fn strip(headers: HeaderMap) -> Result<HeaderMap, Refusal> {
    let mut named = Vec::new();
    for line in headers.get_all(header::CONNECTION) {
        let text = line.to_str().map_err(|_| Refusal::bad(Reason::BadHeader, "the Connection header is not ASCII"))?;
        for option in text.split(',').map(str::trim) {
            if essential(option) {
                return Err(Refusal::bad(Reason::BadHeader, format!("the Connection header must not name `{option}`")));
            }
            if !matches!(option, "" | "close" | "keep-alive") {
                named.push(option.to_ascii_lowercase());
            }
        }
    }
    let mut kept = HeaderMap::with_capacity(headers.len() + 6);
    let mut last: Option<HeaderName> = None;
    for (name, value) in headers {
        if let Some(name) = name {
            last = (!ours(&name) && !named.iter().any(|option| option == name.as_str())).then_some(name);
        }
        if let Some(name) = &last {
            kept.append(name.clone(), value);
        }
    }
    Ok(kept)
}

/// Whether a header of an upstream's answer ends at this hop or speaks for the proxy.
pub fn ends_here(name: &HeaderName) -> bool {
    matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade")
        || name.as_str().starts_with("x-telltale-")
}
