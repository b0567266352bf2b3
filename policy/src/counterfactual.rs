//! The smallest change of one behaviour that would have been allowed.
//!
//! A decision that a client feels enters with what it was made of; the feature, the nearest value that would have been allowed, and the
//! thought in words leave. Only features that reasons name are tried, each on a few values between its own and the one that its reason
//! calls usual; every value goes the whole way: models, combination, all rules. Writes nothing: rate limits and denials are asked in a
//! copy of the state as it was before the decision.

use std::sync::Arc;

use telltale_features::expr::{Compared, NameKind};
use telltale_features::kernel::slots::PolicyState;
use telltale_features::vector::FeatureId;
use telltale_models::{Absent, Change, Scores};

use crate::decision::Decision;
use crate::policy::{Policy, Situation};
use crate::reasons::number;

/// Most features that are tried.
const FEATURES: usize = 5;
/// Values of each between its own and the furthest that is tried; as many once more around the nearest that is allowed.
const STEPS: u32 = 8;

/// A change that would have been allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Counterfactual {
    /// The feature.
    pub feature: Arc<str>,
    /// Its value.
    pub value: f64,
    /// The nearest value found that would have been allowed, everything else as it is.
    pub allowed: f64,
    /// The thought in plain words.
    pub text: String,
}

/// What the search asks the models.
pub trait Models {
    /// The scores of the row with each change alone; `None` where nobody knows them.
    ///
    /// # Errors
    /// The first version that gives no score.
    fn what_if(&self, changes: &[Change]) -> Result<Vec<Option<Scores>>, Absent>;

    /// Whether every model that reads the feature may be asked about it.
    fn is_asked(&self, feature: FeatureId) -> bool;

    /// Whether the search may go on: its time is the caller's.
    fn may_go_on(&self) -> bool;

    /// By how much the feature varies; 0 when no model knows.
    fn spread(&self, feature: FeatureId) -> f64;
}

/// Why a search did not come to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Unfinished {
    /// A version gave no score.
    Absent(Absent),
    /// Its time is used up.
    Time,
}

/// A feature with the values that its reasons point to.
struct Candidate {
    feature: FeatureId,
    value: f64,
    /// The nearest of those values and the furthest: what lies between is tried by steps.
    ends: (f64, f64),
    /// Whether it counts whole things.
    is_whole: bool,
    /// Whether an enforced rule names it: while the rule holds, no other feature helps.
    is_ruled: bool,
    /// Points of its weightiest reason.
    weight: f64,
}

impl Policy {
    /// Whether a search is worth its cost: a client feels the decision, no person made it, and its risk is above the alert threshold.
    pub fn is_worth_a_hint(&self, situation: &Situation<'_>, decision: &Decision) -> bool {
        let ruled = || situation.overrides.ruling(&situation.admitted.subjects, situation.moment.now).is_some();
        decision.action.is_enforcing() && decision.risk >= self.risk.alert && !ruled()
    }

    /// Searches the smallest change of one feature by which the decision would be `allow` or `log`; `None` when there is none. `before`
    /// is the state that the decision was made with.
    ///
    /// # Errors
    /// The version that gave no score, or that the time is used up.
    pub fn counterfactual(
        &self,
        situation: &Situation<'_>,
        decision: &Decision,
        before: &PolicyState,
        models: &dyn Models,
    ) -> Result<Option<Counterfactual>, Unfinished> {
        let candidates = self.candidates(situation, decision, models);
        let allows = |candidate: &Candidate, value: f64, scores: &Option<Scores>| {
            scores.as_ref().is_some_and(|scores| self.is_allowed(situation, before, (candidate.feature, value), scores))
        };
        let mut best: Option<(f64, &Candidate, f64, f64)> = None;
        for candidate in &candidates {
            let (mut below, mut above) = (candidate.value, candidate.value);
            let grid = candidate.grid();
            let scores = candidate.scored(&grid, models)?;
            for (value, scores) in grid.into_iter().zip(scores) {
                in_time(models)?;
                // The furthest that is denied on the same side of its own value.
                let denied = if value < candidate.value { &mut below } else { &mut above };
                if !allows(candidate, value, &scores) {
                    *denied = value;
                    continue;
                }
                let size = candidate.size(value, models.spread(candidate.feature));
                if best.as_ref().is_none_or(|(least, ..)| size < *least) {
                    best = Some((size, candidate, *denied, value));
                }
                break;
            }
        }
        let Some((_, candidate, denied, mut allowed)) = best else { return Ok(None) };
        let nearer = steps(denied, allowed, candidate.is_whole);
        let scores = candidate.scored(&nearer, models)?;
        for (value, scores) in nearer.into_iter().zip(scores) {
            in_time(models)?;
            if allows(candidate, value, &scores) {
                allowed = value;
                break;
            }
        }
        Ok(candidate.told(situation, allowed))
    }

    /// The features that reasons name and models may be asked about: those of enforced rules first, of each the weightiest.
    fn candidates(&self, situation: &Situation<'_>, decision: &Decision, models: &dyn Models) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = Vec::new();
        let is_whole = |feature: FeatureId| {
            let spec = situation.schema.features().get(feature.index());
            spec.is_some_and(|spec| spec.counts_whole_things())
        };
        let mut add = |feature: FeatureId, end: f64, (is_ruled, weight): (bool, f64)| {
            let value = situation.vector.get(feature);
            if value.is_nan() || end.is_nan() || value == end || !models.is_asked(feature) {
                return;
            }
            match found.iter_mut().find(|known| known.feature == feature) {
                Some(known) => {
                    known.reach(end);
                    known.is_ruled |= is_ruled;
                    known.weight = known.weight.max(weight);
                }
                None => found.push(Candidate { feature, value, ends: (end, end), is_whole: is_whole(feature), is_ruled, weight }),
            }
        };
        for attribution in situation.attributions {
            let of = situation.scores.parts.iter().position(|part| part.model == attribution.model);
            let points = of.and_then(|of| situation.combined.contributions.get(of)).copied().unwrap_or(0.0);
            add(attribution.feature, attribution.usual, (false, points * attribution.share));
        }
        for matched in decision.rules.iter().filter(|matched| matched.enforced && matched.action.is_enforcing()) {
            let Some(rule) = self.rules.iter().find(|rule| rule.id == matched.id) else { continue };
            for read in rule.reads.iter().filter(|read| read.kind == NameKind::Number) {
                let Some((compared, feature)) = read.compared.zip(situation.schema.feature(&read.name)) else { continue };
                if let Some(end) = beyond(compared, situation.vector.get(feature), is_whole(feature)) {
                    add(feature, end, (true, matched.score));
                }
            }
        }
        // Stable: equal weights stay in the order of models and rules.
        found.sort_by(|a, b| b.is_ruled.cmp(&a.is_ruled).then(b.weight.total_cmp(&a.weight)));
        found.truncate(FEATURES);
        found
    }

    /// Whether the transaction with that feature and these scores would have been let through.
    fn is_allowed(&self, situation: &Situation<'_>, before: &PolicyState, (feature, value): (FeatureId, f64), scores: &Scores) -> bool {
        let vector = Change { feature, value }.applied(situation.vector);
        let combined = self.combine(scores, situation.combined.ensemble);
        let changed = Situation { vector: &vector, scores, combined: &combined, attributions: &[], ..*situation };
        let mut state = copy(before);
        !self.decide(&changed, &mut state).action.is_enforcing()
    }
}

/// The state as it is before a decision; what a decision changes in the copy is forgotten.
pub fn copy(state: &PolicyState) -> PolicyState {
    PolicyState { slots: state.slots.clone(), ..PolicyState::default() }
}

fn in_time(models: &dyn Models) -> Result<(), Unfinished> {
    if models.may_go_on() { Ok(()) } else { Err(Unfinished::Time) }
}

/// The nearest value for which a comparison that holds does not hold; `None` when it does not hold, or asks for equality.
fn beyond(compared: Compared, value: f64, is_whole: bool) -> Option<f64> {
    let Compared { operator, literal } = compared;
    match operator {
        ">" if value > literal => Some(if is_whole { literal.floor() } else { literal }),
        "<" if value < literal => Some(if is_whole { literal.ceil() } else { literal }),
        ">=" if value >= literal => Some(if is_whole { literal.ceil() - 1.0 } else { literal.next_down() }),
        "<=" if value <= literal => Some(if is_whole { literal.floor() + 1.0 } else { literal.next_up() }),
        _ => None,
    }
}

/// Evenly spaced values after `from` and before `to`; whole ones where whole things are counted.
fn steps(from: f64, to: f64, is_whole: bool) -> Vec<f64> {
    let step = |at: u32| from + (to - from) * f64::from(at) / f64::from(STEPS);
    let mut values: Vec<f64> = (1..STEPS).map(|at| if is_whole { step(at).round() } else { step(at) }).collect();
    values.retain(|value| *value != from && *value != to);
    values.dedup();
    values
}

/// A value in words: the neighbour of a number that a rule excludes is told by that number.
fn edge(value: f64) -> String {
    let shown = (value * 100.0).round() / 100.0;
    if value == shown.next_down() {
        format!("just below {}", number(shown))
    } else if value == shown.next_up() {
        format!("just above {}", number(shown))
    } else {
        number(value)
    }
}

impl Candidate {
    /// The values that are tried, the nearest first.
    fn grid(&self) -> Vec<f64> {
        let (near, far) = self.ends;
        let mut grid = steps(self.value, far, self.is_whole);
        grid.extend([near, far]);
        grid.sort_by(|a, b| self.away(*a).total_cmp(&self.away(*b)).then(a.total_cmp(b)));
        grid.dedup();
        grid
    }

    /// What the models say of each of these values; nothing where one has no score of it.
    fn scored(&self, values: &[f64], models: &dyn Models) -> Result<Vec<Option<Scores>>, Unfinished> {
        in_time(models)?;
        let changes: Vec<Change> = values.iter().map(|value| Change { feature: self.feature, value: *value }).collect();
        models.what_if(&changes).map_err(Unfinished::Absent)
    }

    fn away(&self, value: f64) -> f64 {
        (value - self.value).abs()
    }

    /// Takes one more value that a reason points to.
    fn reach(&mut self, end: f64) {
        let (near, far) = self.ends;
        if self.away(end) < self.away(near) {
            self.ends.0 = end;
        }
        if self.away(end) > self.away(far) {
            self.ends.1 = end;
        }
    }

    /// The size of a change: in spreads of the input; where no model knows one, as a share of the value.
    fn size(&self, value: f64, spread: f64) -> f64 {
        let unit = if spread > 0.0 { spread } else { self.value.abs().max(1.0) };
        self.away(value) / unit
    }

    fn told(&self, situation: &Situation<'_>, allowed: f64) -> Option<Counterfactual> {
        let spec = situation.schema.features().get(self.feature.index())?;
        let text = format!("{}: {}, would have been allowed at {}", spec.meaning, number(self.value), edge(allowed));
        Some(Counterfactual { feature: spec.name.as_str().into(), value: self.value, allowed, text })
    }
}
