//! Reasons in plain words: templates of rules, and what models pointed at.

use std::fmt::Write;
use std::sync::Arc;

use telltale_features::expr::{Compared, NameKind, NameRef, Row, Scope};
use telltale_features::schema::Schema;
use telltale_models::Attribution;

use crate::decision::Reason;

/// A reason with places for values: `{address.failed_logins_10m} failed logins, {address.login_fail_ratio_10m:%} of all`.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Words(String),
    Value(NameKind, u16),
    Percent(u16),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// The place that names something unknown, with the closest allowed names.
    pub fn parse(text: &str, scope: &Scope) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((words, after)) = rest.split_once('{') {
            let (name, left) = after.split_once('}').ok_or_else(|| format!("`{{` without `}}` in `{text}`"))?;
            let (name, percent) = name.strip_suffix(":%").map_or((name, false), |name| (name, true));
            let (kind, place) = scope.resolve(name).filter(|(kind, _)| *kind != NameKind::Constant).ok_or_else(|| {
                let closest: Vec<_> = scope.closest(name, 3).into_iter().map(|name| format!("`{name}`")).collect();
                format!("unknown name `{name}` in the reason; closest allowed: {}", closest.join(", "))
            })?;
            parts.push(Part::Words(words.to_owned()));
            parts.push(match (percent, kind) {
                (true, NameKind::Number) => Part::Percent(place),
                (true, _) => return Err(format!("`{name}` is no number: `:%` writes a share as a percentage")),
                (false, _) => Part::Value(kind, place),
            });
            rest = left;
        }
        parts.push(Part::Words(rest.to_owned()));
        Ok(Self { parts })
    }

    pub fn render(&self, row: &Row<'_>) -> String {
        let mut out = String::with_capacity(96);
        for part in &self.parts {
            match part {
                Part::Words(words) => out.push_str(words),
                Part::Percent(place) => match row.numbers.get(usize::from(*place)).copied().unwrap_or(f64::NAN) {
                    share if share.is_nan() => out.push_str("unknown"),
                    // Writing to a string cannot fail.
                    share => write!(out, "{:.0} %", share * 100.0).unwrap_or_default(),
                },
                Part::Value(kind, place) => push_value(&mut out, *kind, *place, row),
            }
        }
        out
    }
}

fn push_value(out: &mut String, kind: NameKind, place: u16, row: &Row<'_>) {
    let place = usize::from(place);
    match kind {
        NameKind::Number => out.push_str(&number(row.numbers.get(place).copied().unwrap_or(f64::NAN))),
        NameKind::Text => out.extend(row.texts.get(place).copied().unwrap_or_default().chars().filter(|c| !c.is_control()).take(80)),
        NameKind::Flag | NameKind::Constant => out.push_str(if row.flags.get(place) == Some(&true) { "yes" } else { "no" }),
    }
}

/// A number as people write it: whole when whole, else two decimals; `unknown` when missing.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        "unknown".to_owned()
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The reason of a rule: its words, and the first numbers beside the thresholds that they are over. Of alternatives (`||`) those that
/// do not hold are no reason.
pub(crate) fn of_rule(id: &str, template: &Template, reads: &[NameRef], score: f64, row: &Row<'_>) -> Reason {
    let numbers = reads.iter().filter(|read| read.kind == NameKind::Number).filter_map(|read| {
        let above = read.compared.filter(|compared| compared.operator.starts_with('>'))?;
        Some((read, above))
    });
    let value = |read: &NameRef| row.numbers.get(usize::from(read.place)).copied().filter(|value| !value.is_nan());
    let mut text = template.render(row);
    let over = |read: &NameRef, compared: Compared| {
        value(read).is_some_and(|value| if compared.operator == ">=" { value >= compared.literal } else { value > compared.literal })
    };
    let shown: Vec<_> = numbers.filter(|(read, compared)| over(read, *compared)).take(3).collect();
    for (i, (read, compared)) in shown.iter().enumerate() {
        text.push_str(if i == 0 { " (" } else { ", " });
        let at_least = if compared.operator == ">=" { "from" } else { "above" };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{} is {}, suspicious {at_least} {}",
            read.name,
            number(value(read).unwrap_or(f64::NAN)),
            number(compared.literal)
        );
    }
    if !shown.is_empty() {
        text.push(')');
    }
    let first = shown.first();
    Reason {
        feature: first.map_or_else(|| Arc::from(""), |(read, _)| Arc::clone(&read.name)),
        value: first.and_then(|(read, _)| value(read)),
        usual: first.map(|(_, compared)| compared.literal),
        contribution: score,
        text,
        origin: format!("rule {id}"),
    }
}

/// The reason of a model: what the feature means, its value, what is usual.
pub(crate) fn of_model(schema: &Schema, attribution: &Attribution, points: f64) -> Reason {
    let spec = schema.features().get(attribution.feature.index());
    let (name, meaning) = spec.map_or(("", "an unknown feature"), |spec| (spec.name.as_str(), spec.meaning.as_str()));
    Reason {
        feature: name.into(),
        value: Some(attribution.value).filter(|value| !value.is_nan()),
        usual: Some(attribution.usual).filter(|value| !value.is_nan()),
        contribution: points * attribution.share,
        text: format!("{meaning}: {}, usually {}", number(attribution.value), number(attribution.usual)),
        origin: format!("model {}", attribution.model),
    }
}
