//! The HTTP of the simulated world: what a client sends and what the shop answers, as plain values.
//!
//! Nothing here opens a socket; `live.rs` and the shop's server turn these values into bytes.

/// The host that every client asks for.
pub const HOST: &str = "shop.example";

/// Header lines in the order sent, names in lower case.
pub type Headers = Vec<(&'static str, String)>;

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Method in capitals.
    pub method: &'static str,
    /// Path without the query.
    pub path: String,
    /// Query without the question mark.
    pub query: String,
    /// Headers in order.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.header("cookie")?;
        cookies.split(';').find_map(|pair| pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter, as sent.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// These bytes.
    Text(String),
    /// That many bytes that mean nothing (images, scripts).
    Filler(usize),
}

impl Body {
    /// Size in bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Filler(size) => *size,
        }
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// Values of `set-cookie`.
    pub set_cookies: Vec<String>,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A JSON answer.
    pub fn json(status: u16, text: impl Into<String>) -> Self {
        Self { status, content_type: "application/json", set_cookies: Vec::new(), body: Body::Text(text.into()) }
    }

    /// An answer whose content does not matter.
    pub const fn filler(content_type: &'static str, size: usize) -> Self {
        Self { status: 200, content_type, set_cookies: Vec::new(), body: Body::Filler(size) }
    }

    /// The session that the answer opened, if it did.
    pub fn session(&self) -> Option<&str> {
        self.set_cookies.iter().find_map(|cookie| cookie.strip_prefix("sid=")).map(|rest| rest.split(';').next().unwrap_or_default())
    }
}
