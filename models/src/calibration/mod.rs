//! Calibration: what a raw score means. Scores, labels or the site's own traffic enter; a monotone table leaves.

use std::sync::Arc;

use telltale_features::entity::{EntityType, Subjects};
use telltale_features::schema::Schema;

use crate::{Bundle, Scores};

/// A monotone table from raw score to probability or p-value.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationTable {}

impl CalibrationTable {
    /// BLAKE3 of the canonical JSON, 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        String::new()
    }
}

/// How the site's own transactions are collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibratorOptions {
    /// Transactions needed.
    pub need: u64,
    /// Entity types that stand for an actor: none of their entities gives more than 1 % of the transactions.
    pub actors: Vec<EntityType>,
}

impl CalibratorOptions {
    /// The options of a schema: every type but those that many actors share.
    pub fn of(schema: &Schema, need: u64) -> Self {
        let _ = schema;
        Self { need, actors: Vec::new() }
    }
}

/// A calibration that has just become complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u32,
    /// What its scores mean on this site.
    pub table: CalibrationTable,
}

/// Collects this site's own scores for every model that is not calibrated yet, in decide order.
pub struct Calibrator {}

impl Calibrator {
    /// Ready for the models of a bundle that have no calibration.
    pub fn new(bundle: &Bundle, options: CalibratorOptions) -> Self {
        let _ = (bundle, options);
        Self {}
    }

    /// Offers one transaction; `ruled` says that a rule scored it, which leaves it out. Returns what this one completed.
    pub fn offer(&mut self, scores: &Scores, subjects: &Subjects, ruled: bool) -> Vec<Finished> {
        let _ = (scores, subjects, ruled);
        Vec::new()
    }

    /// Writes `calibrating n/N` as it stands now into the scores of a row.
    pub fn annotate(&self, scores: &mut Scores) {
        let _ = scores;
    }
}
