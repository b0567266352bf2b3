//! The policy in force: compiled once from YAML, asked for every transaction.

use telltale_features::door::Admitted;
use telltale_features::kernel::slots::PolicyState;
use telltale_features::schema::Schema;
use telltale_features::store::Moment;
use telltale_features::vector::FeatureVector;

use crate::decision::{Decision, Mode};
use crate::error::PolicyErrors;
use crate::overrides::Overrides;
use telltale_models::{Attribution, Scores};

/// Everything that a decision may depend on, policy state apart.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The schema that made the vector.
    pub schema: &'a Schema,
    /// The transaction behind the door.
    pub admitted: &'a Admitted,
    /// Its features.
    pub vector: &'a FeatureVector,
    /// What models said.
    pub scores: &'a Scores,
    /// What [`Policy::combine`] made of it.
    pub combined: &'a Combined,
    /// Why models said it; empty below the alert threshold.
    pub attributions: &'a [Attribution],
    /// What people ruled.
    pub overrides: &'a Overrides,
    /// When.
    pub moment: Moment,
}

/// The models' word as risk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Combined {
    /// 0 to 100.
    pub risk: f64,
    /// Points of each model, in the order of the scores' parts; they add up to `risk`.
    pub contributions: Vec<f64>,
    /// Whether the risk reaches the alert threshold: an explanation is wanted.
    pub alert: bool,
}

/// A compiled policy. Immutable; shared as `Arc<Policy>`.
pub struct Policy {
    digest: String,
}

impl Policy {
    /// The pack that is built in.
    ///
    /// # Errors
    /// When that schema lacks what the pack names.
    pub fn shipped(schema: &Schema) -> Result<Self, PolicyErrors> {
        Self::from_sources(&[], schema)
    }

    /// A policy of several files, each given with its name; rules add up, an identifier may stand only once.
    ///
    /// # Errors
    /// Everything that is wrong, with file, line and what is allowed.
    pub fn from_sources(files: &[(String, String)], schema: &Schema) -> Result<Self, PolicyErrors> {
        let _ = (files, schema);
        Ok(Self { digest: String::new() })
    }

    /// The same policy with another global mode: the switch from watching to enforcing.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        let _ = mode;
        self
    }

    /// 16 hexadecimal digits over everything that changes a decision.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Combines what the models said into points of risk.
    pub fn combine(&self, scores: &Scores) -> Combined {
        Combined { risk: 0.0, contributions: vec![0.0; scores.parts.len()], alert: false }
    }

    /// Decides about one transaction. Reads and changes the policy state of its subjects.
    pub fn decide(&self, situation: &Situation<'_>, state: &mut PolicyState) -> Decision {
        let _ = (situation, state);
        Decision::default()
    }
}
