//! A transaction from the wire into the domain: checked, cut, never changed in meaning.

use std::net::IpAddr;

use telltale_features::domain::{Header, HttpRequest, HttpResponse, Identity, Source, Tls, Transaction, Value, Values, limits};
use telltale_features::time::Timestamp;
use telltale_proto::v1;

use super::{Clamps, ConvertError, cut, shown};

/// Longest method, scheme, version and host that is kept, bytes.
const TOKEN_BYTES: usize = 32;
const HOST_BYTES: usize = 255;

/// The domain's transaction, and what had to be cut.
///
/// # Errors
/// When a field that the gateway controls is out of bounds.
pub fn transaction(wire: v1::Transaction, at: &str) -> Result<(Transaction, Clamps), ConvertError> {
    let mut clamps = Clamps::default();
    let tx = checked(wire, &mut clamps).map_err(|error| error.below(at))?;
    Ok((tx, clamps))
}

fn checked(wire: v1::Transaction, clamps: &mut Clamps) -> Result<Transaction, ConvertError> {
    Ok(Transaction {
        id: identifier(wire.id, "id")?,
        time: time(wire.time.as_ref(), "time")?,
        source: source(wire.source.unwrap_or_default()).map_err(|error| error.below("source"))?,
        http: wire.http.map(|http| request(http, clamps)),
        response: wire.response.map(|answer| response(answer, clamps)).transpose().map_err(|error| error.below("response"))?,
        identity: identity(wire.identity.unwrap_or_default()).map_err(|error| error.below("identity"))?,
        attributes: values(wire.attributes, "attributes")?,
        tenant: text(wire.tenant, "tenant")?,
        service: text(wire.service, "service")?,
    })
}

/// An identifier given by the gateway: 1 to 128 bytes.
pub(super) fn identifier(id: String, path: &str) -> Result<String, ConvertError> {
    if id.is_empty() {
        return Err(ConvertError::new(path, "empty", "1 to 128 bytes, given by the gateway"));
    }
    if id.len() > limits::ID_BYTES {
        return Err(ConvertError::new(path, format!("{} bytes long", id.len()), "1 to 128 bytes"));
    }
    Ok(id)
}

/// A time between 1970 and 2100. How far it may be from the scorer's clock is decided later, under the sequence lock.
pub(super) fn time(wire: Option<&pbjson_types::Timestamp>, path: &str) -> Result<Timestamp, ConvertError> {
    const END_OF_2100: i64 = 4_133_980_800;
    let allowed = "a time from 1970-01-01 to 2100-12-31 in UTC, nanoseconds from 0 to 999,999,999";
    let Some(wire) = wire else { return Err(ConvertError::absent(path, allowed)) };
    if !(0..END_OF_2100).contains(&wire.seconds) || !(0..1_000_000_000).contains(&wire.nanos) {
        return Err(ConvertError::new(path, format!("{} s {} ns since 1970", wire.seconds, wire.nanos), allowed));
    }
    Ok(Timestamp::from_micros(wire.seconds * 1_000_000 + i64::from(wire.nanos) / 1_000))
}

fn source(wire: v1::Source) -> Result<Source, ConvertError> {
    if !wire.ip.is_empty() && wire.ip.parse::<IpAddr>().is_err() {
        return Err(ConvertError::new("ip", shown(&wire.ip), "an IPv4 or IPv6 address in text, or empty"));
    }
    let port = u16::try_from(wire.port).map_err(|_| ConvertError::new("port", format!("`{}`", wire.port), "0 to 65535"))?;
    if !(wire.country.is_empty() || wire.country.len() == 2 && wire.country.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        return Err(ConvertError::new("country", shown(&wire.country), "two letters of ISO 3166-1, or empty"));
    }
    let tls = wire.tls.map(tls_details).transpose().map_err(|error| error.below("tls"))?;
    let mut country = wire.country;
    country.make_ascii_uppercase();
    Ok(Source { ip: wire.ip, port, country, asn: wire.asn, tls })
}

fn tls_details(wire: v1::Tls) -> Result<Tls, ConvertError> {
    Ok(Tls { ja3: text(wire.ja3, "ja3")?, ja4: text(wire.ja4, "ja4")?, sni: text(wire.sni, "sni")? })
}

fn request(mut wire: v1::HttpRequest, clamps: &mut Clamps) -> HttpRequest {
    for (text, limit) in [
        (&mut wire.method, TOKEN_BYTES),
        (&mut wire.scheme, TOKEN_BYTES),
        (&mut wire.version, TOKEN_BYTES),
        (&mut wire.host, HOST_BYTES),
        (&mut wire.path, limits::PATH_BYTES),
        (&mut wire.query, limits::PATH_BYTES),
        (&mut wire.route, limits::TEXT_BYTES),
    ] {
        clamps.texts += u32::from(cut(text, limit));
    }
    let mut body = Vec::from(wire.body);
    let body_size = wire.body_size.max(body.len() as u64);
    let mut truncated = wire.truncated;
    if body.len() > limits::BODY_BYTES {
        body.truncate(limits::BODY_BYTES);
        truncated = true;
        clamps.bodies += 1;
    }
    wire.host.make_ascii_lowercase();
    HttpRequest {
        method: wire.method,
        scheme: wire.scheme,
        host: wire.host,
        path: wire.path,
        query: wire.query,
        route: wire.route,
        headers: headers(wire.headers, clamps),
        body,
        body_size,
        truncated,
        version: wire.version,
    }
}

fn headers(wire: Vec<v1::Header>, clamps: &mut Clamps) -> Vec<Header> {
    let over = wire.len().saturating_sub(limits::HEADERS);
    clamps.headers = clamps.headers.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
    let kept = wire.into_iter().take(limits::HEADERS);
    kept.map(|mut header| {
        clamps.header_values += u32::from(cut(&mut header.name, limits::ID_BYTES));
        clamps.header_values += u32::from(cut(&mut header.value, limits::HEADER_BYTES));
        header.name.make_ascii_lowercase();
        Header { name: header.name, value: header.value }
    })
    .collect()
}

/// An answer, checked and cut.
pub(super) fn response(wire: v1::HttpResponse, clamps: &mut Clamps) -> Result<HttpResponse, ConvertError> {
    let status = u16::try_from(wire.status).ok().filter(|status| (100..600).contains(status));
    let status = status.ok_or_else(|| ConvertError::new("status", format!("`{}`", wire.status), "a status from 100 to 599"))?;
    Ok(HttpResponse { status, body_size: wire.body_size, duration_us: wire.duration_us, headers: headers(wire.headers, clamps) })
}

/// Identities as the gateway knows them; empty ones are as good as absent.
pub(super) fn identity(wire: v1::Identity) -> Result<Identity, ConvertError> {
    if wire.fields.len() > limits::IDENTITY_FIELDS {
        return Err(ConvertError::new("fields", format!("a map of {} entries", wire.fields.len()), "at most 32 entries"));
    }
    let mut fields = std::collections::BTreeMap::new();
    for (name, value) in wire.fields {
        if let Some(error) = [&name, &value].into_iter().find_map(|content| too_long(content, "")) {
            return Err(ConvertError { path: format!("fields.{}", short_name(&name)), ..error });
        }
        if !name.is_empty() && !value.is_empty() {
            fields.insert(name, value);
        }
    }
    Ok(Identity {
        session: text(wire.session, "session")?,
        user: text(wire.user, "user")?,
        fingerprint: text(wire.fingerprint, "fingerprint")?,
        credential_hash: text(wire.credential_hash, "credential_hash")?,
        fields,
        verified: wire.verified,
    })
}

/// Typed values: at most 64, numbers finite, amounts not negative.
pub(super) fn values(wire: std::collections::BTreeMap<String, v1::Value>, path: &str) -> Result<Values, ConvertError> {
    if wire.len() > limits::ATTRIBUTES {
        return Err(ConvertError::new(path, format!("a map of {} entries", wire.len()), "at most 64 entries"));
    }
    let mut values = Values::new();
    for (name, value) in wire {
        let at = short_name(&name);
        let name = text(name, &at).map_err(|error| error.below(path))?;
        let value = match value.kind {
            Some(v1::value::Kind::Number(number)) => finite(number, &name, &at).map(Value::Number),
            Some(v1::value::Kind::Text(content)) => text(content, &at).map(Value::Text),
            Some(v1::value::Kind::Flag(flag)) => Ok(Value::Flag(flag)),
            None => Err(ConvertError::absent(at, "exactly one of number, text, flag")),
        };
        values.insert(name, value.map_err(|error| error.below(path))?);
    }
    Ok(values)
}

/// `amount` is money that changes hands in one direction: a refund is another kind of transaction, not a negative amount.
fn finite(number: f64, name: &str, path: &str) -> Result<f64, ConvertError> {
    if !number.is_finite() {
        return Err(ConvertError::new(path, format!("`{number}`"), "a finite number"));
    }
    if name == "amount" && number < 0.0 {
        return Err(ConvertError::new(path, format!("`{number}`"), "an amount of 0 or more"));
    }
    Ok(number)
}

/// Text of the gateway's: at most 1,024 bytes.
pub(super) fn text(content: String, path: &str) -> Result<String, ConvertError> {
    too_long(&content, path).map_or(Ok(content), Err)
}

fn too_long(content: &str, path: &str) -> Option<ConvertError> {
    let found = || format!("{} bytes long", content.len());
    (content.len() > limits::TEXT_BYTES).then(|| ConvertError::new(path, found(), "at most 1,024 bytes"))
}

fn short_name(name: &str) -> String {
    name.chars().take(40).collect()
}
