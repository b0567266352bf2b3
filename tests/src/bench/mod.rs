//! The benches: each measures one part beside its baseline in the same run and gives [`Row`]s of one table.
//!
//! A bar that fails prints as failing and stops nothing: the figures are for people and for `make check-path`.

pub mod core;
pub mod flood;
pub mod forest;
pub mod grpc;
pub mod kinds;
pub mod memory;
pub mod models;
pub mod proxy;
pub mod redis;
pub mod replay;
mod rules;
pub mod swap;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

/// What a bench may fail with: it cannot measure.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a figure must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// The value, at most.
    AtMost(f64),
    /// The value, at least.
    AtLeast(f64),
    /// The value over the baseline's, at most.
    Ratio(f64),
}

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is beside, and that one's figure.
    pub baseline: Option<(String, f64)>,
    /// What it must hold, if anything.
    pub bar: Option<Bar>,
    /// Whether the bar is a goal: an absolute figure says as much of the machine as of the program, and stops nothing.
    pub goal: bool,
}

impl Row {
    /// A figure without baseline and bar.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, baseline: None, bar: None, goal: false }
    }

    /// The same beside a baseline.
    #[must_use]
    pub fn beside(mut self, name: impl Into<String>, value: f64) -> Self {
        self.baseline = Some((name.into(), value));
        self
    }

    /// The same with a bar.
    #[must_use]
    pub const fn bar(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    /// The same with a goal.
    #[must_use]
    pub const fn goal(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self.goal = true;
        self
    }

    /// The value over the baseline's.
    pub fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|(_, baseline)| self.value / baseline)
    }

    /// Whether the bar holds; `None` without one. NaN never holds.
    pub fn holds(&self) -> Option<bool> {
        self.bar.map(|bar| match bar {
            Bar::AtMost(limit) => self.value <= limit,
            Bar::AtLeast(limit) => self.value >= limit,
            Bar::Ratio(limit) => self.ratio().is_some_and(|ratio| ratio <= limit),
        })
    }

    fn bar_words(&self) -> String {
        let words = match self.bar {
            None => return String::new(),
            Some(Bar::AtMost(limit)) => format!("≤ {} {}", number(limit), self.unit),
            Some(Bar::AtLeast(limit)) => format!("≥ {} {}", number(limit), self.unit),
            Some(Bar::Ratio(limit)) => format!("≤ {} ×", number(limit)),
        };
        if self.goal { format!("goal {words}") } else { words }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": finite(self.value),
            "unit": self.unit,
            "baseline": self.baseline.as_ref().map(|(name, _)| name),
            "baseline_value": self.baseline.as_ref().and_then(|(_, value)| finite(*value)),
            "ratio": self.ratio().and_then(finite),
            "bar": self.bar.map(|_| self.bar_words()),
            "holds": self.holds(),
            "goal": self.goal,
        })
    }
}

/// The rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:<46}{:>12} {:<8}{:>12}  {:<26}{:>8}  {:<22}holds\n", "figure", "value", "unit", "baseline", "", "ratio", "bar");
    for row in rows {
        let (name, value) = row.baseline.clone().map_or_else(Default::default, |(name, value)| (name, number(value)));
        let ratio = row.ratio().map(|ratio| format!("{ratio:.2} ×")).unwrap_or_default();
        let holds = row.holds().map(|holds| if holds { "yes" } else { "NO" }).unwrap_or_default();
        let written = writeln!(
            text,
            "{:<46}{:>12} {:<8}{:>12}  {:<26}{:>8}  {:<22}{}",
            row.name,
            number(row.value),
            row.unit,
            value,
            name,
            ratio,
            row.bar_words(),
            holds
        );
        debug_assert!(written.is_ok());
    }
    text
}

/// Writes the rows as `make check-path` reads them.
///
/// # Errors
/// When the file cannot be written.
pub fn write(rows: &[Row], path: &Path) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    Ok(std::fs::write(path, serde_json::to_string_pretty(&rows)?)?)
}

/// The middle one of several runs.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A whole number from the environment, or the honest size.
pub fn size(name: &str, honest: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(honest)
}

/// Three significant places, thousands as they are.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_hold_or_not() {
        let row = Row::new("latency", 20.0, "µs").beside("trivial", 5.0);
        assert_eq!(row.clone().holds(), None);
        assert_eq!(row.clone().bar(Bar::AtMost(25.0)).holds(), Some(true));
        assert_eq!(row.clone().bar(Bar::AtLeast(25.0)).holds(), Some(false));
        assert_eq!(row.clone().bar(Bar::Ratio(4.0)).holds(), Some(true));
        assert_eq!(row.bar(Bar::Ratio(3.9)).holds(), Some(false));
        assert_eq!(Row::new("nothing", f64::NAN, "µs").bar(Bar::AtMost(1.0)).holds(), Some(false));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
