//! Calibration: what a raw score means. Scores with labels, or the site's own traffic, enter; a monotone table leaves.
//!
//! Labels give a probability ([`isotonic`]); traffic without labels gives a p-value ([`conformal`]), which is never called a
//! probability. [`Calibrator`] collects the traffic of a site. Nothing here sees a row or knows how a model works.

mod conformal;
mod isotonic;
mod onsite;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::score::Calibrated;

pub use conformal::conformal;
pub use isotonic::isotonic;
pub use onsite::{Calibrator, CalibratorOptions, Finished};

/// Most knots of a table.
pub const MAX_KNOTS: usize = 256;

/// What the values of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Probability of abuse: rises with the raw score.
    Probability,
    /// Share of ordinary traffic that scores at least as high: falls with the raw score.
    PValue,
}

/// A monotone table from raw score to probability or p-value, linear between its knots and level beyond them.
// INVARIANT: 1 to 256 knots, all finite, raw scores strictly rising, values in [0, 1] and monotone in the sense of `meaning`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct CalibrationTable {
    meaning: Meaning,
    rows: u64,
    knots: Vec<(f64, f64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    meaning: Meaning,
    rows: u64,
    knots: Vec<(f64, f64)>,
}

impl From<CalibrationTable> for Written {
    fn from(table: CalibrationTable) -> Self {
        Self { meaning: table.meaning, rows: table.rows, knots: table.knots }
    }
}

impl TryFrom<Written> for CalibrationTable {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        Self::new(written.meaning, written.rows, written.knots)
    }
}

impl CalibrationTable {
    /// A table of these knots, made from that many rows.
    ///
    /// # Errors
    /// Which knot breaks the rules, and what is allowed.
    pub fn new(meaning: Meaning, rows: u64, knots: Vec<(f64, f64)>) -> Result<Self, String> {
        if !(1..=MAX_KNOTS).contains(&knots.len()) {
            return Err(format!("{} knots, allowed are 1 to {MAX_KNOTS}", knots.len()));
        }
        if let Some(at) = knots.iter().position(|(raw, value)| !raw.is_finite() || !(0.0..=1.0).contains(value)) {
            return Err(format!("knot {at}: the raw score must be finite and the value in [0, 1]"));
        }
        let rises = meaning == Meaning::Probability;
        let wrong = knots.windows(2).position(|pair| match pair {
            [(low, before), (high, after)] => low >= high || if rises { before > after } else { before < after },
            _ => false,
        });
        match wrong {
            Some(at) => Err(format!("knot {}: raw scores must rise and values be monotone", at + 1)),
            None => Ok(Self { meaning, rows, knots }),
        }
    }

    /// From its JSON.
    ///
    /// # Errors
    /// What is wrong in it, with line and column.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        serde_json::from_str(text).map_err(|error| ModelError::Data(format!("no calibration table: {error}")))
    }

    /// The canonical JSON, by which the table is stored and digested.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// BLAKE3 of the canonical JSON: 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        blake3::hash(self.to_json().as_bytes()).to_hex().to_string()
    }

    /// What its values are.
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Rows it was made from.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The value at a raw score, in [0, 1].
    pub fn value(&self, raw: f64) -> f64 {
        let after = self.knots.partition_point(|(knot, _)| *knot <= raw);
        let below = after.checked_sub(1).and_then(|at| self.knots.get(at));
        match (below, self.knots.get(after)) {
            (Some((low, from)), Some((high, to))) => {
                let value = from + (to - from) * ((raw - low) / (high - low));
                value.clamp(from.min(*to), from.max(*to))
            }
            (Some((_, value)), None) | (None, Some((_, value))) => *value,
            (None, None) => 0.0,
        }
    }

    /// The value at a raw score, by its meaning.
    pub fn apply(&self, raw: f64) -> Calibrated {
        match self.meaning {
            Meaning::Probability => Calibrated::Probability(self.value(raw)),
            Meaning::PValue => Calibrated::PValue(self.value(raw)),
        }
    }
}
