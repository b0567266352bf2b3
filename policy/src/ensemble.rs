//! Which models count for a transaction, and how their points make one risk.
//!
//! The fields of a transaction enter, an [`Ensemble`] leaves: the conditions of the policy's models, asked once. A condition reads
//! fields and never features, so that no change of a feature changes who counts. One that cannot be evaluated, because a field that it
//! names is not there, does not hold: its model does not count.

use telltale_features::expr::Predicate;
use telltale_features::schema::Fields;
use telltale_models::{ModelScore, Scores};

use crate::policy::Policy;
use crate::risk::Combined;

/// Most models with a condition.
pub(crate) const MOST: usize = 64;

/// How the points of several models make one risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combination {
    /// As independent evidence: `100·(1 − Π(1 − pᵢ/100))`.
    #[default]
    Independent,
    /// The most points that one model gives.
    Max,
    /// All points added up, at most 100.
    Sum,
    /// The mean of the models that count, those without points too.
    Mean,
}

impl Combination {
    /// As written in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Max => "max",
            Self::Sum => "sum",
            Self::Mean => "mean",
        }
    }

    /// The risk of these points: 0 to 100.
    pub(crate) fn risk(self, points: &[f64], counting: usize) -> f64 {
        let sum = || points.iter().sum::<f64>();
        let risk = match self {
            Self::Independent => 100.0 * (1.0 - points.iter().map(|points| 1.0 - points / 100.0).product::<f64>()),
            Self::Max => points.iter().copied().fold(0.0, f64::max),
            Self::Sum => sum(),
            Self::Mean => sum() / counting.max(1) as f64,
        };
        risk.clamp(0.0, 100.0)
    }
}

/// Which models with a condition do not count for one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ensemble {
    /// One bit a condition, in the policy's order.
    silent: u64,
}

/// A model that counts only where its condition holds; where that cannot be evaluated it does not count.
pub(crate) struct Member {
    pub model: String,
    pub when: Predicate,
}

impl Policy {
    /// Which models count for a transaction with these fields.
    pub fn ensemble(&self, fields: &Fields<'_>) -> Ensemble {
        let row = fields.row();
        let silent = self.members.iter().enumerate().filter(|(_, member)| !member.when.holds(&row));
        Ensemble { silent: silent.fold(0, |bits, (at, _)| bits | 1 << at) }
    }

    /// Combines what the models said into points of risk, of those that count here.
    pub fn combine(&self, scores: &Scores, ensemble: Ensemble) -> Combined {
        let is_muted = |part: &ModelScore| {
            let place = self.members.iter().position(|member| member.model == part.model.as_ref());
            ensemble.silent != 0 && place.is_some_and(|at| ensemble.silent >> at & 1 == 1)
        };
        let muted: Vec<bool> = scores.parts.iter().map(is_muted).collect();
        Combined { ensemble, ..self.risk.combine(scores, muted) }
    }

    /// The models that the risk section names, with a weight or a condition; one with both comes twice.
    pub fn named_models(&self) -> impl Iterator<Item = &str> {
        self.risk.weights.keys().map(String::as_str).chain(self.members.iter().map(|member| member.model.as_str()))
    }

    /// How models combine, where the policy says anything about it: then every part is shown.
    pub fn combination(&self) -> Option<Combination> {
        (self.risk.combination != Combination::default() || !self.members.is_empty()).then_some(self.risk.combination)
    }
}
