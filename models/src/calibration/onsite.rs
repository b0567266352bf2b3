//! On-site calibration: scores of the site's own transactions enter in decide order, a finished table leaves once enough are there.
//!
//! A model trained elsewhere knows nothing of this site. What a rule scored is left out and no actor gives more than 1 % of the rows, so
//! that an attacker cannot teach it. Deterministic: the same offers in the same order give the same table.

use std::collections::HashMap;
use std::sync::Arc;

use telltale_features::entity::{EntityId, EntityType, Subjects};
use telltale_features::schema::Schema;

use super::{CalibrationTable, conformal};
use crate::Bundle;
use crate::score::{Calibrated, Scores};

/// Types whose entities many actors share: they say nothing about who teaches.
const SHARED: [&str; 4] = ["endpoint", "service", "tenant", "fingerprint"];

/// How the site's own transactions are collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibratorOptions {
    /// Transactions needed.
    pub need: u64,
    /// Entity types that stand for an actor: none of their entities gives more than 1 % of the transactions.
    pub actors: Vec<EntityType>,
}

impl CalibratorOptions {
    /// The options of a schema: every type but endpoint, service, tenant and fingerprint, which many actors share.
    pub fn of(schema: &Schema, need: u64) -> Self {
        let actors = schema.entity_types().iter().filter(|spec| !SHARED.contains(&spec.name.as_str()));
        Self { need, actors: actors.filter_map(|spec| schema.entity_type(&spec.name)).collect() }
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

struct Collecting {
    model: Arc<str>,
    version: u32,
    raws: Vec<f64>,
    given: HashMap<EntityId, u64>,
}

/// Collects the site's own scores for every model of a bundle that has no calibration yet.
pub struct Calibrator {
    options: CalibratorOptions,
    collecting: Vec<Collecting>,
}

impl Calibrator {
    /// Ready for nothing yet.
    pub fn empty(options: CalibratorOptions) -> Self {
        Self { options, collecting: Vec::new() }
    }

    /// Ready for the models of a bundle that have no calibration. Progress on an earlier bundle is lost.
    pub fn new(bundle: &Bundle, options: CalibratorOptions) -> Self {
        let collecting =
            bundle.uncalibrated().map(|(model, version)| Collecting { model, version, raws: Vec::new(), given: HashMap::new() }).collect();
        Self { options, collecting }
    }

    /// Ready for these versions; what was collected of them so far is kept, all else is dropped.
    pub fn follow(&mut self, waiting: impl Iterator<Item = (Arc<str>, u32)>) {
        let mut before = std::mem::take(&mut self.collecting);
        self.collecting = waiting
            .map(|(model, version)| {
                let known = before.iter().position(|collecting| collecting.model == model && collecting.version == version);
                known.map_or_else(|| Collecting { model, version, raws: Vec::new(), given: HashMap::new() }, |at| before.swap_remove(at))
            })
            .collect();
    }

    /// How far a version is: transactions collected, transactions needed.
    pub fn progress_of(&self, model: &str, version: u32) -> Option<(u64, u64)> {
        let collecting = self.collecting.iter().find(|collecting| &*collecting.model == model && collecting.version == version)?;
        Some((collecting.raws.len() as u64, self.options.need))
    }

    /// Offers one transaction; `ruled` says that a rule scored it, which leaves it out. Returns what this one completed.
    pub fn offer(&mut self, scores: &Scores, subjects: &Subjects, ruled: bool) -> Vec<Finished> {
        if ruled || self.collecting.is_empty() {
            return Vec::new();
        }
        let actors = &self.options.actors;
        let actors: Vec<EntityId> = subjects.iter().map(|subject| subject.id).filter(|id| actors.contains(&id.kind)).collect();
        let most = (self.options.need / 100).max(1);
        let mut finished = Vec::new();
        for collecting in &mut self.collecting {
            let part = scores.parts.iter().find(|part| part.model == collecting.model && part.version == collecting.version);
            let Some(part) = part else { continue };
            // Nobody to count it against: an attacker could send any number of these.
            if actors.is_empty() || actors.iter().any(|id| collecting.given.get(id).is_some_and(|given| *given >= most)) {
                continue;
            }
            actors.iter().for_each(|id| *collecting.given.entry(*id).or_default() += 1);
            collecting.raws.push(part.raw);
            if collecting.raws.len() as u64 >= self.options.need
                && let Ok(table) = conformal(&collecting.raws)
            {
                finished.push(Finished { model: collecting.model.clone(), version: collecting.version, table });
            }
        }
        let done =
            |collecting: &Collecting| finished.iter().any(|done| done.model == collecting.model && done.version == collecting.version);
        self.collecting.retain(|collecting| !done(collecting));
        finished
    }

    /// How far each model is: name, transactions collected, transactions needed.
    pub fn progress(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.collecting.iter().map(|collecting| (&*collecting.model, collecting.raws.len() as u64, self.options.need))
    }

    /// Writes `calibrating n/N` as it stands now into the scores of a row.
    pub fn annotate(&self, scores: &mut Scores) {
        for part in &mut scores.parts {
            if let Calibrated::Calibrating { have, need } = &mut part.calibrated
                && let Some((_, now, of)) = self.progress().find(|(model, ..)| *model == &*part.model)
            {
                (*have, *need) = (now, of);
            }
        }
    }
}
