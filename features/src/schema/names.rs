//! The names of event fields: what a filter or a rule may read of one transaction, outcome or label.

use crate::door::CATALOGUE;

/// Numbers of a transaction, with their meaning.
pub(super) const NUMBERS: &[(&str, &str)] = &[
    ("http.body_size", "size of the request body, bytes"),
    ("http.path_depth", "segments of the path"),
    ("http.path_bytes", "length of the path, bytes"),
    ("http.query_bytes", "length of the query, bytes"),
    ("http.header_count", "header lines"),
    ("http.cookie_count", "cookies"),
    ("source.port", "client port"),
    ("source.asn", "autonomous system number"),
    ("time.hour", "hour of day, UTC, with fraction"),
    ("time.weekday", "day of week, Monday 0"),
];

/// Texts of a transaction.
pub(super) const TEXTS: &[(&str, &str)] = &[
    ("http.method", "method in capitals"),
    ("http.route", "route template"),
    ("http.operation", "what the route does, from `endpoints.operations`: login, signup, checkout"),
    ("http.path", "path as received"),
    ("http.query", "query, secrets as tokens"),
    ("http.host", "host"),
    ("http.scheme", "http or https"),
    ("http.version", "HTTP version"),
    ("http.user_agent", "user agent"),
    ("http.content_type", "content type of the body"),
    ("http.referer", "referring page"),
    ("http.object_id", "last variable segment of the path: the object asked for"),
    ("source.ip", "client address"),
    ("source.country", "country of the client address"),
    ("source.ja3", "JA3 of the TLS handshake"),
    ("source.ja4", "JA4 of the TLS handshake"),
    ("service", "service that was called"),
    ("tenant", "tenant"),
];

/// Truth values of a transaction.
pub(super) const FLAGS: &[(&str, &str)] = &[
    ("http.present", "whether it is an HTTP request"),
    ("http.has_cookie", "whether it sends cookies"),
    ("http.has_authorization", "whether it sends an Authorization header"),
    ("http.has_referer", "whether it sends a Referer"),
    ("http.has_accept_language", "whether it sends Accept-Language"),
    ("http.truncated", "whether the body sample is shorter than the body"),
    ("identity.verified", "whether the gateway has verified user or session"),
];

/// Numbers of an outcome.
pub(super) const OUTCOME_NUMBERS: &[&str] = &["status", "bytes_out", "duration_ms"];
/// Texts of an outcome that every context carries.
pub(super) const CARRIED_TEXTS: &[&str] = &["http.method", "http.route", "http.operation"];
/// Truth values of an outcome.
pub(super) const OUTCOME_FLAGS: &[&str] = &["success", "failed"];
/// Text of a label.
pub(super) const LABEL_TEXT: &str = "label";
/// Member that is path and query together.
pub(super) const TARGET: &str = "http.target";
/// Name under which a context carries the method.
pub(super) const CARRIED_METHOD: &str = "http.method";

/// Names of the content signals.
pub(super) fn signals() -> impl Iterator<Item = String> {
    CATALOGUE.iter().map(|(name, _)| format!("content.{name}"))
}

/// The known name that is most like an unknown one, if any is near.
pub(crate) fn closest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.map(|name| (distance(unknown, name), name)).filter(|(distance, name)| *distance <= 1 + name.len() / 3).min().map(|(_, name)| name)
}

/// Levenshtein distance over bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.bytes()) {
            let cost = (diagonal + usize::from(a != b)).min(before + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = cost;
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
