//! Configuration: one TOML file, every key optional, checked as a whole before anything starts.
//!
//! Text enters, checked values leave. Errors name file, key, value and what is allowed. Nothing here reads the environment.

mod sections;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use telltale_models::trust::{Require, Trust};

pub use sections::{
    Access, Admin, Config, EndpointsSection, GeoSection, Idempotency, InferenceSection, JournalSection, Log, Metrics, Models, NamesSection,
    PolicySection, ReasonsSection, RedisSection, SchemaSection, Scoring, StoreSection,
};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has keys that do not exist or values of the wrong kind.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A value that is not allowed.
    #[error("{}: `{key}` is `{value}`; allowed: {allowed}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Dotted key.
        key: &'static str,
        /// What stood there.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// `host:port` or `unix:/path`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err("`unix:` followed by a path"),
            None => text.parse().map(Self::Tcp).map_err(|_| "an address and port such as 127.0.0.1:7410, or unix:/path"),
        }
    }

    /// Whether only this machine can reach it.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Config {
    /// Reads a file, or takes the defaults without one.
    ///
    /// # Errors
    /// When it cannot be read, parsed, or holds values that are not allowed.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Parses text; `path` is for messages only.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax { path: path.to_path_buf(), message: error.to_string() };
        let config: Self = toml::from_str(text).map_err(syntax)?;
        config.check(path)?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key, value: String, allowed| Err(ConfigError::Value { path: path.to_path_buf(), key, value, allowed });
        for (key, listen) in
            [("scoring.listen", &self.scoring.listen), ("admin.listen", &self.admin.listen), ("metrics.listen", &self.metrics.listen)]
        {
            if let Err(allowed) = Listen::parse(listen) {
                return refuse(key, listen.clone(), allowed);
            }
        }
        self.check_redis(path)?;
        let ranges: [(&'static str, u64, std::ops::RangeInclusive<u64>, &'static str); 25] = [
            ("scoring.max_concurrent", self.scoring.max_concurrent as u64, 1..=1_000_000, "1 to 1,000,000"),
            ("scoring.deadline_ms", self.scoring.deadline_ms, 1..=60_000, "1 to 60,000"),
            ("scoring.drain_ms", self.scoring.drain_ms, 0..=600_000, "0 to 600,000"),
            ("scoring.threads", self.scoring.threads as u64, 0..=1_024, "0 (one a core) to 1,024"),
            ("store.max_mb", self.store.max_mb, 1..=1 << 24, "1 to 16,777,216"),
            ("models.calibration_rows", self.models.calibration_rows, 100..=100_000_000, "100 to 100,000,000"),
            ("models.max_mb", self.models.max_mb, 1..=1 << 20, "1 to 1,048,576"),
            ("models.worker_mb", self.models.worker_mb, 64..=1 << 20, "64 to 1,048,576"),
            ("models.deadline_ms", self.models.deadline_ms, 1..=10_000, "1 to 10,000"),
            ("models.slower_us", self.models.slower_us, 0..=10_000_000, "0 to 10,000,000"),
            ("inference.max_rows", self.inference.max_rows as u64, 1..=1 << 20, "1 to 1,048,576"),
            ("inference.max_mb", self.inference.max_mb as u64, 1..=1_024, "1 to 1,024"),
            ("inference.queue", self.inference.queue as u64, 1..=4_096, "1 to 4,096"),
            ("models.repository_seconds", self.models.repository_seconds, 1..=86_400, "1 to 86,400"),
            ("models.drift_minutes", self.models.drift_minutes, 6..=525_600, "6 to 525,600"),
            ("models.drift_one_in", self.models.drift_one_in, 1..=1_000_000, "1 to 1,000,000"),
            ("models.profile_minutes", self.models.profile_minutes, 0..=525_600, "0 (rows alone) to 525,600"),
            ("models.inbox_percent", self.models.inbox_percent, 1..=100, "1 to 100 (no rests)"),
            ("models.await_labels", self.models.await_labels, 1..=100_000_000, "1 to 100,000,000"),
            ("reasons.hint_us", self.reasons.hint_us, 0..=1_000_000, "0 to 1,000,000"),
            ("journal.file_mb", self.journal.file_mb, 1..=4_096, "1 to 4,096"),
            ("journal.total_mb", self.journal.total_mb, 2..=1 << 30, "2 to 1,073,741,824"),
            ("journal.queue", self.journal.queue as u64, 16..=1 << 24, "16 to 16,777,216"),
            ("endpoints.distinct", self.endpoints.distinct as u64, 10..=500, "10 to 500"),
            ("idempotency.transactions", self.idempotency.transactions as u64, 16..=1 << 24, "16 to 16,777,216"),
        ];
        for (key, value, range, allowed) in ranges {
            if !range.contains(&value) {
                return refuse(key, value.to_string(), allowed);
            }
        }
        if !(0.0..=1.0).contains(&self.scoring.shed_from) {
            return refuse("scoring.shed_from", self.scoring.shed_from.to_string(), "0 to 1");
        }
        if self.store.snapshot_minutes != 0.0 && !(0.01..=1_440.0).contains(&self.store.snapshot_minutes) {
            return refuse("store.snapshot_minutes", self.store.snapshot_minutes.to_string(), "0 (none) or 0.01 to 1,440");
        }
        if let Some(mode) = self.policy.mode.as_deref().filter(|mode| !["off", "monitor", "enforce"].contains(mode)) {
            return refuse("policy.mode", mode.to_owned(), "off, monitor, enforce");
        }
        if !["off", "suggest", "on"].contains(&self.endpoints.learn.as_str()) {
            return refuse("endpoints.learn", self.endpoints.learn.clone(), "off, suggest, on");
        }
        if !(0.001..=1.0).contains(&self.endpoints.client_share) {
            return refuse("endpoints.client_share", self.endpoints.client_share.to_string(), "0.001 to 1");
        }
        if let (Some(url), Some(_)) = (&self.models.repository, &self.models.path) {
            return refuse("models.repository", crate::mirror::shown(url), "either `path` or `repository`, not both");
        }
        if !["foreign", "all", "none"].contains(&self.models.contain.as_str()) {
            return refuse("models.contain", self.models.contain.clone(), "foreign, all, none");
        }
        let Some(require) = Require::named(&self.models.require_signature) else {
            return refuse("models.require_signature", self.models.require_signature.clone(), "never, foreign, always");
        };
        if let Err(value) = Trust::new(&self.models.trusted_keys, require) {
            let allowed =
                "[\"NAME=KEY\", …] with the public keys that `telltale models keygen` prints; at least one where signatures are required";
            return refuse("models.trusted_keys", value, allowed);
        }
        if !["scorer", "viewer", "analyst", "operator"].contains(&self.access.certificate_role.as_str()) {
            return refuse("access.certificate_role", self.access.certificate_role.clone(), "scorer, viewer, analyst, operator");
        }
        let tls = [&self.access.certificate, &self.access.key, &self.access.client_ca];
        if tls.iter().any(|path| path.is_some()) && tls.iter().any(|path| path.is_none()) {
            return refuse("access.certificate", "partly set".to_owned(), "certificate, key and client_ca together, or none of them");
        }
        self.check_reach(path)
    }

    fn check_redis(&self, path: &Path) -> Result<(), ConfigError> {
        let redis = &self.store.redis;
        let refuse =
            |key, value: &str, allowed| Err(ConfigError::Value { path: path.to_path_buf(), key, value: value.to_owned(), allowed });
        for (key, value, allowed, words) in [
            ("store.kind", &self.store.kind, &["embedded", "redis"][..], "embedded, redis"),
            ("store.redis.topology", &redis.topology, &["single", "sentinel", "cluster"], "single, sentinel, cluster"),
            ("store.redis.acknowledge", &redis.acknowledge, &["async", "sync"], "async, sync"),
            ("store.redis.idempotency", &redis.idempotency, &["local", "strict"], "local, strict"),
        ] {
            if !allowed.contains(&value.as_str()) {
                return refuse(key, value, words);
            }
        }
        for (key, value, range, words) in [
            ("store.redis.read_deadline_us", redis.read_deadline_us, 100..=1_000_000, "100 to 1,000,000"),
            ("store.redis.flush_ms", redis.flush_ms, 5..=10_000, "5 to 10,000"),
            ("store.redis.flush_deadline_ms", redis.flush_deadline_ms, 10..=60_000, "10 to 60,000"),
            ("store.redis.lag_ms", redis.lag_ms, 0..=60_000, "0 to 60,000"),
        ] {
            if !range.contains(&value) {
                return refuse(key, &value.to_string(), words);
            }
        }
        if redis.names_key_before.is_some() && redis.names_key.is_none() {
            return refuse("store.redis.names_key_before", "set without `names_key`", "the new secret in `names_key`, the former one here");
        }
        if redis.names_key_before.is_some() && redis.names_key_next.is_some() {
            let allowed = "`names_key_next` in the first step of a change, `names_key_before` in the second";
            return refuse("store.redis.names_key_next", "set together with `names_key_before`", allowed);
        }
        if redis.certificate.is_some() != redis.key.is_some() {
            return refuse("store.redis.certificate", "set without its key, or the key without it", "both or none");
        }
        if let Some(address) = redis.addresses.iter().find(|address| address.contains('@')) {
            let allowed = "host:port; user and password stand in `username` and `password_file`";
            return refuse("store.redis.addresses", address.rsplit('@').next().unwrap_or_default(), allowed);
        }
        Ok(())
    }

    /// What others can reach must know who they are.
    fn check_reach(&self, path: &Path) -> Result<(), ConfigError> {
        let protected = self.access.tokens.is_some() || self.access.client_ca.is_some();
        let allowed = "a loopback address or a Unix socket; anything wider needs `access.tokens`, or mutual TLS (`access.certificate`, `access.key`, `access.client_ca`)";
        for (key, listen) in [("scoring.listen", &self.scoring.listen), ("admin.listen", &self.admin.listen)] {
            if !protected && !Listen::parse(listen).is_ok_and(|listen| listen.is_local()) {
                return Err(ConfigError::Value { path: path.to_path_buf(), key, value: listen.clone(), allowed });
            }
        }
        let listen = &self.metrics.listen;
        if !Listen::parse(listen).is_ok_and(|listen| listen.is_local()) {
            let allowed = "a loopback address or a Unix socket: metrics have no roles";
            return Err(ConfigError::Value { path: path.to_path_buf(), key: "metrics.listen", value: listen.clone(), allowed });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("telltale.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_says_what_holds_without_a_file() {
        assert_eq!(parse(include_str!("../telltale.toml")).unwrap(), Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_error_names_file_key_value_and_what_is_allowed() {
        let cases = [
            ("[scoring]\nlisten = \"here\"", &["telltale.toml", "scoring.listen", "here", "127.0.0.1:7410"][..]),
            ("[scoring]\nlisten = \"0.0.0.0:1\"", &["scoring.listen", "0.0.0.0:1", "access.tokens"]),
            ("[admin]\nlisten = \"192.0.2.1:1\"", &["admin.listen", "192.0.2.1:1", "mutual TLS"]),
            ("[metrics]\nlisten = \"0.0.0.0:1\"", &["metrics.listen", "0.0.0.0:1", "loopback"]),
            ("[scoring]\nmax_concurrent = 0", &["scoring.max_concurrent", "`0`", "1 to 1,000,000"]),
            ("[scoring]\nlissten = \"x\"", &["telltale.toml", "line 2", "lissten", "listen"]),
            ("[policy]\nmode = \"loud\"", &["policy.mode", "loud", "monitor"]),
            ("[store]\nkind = \"etcd\"", &["store.kind", "etcd", "embedded, redis"]),
            ("[store.redis]\ntopology = \"ring\"", &["store.redis.topology", "ring", "sentinel"]),
            ("[store.redis]\nidempotency = \"loose\"", &["store.redis.idempotency", "loose", "local, strict"]),
            ("[store.redis]\nflush_ms = 0", &["store.redis.flush_ms", "`0`", "5 to 10,000"]),
            ("[store.redis]\naddresses = [\"u:secret@h:1\"]", &["store.redis.addresses", "h:1", "password_file"]),
            ("[store.redis]\nkey = \"k\"", &["store.redis.certificate", "both or none"]),
            ("[store.redis]\nnames_key_before = \"unkeyed\"", &["store.redis.names_key_before", "without `names_key`"]),
            (
                "[store.redis]\nnames_key = \"a\"\nnames_key_next = \"b\"\nnames_key_before = \"c\"",
                &["store.redis.names_key_next", "first step"],
            ),
            ("[store]\nmax_mb = \"many\"", &["telltale.toml", "line 2", "many"]),
            ("[access]\nkey = \"k\"", &["access.certificate", "together"]),
            ("[inference]\nmax_rows = 0", &["inference.max_rows", "`0`", "1 to 1,048,576"]),
            ("[models]\nrequire_signature = \"maybe\"", &["models.require_signature", "maybe", "never, foreign, always"]),
            ("[models]\nrequire_signature = \"always\"", &["models.trusted_keys", "nothing could serve", "NAME=KEY"]),
            ("[models]\ntrusted_keys = [\"ci=AAAA\"]", &["models.trusted_keys", "ci=AAAA", "32 bytes"]),
            ("[reasons]\nhint_us = 1000001", &["reasons.hint_us", "`1000001`", "0 to 1,000,000"]),
            ("[endpoints]\nlearn = \"yes\"", &["endpoints.learn", "yes", "off, suggest, on"]),
            ("[endpoints]\ndistinct = 501", &["endpoints.distinct", "501", "10 to 500"]),
            ("[endpoints]\nclient_share = 1.5", &["endpoints.client_share", "1.5", "0.001 to 1"]),
        ];
        for (text, parts) in cases {
            let error = parse(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}: `{error}` lacks `{part}`");
            }
        }
        parse("[access]\ntokens = \"t\"\n[scoring]\nlisten = \"0.0.0.0:1\"").unwrap();
    }
}
