//! A transaction taken apart once: query, cookies, body and token, and where in them each place stands.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::forms::{self, Cookies, Pairs};
use super::json::{self, Path, Shape};
use crate::domain::{Transaction, Value};
use crate::schema::{Normalization, Place, segment_of};

/// Values of the body or token that the schema asks for, by place.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Paths in a JSON body.
    pub json: Vec<Vec<String>>,
    /// Paths in a token's payload.
    pub claims: Vec<Vec<String>>,
    /// Whether Basic credentials are asked for.
    pub basic: bool,
}

/// A place, with the index of its value among those wanted.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    place: Place,
    index: usize,
}

impl Wanted {
    /// Notes what a place needs.
    pub fn spot(&mut self, place: &Place) -> Spot {
        let add = |list: &mut Vec<Vec<String>>, path: &Vec<String>| {
            list.push(path.clone());
            list.len() - 1
        };
        let index = match place {
            Place::Json(path) => add(&mut self.json, path),
            Place::Jwt(path) => add(&mut self.claims, path),
            Place::BasicUser | Place::BasicPassword => {
                self.basic = true;
                0
            }
            _ => 0,
        };
        Spot { place: place.clone(), index }
    }
}

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Json,
    Form,
    Text,
    Binary,
}

/// A transaction taken apart.
pub(super) struct Parts<'a> {
    pub tx: &'a Transaction,
    pub route: &'a str,
    pub query: Pairs<'a>,
    pub cookies: Cookies<'a>,
    pub form: Pairs<'a>,
    pub body: Body,
    pub shape: Shape,
    /// Header and payload of the bearer token, if it is a JSON Web Token.
    pub token_header: Vec<u8>,
    json: SmallVec<[Option<Cow<'a, str>>; 16]>,
    claims: Vec<Option<String>>,
    basic: Option<(String, String)>,
}

impl<'a> Parts<'a> {
    /// Takes the transaction apart; every leaf of a JSON body is shown to `leaf` on the way.
    pub fn of(tx: &'a Transaction, route: &'a str, wanted: &Wanted, mut leaf: impl FnMut(&Path<'a>, &str, bool)) -> Self {
        let http = tx.http.as_ref();
        let header = |name: &str| http.and_then(|http| http.header(name));
        let sample = http.map_or(&[][..], |http| http.body.as_slice());
        let body = kind(header("content-type").unwrap_or_default(), sample);
        let mut found: SmallVec<[Option<Cow<'a, str>>; 16]> = SmallVec::from_elem(None, wanted.json.len());
        let mut shape = Shape::default();
        if body == Body::Json {
            shape = json::scan(sample, |path, value| {
                leaf(path, &value.text, value.quoted);
                for (slot, pattern) in found.iter_mut().zip(&wanted.json) {
                    // The last of repeated keys counts, as most parsers have it.
                    if json::matches(path, pattern) && (value.quoted || value.text != "null") {
                        *slot = Some(value.text.clone());
                    }
                }
            });
        }
        let authorization = header("authorization");
        let token = authorization.and_then(forms::bearer).filter(|_| !wanted.claims.is_empty()).and_then(forms::jwt);
        let (token_header, claims) = token.map_or((Vec::new(), Vec::new()), |(header, payload)| (header, claims(&payload, &wanted.claims)));
        Self {
            tx,
            route,
            query: http.map_or_else(Pairs::new, |http| forms::pairs(http.query.as_bytes())),
            cookies: header("cookie").map_or_else(Cookies::new, forms::cookies),
            form: if body == Body::Form { form(sample, http.is_some_and(|http| http.truncated)) } else { Pairs::new() },
            body,
            shape,
            token_header,
            json: found,
            claims,
            basic: authorization.filter(|_| wanted.basic).and_then(forms::basic),
        }
    }

    /// What stands at a place; empty values are none. `SessionUser`, `PreviousRoute` and `Outcome` places are not of the transaction.
    pub fn find(&self, spot: &Spot) -> Option<Cow<'_, str>> {
        let tx = self.tx;
        let http = tx.http.as_ref();
        let own = |text: &'a str| Some(Cow::Borrowed(text));
        let found = match &spot.place {
            Place::Address => own(&tx.source.ip),
            Place::Service => own(&tx.service),
            Place::Tenant => own(&tx.tenant),
            Place::Endpoint => self.endpoint().map(Cow::Owned),
            Place::Header(name) => http.and_then(|http| http.header(name)).map(Cow::Borrowed),
            Place::Bearer(name) => http.and_then(|http| http.header(name)).and_then(forms::bearer).map(Cow::Borrowed),
            Place::Cookie(name) => self.cookies.iter().find(|(known, _)| known == name).map(|(_, value)| Cow::Borrowed(*value)),
            Place::Query(name) => named(&self.query, name),
            Place::Form(name) => named(&self.form, name),
            Place::Json(_) => self.json.get(spot.index).and_then(Option::as_deref).map(Cow::Borrowed),
            Place::Jwt(_) => self.claims.get(spot.index).and_then(Option::as_deref).map(Cow::Borrowed),
            Place::Segment { template, name } => {
                let segment = http.and_then(|http| segment_of(&http.path, template, name));
                segment.map(|segment| forms::decoded(segment.as_bytes(), false))
            }
            Place::Attribute(name) => tx.attributes.get(name).map(text),
            Place::IdentitySession => own(&tx.identity.session),
            Place::IdentityUser => own(&tx.identity.user),
            Place::IdentityFingerprint => own(&tx.identity.fingerprint),
            Place::IdentityCredential => own(&tx.identity.credential_hash),
            Place::IdentityField(name) => tx.identity.fields.get(name).map(|text| Cow::Borrowed(text.as_str())),
            Place::BasicUser => self.basic.as_ref().map(|(user, _)| Cow::Borrowed(user.as_str())),
            Place::BasicPassword => self.basic.as_ref().map(|(_, password)| Cow::Borrowed(password.as_str())),
            Place::ClientShape => self.client_shape().map(Cow::Owned),
            Place::Outcome(_) | Place::SessionUser | Place::PreviousRoute => None,
        };
        found.filter(|text| !text.trim().is_empty())
    }

    fn endpoint(&self) -> Option<String> {
        let http = self.tx.http.as_ref()?;
        let service = self.tx.service.as_str();
        let gap = if service.is_empty() { "" } else { " " };
        Some(format!("{service}{gap}{} {}", http.method, self.route))
    }

    /// JA4, the order of those headers that do not depend on what is asked for, and the values that name the software.
    fn client_shape(&self) -> Option<String> {
        let http = self.tx.http.as_ref()?;
        let mut shape = String::with_capacity(320);
        shape.push_str(self.tx.source.tls.as_ref().map_or("", |tls| tls.ja4.as_str()));
        for header in &http.headers {
            let name = header.name.as_str();
            let steady =
                matches!(name, "host" | "user-agent" | "accept" | "accept-language" | "accept-encoding" | "connection" | "dnt" | "te")
                    || name.starts_with("sec-ch-ua");
            if steady {
                shape.push('|');
                shape.push_str(name);
            }
            if matches!(name, "user-agent" | "accept-language" | "accept-encoding") {
                shape.push('=');
                shape.push_str(&header.value);
            }
        }
        (!shape.is_empty()).then_some(shape)
    }
}

impl Spot {
    /// The place itself.
    pub const fn place(&self) -> &Place {
        &self.place
    }
}

/// An attribute as text: what names a card or an account may be written as a number.
fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Text(text) => Cow::Borrowed(text),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Flag(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
    }
}

fn named<'a>(pairs: &'a Pairs<'_>, name: &str) -> Option<Cow<'a, str>> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| Cow::Borrowed(value.as_ref()))
}

/// The pairs of a form body; of a cut-off one the last pair is left out.
fn form(sample: &[u8], truncated: bool) -> Pairs<'_> {
    let mut pairs = forms::pairs(sample);
    if truncated {
        pairs.pop();
    }
    pairs
}

fn claims(payload: &[u8], wanted: &[Vec<String>]) -> Vec<Option<String>> {
    let mut found = vec![None; wanted.len()];
    json::scan(payload, |path, value| {
        for (slot, pattern) in found.iter_mut().zip(wanted) {
            if json::matches(path, pattern) && (value.quoted || value.text != "null") {
                *slot = Some(value.text.clone().into_owned());
            }
        }
    });
    found
}

fn kind(content_type: &str, sample: &[u8]) -> Body {
    if sample.is_empty() {
        return Body::None;
    }
    let has = |part: &str| content_type.as_bytes().windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()));
    let first = sample.iter().find(|byte| !byte.is_ascii_whitespace());
    if has("json") || matches!(first, Some(b'{' | b'[')) {
        Body::Json
    } else if has("x-www-form-urlencoded") {
        Body::Form
    } else if content_type.is_empty() || has("text") || has("xml") || has("multipart") || has("graphql") {
        Body::Text
    } else {
        Body::Binary
    }
}

/// Brings an identifier to the form that is hashed.
pub(super) fn normalized<'a>(normalization: Normalization, text: &'a str) -> Cow<'a, str> {
    let text = text.trim();
    match normalization {
        Normalization::None => Cow::Borrowed(text),
        Normalization::Lowercase if text.bytes().any(|byte| byte.is_ascii_uppercase()) => Cow::Owned(text.to_ascii_lowercase()),
        Normalization::Lowercase => Cow::Borrowed(text),
        Normalization::Digits if text.bytes().all(|byte| byte.is_ascii_digit()) => Cow::Borrowed(text),
        Normalization::Digits => Cow::Owned(text.chars().filter(char::is_ascii_digit).collect()),
        Normalization::Address => match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V6(address)) => {
                let prefix = address.to_bits() & !u128::from(u64::MAX);
                Cow::Owned(std::net::Ipv6Addr::from_bits(prefix).to_string())
            }
            Ok(IpAddr::V4(address)) => Cow::Owned(address.to_string()),
            Err(_) => Cow::Owned(text.to_ascii_lowercase()),
        },
    }
}
