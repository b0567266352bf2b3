//! The rival: for each attack the best threshold on one feature, chosen with hindsight, at the same budget of customer sessions.
//!
//! Enter the rows of customers' and attackers' requests, leave for each attack the feature, the threshold and the share it catches.

use telltale_features::vector::FeatureVector;

/// The highest and the lowest value that each feature had in a session.
#[derive(Clone, Debug)]
struct Extremes {
    highest: Vec<f32>,
    lowest: Vec<f32>,
}

/// A threshold on one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Index of the feature.
    pub feature: usize,
    /// Whether what is above is flagged (else what is below).
    pub above: bool,
    /// The threshold; strictly beyond it is flagged.
    pub value: f32,
    /// Share of the attack's requests that it flags.
    pub catches: f64,
}

/// Gathers rows and finds thresholds.
#[derive(Debug, Default)]
pub struct Rivals {
    features: usize,
    sessions: Vec<Option<Extremes>>,
    attacks: Vec<Vec<f32>>,
}

impl Rivals {
    /// For so many features, customer sessions and attacks.
    pub fn new(features: usize, sessions: usize, attacks: usize) -> Self {
        Self { features, sessions: vec![None; sessions], attacks: vec![Vec::new(); attacks] }
    }

    /// A row of a customer's session.
    pub fn customer(&mut self, session: usize, row: &FeatureVector) {
        let features = self.features;
        let Some(slot) = self.sessions.get_mut(session) else { return };
        let extremes =
            slot.get_or_insert_with(|| Extremes { highest: vec![f32::NEG_INFINITY; features], lowest: vec![f32::INFINITY; features] });
        // NaN compares as false: a missing value is never an extreme.
        for ((highest, lowest), value) in extremes.highest.iter_mut().zip(&mut extremes.lowest).zip(row.values.iter()) {
            let value = *value as f32;
            if value > *highest {
                *highest = value;
            }
            if value < *lowest {
                *lowest = value;
            }
        }
    }

    /// A row of an attack's request.
    pub fn attack(&mut self, attack: usize, row: &FeatureVector) {
        if let Some(rows) = self.attacks.get_mut(attack) {
            rows.extend(row.values.iter().map(|value| *value as f32));
        }
    }

    /// For each attack the best threshold that flags at most one in `per` customer sessions.
    pub fn best(&self, per: usize) -> Vec<Option<Threshold>> {
        let mut best = vec![None; self.attacks.len()];
        for feature in 0..self.features {
            for above in [true, false] {
                let Some(value) = self.bound(feature, above, per) else { continue };
                for (rows, best) in self.attacks.iter().zip(&mut best) {
                    let catches = self.catches(rows, feature, above, value);
                    let better = best.as_ref().is_none_or(|best: &Threshold| catches > best.catches);
                    if better && catches > 0.0 {
                        *best = Some(Threshold { feature, above, value, catches });
                    }
                }
            }
        }
        best
    }

    /// The value beyond which at most one in `per` sessions ever was.
    fn bound(&self, feature: usize, above: bool, per: usize) -> Option<f32> {
        let extreme =
            |extremes: &Extremes| if above { extremes.highest.get(feature).copied() } else { extremes.lowest.get(feature).map(|low| -low) };
        let mut values: Vec<f32> = self.sessions.iter().flatten().filter_map(extreme).collect();
        let budget = values.len() / per.max(1);
        values.sort_by(|a, b| b.total_cmp(a));
        values.get(budget).copied().map(|value| if above { value } else { -value })
    }

    fn catches(&self, rows: &[f32], feature: usize, above: bool, bound: f32) -> f64 {
        let mut all = 0_usize;
        let mut caught = 0_usize;
        for value in rows.iter().skip(feature).step_by(self.features.max(1)) {
            all += 1;
            caught += usize::from(if above { *value > bound } else { *value < bound });
        }
        caught as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Rivals;
    use telltale_features::vector::FeatureVector;

    fn row(values: [f64; 2]) -> FeatureVector {
        FeatureVector { values: values.into() }
    }

    #[test]
    fn the_best_threshold_keeps_the_budget_of_customers() {
        let mut rivals = Rivals::new(2, 10, 1);
        for session in 0..10 {
            rivals.customer(session, &row([session as f64, f64::NAN]));
            rivals.customer(session, &row([0.0, 5.0]));
        }
        for value in [7.0, 8.0, 9.0, 10.0] {
            rivals.attack(0, &row([value, 5.0]));
        }
        // One session in ten may be flagged: the bound is the second highest, 8; above it are 9 and 10.
        let best = rivals.best(10).remove(0).unwrap();
        assert_eq!((best.feature, best.above, best.value, best.catches), (0, true, 8.0, 0.5));
        // No session may be flagged: above 9 is only 10.
        assert_eq!(rivals.best(1_000).remove(0).unwrap().catches, 0.25);
    }
}
