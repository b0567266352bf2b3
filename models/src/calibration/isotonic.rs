//! Probability from labels: scores with weights and labels enter, a rising table leaves.
//!
//! Pool-adjacent-violators (Ayer et al., 1955; Zadrozny and Elkan, 2002) over at most 256 groups of equal weight, ties kept together.

use super::{CalibrationTable, MAX_KNOTS, Meaning};
use crate::ModelError;

#[derive(Clone, Copy)]
struct Block {
    raw: f64,
    positives: f64,
    weight: f64,
    rows: f64,
}

impl Block {
    fn joined(self, other: Self) -> Self {
        let weight = self.weight + other.weight;
        Self {
            raw: (self.raw * self.weight + other.raw * other.weight) / weight,
            positives: self.positives + other.positives,
            weight,
            rows: self.rows + other.rows,
        }
    }

    /// Share of positives, kept off 0 and 1 by as much as the number of rows can tell.
    fn share(&self) -> f64 {
        let margin = 1.0 / (self.rows + 2.0);
        (self.positives / self.weight).clamp(margin, 1.0 - margin)
    }
}

/// The probability table of `(raw score, abusive, weight)` rows.
///
/// # Errors
/// [`ModelError::Data`] when scores or weights are not finite, or one of the classes is empty.
pub fn isotonic(rows: &[(f64, bool, f64)]) -> Result<CalibrationTable, ModelError> {
    if let Some(at) = rows.iter().position(|(raw, _, weight)| !(raw.is_finite() && weight.is_finite() && *weight > 0.0)) {
        return Err(ModelError::Data(format!("row {at}: scores must be finite and weights positive")));
    }
    let positives = rows.iter().filter(|(_, positive, _)| *positive).count();
    if positives == 0 || positives == rows.len() {
        return Err(ModelError::Data(format!("{positives} of {} rows are abusive: calibration needs both kinds", rows.len())));
    }
    let mut blocks: Vec<Block> = Vec::new();
    for group in groups(rows) {
        blocks.push(group);
        while let [.., before, last] = blocks.as_slice() {
            if before.share() < last.share() && before.raw < last.raw {
                break;
            }
            let joined = before.joined(*last);
            blocks.truncate(blocks.len().saturating_sub(2));
            blocks.push(joined);
        }
    }
    let knots = blocks.iter().map(|block| (block.raw, block.share())).collect();
    CalibrationTable::new(Meaning::Probability, rows.len() as u64, knots).map_err(ModelError::Data)
}

/// Rows in order of score, in at most [`MAX_KNOTS`] groups; equal scores stay together.
fn groups(rows: &[(f64, bool, f64)]) -> Vec<Block> {
    let mut sorted: Vec<Block> = rows
        .iter()
        .map(|(raw, positive, weight)| Block { raw: *raw, positives: if *positive { *weight } else { 0.0 }, weight: *weight, rows: 1.0 })
        .collect();
    sorted.sort_by(|a, b| a.raw.total_cmp(&b.raw));
    let share = sorted.iter().map(|row| row.weight).sum::<f64>() / (MAX_KNOTS as f64 / 2.0);
    let mut out: Vec<Block> = Vec::new();
    let mut last = f64::NEG_INFINITY;
    for row in sorted {
        match out.last_mut() {
            Some(group) if group.weight < share || row.raw == last => *group = group.joined(row),
            _ => out.push(row),
        }
        last = row.raw;
    }
    out
}
