//! How the models' words become points of risk.
//!
//! Each champion's calibrated word is mapped to points by a piecewise linear table and weighted; the parts combine as independent
//! evidence does, `100·(1 − Π(1 − pᵢ/100))`, so that no number of half-sure models exceeds 100 and one sure model suffices; a policy
//! may ask for their maximum, sum or mean instead.

use std::collections::BTreeMap;

use telltale_models::{Calibrated, ModelScore, Scores};

use crate::ensemble::{Combination, Ensemble};

/// The models' word as risk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combined {
    /// 0 to 100.
    pub risk: f64,
    /// Points of each model, in the order of the scores' parts; they add up to `risk`.
    pub contributions: Vec<f64>,
    /// Whether the risk reaches the alert threshold: an explanation is wanted.
    pub alert: bool,
    /// Points that each model gives by itself, 0 to 100, before they are combined.
    pub points: Vec<f64>,
    /// Models whose condition does not hold here: they count for nothing.
    pub muted: Vec<bool>,
    /// The same, for another combination about the same transaction.
    pub ensemble: Ensemble,
}

/// The risk section of a policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Risk {
    pub alert: f64,
    /// Rising abscissae with their points.
    pub probability: Vec<(f64, f64)>,
    /// Rising p-values with their points.
    pub p_value: Vec<(f64, f64)>,
    pub weights: BTreeMap<String, f64>,
    pub combination: Combination,
}

impl Default for Risk {
    fn default() -> Self {
        Self {
            alert: 50.0,
            probability: vec![(0.0, 0.0), (0.5, 20.0), (0.9, 60.0), (1.0, 100.0)],
            p_value: vec![(0.0, 80.0), (0.0001, 60.0), (0.001, 40.0), (0.01, 10.0), (0.05, 0.0)],
            weights: BTreeMap::new(),
            combination: Combination::default(),
        }
    }
}

impl Risk {
    pub fn combine(&self, scores: &Scores, muted: Vec<bool>) -> Combined {
        let parts = || scores.parts.iter().zip(&muted);
        let points: Vec<f64> = parts().map(|(part, muted)| if *muted { 0.0 } else { self.points(part) }).collect();
        let counting = parts().filter(|(part, muted)| !**muted && part.role.counts() && part.is_calibrated()).count();
        let risk = self.combination.risk(&points, counting);
        let sum: f64 = points.iter().sum();
        let contributions = points.iter().map(|points| if sum > 0.0 { risk * points / sum } else { 0.0 }).collect();
        Combined { risk, contributions, alert: risk >= self.alert, points, muted, ensemble: Ensemble::default() }
    }

    /// 0 to 100; 0 for what may not count yet.
    fn points(&self, part: &ModelScore) -> f64 {
        if !part.role.counts() {
            return 0.0;
        }
        let points = match part.calibrated {
            Calibrated::Probability(probability) => interpolate(&self.probability, probability),
            Calibrated::PValue(p) => interpolate(&self.p_value, p),
            Calibrated::Calibrating { .. } => 0.0,
        };
        let weight = self.weights.get(part.model.as_ref()).copied().unwrap_or(1.0);
        let weighted = points * weight;
        if weighted.is_finite() { weighted.clamp(0.0, 100.0) } else { 0.0 }
    }
}

/// How sure a model is, as rules name it: probability, or one minus the p-value; NaN while calibrating.
pub(crate) fn sureness(part: &ModelScore) -> f64 {
    match part.calibrated {
        Calibrated::Probability(probability) => probability,
        Calibrated::PValue(p) => 1.0 - p,
        Calibrated::Calibrating { .. } => f64::NAN,
    }
}

fn interpolate(table: &[(f64, f64)], at: f64) -> f64 {
    let mut before: Option<(f64, f64)> = None;
    for &(x, y) in table {
        if at <= x {
            return match before {
                Some((left, low)) if x > left => low + (y - low) * (at - left) / (x - left),
                _ => y,
            };
        }
        before = Some((x, y));
    }
    before.map_or(0.0, |(_, y)| if at.is_nan() { 0.0 } else { y })
}
