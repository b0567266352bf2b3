//! Text forms of requests: percent-encoding, query strings, form bodies, cookies, Basic credentials.

use std::borrow::Cow;

use base64::Engine as _;
use smallvec::SmallVec;

/// Pairs of name and value, decoded.
pub(super) type Pairs<'a> = SmallVec<[(Cow<'a, str>, Cow<'a, str>); 8]>;
/// Cookies by name, as sent.
pub(super) type Cookies<'a> = SmallVec<[(&'a str, &'a str); 8]>;

/// More pairs than this are not looked at.
const MAX_PAIRS: usize = 256;

/// Percent-decoded text; `+` becomes a space where `plus` says so. What is not an escape stays as it is.
pub(super) fn decoded(text: &[u8], plus: bool) -> Cow<'_, str> {
    if !text.iter().any(|byte| *byte == b'%' || (plus && *byte == b'+')) {
        return String::from_utf8_lossy(text);
    }
    let mut out = Vec::with_capacity(text.len());
    decode_into(text, plus, &mut out);
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// Appends the percent-decoded bytes; returns how many escapes there were.
pub(super) fn decode_into(text: &[u8], plus: bool, out: &mut Vec<u8>) -> usize {
    let mut escapes = 0;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                escapes += 1;
                rest = tail;
            }
            (b'+', _) if plus => {
                out.push(b' ');
                rest = after;
            }
            _ => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    escapes
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// The pairs of a query string or of a form body.
pub(super) fn pairs(text: &[u8]) -> Pairs<'_> {
    if text.is_empty() {
        return Pairs::new();
    }
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .take(MAX_PAIRS)
        .map(|pair| {
            let cut = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(cut);
            (decoded(name, true), decoded(value.get(1..).unwrap_or_default(), true))
        })
        .collect()
}

/// The cookies of a `Cookie` header (RFC 6265 §5.4).
pub(super) fn cookies(header: &str) -> Cookies<'_> {
    header
        .split(';')
        .take(MAX_PAIRS)
        .filter_map(|pair| pair.trim().split_once('='))
        .map(|(name, value)| (name.trim_end(), value.trim_start().trim_matches('"')))
        .collect()
}

/// The token of `Bearer <token>`, in whatever case the scheme is written.
pub(super) fn bearer(header: &str) -> Option<&str> {
    scheme(header, "bearer")
}

fn scheme<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (scheme, rest) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

/// User and password of `Basic <base64>`.
pub(super) fn basic(header: &str) -> Option<(String, String)> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(scheme(header, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// The two readable parts of a JSON Web Token (RFC 7519), decoded and not verified: header and payload.
pub(super) fn jwt(token: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts = token.split('.');
    let (header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !header.starts_with("ey") {
        return None;
    }
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    Some((engine.decode(header).ok()?, engine.decode(payload).ok()?))
}
