//! The YAML form of a policy: what people write, with the line of each value. No meaning yet.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;
use telltale_features::yaml::Text;

use crate::decision::{Action, Mode};
use crate::ensemble::Combination;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPolicy {
    /// Version of the pack, for people.
    #[serde(default)]
    #[expect(dead_code, reason = "read by people and by the digest, which covers the whole text")]
    pub version: u32,
    #[serde(default)]
    pub mode: Option<Mode>,
    #[serde(default)]
    pub risk: Option<RawRisk>,
    #[serde(default)]
    pub levels: Option<RawLevels>,
    #[serde(default)]
    pub routes: Vec<RawRoute>,
    #[serde(default)]
    pub rules: Vec<RawRule>,
}

/// How models combine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRisk {
    /// From this risk on models are asked why.
    pub alert: Spanned<f64>,
    /// Points of a probability of abuse.
    pub probability: Spanned<Vec<(f64, f64)>>,
    /// Points of a p-value.
    pub p_value: Spanned<Vec<(f64, f64)>>,
    /// Weight a model; 1 where it is not listed.
    #[serde(default)]
    pub weights: BTreeMap<String, Spanned<f64>>,
    /// How the points of several models make one risk.
    #[serde(default)]
    pub combine: Combination,
    /// Where a model counts; everywhere where it is not listed.
    #[serde(default)]
    pub models: BTreeMap<String, RawModel>,
}

/// A model's entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawModel {
    /// It counts where this holds: CEL over the fields of the transaction. Where one of them is missing and the condition cannot be
    /// evaluated, it does not count; `has(...)` asks for a field first.
    pub when: Text,
}

/// How evidence makes a threat level.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLevels {
    /// Entity types on the client's side: the only ones that can be hostile.
    pub hostile: Vec<Text>,
    /// Evidence halves in this time.
    pub half_life: Text,
    /// Share of a level that reaches the other subjects of a transaction.
    pub propagate: Spanned<f64>,
    /// The most that propagated evidence can reach.
    pub propagate_cap: Spanned<f64>,
    /// The feature that says how many others share an entity of that type; evidence is divided by it.
    #[serde(default)]
    pub degree: BTreeMap<String, Text>,
}

/// A mode of its own for a route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRoute {
    pub route: Text,
    #[serde(default)]
    pub methods: Vec<String>,
    pub mode: Mode,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    pub id: Text,
    pub name: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub when: Text,
    #[serde(default)]
    pub score: Option<Spanned<f64>>,
    pub action: Spanned<Action>,
    #[serde(default)]
    pub mode: Option<Mode>,
    #[serde(default)]
    pub operations: Vec<Text>,
    #[serde(default)]
    pub routes: Vec<Text>,
    #[serde(default)]
    pub methods: Vec<Text>,
    #[serde(default)]
    pub entity: Option<Text>,
    #[serde(default)]
    pub duration: Option<Text>,
    #[serde(default)]
    pub evidence: Option<Spanned<f64>>,
    #[serde(default)]
    pub rate: Option<Spanned<u32>>,
    #[serde(default)]
    pub period: Option<Text>,
    #[serde(default)]
    pub burst: Option<Spanned<u32>>,
    #[serde(default)]
    pub delay: Option<Text>,
    #[serde(default)]
    pub status: Option<Spanned<u16>>,
    #[serde(default)]
    pub template: Option<Text>,
    #[serde(default)]
    pub retry_after: Option<Text>,
    pub reason: Text,
}

/// A duration as written: `500ms`, `10s`, `5m`, `24h`, `30d`.
///
/// # Errors
/// What is wrong and what is allowed.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write a whole number and `ms`, `s`, `m`, `h` or `d`, such as `15m`");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).filter(|millis| (1..=31_536_000_000).contains(millis)).map(Duration::from_millis).ok_or_else(wrong)
}
