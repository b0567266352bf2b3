//! The bounds of the door: what is over a limit is refused or cut, and cuts are counted.

use super::DoorError;
use crate::domain::limits::{ATTRIBUTES, BODY_BYTES, HEADER_BYTES, HEADERS, ID_BYTES, IDENTITY_FIELDS, PATH_BYTES, TEXT_BYTES};
use crate::domain::{HttpRequest, Identity, Transaction, Value, Values};

/// Checks what must be refused and cuts what may be cut. Returns how much was cut.
pub(super) fn enforce(tx: &mut Transaction) -> Result<u64, DoorError> {
    if tx.id.is_empty() {
        return Err(DoorError::NoId);
    }
    fits("id", tx.id.len(), ID_BYTES)?;
    attributes(&tx.attributes)?;
    identity(&tx.identity)?;
    let source = &tx.source;
    for (what, text) in [("source.ip", &source.ip), ("source.country", &source.country), ("service", &tx.service), ("tenant", &tx.tenant)] {
        fits(what, text.len(), TEXT_BYTES)?;
    }
    if let Some(tls) = &source.tls {
        for (what, text) in [("source.tls.ja3", &tls.ja3), ("source.tls.ja4", &tls.ja4), ("source.tls.sni", &tls.sni)] {
            fits(what, text.len(), TEXT_BYTES)?;
        }
    }
    tx.http.as_mut().map_or(Ok(0), http)
}

/// Checks the typed values of a transaction or of an outcome.
pub(super) fn attributes(values: &Values) -> Result<(), DoorError> {
    fits("attributes", values.len(), ATTRIBUTES)?;
    for (name, value) in values {
        fits("attributes (a name)", name.len(), TEXT_BYTES)?;
        match value {
            Value::Number(number) if !number.is_finite() => return Err(DoorError::NotFinite { what: format!("attributes.{name}") }),
            Value::Text(text) if text.len() > TEXT_BYTES => fits(&format!("attributes.{name}"), text.len(), TEXT_BYTES)?,
            _ => {}
        }
    }
    Ok(())
}

/// Checks the identities that the gateway gave.
pub(super) fn identity(identity: &Identity) -> Result<(), DoorError> {
    fits("identity.fields", identity.fields.len(), IDENTITY_FIELDS)?;
    let own = [
        ("identity.session", &identity.session),
        ("identity.user", &identity.user),
        ("identity.fingerprint", &identity.fingerprint),
        ("identity.credential_hash", &identity.credential_hash),
    ];
    for (what, text) in own {
        fits(what, text.len(), TEXT_BYTES)?;
    }
    for (name, text) in &identity.fields {
        fits("identity.fields (a name)", name.len(), TEXT_BYTES)?;
        fits(&format!("identity.fields.{name}"), text.len(), TEXT_BYTES)?;
    }
    Ok(())
}

fn http(http: &mut HttpRequest) -> Result<u64, DoorError> {
    fits("http.method", http.method.len(), 64)?;
    fits("http.host", http.host.len(), TEXT_BYTES)?;
    fits("http.route", http.route.len(), TEXT_BYTES)?;
    fits("http.scheme", http.scheme.len(), 64)?;
    fits("http.version", http.version.len(), 64)?;
    let mut cuts = cut(&mut http.path, PATH_BYTES) + cut(&mut http.query, PATH_BYTES);
    if http.headers.len() > HEADERS {
        cuts += (http.headers.len() - HEADERS) as u64;
        http.headers.truncate(HEADERS);
    }
    for header in &mut http.headers {
        cuts += cut(&mut header.value, HEADER_BYTES) + cut(&mut header.name, TEXT_BYTES);
    }
    if http.body.len() > BODY_BYTES {
        http.body_size = http.body_size.max(http.body.len() as u64);
        http.body.truncate(BODY_BYTES);
        http.truncated = true;
        cuts += 1;
    }
    Ok(cuts)
}

/// Cuts a text at a character; returns whether it had to.
pub(super) fn cut(text: &mut String, limit: usize) -> u64 {
    if text.len() <= limit {
        return 0;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    1
}

fn fits(what: &str, found: usize, allowed: usize) -> Result<(), DoorError> {
    if found <= allowed { Ok(()) } else { Err(DoorError::TooLarge { what: what.to_owned(), found, allowed }) }
}
