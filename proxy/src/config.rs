//! Configuration: a TOML file and flags go in, checked [`Settings`] come out. Never reads the environment.
//!
//! Every refusal names the file, the key, the value and what is allowed.

mod raw;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, StatusCode};

use crate::hops::TrustedHops;

pub use raw::{Flags, RawSettings};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not the TOML that is expected.
    #[error("{file}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// Where and what.
        message: String,
    },
    /// A value is outside of what is allowed.
    #[error("{file}: `{key}` = `{value}`: allowed is {allowed}")]
    Value {
        /// The file, or `flags and defaults`.
        file: String,
        /// Path of the key.
        key: String,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// Checked settings of one proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Host and port of the upstream.
    pub upstream: Authority,
    /// Name of the service in its transactions.
    pub service: String,
    /// Score beside the traffic, never act.
    pub passive: bool,
    /// Threads that serve.
    pub threads: usize,
    /// Peers whose forwarding headers are believed.
    pub trusted_hops: TrustedHops,
    /// How the scorer is asked.
    pub scorer: ScorerSettings,
    /// What a client may use up.
    pub limits: Limits,
    /// Where decisions are kept over a restart.
    pub decisions: Option<Keep>,
    /// Where metrics are served; none in tests that want none.
    pub metrics_listen: Option<SocketAddr>,
    /// Decoy answers by name.
    pub templates: BTreeMap<String, Template>,
}

/// Where decisions are kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The file.
    pub file: PathBuf,
    /// Whether somebody named it: then it must be usable.
    pub named: bool,
}

/// Where the scorer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScorerAddress {
    /// `http://host:port`.
    Tcp(http::Uri),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How the scorer is asked.
#[derive(Clone, Debug)]
pub struct ScorerSettings {
    /// Where it listens.
    pub address: ScorerAddress,
    /// `authorization` header of each call.
    pub token: Option<HeaderValue>,
    /// Streams that each thread holds open.
    pub streams: usize,
    /// How long a request waits.
    pub deadline: Duration,
    /// Verdicts awaited at once on a stream.
    pub in_flight: usize,
    /// First bytes of a body that are scored.
    pub sample_bytes: usize,
    /// How long they are waited for.
    pub sample_wait: Duration,
    /// Path prefixes that fail closed.
    pub fail_closed: Vec<String>,
    /// Unscored answers in ten seconds that raise an alert.
    pub alert_after: u64,
}

/// What clients may use up.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Bytes of a body.
    pub body_bytes: u64,
    /// Time for a head once it began.
    pub header_time: Duration,
    /// Time without progress.
    pub idle_time: Duration,
    /// Time for a request and its answer.
    pub request_time: Duration,
    /// Time to connect to the upstream.
    pub connect_time: Duration,
    /// Time to end when the proxy stops.
    pub drain_time: Duration,
    /// Longest delay of an answer.
    pub delay: Duration,
    /// Requests delayed at once.
    pub delayed: usize,
}

/// A decoy answer.
#[derive(Clone, Debug)]
pub struct Template {
    /// Status of the answer.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
    /// How long it is held back besides what the verdict asks.
    pub delay: Duration,
}

impl Settings {
    /// Reads the file, if one is given, lets the flags win, and checks everything.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (raw, file) = match &flags.config {
            Some(path) => (RawSettings::read(path)?, path.display().to_string()),
            None => (RawSettings::default(), "flags and defaults".to_owned()),
        };
        raw.with(flags).check(&file)
    }

    /// Checks a TOML text; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        RawSettings::parse(text, file)?.check(file)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: path.display().to_string(), source })
}
