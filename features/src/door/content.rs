//! Content signals: what stands in one request, as numbers.
//!
//! They are signals for rules and models, not verdicts: cheap, bounded, and wrong at times by themselves.

/// Number of signals in the catalogue.
pub const SIGNALS: usize = CATALOGUE.len();

/// The signals in their journalled order: CEL name (as `content.<name>`) and meaning. New ones are appended, none is removed.
pub const CATALOGUE: &[(&str, &str)] = &[
    ("sqli", "SQL injection patterns"),
    ("xss", "script injection patterns"),
    ("traversal", "path traversal patterns"),
    ("command", "command injection patterns"),
    ("template", "template or expression injection patterns, JNDI look-ups included"),
    ("probe", "requests for files and consoles that only scanners look for"),
    ("deserialization", "serialised objects of Java, .NET, PHP or Python"),
    ("ssrf", "parameters that point to private, link-local or metadata addresses"),
    ("xxe", "XML entity definitions"),
    ("header_injection", "line breaks smuggled into parameters"),
    ("mass_assignment", "privileged JSON keys such as role, isAdmin or balance"),
    ("jwt_none", "a bearer token that says it is not signed"),
    ("scanner_agent", "a user agent of a vulnerability scanner"),
    ("automation_agent", "a user agent of an HTTP library or a headless browser"),
    ("crawler_agent", "a user agent of a declared crawler"),
    ("browser_agent", "a user agent of a browser"),
    ("missing_agent", "no user agent"),
    ("browser_mismatch", "claims to be a browser but lacks headers that every browser sends"),
    ("classes", "how many different attack classes were found"),
    ("nested_encoding", "how many layers of percent-encoding were found beyond the first"),
    ("special_ratio", "share of characters of query and body that are neither letters, digits nor ordinary punctuation"),
    ("entropy", "entropy of query and body, bits a byte"),
    ("invalid_bytes", "control bytes or invalid UTF-8 in path, query or text body"),
    ("duplicate_keys", "repeated keys in a JSON object or repeated query parameters"),
    ("json_depth", "greatest nesting depth of a JSON body"),
    ("json_malformed", "a body that claims to be JSON and is not"),
    ("negative_amount", "a negative or zero amount, price or quantity"),
    ("parameters", "how many parameters query and body hold"),
    ("longest_value", "length of the longest parameter, bytes"),
    ("spec_probe", "requests for API descriptions"),
    ("encoded_payload", "an attack pattern that shows only after decoding twice"),
];

/// The signals of one request, in catalogue order; never NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    values: [f64; SIGNALS],
}

impl Default for Signals {
    fn default() -> Self {
        Self { values: [0.0; SIGNALS] }
    }
}

impl Signals {
    /// Signals as journalled; missing ones are 0, what this version does not know is left out.
    pub fn from_slice(values: &[f64]) -> Self {
        let mut signals = Self::default();
        for (to, from) in signals.values.iter_mut().zip(values) {
            *to = if from.is_finite() { *from } else { 0.0 };
        }
        signals
    }

    /// The values in catalogue order.
    pub fn as_slice(&self) -> &[f64] {
        &self.values
    }
}

/// Place of a signal in the catalogue.
// INVARIANT: the order is the catalogue's; a test compares the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Sqli,
    Xss,
    Traversal,
    Command,
    Template,
    Probe,
    Deserialization,
    Ssrf,
    Xxe,
    HeaderInjection,
    MassAssignment,
    JwtNone,
    ScannerAgent,
    AutomationAgent,
    CrawlerAgent,
    BrowserAgent,
    MissingAgent,
    BrowserMismatch,
    Classes,
    NestedEncoding,
    SpecialRatio,
    Entropy,
    InvalidBytes,
    DuplicateKeys,
    JsonDepth,
    JsonMalformed,
    NegativeAmount,
    Parameters,
    LongestValue,
    SpecProbe,
    EncodedPayload,
}

impl Signals {
    pub(super) fn set(&mut self, signal: Signal, value: f64) {
        if let Some(slot) = self.values.get_mut(signal as usize) {
            *slot = value;
        }
    }

    pub(super) fn add(&mut self, signal: Signal, value: f64) {
        if let Some(slot) = self.values.get_mut(signal as usize) {
            *slot += value;
        }
    }

    pub(super) fn value(&self, signal: Signal) -> f64 {
        self.values.get(signal as usize).copied().unwrap_or(0.0)
    }

    /// The signal of that name, without `content.`.
    pub fn named(&self, name: &str) -> Option<f64> {
        let place = CATALOGUE.iter().position(|(known, _)| *known == name)?;
        self.values.get(place).copied()
    }
}
