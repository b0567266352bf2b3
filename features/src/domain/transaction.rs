//! A transaction and its parts. Plain data: meaning begins with the schema.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Typed values by name, in name order.
pub type Values = BTreeMap<String, Value>;

/// One thing that somebody did. The fields mean what `telltale/v1/transaction.proto` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// Identifier given by the gateway.
    pub id: String,
    /// When it happened; already clamped once it stands behind the door.
    pub time: Timestamp,
    /// Where it came from.
    pub source: Source,
    /// The HTTP request, if it was one.
    pub http: Option<HttpRequest>,
    /// The response, where it is known already.
    pub response: Option<HttpResponse>,
    /// Identities that the gateway knows.
    pub identity: Identity,
    /// Typed values of the business.
    pub attributes: Values,
    /// The customer of a shared installation; empty where there is one.
    pub tenant: String,
    /// The service that was called.
    pub service: String,
}

/// The network side of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Client address in text; empty when unknown.
    pub ip: String,
    /// Client port; 0 when unknown.
    pub port: u16,
    /// ISO 3166-1 alpha-2 country; empty when unknown.
    pub country: String,
    /// Autonomous system number; 0 when unknown.
    pub asn: u32,
    /// TLS client details.
    pub tls: Option<Tls>,
}

/// What a TLS handshake says of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// JA3 digest; empty when unknown.
    pub ja3: String,
    /// JA4 fingerprint; empty when unknown.
    pub ja4: String,
    /// Server name asked for.
    pub sni: String,
}

/// One HTTP request as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method in capitals.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host, lower case.
    pub host: String,
    /// Path as received.
    pub path: String,
    /// Query without the question mark.
    pub query: String,
    /// Route template; empty until the schema's templates have found it.
    pub route: String,
    /// Headers in the order received, names in lower case.
    pub headers: Vec<Header>,
    /// First bytes of the body. Empty behind the door.
    pub body: Vec<u8>,
    /// Size of the whole body, bytes.
    pub body_size: u64,
    /// Whether `body` is shorter than the body was.
    pub truncated: bool,
    /// HTTP version.
    pub version: String,
}

impl HttpRequest {
    /// The value of the first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.name == name).map(|header| header.value.as_str())
    }
}

/// One header line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Name in lower case.
    pub name: String,
    /// Value.
    pub value: String,
}

/// What the service answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Bytes of body sent.
    pub body_size: u64,
    /// First byte of the request to last byte of the answer, microseconds.
    pub duration_us: u64,
    /// Headers that the gateway keeps.
    pub headers: Vec<Header>,
}

/// Who acts, as far as the gateway knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Session identifier.
    pub session: String,
    /// User or account name.
    pub user: String,
    /// Device fingerprint.
    pub fingerprint: String,
    /// Keyed hash of the credential.
    pub credential_hash: String,
    /// Identifiers that the customer names.
    pub fields: BTreeMap<String, String>,
    /// Whether the gateway has verified user or session itself.
    pub verified: bool,
}

/// A typed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A finite number.
    Number(f64),
    /// Text of at most [`super::limits::TEXT_BYTES`].
    Text(String),
    /// A truth value.
    Flag(bool),
}
