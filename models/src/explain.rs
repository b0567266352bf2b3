//! Why a row is suspicious: the inputs whose usual value would have lowered the risk.
//!
//! Forests name candidates by how much each input shortened the row's path, and the best ones are verified; other models score the row
//! with each of the inputs that are furthest from their usual values at that value in turn, in one run. Verified means the whole way: the calibrated word that a changed score has,
//! and the risk that the policy makes of all words together. A raw score may fall and its calibrated value stay where it was, and what
//! clears one model may alarm another. What leaves is therefore true by construction: setting such an input to its usual value lowers
//! the risk.

use telltale_features::vector::FeatureVector;

use crate::Bundle;
use crate::bundle::{Engine, Model, Values, narrow};
use crate::forest::{Forest, Row};
use crate::score::{Absent, Asked, Attribution, Calibrated, Scores};
use crate::slot::Loaded;
use crate::what_if::Change;

/// Most features named for one model.
const TOP: usize = 5;
/// Candidates of a path attribution that are verified.
const CANDIDATES: usize = 12;
/// Most inputs that a model without attributions is asked about: the row is scored once for each while somebody waits for the answer.
const ASKED: usize = 64;

/// The risk that the policy makes of scores: 0 to 100.
pub type Risk<'r> = dyn Fn(&Scores) -> f64 + 'r;

/// By how much risk and raw score fall with an input at its usual value.
#[derive(Clone, Copy)]
struct Fall {
    input: usize,
    risk: f64,
    raw: f64,
}

/// One model's word among all of them.
struct Word<'a> {
    loaded: &'a Loaded,
    scores: &'a Scores,
    /// Its place among the parts.
    at: usize,
    raw: f64,
    risk: &'a Risk<'a>,
}

impl Bundle {
    /// Why the versions that count make this row's risk what it is: at most five features a model, the largest part first. Each of them
    /// alone, set to its usual value, lowers `risk`. Meant for rows above the alert threshold: it scores the row several times.
    /// A version listed in [`Asked::unexplained`] is not asked; one that gives no reasons is listed in what leaves.
    pub fn explain(&self, vector: &FeatureVector, scores: &Scores, asked: &Asked<'_>, risk: &Risk<'_>) -> (Vec<Attribution>, Vec<Absent>) {
        let (mut out, mut absent) = (Vec::new(), Vec::new());
        let counting = || scores.parts.iter().enumerate().filter(|(_, part)| part.role.counts());
        for (at, part) in counting() {
            let Some(loaded) = self.version(&part.model, part.version) else { continue };
            let known = asked.unexplained.iter().find(|known| known.version == part.version && known.model == part.model);
            let word = Word { loaded, scores, at, raw: part.raw, risk };
            match known.map_or_else(|| word.explain(vector, asked), |known| Err(known.clone())) {
                Ok(reasons) => out.extend(reasons),
                Err(why) => absent.push(why),
            }
        }
        if counting().nth(1).is_none() {
            return (out, absent);
        }
        // One that fails now has no say in the reasons of the others either, so that replay, which does not ask it at all, gives the same.
        loop {
            let silent = Asked { unexplained: &absent, ..*asked };
            match self.verified(vector, (scores, &out), &silent, risk) {
                Ok(verified) => return (verified, absent),
                Err(why) => {
                    out.retain(|reason| reason.model != why.model);
                    absent.push(why);
                }
            }
        }
    }

    /// The reasons that hold with all models together: several may read the same feature.
    fn verified(
        &self,
        vector: &FeatureVector,
        (scores, reasons): (&Scores, &[Attribution]),
        asked: &Asked<'_>,
        risk: &Risk<'_>,
    ) -> Result<Vec<Attribution>, Absent> {
        let changes: Vec<_> = reasons.iter().map(|reason| Change { feature: reason.feature, value: reason.usual }).collect();
        let before = risk(scores);
        let changed = self.what_if(vector, scores, &changes, asked)?;
        // What is not known lowers nothing.
        let falls = changed.iter().map(|scores| scores.as_ref().map_or(0.0, |scores| before - risk(scores)));
        let mut held: Vec<_> = reasons.iter().zip(falls).filter(|(_, fall)| *fall > 0.0).collect();
        let place = |reason: &Attribution| scores.parts.iter().position(|part| part.model == reason.model);
        // Stable: equal falls stay as the models ordered them.
        held.sort_by(|(one, a), (other, b)| place(one).cmp(&place(other)).then(b.total_cmp(a)));
        let sum = |of: &Attribution| held.iter().filter(|(reason, _)| reason.model == of.model).map(|(_, fall)| fall).sum::<f64>();
        Ok(held.iter().map(|(reason, fall)| Attribution { share: fall / sum(reason), ..(*reason).clone() }).collect())
    }
}

impl Word<'_> {
    /// # Errors
    /// Why there are no reasons: a contained model may have been too slow or have lost its worker.
    fn explain(&self, vector: &FeatureVector, asked: &Asked<'_>) -> Result<Vec<Attribution>, Absent> {
        let (loaded, model) = (self.loaded, &*self.loaded.model);
        let before = (self.risk)(self.scores);
        let mut scratch = self.scores.clone();
        if !self.adds(&mut scratch, before) {
            return Ok(Vec::new());
        }
        let mut fall = |input: usize, raw: f64| Fall { input, risk: before - self.risk_at(&mut scratch, raw), raw: self.raw - raw };
        let row = model.row(vector);
        let unusual = unusual(model, &row);
        let mut falls: Vec<Fall> = match loaded.engine() {
            Engine::Forest(forest) => forest_falls(forest, &row, &unusual, &mut fall),
            engine => {
                let unusual = furthest(model, &row, unusual);
                match engine.raws(replaced(&row, &unusual), unusual.len(), asked.lane) {
                    // A score that is no number would be calibrated as if it were the least.
                    Ok(scores) => {
                        let numbers = unusual.iter().zip(scores).filter(|(_, raw)| raw.is_finite());
                        numbers.map(|((input, _), raw)| fall(*input, raw)).collect()
                    }
                    Err(problem) => return Err(Absent { model: loaded.name.clone(), version: loaded.version, problem }),
                }
            }
        };
        falls.retain(|fall| fall.risk > 0.0);
        // Stable: equal falls stay in the order of inputs.
        falls.sort_by(|a, b| b.risk.total_cmp(&a.risk).then(b.raw.total_cmp(&a.raw)));
        falls.truncate(TOP);
        let all: f64 = falls.iter().map(|fall| fall.risk).sum();
        let name = |fall: Fall| {
            let input = model.inputs.get(fall.input)?;
            let value = vector.get(input.feature);
            Some(Attribution { model: loaded.name.clone(), feature: input.feature, value, usual: input.usual, share: fall.risk / all })
        };
        Ok(falls.into_iter().filter_map(name).collect())
    }

    /// Whether the risk would be lower were the model not alarmed at all: else no input can lower it.
    fn adds(&self, scratch: &mut Scores, before: f64) -> bool {
        let Some(part) = scratch.parts.get_mut(self.at) else { return false };
        let word = part.calibrated;
        part.calibrated = match word {
            Calibrated::Probability(_) => Calibrated::Probability(0.0),
            Calibrated::PValue(_) => Calibrated::PValue(1.0),
            Calibrated::Calibrating { .. } => word,
        };
        (self.risk)(scratch) < before
    }

    /// The risk were this model's raw score another.
    fn risk_at(&self, scratch: &mut Scores, raw: f64) -> f64 {
        if let Some(part) = scratch.parts.get_mut(self.at) {
            *part = self.loaded.part(raw, part.role);
        }
        (self.risk)(scratch)
    }
}

/// The inputs that are not at their usual value, with that value.
fn unusual(model: &Model, row: &Values) -> Vec<(usize, f32)> {
    let usual = model.inputs.iter().map(|input| narrow(input.usual));
    let pairs = row.iter().zip(usual).enumerate();
    pairs.filter(|(_, (value, usual))| *value != usual).map(|(at, (_, usual))| (at, usual)).collect()
}

/// Those of the inputs that are furthest from their usual values, in spreads; a value that is missing is furthest, and where no spread is
/// known it is 1. In the order of inputs.
fn furthest(model: &Model, row: &[f32], mut unusual: Vec<(usize, f32)>) -> Vec<(usize, f32)> {
    let away = |(input, usual): &(usize, f32)| {
        let spread = model.inputs.get(*input).map_or(0.0, |input| input.spread);
        let value = row.get(*input).copied().unwrap_or(*usual);
        let away = (f64::from(value) - f64::from(*usual)).abs() / if spread > 0.0 { spread } else { 1.0 };
        if away.is_nan() { f64::INFINITY } else { away }
    };
    if unusual.len() > ASKED {
        // Stable: of equally far ones the first.
        unusual.sort_by(|one, other| away(other).total_cmp(&away(one)));
        unusual.truncate(ASKED);
        unusual.sort_by_key(|(input, _)| *input);
    }
    unusual
}

/// The row with each of these inputs replaced in turn.
fn replaced(row: &[f32], replacements: &[(usize, f32)]) -> Vec<f32> {
    let mut matrix = Vec::with_capacity(replacements.len() * row.len());
    for (input, value) in replacements {
        matrix.extend(row.iter().enumerate().map(|(at, own)| if at == *input { *value } else { *own }));
    }
    matrix
}

fn forest_falls(forest: &Forest, row: &[f32], unusual: &[(usize, f32)], fall: &mut dyn FnMut(usize, f64) -> Fall) -> Vec<Fall> {
    let shortened = forest.attribution(&Row::new(row));
    let part = |input: usize| shortened.get(input).copied().unwrap_or(0.0);
    let mut candidates = unusual.to_vec();
    candidates.sort_by(|(a, _), (b, _)| part(*b).total_cmp(&part(*a)));
    let row = Row::new(row);
    let mut verify = |(input, usual): &(usize, f32)| fall(*input, forest.score(&row.with(*input, *usual)));
    let mut falls: Vec<Fall> = candidates.iter().take(CANDIDATES).map(&mut verify).collect();
    if falls.iter().all(|fall| fall.risk <= 0.0) {
        falls.extend(candidates.iter().skip(CANDIDATES).map(&mut verify));
    }
    falls.sort_by_key(|fall| fall.input);
    falls
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use telltale_features::vector::FeatureId;

    use super::*;
    use crate::bundle::Input;
    use crate::calibration::{CalibrationTable, Meaning};
    use crate::linear::{Head, Linear, Parts};
    use crate::loader::ModelState;
    use crate::onnx::Onnx;
    use crate::onnx::tests::options;
    use crate::repository::Output;
    use crate::scale::Scale;
    use crate::score::Lane;
    use crate::slot::{Slot, Standing};
    use crate::what_if::tests::alarm;

    fn model(engine: Engine, usual: &[(f64, f64)]) -> Model {
        let input = |(at, (usual, spread)): (usize, &(f64, f64))| {
            let feature = FeatureId(u16::try_from(at).unwrap());
            Input { feature, usual: *usual, spread: *spread, fill: f64::NAN }
        };
        Model { engine, inputs: usual.iter().enumerate().map(input).collect() }
    }

    /// A model in force whose score is its probability.
    fn bundle(name: &str, model: Model) -> Bundle {
        let table = CalibrationTable::new(Meaning::Probability, 9, vec![(0.0, 0.0), (1.0, 1.0)]).unwrap();
        let standing = Standing::Calibrated(Arc::new(table));
        let champion = Some(Loaded { name: name.into(), version: 1, model: Arc::new(model), standing, renewed: None });
        let slot = Slot { name: name.into(), state: ModelState::default(), champion, previous: None, canary: None, shadows: Vec::new() };
        Bundle::new(vec![slot], Vec::new())
    }

    fn logistic(weights: Vec<f32>) -> Engine {
        let scales = vec![Scale { centre: 0.0, width: 1.0 }; weights.len()];
        Engine::Linear(Arc::new(Linear::new(Parts { scales, head: Head::Logistic { weights, bias: 0.0 } }).unwrap()))
    }

    fn classifier() -> Engine {
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/classifier.onnx")).unwrap();
        let names = ["x".to_string(), "y".to_string()];
        Engine::Onnx(Arc::new(Onnx::load(&bytes, &names, &Output::default(), &options()).unwrap()))
    }

    #[test]
    fn a_model_is_asked_about_the_inputs_that_are_furthest_from_usual() {
        let mut inputs = vec![(0.0, 1.0); 100];
        (inputs[3].1, inputs[90].1) = (0.0, 1e9);
        let model = model(logistic(vec![0.0; 100]), &inputs);
        let mut row = vec![5.0_f32; 100];
        (row[3], row[80], row[90]) = (6.0, f32::NAN, 7.0);
        let found = furthest(&model, &row, unusual(&model, &row.iter().copied().collect()));
        // 62 of the equally far ones, a spread of 0 as 1, the missing value, and not the one that is near in its spreads.
        let expected: Vec<usize> = (0..63).chain([80]).collect();
        assert_eq!(found.iter().map(|(input, _)| *input).collect::<Vec<_>>(), expected);
        let mut weights = vec![0.0; 100];
        weights[99] = 1.0;
        let bundle = bundle("wide", self::model(logistic(weights), &inputs));
        let mut values = vec![5.0; 100];
        values[99] = 8.0;
        let vector = FeatureVector { values: values.into() };
        let (reasons, absent) = bundle.explain(&vector, &bundle.score(&vector, Lane(0)), &Asked::default(), &alarm);
        assert_eq!((reasons.len(), reasons[0].feature, absent.len()), (1, FeatureId(99), 0));
    }

    /// The model hands a NaN on: its probability rises with x + 2y, and the usual value of x gives none.
    #[test]
    fn a_change_without_a_score_is_no_reason_and_takes_no_other_with_it() {
        let vector = FeatureVector { values: vec![0.9, 0.8].into() };
        let odd = bundle("odd", model(classifier(), &[(f64::NAN, 1.0), (-1.0, 1.0)]));
        let (reasons, absent) = odd.explain(&vector, &odd.score(&vector, Lane(0)), &Asked::default(), &alarm);
        assert_eq!((reasons.iter().map(|reason| reason.feature.0).collect::<Vec<_>>(), absent.len()), (vec![1], 0));
        assert!((reasons[0].share - 1.0).abs() < 1e-9);
        let changes = [f64::NAN, 0.0].map(|value| Change { feature: FeatureId(0), value });
        let found = odd.what_if(&vector, &odd.score(&vector, Lane(0)), &changes, &Asked::default()).unwrap();
        assert!(found[0].is_none() && found[1].is_some(), "{found:?}");
        // The other one names x too, at a value at which the first gives no score: only that reason goes.
        let even = bundle("even", model(logistic(vec![1.0, 1.0]), &[(f64::NAN, 1.0), (-1.0, 1.0)]));
        let (alone, _) = even.explain(&vector, &even.score(&vector, Lane(0)), &Asked::default(), &alarm);
        assert_eq!(alone.len(), 2);
        let both = odd.with_slot("even", even.slots().first().cloned());
        let named = |bundle: &Bundle, model: &str| {
            let (reasons, absent) = bundle.explain(&vector, &bundle.score(&vector, Lane(0)), &Asked::default(), &alarm);
            assert!(absent.is_empty(), "{absent:?}");
            reasons.iter().filter(|reason| &*reason.model == model).map(|reason| reason.feature.0).collect::<Vec<_>>()
        };
        assert_eq!((named(&both, "even"), named(&both, "odd")), (vec![1], vec![1]));
    }
}
