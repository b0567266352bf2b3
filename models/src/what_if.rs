//! What the models would say were one feature another: a row with its scores and some changes enter, one [`Scores`] a change leaves.
//!
//! Each model that reads a changed feature scores all its changed rows in one run; the word of the others stays. Never decides
//! anything.

use telltale_features::vector::{FeatureId, FeatureVector};

use crate::Bundle;
use crate::bundle::Model;
use crate::score::{Absent, Asked, ModelScore, Scores};
use crate::slot::Loaded;

/// A feature with another value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The feature.
    pub feature: FeatureId,
    /// Its value instead.
    pub value: f64,
}

impl Change {
    /// The row with this change alone.
    pub fn applied(&self, vector: &FeatureVector) -> FeatureVector {
        let changed = |(at, value): (usize, &f64)| if at == self.feature.index() { self.value } else { *value };
        FeatureVector { values: vector.values.iter().enumerate().map(changed).collect() }
    }
}

impl Bundle {
    /// The scores of the row with each change alone, in the order of the changes; versions that do not count keep their word. `None` where
    /// nobody knows what a version that counts would say: its score is no number, or it reads the feature and is not asked
    /// ([`Bundle::is_asked`]).
    ///
    /// # Errors
    /// The first version that gives no score: a contained model may be too slow.
    pub fn what_if(
        &self,
        vector: &FeatureVector,
        scores: &Scores,
        changes: &[Change],
        asked: &Asked<'_>,
    ) -> Result<Vec<Option<Scores>>, Absent> {
        let known = changes.iter().map(|change| self.is_asked(change.feature, scores, asked).then(|| scores.clone()));
        let mut out: Vec<Option<Scores>> = known.collect();
        for (at, part) in scores.parts.iter().enumerate().filter(|(_, part)| part.role.counts()) {
            let Some(loaded) = self.version(&part.model, part.version).filter(|_| !is_silent(part, asked)) else { continue };
            let (read, raws) = changed(loaded, vector, changes, asked)?;
            for (change, raw) in read.into_iter().zip(raws) {
                let Some(known) = out.get_mut(change) else { continue };
                if !raw.is_finite() {
                    *known = None;
                } else if let Some(place) = known.as_mut().and_then(|scores| scores.parts.get_mut(at)) {
                    *place = loaded.part(raw, part.role);
                }
            }
        }
        Ok(out)
    }

    /// Whether every version that counts and reads this feature may be asked about it: one that is listed in [`Asked::unexplained`] is not,
    /// and its word about the row as it is says nothing about another.
    pub fn is_asked(&self, feature: FeatureId, scores: &Scores, asked: &Asked<'_>) -> bool {
        let mut silent = scores.parts.iter().filter(|part| part.role.counts() && is_silent(part, asked));
        let reads = |part: &ModelScore| self.version(&part.model, part.version).is_some_and(|loaded| loaded.model.reads(feature));
        !silent.any(reads)
    }

    /// By how much an input of these versions varies: half the width between the quartiles of its training rows; the first that reads
    /// the feature and knows. 0 when none does.
    pub fn spread(&self, feature: FeatureId, scores: &Scores) -> f64 {
        let counting = scores.parts.iter().filter(|part| part.role.counts());
        let loaded = counting.filter_map(|part| self.version(&part.model, part.version));
        let spreads = loaded.filter_map(|loaded| loaded.model.inputs.iter().find(|input| input.feature == feature));
        spreads.map(|input| input.spread).find(|spread| *spread > 0.0).unwrap_or(0.0)
    }
}

/// Whether a version is not to be asked again about this row.
fn is_silent(part: &ModelScore, asked: &Asked<'_>) -> bool {
    asked.unexplained.iter().any(|known| known.version == part.version && known.model == part.model)
}

/// Which changes a version reads, and its raw score of each.
fn changed(loaded: &Loaded, vector: &FeatureVector, changes: &[Change], asked: &Asked<'_>) -> Result<(Vec<usize>, Vec<f64>), Absent> {
    let model: &Model = &loaded.model;
    let (mut read, mut matrix) = (Vec::new(), Vec::new());
    for (at, change) in changes.iter().enumerate() {
        if model.reads(change.feature) {
            let value = |feature: FeatureId| if feature == change.feature { change.value } else { vector.get(feature) };
            matrix.extend(model.fill(model.inputs.iter().map(|input| value(input.feature))));
            read.push(at);
        }
    }
    if read.is_empty() {
        return Ok(Default::default());
    }
    let rows = read.len();
    let raws = loaded.engine().raws(matrix, rows, asked.lane);
    raws.map(|raws| (read, raws)).map_err(|problem| Absent { model: loaded.name.clone(), version: loaded.version, problem })
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::{RngExt, SeedableRng};
    use telltale_features::vector::FeatureId;

    use super::*;
    use crate::calibration::{CalibrationTable, Meaning};
    use crate::repository::tests::vector;
    use crate::score::{Calibrated, Lane};

    /// The risk as a plain policy has it: independent evidence, every model at full weight.
    pub(crate) fn alarm(scores: &Scores) -> f64 {
        let safe = |part: &crate::ModelScore| match part.calibrated {
            Calibrated::Probability(p) => 1.0 - p,
            Calibrated::PValue(p) => p,
            Calibrated::Calibrating { .. } => 1.0,
        };
        100.0 * (1.0 - scores.parts.iter().map(safe).product::<f64>())
    }

    /// Two forests over the same features, the second with a table that is flat but for a few steps.
    fn stepped() -> Bundle {
        let (one, two) = (Bundle::of_forest("even", 1, 1), Bundle::of_forest("odd", 1, 1));
        let steps = [(0.0, 0.0), (0.52, 0.0), (0.521, 0.4), (0.6, 0.4), (0.601, 0.9), (1.0, 0.9)];
        let table = |knots: &[(f64, f64)]| CalibrationTable::new(Meaning::Probability, 9, knots.to_vec()).unwrap();
        let both = two.with_slot("even", one.slots().first().cloned());
        let both = both.with_calibration("even", 1, table(&[(0.0, 0.0), (1.0, 1.0)])).unwrap();
        both.with_calibration("odd", 1, table(&steps)).unwrap()
    }

    fn rows() -> impl Iterator<Item = FeatureVector> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(31);
        (0..300).map(move |_| {
            let mut row: [f64; 4] = std::array::from_fn(|_| rng.random());
            for _ in 0..rng.random_range(1..4) {
                row[rng.random_range(0..4)] = rng.random_range(-1.0..3.0);
            }
            vector(row)
        })
    }

    #[test]
    fn a_changed_feature_scores_as_the_changed_row_does() {
        let bundle = stepped();
        for row in rows().take(50) {
            let scores = bundle.score(&row, Lane(0));
            let changes: Vec<_> = (0..4).map(|at| Change { feature: FeatureId(at), value: 0.5 + f64::from(at) }).collect();
            let what_if = bundle.what_if(&row, &scores, &changes, &Asked::default()).unwrap();
            for (change, scores) in changes.iter().zip(what_if) {
                assert_eq!(scores, Some(bundle.score(&change.applied(&row), Lane(0))));
            }
        }
        assert_eq!(bundle.spread(FeatureId(0), &bundle.score(&vector([0.5; 4]), Lane(0))), 0.25);
    }

    #[test]
    fn every_reason_lowers_the_risk_of_all_models_together() {
        let (bundle, mut named, mut raw_only) = (stepped(), 0, 0);
        for row in rows() {
            let scores = bundle.score(&row, Lane(0));
            let (reasons, absent) = bundle.explain(&row, &scores, &Asked::default(), &alarm);
            assert_eq!(absent, []);
            for reason in &reasons {
                let changed = Change { feature: reason.feature, value: reason.usual }.applied(&row);
                assert!(alarm(&bundle.score(&changed, Lane(0))) < alarm(&scores), "{reason:?}");
            }
            named += reasons.iter().filter(|reason| &*reason.model == "odd").count();
            // What lowers the raw score alone and stays on its step is no reason.
            let changes: Vec<_> = (0..4).map(|at| Change { feature: FeatureId(at), value: 0.5 }).collect();
            let what_if = bundle.what_if(&row, &scores, &changes, &Asked::default()).unwrap();
            raw_only += what_if.iter().flatten().filter(|changed| changed.parts[1].raw < scores.parts[1].raw).count();
        }
        assert!(named > 50 && raw_only > 2 * named, "{named} named, {raw_only} with a lower raw score");
    }

    #[test]
    fn what_a_silent_version_reads_is_no_reason_and_has_no_scores() {
        let (bundle, mut named) = (stepped(), 0);
        let silent = [Absent { model: "odd".into(), version: 1, problem: "no answer within 50 ms".into() }];
        for row in rows().take(50) {
            let scores = bundle.score(&row, Lane(0));
            named += bundle.explain(&row, &scores, &Asked::default(), &alarm).0.len();
            let asked = Asked { unexplained: &silent, ..Asked::default() };
            // Both read all features: what one would say of another value is not known.
            assert_eq!(bundle.explain(&row, &scores, &asked, &alarm), (Vec::new(), silent.to_vec()));
            let changes: Vec<_> = (0..4).map(|at| Change { feature: FeatureId(at), value: 0.5 }).collect();
            assert_eq!(bundle.what_if(&row, &scores, &changes, &asked).unwrap(), [None, None, None, None]);
            assert!(!bundle.is_asked(FeatureId(0), &scores, &asked) && bundle.is_asked(FeatureId(9), &scores, &asked));
            assert!(bundle.is_asked(FeatureId(0), &scores, &Asked::default()));
        }
        assert!(named > 0);
    }
}
