//! The smallest change that would have been allowed: asked after a decision, outside of the store's locks, within a share of the caller's
//! time.

use telltale_features::store::{Moment, Store};
use telltale_features::vector::FeatureId;
use telltale_models::{Absent, Asked, Bundle, Change, Scores};
use telltale_policy::{Counterfactual, Models, Situation, Unfinished};

use super::{Assessed, Engine, Ruled, Told};
use crate::in_force::InForce;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hint {
    /// The smallest change.
    pub found: Option<Counterfactual>,
    /// Whether it was searched to the end: a contained model may have been too slow, or the time for it over. Replay searches where this is so, and nowhere else.
    pub complete: bool,
}

/// The models in force, for one row.
struct InBundle<'a> {
    bundle: &'a Bundle,
    assessed: &'a Assessed,
    asked: &'a Asked<'a>,
    go_on: &'a dyn Fn() -> bool,
}

impl Models for InBundle<'_> {
    fn what_if(&self, changes: &[Change]) -> Result<Vec<Option<Scores>>, Absent> {
        self.bundle.what_if(&self.assessed.vector, &self.assessed.scores, changes, self.asked)
    }

    fn may_go_on(&self) -> bool {
        (self.go_on)()
    }

    fn is_asked(&self, feature: FeatureId) -> bool {
        self.bundle.is_asked(feature, &self.assessed.scores, self.asked)
    }

    fn spread(&self, feature: FeatureId) -> f64 {
        self.bundle.spread(feature, &self.assessed.scores)
    }
}

impl<S: Store> Engine<S> {
    /// The smallest change of one feature by which the decision would have let the transaction through, where that is wanted, as long as
    /// the search may go on.
    pub fn hint(
        &self,
        force: &InForce,
        told: Told<'_>,
        assessed: &Assessed,
        (ruled, asked, go_on): (&Ruled, &Asked<'_>, &dyn Fn() -> bool),
    ) -> Hint {
        let Some(before) = &ruled.before else { return Hint::default() };
        let situation = self.situation(force, told, assessed, ruled.moment);
        if !force.policy.is_worth_a_hint(&situation, &ruled.decision) {
            return Hint::default();
        }
        // What gave no reasons is not asked again, nor is what it reads tried: the list is journalled, so a replay does the same.
        let asked = Asked { unexplained: &assessed.unexplained, ..*asked };
        let models = InBundle { bundle: &force.bundle, assessed, asked: &asked, go_on };
        match force.policy.counterfactual(&situation, &ruled.decision, before, &models) {
            Ok(found) => Hint { found, complete: true },
            Err(Unfinished::Time) => Hint::default(),
            Err(Unfinished::Absent(absent)) => {
                tracing::debug!(model = &*absent.model, problem = absent.problem, "no smallest change was found");
                Hint::default()
            }
        }
    }

    /// Everything that a decision may depend on, policy state apart.
    pub(super) fn situation<'a>(
        &'a self,
        force: &'a InForce,
        (admitted, fields): Told<'a>,
        assessed: &'a Assessed,
        moment: Moment,
    ) -> Situation<'a> {
        Situation {
            schema: &self.schema,
            admitted,
            fields,
            vector: &assessed.vector,
            scores: &assessed.scores,
            combined: &assessed.combined,
            attributions: &assessed.attributions,
            overrides: &force.overrides,
            moment,
        }
    }
}
