//! What scoring gives: plain values, shared with the policy and with replay. No logic.

use std::sync::Arc;

use telltale_features::vector::FeatureId;

/// A worker's slot. Each lane has its own ONNX Runtime session, so that workers never wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane(pub usize);

/// The scores of one row, one part a loaded model in name order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// What each model says.
    pub parts: Vec<ModelScore>,
    /// What is missing from `parts` and why, in plain words. Empty when everything answered.
    pub degraded: Vec<String>,
    /// Versions that gave no score. What depends on the moment (a contained model that was too slow) is repeated by replay from here.
    pub absent: Vec<Absent>,
}

/// A version that gave no score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u32,
    /// Why.
    pub problem: String,
}

/// How one row is to be scored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The key of who acts: it decides whether a version on trial answers. `None`: the champion does.
    pub actor: Option<u64>,
    /// The worker's slot.
    pub lane: Lane,
    /// Versions that gave no score when this row was scored before: they are not asked again.
    pub absent: &'a [Absent],
    /// Versions that gave no reasons when this row was scored before: they are not asked for any.
    pub unexplained: &'a [Absent],
}

/// The score of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelScore {
    /// Name of the model: its folder in the repository.
    pub model: Arc<str>,
    /// Version that answered.
    pub version: u32,
    /// The model's own number; higher is more suspicious. Finite.
    pub raw: f64,
    /// What the number means on this site.
    pub calibrated: Calibrated,
    /// Whether the score may count towards a verdict.
    pub role: Role,
}

impl ModelScore {
    /// Whether it means something on this site yet.
    pub const fn is_calibrated(&self) -> bool {
        !matches!(self.calibrated, Calibrated::Calibrating { .. })
    }
}

/// What a raw score means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Calibrated {
    /// Probability of abuse in [0, 1]; needs labels.
    Probability(f64),
    /// Share of this site's own traffic that scores at least as high, in (0, 1]. Never a probability of abuse.
    PValue(f64),
    /// The site's own transactions are still being collected: the score must not act yet.
    Calibrating {
        /// Transactions collected.
        have: u64,
        /// Transactions needed.
        need: u64,
    },
}

/// The part that a model plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In force: its score counts.
    Champion,
    /// On trial, for this entity: its score counts.
    Canary,
    /// Scores beside the others and counts for nothing, for example while it calibrates.
    Shadow,
}

impl Role {
    /// Whether the score counts.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Champion | Self::Canary)
    }

    /// As verdicts name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }
}

/// A feature's part in a model's score.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// Model that is explained.
    pub model: Arc<str>,
    /// The feature.
    pub feature: FeatureId,
    /// Its value in this row; NaN when it had none.
    pub value: f64,
    /// Its usual value: the median of the model's training rows.
    pub usual: f64,
    /// By how much the risk falls with the feature at its usual value, as a share of all falls listed for this model: (0, 1].
    pub share: f64,
}
