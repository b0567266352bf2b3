//! Lines of access logs into wire transactions with their responses. Never guesses: what does not fit is an error with its reason.

use chrono::DateTime;
use serde::Deserialize;
use telltale_proto::v1;

/// A line of the combined log format: `host ident user [time] "request" status bytes "referer" "agent"`.
///
/// # Errors
/// What is missing or wrong, and what is allowed.
pub fn combined(line: &str, number: u64) -> Result<v1::Transaction, String> {
    let mut rest = line;
    let address = word(&mut rest).ok_or("no client address")?;
    let _identity = word(&mut rest).ok_or("no second column; allowed: host ident user [time] \"request\" status bytes")?;
    let user = word(&mut rest).ok_or("no user column")?;
    let time = between(&mut rest, '[', ']').ok_or("no time in brackets")?;
    let time = DateTime::parse_from_str(time, "%d/%b/%Y:%H:%M:%S %z")
        .map_err(|error| format!("time `{time}` is not like 10/Oct/2025:13:55:36 +0000: {error}"))?;
    let request = quoted(&mut rest).ok_or("no quoted request")?;
    let status = word(&mut rest).ok_or("no status")?;
    let bytes = word(&mut rest).unwrap_or("-");
    let referer = quoted(&mut rest).unwrap_or_default();
    let agent = quoted(&mut rest).unwrap_or_default();
    let entry = Entry {
        address: address.to_owned(),
        user: dash_is_empty(user),
        micros: time.timestamp_micros(),
        request,
        status: status.parse().map_err(|_| format!("status `{status}` is no number"))?,
        bytes: bytes.parse().unwrap_or_default(),
        headers: vec![("referer", dash_is_empty(&referer)), ("user-agent", dash_is_empty(&agent))],
        host: String::new(),
        duration_us: 0,
    };
    entry.transaction(number, line)
}

/// Fields of a JSON access log, as nginx names its variables; all of them text, as `escape=json` writes them.
#[derive(Deserialize)]
struct NginxLine {
    remote_addr: String,
    #[serde(default)]
    remote_user: String,
    time_iso8601: Option<String>,
    time_local: Option<String>,
    msec: Option<serde_json::Value>,
    request: Option<String>,
    request_method: Option<String>,
    request_uri: Option<String>,
    #[serde(default)]
    server_protocol: String,
    status: serde_json::Value,
    #[serde(default)]
    body_bytes_sent: serde_json::Value,
    #[serde(default)]
    request_time: serde_json::Value,
    #[serde(default)]
    host: String,
    #[serde(default)]
    http_host: String,
    #[serde(default)]
    http_user_agent: String,
    #[serde(default)]
    http_referer: String,
    #[serde(default)]
    http_cookie: String,
    #[serde(default)]
    http_accept: String,
    #[serde(default)]
    http_accept_language: String,
}

/// A line of an nginx access log in JSON.
///
/// # Errors
/// What is missing or wrong, and what is allowed.
pub fn nginx_json(line: &str, number: u64) -> Result<v1::Transaction, String> {
    let found: NginxLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let micros = found.micros()?;
    let request = match (&found.request, &found.request_method, &found.request_uri) {
        (Some(request), ..) => request.clone(),
        (None, Some(method), Some(uri)) => format!("{method} {uri} {}", found.server_protocol),
        _ => return Err("neither `request` nor `request_method` and `request_uri`".to_owned()),
    };
    let status = number_of(&found.status).ok_or("`status` is no number")?;
    let entry = Entry {
        address: found.remote_addr,
        user: dash_is_empty(&found.remote_user),
        micros,
        request,
        status: status as u32,
        bytes: number_of(&found.body_bytes_sent).unwrap_or_default() as u64,
        headers: vec![
            ("accept", found.http_accept),
            ("accept-language", found.http_accept_language),
            ("cookie", found.http_cookie),
            ("referer", dash_is_empty(&found.http_referer)),
            ("user-agent", dash_is_empty(&found.http_user_agent)),
        ],
        host: if found.http_host.is_empty() { found.host } else { found.http_host },
        duration_us: (number_of(&found.request_time).unwrap_or_default().max(0.0) * 1e6) as u64,
    };
    entry.transaction(number, line)
}

impl NginxLine {
    fn micros(&self) -> Result<i64, String> {
        if let Some(seconds) = self.msec.as_ref().and_then(number_of) {
            return Ok((seconds * 1e6).round() as i64);
        }
        let parsed = match (&self.time_iso8601, &self.time_local) {
            (Some(time), _) => DateTime::parse_from_rfc3339(time).map_err(|error| format!("`time_iso8601` `{time}`: {error}"))?,
            (None, Some(time)) => {
                DateTime::parse_from_str(time, "%d/%b/%Y:%H:%M:%S %z").map_err(|error| format!("`time_local` `{time}`: {error}"))?
            }
            (None, None) => return Err("no time; allowed is one of `msec`, `time_iso8601`, `time_local`".to_owned()),
        };
        Ok(parsed.timestamp_micros())
    }
}

/// What both formats say.
struct Entry {
    address: String,
    user: String,
    micros: i64,
    request: String,
    status: u32,
    bytes: u64,
    headers: Vec<(&'static str, String)>,
    host: String,
    duration_us: u64,
}

impl Entry {
    /// A request line that is none (a TLS handshake on a plain port, garbage) is kept whole as the path.
    fn transaction(self, number: u64, line: &str) -> Result<v1::Transaction, String> {
        let mut parts = self.request.splitn(2, ' ');
        let (method, target) = match (parts.next(), parts.next()) {
            (Some(method), Some(target)) => (method, target),
            _ => ("", self.request.as_str()),
        };
        let (target, version) = target.rsplit_once(" HTTP/").unwrap_or((target, ""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = self.headers.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(v1::Transaction {
            id: identifier(number, line),
            time: Some(crate::convert::timestamp_to_proto(telltale_features::time::Timestamp::from_micros(self.micros))),
            source: Some(v1::Source { ip: self.address, ..Default::default() }),
            http: Some(v1::HttpRequest {
                method: method.to_owned(),
                host: self.host,
                path: path.to_owned(),
                query: query.to_owned(),
                headers: headers.map(|(name, value)| v1::Header { name: name.to_owned(), value }).collect(),
                version: version.to_owned(),
                ..Default::default()
            }),
            response: Some(v1::HttpResponse {
                status: self.status,
                body_size: self.bytes,
                duration_us: self.duration_us,
                headers: Vec::new(),
            }),
            identity: (!self.user.is_empty()).then(|| v1::Identity { user: self.user, ..Default::default() }),
            ..Default::default()
        })
    }
}

/// Log lines have no identifier: number and content make one, so that replaying a log twice counts it once.
fn identifier(number: u64, line: &str) -> String {
    let digest = blake3::hash(line.as_bytes()).to_hex();
    format!("line-{number}-{}", digest.as_str().get(..16).unwrap_or_default())
}

fn number_of(value: &serde_json::Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn dash_is_empty(text: &str) -> String {
    if text == "-" { String::new() } else { text.to_owned() }
}

fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = rest.trim_start();
    let (word, after) = text.split_once(' ').unwrap_or((text, ""));
    *rest = after;
    (!word.is_empty()).then_some(word)
}

fn between<'a>(rest: &mut &'a str, open: char, close: char) -> Option<&'a str> {
    let (_, text) = rest.split_once(open)?;
    let (inside, after) = text.split_once(close)?;
    *rest = after;
    Some(inside)
}

/// A quoted column; `\"`, `\\` and `\xHH` are undone as nginx and Apache write them.
fn quoted(rest: &mut &str) -> Option<String> {
    let text = rest.trim_start().strip_prefix('"')?;
    let mut bytes = Vec::new();
    let mut input = text.bytes().enumerate();
    while let Some((at, byte)) = input.next() {
        match byte {
            b'"' => {
                *rest = text.get(at + 1..)?;
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            b'\\' => match input.next()?.1 {
                b'x' => {
                    let digits = [input.next()?.1, input.next()?.1];
                    let digits = std::str::from_utf8(&digits).ok()?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                }
                b'n' => bytes.push(b'\n'),
                b't' => bytes.push(b'\t'),
                b'r' => bytes.push(b'\r'),
                other => bytes.push(other),
            },
            other => bytes.push(other),
        }
    }
    None
}
