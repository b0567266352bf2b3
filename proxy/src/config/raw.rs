//! The configuration as written: serde types with their defaults, and the check that turns them into settings.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, StatusCode, Uri};
use serde::Deserialize;

use super::{ConfigError, Keep, Limits, ScorerAddress, ScorerSettings, Settings, Template, read};
use crate::decoy;
use crate::hops::TrustedHops;

/// Where decisions are kept when nobody says where.
const DECISIONS: &str = "data/proxy-decisions.json";

/// Command line of the proxy. Flags win over the file.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "telltale-proxy",
    version,
    about = "Inline proxy: asks the Telltale scorer about every request and does what the verdict says",
    after_help = "Examples:\n  telltale-proxy --listen 0.0.0.0:8080 --upstream http://127.0.0.1:9000\n  telltale-proxy --upstream http://127.0.0.1:9000 --scorer unix:/run/telltale/scorer.sock --passive\n  telltale-proxy --config /etc/telltale/telltale-proxy.toml\n  telltale-proxy --config telltale-proxy.toml --check\n\nExit codes: 0 stopped as asked, 64 bad usage or configuration, 69 an address cannot be had."
)]
pub struct Flags {
    /// Where clients connect, `address:port`
    #[arg(long)]
    pub listen: Option<String>,
    /// The service behind the proxy, `http://host:port`
    #[arg(long)]
    pub upstream: Option<String>,
    /// The scorer: `http://host:port` or `unix:/path`
    #[arg(long)]
    pub scorer: Option<String>,
    /// Configuration file (TOML); without one the defaults hold
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Score beside the traffic: never delay, never refuse
    #[arg(long)]
    pub passive: bool,
    /// Name of the service in its transactions
    #[arg(long)]
    pub service: Option<String>,
    /// File that keeps overrides and denials over a restart; empty: memory only
    #[arg(long, value_name = "FILE")]
    pub decisions: Option<String>,
    /// Say whether the configuration is right, and end
    #[arg(long)]
    pub check: bool,
}

/// The file as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawSettings {
    listen: String,
    upstream: String,
    service: String,
    passive: bool,
    threads: u64,
    trusted_hops: Vec<String>,
    scorer: RawScorer,
    limits: RawLimits,
    decisions: RawDecisions,
    metrics: RawMetrics,
    templates: BTreeMap<String, RawTemplate>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawScorer {
    address: String,
    token_file: String,
    streams: u64,
    deadline_ms: u64,
    in_flight: u64,
    sample_bytes: u64,
    sample_wait_ms: u64,
    fail_closed: Vec<String>,
    alert_after: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    connections: u64,
    headers: u64,
    header_bytes: u64,
    body_bytes: u64,
    header_ms: u64,
    idle_ms: u64,
    request_ms: u64,
    connect_ms: u64,
    drain_ms: u64,
    delay_ms: u64,
    delayed: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawDecisions {
    file: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMetrics {
    listen: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTemplate {
    status: u16,
    content_type: String,
    body: String,
    #[serde(default)]
    delay_ms: u64,
}

impl Default for RawSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            upstream: "http://127.0.0.1:9000".to_owned(),
            service: "default".to_owned(),
            passive: false,
            threads: 0,
            trusted_hops: Vec::new(),
            scorer: RawScorer::default(),
            limits: RawLimits::default(),
            decisions: RawDecisions::default(),
            metrics: RawMetrics::default(),
            templates: BTreeMap::new(),
        }
    }
}

impl Default for RawScorer {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:7410".to_owned(),
            token_file: String::new(),
            streams: 1,
            deadline_ms: 5,
            in_flight: 4096,
            sample_bytes: 16_384,
            sample_wait_ms: 100,
            fail_closed: Vec::new(),
            alert_after: 50,
        }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            headers: 100,
            header_bytes: 32_768,
            body_bytes: 134_217_728,
            header_ms: 10_000,
            idle_ms: 75_000,
            request_ms: 300_000,
            connect_ms: 2_000,
            drain_ms: 10_000,
            delay_ms: 10_000,
            delayed: 1_000,
        }
    }
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".to_owned() }
    }
}

impl RawSettings {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, &path.display().to_string())
    }

    /// Parses a TOML text; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { file: file.to_owned(), message: error.to_string().trim_end().to_owned() })
    }

    /// Lets flags win.
    pub fn with(mut self, flags: &Flags) -> Self {
        let given = [
            (&mut self.listen, &flags.listen),
            (&mut self.upstream, &flags.upstream),
            (&mut self.scorer.address, &flags.scorer),
            (&mut self.service, &flags.service),
        ];
        for (setting, flag) in given {
            if let Some(value) = flag {
                setting.clone_from(value);
            }
        }
        self.passive |= flags.passive;
        if flags.decisions.is_some() {
            self.decisions.file.clone_from(&flags.decisions);
        }
        self
    }

    /// Checks every value.
    pub fn check(self, file: &str) -> Result<Settings, ConfigError> {
        let at = File(file);
        let limits = self.limits.check(&at)?;
        let metrics_listen = at.address("metrics.listen", &self.metrics.listen)?;
        at.require("metrics.listen", &self.metrics.listen, metrics_listen.ip().is_loopback(), "a loopback address such as 127.0.0.1:9464")?;
        let service_fits = !self.service.is_empty() && self.service.len() <= 128 && !self.service.contains(char::is_control);
        at.require("service", &self.service, service_fits, "1 to 128 bytes of text")?;
        Ok(Settings {
            listen: at.address("listen", &self.listen)?,
            upstream: at.upstream(&self.upstream)?,
            trusted_hops: TrustedHops::parse(&self.trusted_hops)
                .map_err(|value| at.refuse("trusted_hops", value, "a network such as 10.0.0.0/8 or 2001:db8::/32, or one address"))?,
            scorer: self.scorer.check(&at)?,
            decisions: self.decisions.check(),
            metrics_listen: Some(metrics_listen),
            templates: check_templates(self.templates, &limits, &at)?,
            limits,
            threads: match at.size("threads", self.threads, 0..=256)? {
                0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                threads => threads,
            },
            service: self.service,
            passive: self.passive,
        })
    }
}

impl RawDecisions {
    fn check(self) -> Option<Keep> {
        let named = self.file.is_some();
        let file = self.file.unwrap_or_else(|| DECISIONS.to_owned());
        (!file.is_empty()).then(|| Keep { file: PathBuf::from(file), named })
    }
}

impl RawScorer {
    fn check(self, at: &File<'_>) -> Result<ScorerSettings, ConfigError> {
        for prefix in &self.fail_closed {
            at.require("scorer.fail_closed", prefix, prefix.starts_with('/'), "path prefixes that begin with `/`")?;
        }
        Ok(ScorerSettings {
            address: at.scorer(&self.address)?,
            token: at.token(&self.token_file)?,
            streams: at.size("scorer.streams", self.streams, 1..=16)?,
            deadline: at.millis("scorer.deadline_ms", self.deadline_ms, 1..=10_000)?,
            in_flight: at.size("scorer.in_flight", self.in_flight, 1..=65_536)?,
            sample_bytes: at.size("scorer.sample_bytes", self.sample_bytes, 0..=65_536)?,
            sample_wait: at.millis("scorer.sample_wait_ms", self.sample_wait_ms, 0..=10_000)?,
            fail_closed: self.fail_closed,
            alert_after: at.number("scorer.alert_after", self.alert_after, 1..=1_000_000)?,
        })
    }
}

impl RawLimits {
    fn check(&self, at: &File<'_>) -> Result<Limits, ConfigError> {
        Ok(Limits {
            connections: at.size("limits.connections", self.connections, 1..=1_000_000)?,
            headers: at.size("limits.headers", self.headers, 8..=1_000)?,
            header_bytes: at.size("limits.header_bytes", self.header_bytes, 1_024..=1_048_576)?,
            body_bytes: at.number("limits.body_bytes", self.body_bytes, 0..=1 << 40)?,
            header_time: at.millis("limits.header_ms", self.header_ms, 10..=600_000)?,
            idle_time: at.millis("limits.idle_ms", self.idle_ms, 10..=3_600_000)?,
            request_time: at.millis("limits.request_ms", self.request_ms, 10..=86_400_000)?,
            connect_time: at.millis("limits.connect_ms", self.connect_ms, 1..=60_000)?,
            drain_time: at.millis("limits.drain_ms", self.drain_ms, 0..=600_000)?,
            delay: at.millis("limits.delay_ms", self.delay_ms, 0..=10_000)?,
            delayed: at.size("limits.delayed", self.delayed, 0..=100_000)?,
        })
    }
}

fn check_templates(raw: BTreeMap<String, RawTemplate>, limits: &Limits, at: &File<'_>) -> Result<BTreeMap<String, Template>, ConfigError> {
    let mut templates = decoy::shipped();
    for (name, template) in raw {
        let key = |field: &str| format!("templates.{name}.{field}");
        let status = StatusCode::from_u16(template.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let content_type = HeaderValue::from_str(&template.content_type).ok().filter(|value| !value.is_empty());
        let longest = u64::try_from(limits.delay.as_millis()).unwrap_or(u64::MAX);
        let checked = Template {
            status: status.ok_or_else(|| at.refuse(&key("status"), template.status, "a status of 200 to 599"))?,
            content_type: content_type
                .ok_or_else(|| at.refuse(&key("content_type"), &template.content_type, "a media type such as application/json"))?,
            delay: at.millis(&key("delay_ms"), template.delay_ms, 0..=longest)?,
            body: Bytes::from(template.body),
        };
        templates.insert(name, checked);
    }
    Ok(templates)
}

/// The file that errors name.
struct File<'a>(&'a str);

impl File<'_> {
    fn refuse(&self, key: &str, value: impl Display, allowed: &str) -> ConfigError {
        ConfigError::Value { file: self.0.to_owned(), key: key.to_owned(), value: value.to_string(), allowed: allowed.to_owned() }
    }

    fn require(&self, key: &str, value: &str, holds: bool, allowed: &str) -> Result<(), ConfigError> {
        if holds { Ok(()) } else { Err(self.refuse(key, value, allowed)) }
    }

    fn number(&self, key: &str, value: u64, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        if range.contains(&value) { Ok(value) } else { Err(self.refuse(key, value, &format!("{} to {}", range.start(), range.end()))) }
    }

    fn size(&self, key: &str, value: u64, range: RangeInclusive<u64>) -> Result<usize, ConfigError> {
        let value = self.number(key, value, range)?;
        usize::try_from(value).map_err(|_| self.refuse(key, value, "less than the address space"))
    }

    fn millis(&self, key: &str, value: u64, range: RangeInclusive<u64>) -> Result<Duration, ConfigError> {
        self.number(key, value, range).map(Duration::from_millis)
    }

    fn address(&self, key: &str, value: &str) -> Result<SocketAddr, ConfigError> {
        value.parse().map_err(|_| self.refuse(key, value, "address and port such as 127.0.0.1:8080 or [::1]:8080"))
    }

    fn upstream(&self, value: &str) -> Result<http::uri::Authority, ConfigError> {
        let refused = || self.refuse("upstream", value, "http://host:port without path, query or user");
        let uri: Uri = value.parse().map_err(|_| refused())?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        uri.into_parts().authority.filter(|authority| plain && !authority.as_str().contains('@')).ok_or_else(refused)
    }

    fn scorer(&self, value: &str) -> Result<ScorerAddress, ConfigError> {
        if let Some(path) = value.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(ScorerAddress::Unix(PathBuf::from(path)));
        }
        let uri: Option<Uri> = value.parse().ok();
        uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()))
            .map(ScorerAddress::Tcp)
            .ok_or_else(|| self.refuse("scorer.address", value, "http://host:port or unix:/path/of/the.sock"))
    }

    fn token(&self, file: &str) -> Result<Option<HeaderValue>, ConfigError> {
        if file.is_empty() {
            return Ok(None);
        }
        let text = read(Path::new(file))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
            .map_err(|_| self.refuse("scorer.token_file", file, "a file with one line of visible ASCII"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
