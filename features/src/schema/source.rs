//! The YAML form of a schema: what people write, with the line of each value. No meaning yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::error::Problem;
use super::names::closest;

/// A text with its line.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSchema {
    pub entities: Vec<RawEntity>,
    pub fields: Vec<RawField>,
    pub secrets: RawSecrets,
    pub endpoints: RawEndpoints,
    pub feature_views: Vec<RawView>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntity {
    pub name: Text,
    pub meaning: String,
    pub from: Vec<Text>,
    #[serde(default)]
    pub normalization: Option<Text>,
    #[serde(default)]
    pub keep_names: bool,
    #[serde(default)]
    pub ttl: Option<Text>,
    #[serde(default)]
    pub max_bytes: Option<Spanned<usize>>,
    #[serde(default)]
    pub proved_by: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawField {
    pub name: Text,
    pub meaning: String,
    #[serde(rename = "type")]
    pub kind: Text,
    pub from: Vec<Text>,
    #[serde(default)]
    pub secret: bool,
    #[serde(default)]
    pub carried: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSecrets {
    /// Headers whose value becomes a token.
    pub headers: Vec<String>,
    /// Cookies whose value becomes a token; `*` means all.
    pub cookies: Vec<String>,
    /// Query parameters whose value becomes a token.
    pub query: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEndpoints {
    /// Route templates, tried before the shape rule.
    pub templates: Vec<Text>,
    /// Route patterns by operation.
    pub operations: BTreeMap<String, Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawView {
    pub name: Text,
    #[serde(default)]
    pub entity: Option<Text>,
    #[serde(default = "first_version")]
    pub version: u32,
    #[serde(default)]
    pub ttl: Option<Text>,
    pub aggregations: Vec<RawAggregation>,
}

const fn first_version() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAggregation {
    pub name: Text,
    pub aggregation: Text,
    pub meaning: String,
    #[serde(default)]
    pub of: Option<Text>,
    #[serde(default)]
    pub filter: Option<Text>,
    #[serde(default)]
    pub part: Option<Text>,
    #[serde(default)]
    pub whole: Option<Text>,
    #[serde(default)]
    pub windows: Vec<Text>,
    #[serde(default)]
    pub phase: Option<Text>,
    #[serde(default)]
    pub stat: Option<Text>,
}

/// The line of a value, from 1.
pub(super) fn line<T>(value: &Spanned<T>) -> u32 {
    u32::try_from(value.referenced.line()).unwrap_or(0)
}

/// Reads one file.
///
/// # Errors
/// What is wrong with the YAML, with its line; of an unknown key also the closest known one.
pub(super) fn parse(file: &str, text: &str) -> Result<RawSchema, Problem> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |at| u32::try_from(at.line()).unwrap_or(0));
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default().to_owned();
        Problem { file: file.to_owned(), line, message: with_closest(message) }
    })
}

/// serde says "unknown field `x`, expected one of `a`, `b`": the closest of them is added.
fn with_closest(message: String) -> String {
    if !message.contains("unknown field") {
        return message;
    }
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known)) => match closest(unknown, known.iter().copied()) {
            Some(best) => format!("{message}; did you mean `{best}`?"),
            None => message,
        },
        None => message,
    }
}
