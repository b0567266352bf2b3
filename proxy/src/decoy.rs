//! Decoy answers: the templates that ship. What a deceived client gets comes from here or from the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::config::Template;

/// The template that stands in for a name that is not configured: it fits most of what is worth deceiving.
pub const FALLBACK: &str = "login_failure";

/// The shipped templates by name.
pub fn shipped() -> BTreeMap<String, Template> {
    let json = HeaderValue::from_static("application/json");
    let template = |status, body: &'static str| Template {
        status,
        content_type: json.clone(),
        body: Bytes::from_static(body.as_bytes()),
        delay: Duration::ZERO,
    };
    BTreeMap::from([
        (FALLBACK.to_owned(), template(StatusCode::UNAUTHORIZED, r#"{"error":"invalid username or password"}"#)),
        ("empty_list".to_owned(), template(StatusCode::OK, r#"{"items":[],"total":0,"page":1}"#)),
        (
            "fake_order".to_owned(),
            template(StatusCode::OK, r#"{"status":"accepted","order":"20941877","message":"Thank you for your order."}"#),
        ),
    ])
}
