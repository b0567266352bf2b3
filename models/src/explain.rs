//! Why a row is suspicious: the inputs whose usual value would have lowered the risk.
//!
//! Forests name candidates by how much each input shortened the row's path, and the best ones are verified; other models score the row
//! with every input at its usual value in turn, in one run. Verified means the whole way: the calibrated word that a changed score has,
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
        let falls = changed.iter().map(|scores| before - risk(scores));
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
            engine => match engine.raws(replaced(&row, &unusual), unusual.len(), asked.lane) {
                Ok(scores) => unusual.iter().zip(scores).map(|((input, _), raw)| fall(*input, raw)).collect(),
                Err(problem) => return Err(Absent { model: loaded.name.clone(), version: loaded.version, problem }),
            },
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
