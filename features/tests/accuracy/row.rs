//! One figure beside its bar, as a check reads it.

use serde_json::{Value, json};

/// What a suite may fail with: it cannot measure.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What it must not exceed.
    pub bar: Option<f64>,
}

impl Row {
    /// Whether the bar holds; `None` without one. NaN never holds.
    pub fn holds(&self) -> Option<bool> {
        self.bar.map(|bar| self.value <= bar)
    }

    /// As a line of JSON.
    pub fn json(&self) -> Value {
        let bar = self.bar.map(|bar| format!("≤ {bar} {}", self.unit).trim_end().to_owned());
        json!({"name": self.name, "value": self.value, "unit": self.unit, "bar": bar, "holds": self.holds()})
    }
}
