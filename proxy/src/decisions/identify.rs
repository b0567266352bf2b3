//! Finds an entity's identifier in a request and hashes it as the scorer does.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, header};
use telltale_proto::v1::location::Place;
use telltale_proto::v1::{EntitySelector, Normalization};

use super::{Clues, EntityKey};
use crate::transaction::text;

/// The key of that selector's entity in a request, if it has one.
pub(super) fn key(selector: &EntitySelector, clues: &Clues<'_>, secret: &[u8; 32]) -> Option<EntityKey> {
    let places = selector.locations.iter().filter_map(|location| location.place.as_ref());
    let found = places.filter_map(|place| find(place, clues)).find(|value| !value.trim().is_empty())?;
    Some(hash(&selector.r#type, &normalise(found.trim(), selector.normalization()), secret))
}

/// Key of an entity: BLAKE3 keyed by `secret` over type name, a zero byte, the normalised identifier; its first 16 bytes.
// INVARIANT: equal to the scorer's `Hasher::entity`; a test holds known answers.
pub(super) fn hash(type_name: &str, identifier: &str, secret: &[u8; 32]) -> EntityKey {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(type_name.as_bytes()).update(&[0]).update(identifier.as_bytes());
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hasher.finalize().as_bytes()) {
        *to = *from;
    }
    EntityKey(out)
}

fn find<'a>(place: &Place, clues: &Clues<'a>) -> Option<Cow<'a, str>> {
    match place {
        Place::Address(wanted) => wanted.then(|| Cow::Owned(clues.client.to_string())),
        Place::Header(name) => clues.headers.get(name.as_str()).map(text),
        Place::Cookie(name) => cookie(clues.headers, name).map(Cow::Owned),
        Place::Query(name) => parameter(clues.query, name),
    }
}

/// The first cookie of that name (RFC 6265 §5.4), without quotes around it.
// INVARIANT: a value written in another way that the upstream takes for the same must give the same key, else a denial is evaded.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get_all(header::COOKIE).iter().map(text).find_map(|line| {
        let mut pairs = line.split(';').filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(known, _)| known.trim_end() == name)?;
        Some(value.trim_start().trim_matches('"').to_owned())
    })
}

/// The first query parameter of that name, decoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(known, _)| decode(known) == name)
        .map(|(_, value)| decode(value))
}

/// Percent and plus decoding; what is no escape stays as it is.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// One form of a trimmed identifier.
fn normalise(value: &str, how: Normalization) -> Cow<'_, str> {
    match how {
        Normalization::Unspecified => Cow::Borrowed(value),
        Normalization::Lowercase => Cow::Owned(value.to_ascii_lowercase()),
        Normalization::Address => Cow::Owned(match value.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => address.to_string(),
            Ok(IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string(),
            Err(_) => value.to_ascii_lowercase(),
        }),
    }
}
