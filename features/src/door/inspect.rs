//! The content inspector: a transaction taken apart enters, its signals leave.
//!
//! All that a client can fill with an attack is decoded into one bounded text. Literals decide whether it is worth a closer look;
//! ordinary requests never reach a regular expression.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::content::{Signal, Signals};
use super::forms::{bearer, decode_into};
use super::json::Path;
use super::parts::{Body, Parts};
use super::patterns::{AGENTS, AMOUNTS, PATTERNS, PRIVILEGED, PROBE_ENDINGS, PROBES, SPECS, TRIGGERS};
use crate::domain::HttpRequest;

/// Most bytes that are decoded of query and body, and of headers.
const TEXT: usize = 8 * 1024;
const HEADER_TEXT: usize = 2 * 1024;
/// Most bytes that enter entropy and character statistics.
const SAMPLE: usize = 1024;
/// Most layers of percent-encoding that are taken off after the first.
const LAYERS: usize = 3;
/// Most values that are tried as base64.
const ENCODED: usize = 4;

pub(super) struct Inspector {
    triggers: AhoCorasick,
    patterns: RegexSet,
    probes: AhoCorasick,
    specs: AhoCorasick,
    agents: AhoCorasick,
    agent_kinds: Vec<Signal>,
}

/// What is gathered while the body is read.
#[derive(Default)]
pub(super) struct Gathered {
    text: Vec<u8>,
    parameters: usize,
    longest: usize,
    privileged: usize,
    negative: usize,
}

impl Gathered {
    /// One leaf of a JSON body.
    pub fn leaf(&mut self, path: &Path<'_>, text: &str, quoted: bool) {
        let key = path.last().map_or("", |key| key.as_ref());
        self.parameter(key, text);
        if quoted {
            self.push(text.as_bytes());
        }
        if path.len() <= 3 && is_one_of(key, PRIVILEGED) {
            self.privileged += 1;
        }
    }

    fn parameter(&mut self, key: &str, value: &str) {
        self.parameters += 1;
        self.longest = self.longest.max(value.len());
        if !value.is_empty() && value.len() < 24 && is_one_of(key, AMOUNTS) && value.trim().parse::<f64>().is_ok_and(|number| number <= 0.0)
        {
            self.negative += 1;
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = TEXT.saturating_sub(self.text.len());
        self.text.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        self.text.push(b'\n');
    }
}

impl Inspector {
    #[expect(clippy::expect_used, reason = "the patterns are constants of this crate and a test builds them")]
    pub fn new() -> Self {
        // Of its own accord the library walks sets of more than 100 words by a slower automaton; these are few and hot.
        let automaton = |words: &[&str]| {
            let builder = AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(words);
            builder.expect("constant literals build")
        };
        let marks: Vec<(Signal, &str)> = AGENTS.iter().flat_map(|(signal, marks)| marks.iter().map(|mark| (*signal, *mark))).collect();
        let words: Vec<&str> = marks.iter().map(|(_, mark)| *mark).collect();
        let patterns = RegexSetBuilder::new(PATTERNS.iter().map(|(_, pattern)| pattern))
            .case_insensitive(true)
            .unicode(false)
            .size_limit(8 << 20)
            .dfa_size_limit(8 << 20)
            .build()
            .expect("constant patterns build");
        Self {
            triggers: automaton(TRIGGERS),
            patterns,
            probes: automaton(PROBES),
            specs: automaton(SPECS),
            agents: automaton(&words),
            agent_kinds: marks.into_iter().map(|(signal, _)| signal).collect(),
        }
    }

    /// The signals of a transaction; all 0 without HTTP.
    pub fn inspect(&self, parts: &Parts<'_>, gathered: Gathered) -> Signals {
        let mut signals = Signals::default();
        let Some(http) = parts.tx.http.as_ref() else { return signals };
        self.agent(http, &mut signals);
        self.path(http, &mut signals);
        let (text, path_length) = decoded(parts, gathered, &mut signals);
        statistics(text.get(path_length..).unwrap_or_default(), &mut signals);
        self.attacks(&text, &mut signals);
        self.hidden(&text, &mut signals);
        if parts.body == Body::Json {
            signals.set(Signal::JsonDepth, parts.shape.depth as f64);
            signals.add(Signal::DuplicateKeys, parts.shape.duplicates as f64);
            let broken = parts.shape.malformed || (parts.shape.incomplete && !http.truncated);
            signals.set(Signal::JsonMalformed, f64::from(u8::from(broken)));
        }
        let unsigned = parts.token_header.windows(5).any(|window| window.eq_ignore_ascii_case(b"none\""));
        let unsigned =
            unsigned || http.header("authorization").and_then(bearer).is_some_and(|token| token.ends_with('.') && token.starts_with("ey"));
        signals.set(Signal::JwtNone, f64::from(u8::from(unsigned)));
        let attacks = [
            Signal::Sqli,
            Signal::Xss,
            Signal::Traversal,
            Signal::Command,
            Signal::Template,
            Signal::Deserialization,
            Signal::Ssrf,
            Signal::Xxe,
            Signal::HeaderInjection,
            Signal::JwtNone,
        ];
        let classes = attacks.iter().filter(|signal| signals.value(**signal) > 0.0).count();
        signals.set(Signal::Classes, classes as f64);
        signals
    }

    fn agent(&self, http: &HttpRequest, signals: &mut Signals) {
        let agent = http.header("user-agent").unwrap_or_default();
        if agent.trim().is_empty() {
            signals.set(Signal::MissingAgent, 1.0);
            return;
        }
        let bounded = agent.as_bytes().get(..512.min(agent.len())).unwrap_or_default();
        let mut known = false;
        for found in self.agents.find_iter(bounded) {
            if let Some(signal) = self.agent_kinds.get(found.pattern().as_usize()) {
                signals.set(*signal, 1.0);
                known = true;
            }
        }
        if !known && bounded.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"mozilla/")) {
            signals.set(Signal::BrowserAgent, 1.0);
            let lacks = http.header("accept-language").is_none() || http.header("accept-encoding").is_none();
            signals.set(Signal::BrowserMismatch, f64::from(u8::from(lacks)));
        }
    }

    fn path(&self, http: &HttpRequest, signals: &mut Signals) {
        let path = http.path.as_bytes();
        let bounded = path.get(..512.min(path.len())).unwrap_or_default();
        let found = self.probes.find_iter(bounded).count();
        let ending = PROBE_ENDINGS.iter().any(|ending| {
            bounded.len() > ending.len()
                && bounded.get(bounded.len() - ending.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(ending.as_bytes()))
        });
        signals.set(Signal::Probe, (found + usize::from(ending)) as f64);
        signals.set(Signal::SpecProbe, f64::from(u8::from(self.specs.is_match(bounded))));
    }

    fn attacks(&self, text: &[u8], signals: &mut Signals) {
        if !self.triggers.is_match(text) {
            return;
        }
        for index in self.patterns.matches(text) {
            if let Some((signal, _)) = PATTERNS.get(index) {
                signals.add(*signal, 1.0);
            }
        }
    }

    /// Values that are base64 of something that reads like an attack.
    fn hidden(&self, text: &[u8], signals: &mut Signals) {
        let encoded = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let values = text.split(|byte| !encoded(byte)).filter(|value| (16..=2048).contains(&value.len()) && value.len() % 4 != 1);
        for value in values.take(ENCODED) {
            let Ok(inner) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(value) else { continue };
            if inner.is_ascii() && self.triggers.is_match(&inner) {
                let hits = self.patterns.matches(&inner).iter().count();
                signals.add(Signal::EncodedPayload, hits as f64);
                self.attacks(&inner, signals);
            }
        }
    }
}

/// Path, parameters, body and telling headers as one decoded text; and how much of it is the path.
fn decoded(parts: &Parts<'_>, mut gathered: Gathered, signals: &mut Signals) -> (Vec<u8>, usize) {
    let Some(http) = parts.tx.http.as_ref() else { return (Vec::new(), 0) };
    let mut text = Vec::with_capacity(http.path.len().min(TEXT) + http.query.len().min(TEXT) + gathered.text.len() + 256);
    decode_into(bounded(http.path.as_bytes()), false, &mut text);
    text.push(b'\n');
    let path_length = text.len();
    decode_into(bounded(http.query.as_bytes()), true, &mut text);
    text.push(b'\n');
    let mut names: Vec<&str> = Vec::with_capacity(parts.query.len());
    for (name, value) in parts.query.iter().chain(&parts.form) {
        gathered.parameter(name, value);
        names.push(name);
    }
    names.sort_unstable();
    let repeated = names.windows(2).filter(|pair| matches!(pair, [left, right] if left == right && !right.ends_with("[]"))).count();
    signals.add(Signal::DuplicateKeys, repeated as f64);
    match parts.body {
        Body::Form => {
            decode_into(bounded(&http.body), true, &mut text);
        }
        Body::Text => text.extend_from_slice(bounded(&http.body)),
        // Of a body that only claims to be JSON the raw bytes are looked at.
        Body::Json if parts.shape.malformed => text.extend_from_slice(bounded(&http.body)),
        _ => {}
    }
    text.append(&mut gathered.text);
    let headers_from = text.len();
    for header in &http.headers {
        let telling = matches!(header.name.as_str(), "user-agent" | "referer" | "x-api-version" | "x-forwarded-host" | "origin")
            || header.name.starts_with("x-");
        let value = header.value.as_bytes();
        if telling && text.len() - headers_from < HEADER_TEXT && is_odd(value) {
            text.extend_from_slice(value.get(..HEADER_TEXT.min(value.len())).unwrap_or_default());
            text.push(b'\n');
        }
    }
    let invalid = invalid(text.get(..headers_from).unwrap_or_default());
    signals.set(Signal::InvalidBytes, invalid as f64);
    signals.set(Signal::Parameters, gathered.parameters as f64);
    signals.set(Signal::LongestValue, gathered.longest as f64);
    let writes = matches!(http.method.as_str(), "POST" | "PUT" | "PATCH");
    signals.set(Signal::MassAssignment, if writes { gathered.privileged as f64 } else { 0.0 });
    signals.set(Signal::NegativeAmount, gathered.negative as f64);
    unwrap_layers(&mut text, signals);
    (text, path_length)
}

/// Whether a header's value holds what never belongs there: user agents and pages have brackets and slashes of their own.
fn is_odd(value: &[u8]) -> bool {
    // First bytes apart: one comparison a byte where six pairs would be tried.
    let first = |byte: &u8| matches!(byte, b'$' | b'(' | b'\'' | b'<' | b'.');
    let mut rest = value;
    while let Some(at) = rest.iter().position(first) {
        rest = rest.get(at..).unwrap_or_default();
        if matches!(rest, [b'$', b'{', ..] | [b'(', b')', ..] | [b'\'', b' ', ..] | [b'<', b's' | b'?', ..] | [b'.', b'.', ..]) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Takes further layers of percent-encoding off; what comes out is appended.
fn unwrap_layers(text: &mut Vec<u8>, signals: &mut Signals) {
    let mut layer: Vec<u8> = Vec::new();
    for depth in 1..=LAYERS {
        let from = if depth == 1 { text.as_slice() } else { layer.as_slice() };
        if !from.contains(&b'%') {
            return;
        }
        let mut next = Vec::with_capacity(from.len());
        if decode_into(bounded(from), false, &mut next) == 0 {
            return;
        }
        signals.set(Signal::NestedEncoding, depth as f64);
        text.push(b'\n');
        text.extend_from_slice(&next);
        layer = next;
    }
}

fn bounded(bytes: &[u8]) -> &[u8] {
    bytes.get(..TEXT.min(bytes.len())).unwrap_or_default()
}

/// Control bytes and bytes that are not UTF-8.
fn invalid(text: &[u8]) -> usize {
    let control = text.iter().filter(|byte| **byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t') || **byte == 0x7f).count();
    let foreign = match std::str::from_utf8(text) {
        Ok(_) => 0,
        Err(_) => text.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count(),
    };
    control + foreign
}

/// Entropy and share of unusual characters.
fn statistics(text: &[u8], signals: &mut Signals) {
    let sample = text.get(..SAMPLE.min(text.len())).unwrap_or_default();
    let mut counts = [0u32; 256];
    let mut total = 0u32;
    let mut special = 0u32;
    for byte in sample.iter().filter(|byte| **byte != b'\n') {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
        total += 1;
        let ordinary = byte.is_ascii_alphanumeric()
            || *byte >= 0x80
            || matches!(byte, b' ' | b'.' | b',' | b'-' | b'_' | b'@' | b'=' | b'&' | b'/' | b':' | b'+');
        special += u32::from(!ordinary);
    }
    if total == 0 {
        return;
    }
    let whole = f64::from(total);
    let entropy: f64 =
        counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / whole).map(|share| -share * share.log2()).sum();
    signals.set(Signal::Entropy, entropy);
    signals.set(Signal::SpecialRatio, f64::from(special) / whole);
}

/// Whether a key is one of `known`, whatever its case, underscores and hyphens.
fn is_one_of(key: &str, known: &[&str]) -> bool {
    if key.is_empty() || key.len() > 32 {
        return false;
    }
    let plain = || key.bytes().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase());
    known.iter().any(|word| plain().eq(word.bytes()))
}
