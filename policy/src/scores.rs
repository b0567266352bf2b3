//! What models say, as the policy reads it.

use std::sync::Arc;

use telltale_features::vector::FeatureId;

/// What every model said about one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// One a model.
    pub parts: Vec<ModelScore>,
    /// What was missing, in words.
    pub degraded: Vec<String>,
}

/// One model's word.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelScore {
    /// Name in the repository.
    pub model: Arc<str>,
    /// Version.
    pub version: u32,
    /// The model's own number.
    pub raw: f64,
    /// What it means.
    pub calibrated: Calibrated,
    /// Its part.
    pub role: Role,
}

/// Meaning of a raw score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Calibrated {
    /// Probability of abuse.
    Probability(f64),
    /// Share of ordinary traffic at least this strange.
    PValue(f64),
    /// Not yet known on this site.
    Calibrating {
        /// Transactions seen.
        have: u64,
        /// Transactions needed.
        need: u64,
    },
}

/// What a version is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides.
    Champion,
    /// Is only watched.
    Shadow,
}

/// One feature's share in a model's score.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// Which model.
    pub model: Arc<str>,
    /// Which feature.
    pub feature: FeatureId,
    /// Its value.
    pub value: f64,
    /// What it usually is.
    pub usual: f64,
    /// Share of the score, 0 to 1.
    pub share: f64,
}
