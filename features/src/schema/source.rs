//! The YAML form of a schema: what people write, with the line of each value. No meaning yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::yaml::Text;

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
    pub after: Option<Text>,
    #[serde(default)]
    pub against: Option<Text>,
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
    #[serde(default)]
    pub delay: Option<Text>,
    #[serde(default)]
    pub latitude: Option<Text>,
    #[serde(default)]
    pub longitude: Option<Text>,
}
