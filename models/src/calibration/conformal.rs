//! P-value without labels: the raw scores of ordinary traffic enter, a falling table leaves.
//!
//! Split conformal (Vovk, Gammerman, Shafer, 2005): p(s) = (1 + scores ≥ s) / (n + 1). Beyond the 98th percentile the tail is a
//! generalised Pareto distribution (Pickands, 1975) fitted by probability-weighted moments (Hosking and Wallis, 1987) and never taken to
//! end: scores higher than all seen are still told apart, and no p-value is smaller than an exponential tail allows.

use super::{CalibrationTable, Meaning};
use crate::ModelError;

const BODY_KNOTS: usize = 180;
const TAIL_KNOTS: usize = 60;
/// Fewest exceedances that a tail is fitted to.
const TAIL_ROWS: usize = 50;
const TAIL_SHARE: f64 = 0.02;
/// The smallest p-value that is ever claimed.
const FLOOR: f64 = 1e-9;

/// The p-value table of the raw scores of ordinary traffic.
///
/// # Errors
/// [`ModelError::Data`] when there are fewer than 2 scores or one is not finite.
pub fn conformal(raws: &[f64]) -> Result<CalibrationTable, ModelError> {
    if raws.len() < 2 || raws.iter().any(|raw| !raw.is_finite()) {
        return Err(ModelError::Data(format!("{} scores: a p-value needs at least 2, all finite", raws.len())));
    }
    let mut sorted = raws.to_vec();
    sorted.sort_by(f64::total_cmp);
    let tail = Tail::fit(&sorted);
    let end = tail.as_ref().map_or(f64::INFINITY, |tail| tail.threshold);
    let mut knots = body(&sorted, end);
    if let Some(tail) = tail {
        let from = knots.last().map_or(1.0, |(_, p)| *p);
        for step in 1..=TAIL_KNOTS {
            // Geometric steps from the share of the tail down to the floor.
            let share = (FLOOR / from).powf(step as f64 / TAIL_KNOTS as f64);
            let raw = tail.threshold + tail.excess(share);
            if knots.last().is_some_and(|(last, _)| raw > *last) {
                knots.push((raw, (from * share).max(FLOOR)));
            }
        }
    }
    CalibrationTable::new(Meaning::PValue, raws.len() as u64, knots).map_err(ModelError::Data)
}

/// Conformal p-values at evenly spread ranks up to `end`, each tie once. Begins at p = 1.
fn body(sorted: &[f64], end: f64) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let upto = sorted.partition_point(|raw| *raw <= end).clamp(1, n);
    let mut knots: Vec<(f64, f64)> = Vec::new();
    for step in 0..BODY_KNOTS {
        let rank = step * (upto - 1) / (BODY_KNOTS - 1);
        let raw = sorted.get(rank).copied().unwrap_or_default();
        if knots.last().is_none_or(|(last, _)| raw > *last) {
            let at_least = n - sorted.partition_point(|other| *other < raw);
            knots.push((raw, (1 + at_least) as f64 / (n + 1) as f64));
        }
    }
    knots
}

/// Generalised Pareto tail above a threshold: shape ξ, scale σ.
struct Tail {
    threshold: f64,
    shape: f64,
    scale: f64,
}

impl Tail {
    fn fit(sorted: &[f64]) -> Option<Self> {
        let n = sorted.len();
        let count = ((n as f64 * TAIL_SHARE) as usize).max(TAIL_ROWS);
        let threshold = *sorted.get(n.checked_sub(count + 1)?)?;
        let excesses: Vec<f64> = sorted.iter().map(|raw| raw - threshold).filter(|excess| *excess > 0.0).collect();
        let m = excesses.len();
        if m < TAIL_ROWS / 2 {
            return None;
        }
        let mean = excesses.iter().sum::<f64>() / m as f64;
        let weighted =
            excesses.iter().enumerate().map(|(rank, excess)| excess * (m - 1 - rank) as f64 / (m - 1) as f64).sum::<f64>() / m as f64;
        let spread = mean - 2.0 * weighted;
        if spread <= 0.0 || weighted <= 0.0 {
            return None;
        }
        // A tail that ends just above the sample would claim that nothing ordinary ever scores higher, and attacks, which all do, would
        // be alike; one without a mean would claim nothing at all.
        let shape = (2.0 - mean / spread).clamp(0.0, 0.9);
        Some(Self { threshold, shape, scale: mean * (1.0 - shape) })
    }

    /// The excess that a share of the tail reaches.
    fn excess(&self, share: f64) -> f64 {
        if self.shape.abs() < 1e-9 { -self.scale * share.ln() } else { self.scale / self.shape * (share.powf(-self.shape) - 1.0) }
    }
}
