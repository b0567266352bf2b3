//! What weights say: entropy, a share, how far a value lies from the middle of others.
//!
//! Weights, or values with weights, enter; a number leaves, NaN without any weight. Pure arithmetic.

/// Of normal values the median of absolute deviations is this much less than the standard deviation: 1 / Φ⁻¹(¾)
/// (Rousseeuw and Croux 1993).
const NORMAL: f64 = 1.482_602_218_505_602;
/// A spread below this part of the middle is not told from it: buckets are up to an eighth wide.
const LEAST_PART: f64 = 0.05;
/// A spread below this is not told from 0.
const LEAST: f64 = 1.0 / 256.0;

/// Shannon's entropy, bits.
pub(super) fn entropy(weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return f64::NAN;
    }
    let parts = weights.iter().filter(|weight| **weight > 0.0).map(|weight| weight / total);
    parts.map(|part| -part * part.log2()).sum::<f64>().max(0.0)
}

/// One weight's share of all.
pub(super) fn share(weights: &[f64], weight: f64) -> f64 {
    let total: f64 = weights.iter().sum();
    if total > 0.0 { weight / total } else { f64::NAN }
}

/// Median, and 1.4826 · median of |x − median| with a floor under it: a twentieth of the median, 1/256 at least. Half of the weight may
/// be anything without moving them far.
pub(super) fn middle_and_spread(points: &mut [(f64, f64)]) -> (f64, f64) {
    let middle = median(points);
    points.iter_mut().for_each(|(point, _)| *point = (*point - middle).abs());
    (middle, (NORMAL * median(points)).max(LEAST_PART * middle.abs()).max(LEAST))
}

/// The value at which half of the weight is reached; between two of them their mean.
fn median(points: &mut [(f64, f64)]) -> f64 {
    points.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let half = points.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut reached = 0.0;
    let mut at_half = None;
    for (value, weight) in points.iter() {
        if let Some(lower) = at_half {
            return (lower + value) / 2.0;
        }
        reached += weight;
        if reached == half {
            at_half = Some(*value);
        } else if reached > half {
            return *value;
        }
    }
    at_half.unwrap_or(f64::NAN)
}
