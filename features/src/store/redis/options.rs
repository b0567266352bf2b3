//! How a Redis store is reached and how it behaves.

use std::fmt;
use std::time::Duration;

use crate::kernel::WriterId;

use super::names::Names;

/// How the servers stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels that know who is master of that name.
    Sentinel {
        /// Its name.
        master: String,
    },
    /// Redis Cluster.
    Cluster,
}

/// When a transaction counts as taken for acting state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// The answer does not wait: at most one flush interval is lost with this process.
    Asynchronous,
    /// The answer waits until the state is stored, on that many replicas too.
    Synchronous {
        /// Replicas that must have it.
        replicas: u32,
    },
}

/// A password: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Who the scorer is to Redis (`AUTH`, ACL).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user; none: `default`.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

/// TLS to every server. PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authority of the servers' certificates; none: the machine's.
    pub authority: Option<Vec<u8>>,
    /// Certificate and key of this client, where the servers ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("authority", &self.authority.is_some()).field("identity", &self.identity.is_some()).finish()
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// How the servers stand to each other.
    pub topology: Topology,
    /// `host:port` or `unix:/path` of the server, the Sentinels, or some nodes of the Cluster.
    pub addresses: Vec<String>,
    /// Who the scorer is to Redis.
    pub credentials: Credentials,
    /// Who it is to the Sentinels.
    pub sentinel_credentials: Credentials,
    /// TLS; none: plain.
    pub tls: Option<Tls>,
    /// Database number; 0 on a Cluster.
    pub database: i64,
    /// First part of every key.
    pub prefix: String,
    /// Bytes of the local cache.
    pub max_bytes: u64,
    /// Longest wait for stored state before an answer.
    pub read_deadline: Duration,
    /// Interval of flushes; jittered by 20 %.
    pub flush_every: Duration,
    /// Longest wait for a flush's answer; after it the outcome is unknown.
    pub flush_deadline: Duration,
    /// A hot entity is read from the cache while its copy is younger than this.
    pub lag: Duration,
    /// When a transaction counts as taken.
    pub acknowledge: Acknowledge,
    /// How long a claim on a transaction stands; none: scorers claim nothing from each other.
    pub claims: Option<Duration>,
    /// How entities are named.
    pub names: Names,
    /// Random number of this process.
    pub writer: WriterId,
}

impl RedisOptions {
    /// One server with everything else as the configuration's defaults say; `writer` is random.
    pub fn single(address: &str, writer: WriterId) -> Self {
        Self {
            topology: Topology::Single,
            addresses: vec![address.to_owned()],
            credentials: Credentials::default(),
            sentinel_credentials: Credentials::default(),
            tls: None,
            database: 0,
            prefix: "tt".to_owned(),
            max_bytes: 1 << 30,
            read_deadline: Duration::from_millis(1),
            flush_every: Duration::from_millis(100),
            flush_deadline: Duration::from_secs(2),
            lag: Duration::from_millis(500),
            acknowledge: Acknowledge::Asynchronous,
            claims: None,
            names: Names::default(),
            writer,
        }
    }
}

/// Options that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisOptionsError {
    /// No address at all.
    #[error("no Redis address is given; allowed: at least one `host:port` or `unix:/path`")]
    NoAddress,
    /// An address that is none.
    #[error("Redis address `{0}` is none; allowed: `host:port`, `[v6]:port` or `unix:/path`")]
    Address(String),
    /// A prefix that would break the hash tag.
    #[error("prefix `{0}` cannot be used; allowed: letters, digits, `-`, `_`, `.` and `:`, at most 64")]
    Prefix(String),
    /// What only some topologies can do.
    #[error("{0}")]
    Topology(&'static str),
}
