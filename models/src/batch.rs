//! Many rows at once, for whoever only watches or asks: rows enter, raw scores leave. What an action depends on never comes here: it is
//! scored one row at a time, live and in replay alike.
//!
//! What is native gives the same bits either way. ONNX Runtime may pick other kernels for another number of rows: its scores of a batch are within
//! the tolerance of golden rows (1e-5, absolutely and as a share) of those of the row alone.

use std::sync::Arc;

use telltale_features::vector::{FeatureId, FeatureVector};

use crate::Bundle;
use crate::bundle::{Engine, Rival, finite};
use crate::calibration::Meaning;
use crate::contain::Unanswered;
use crate::repository::Kind;
use crate::score::{Calibrated, Lane, ModelScore, Role};
use crate::slot::{Loaded, Slot, Standing};

/// Most rows of one run.
pub const BATCH: usize = 64;
/// Most rows of one run in a worker process: a row that it does not survive takes the others of its run with it.
const CONTAINED: usize = 8;

/// Raw scores of some rows, in their order; of each that has none, why.
type Raws = Vec<Result<f64, String>>;

impl Engine {
    /// Rows of one run.
    const fn run(&self) -> usize {
        match self {
            Self::Contained(_) => CONTAINED,
            Self::Forest(_) | Self::Linear(_) | Self::HalfSpace(_) | Self::Onnx(_) => BATCH,
        }
    }

    /// The raw scores of the rows of a run.
    fn one_run(&self, matrix: &[f32], rows: usize, lane: Lane) -> Raws {
        let width = (matrix.len() / rows.max(1)).max(1);
        let raws = match self {
            Self::Contained(contained) => contained.unhurried(matrix.to_vec(), rows, lane),
            engine => engine.raws(matrix.to_vec(), rows, lane).map_err(Unanswered::Refused),
        };
        told(raws, rows, || matrix.chunks(width).map(|row| self.raw(row, lane)).collect())
    }
}

/// What a run says of its rows; where it only says that it will not, each row is asked about alone.
fn told(raws: Result<Vec<f64>, Unanswered>, rows: usize, alone: impl FnOnce() -> Raws) -> Raws {
    match raws {
        Ok(raws) if raws.len() == rows => raws.into_iter().map(finite).collect(),
        // Its worker is lost, and the next one should not be.
        Err(Unanswered::Lost(problem)) => vec![Err(problem); rows],
        Ok(_) | Err(Unanswered::Refused(_)) => alone(),
    }
}

impl Loaded {
    /// The raw scores of rows of feature values, each as wide as the model's inputs.
    fn raws<'a, I: Iterator<Item = f64>>(&self, rows: impl Iterator<Item = I> + 'a, lane: Lane) -> Raws {
        let (engine, mut raws, mut matrix, mut held) = (self.engine(), Vec::new(), Vec::new(), 0);
        for row in rows {
            matrix.extend(self.model.fill(row));
            held += 1;
            if held == engine.run() {
                raws.extend(engine.one_run(&matrix, held, lane));
                matrix.clear();
                held = 0;
            }
        }
        if held > 0 {
            raws.extend(engine.one_run(&matrix, held, lane));
        }
        raws
    }

    /// The scores of rows as if it were in force, whatever part it plays: else a policy would give them no points.
    fn scores(&self, vectors: &[&FeatureVector], lane: Lane) -> Vec<Result<ModelScore, String>> {
        let rows = vectors.iter().map(|vector| self.model.inputs.iter().map(|input| vector.get(input.feature)));
        self.raws(rows, lane).into_iter().map(|raw| raw.map(|raw| self.part(raw, Role::Champion))).collect()
    }
}

/// A loaded version, asked by its name and number. It stays in memory as long as this lives.
#[derive(Clone)]
pub struct Served(Loaded);

impl Served {
    /// The version's number.
    pub const fn version(&self) -> u32 {
        self.0.version
    }

    /// What runs it, as manifests name it; whether in a worker is not told.
    pub fn kind(&self) -> &'static str {
        match self.0.engine() {
            Engine::Contained(_) => Kind::Onnx.name(),
            engine => engine.kind(),
        }
    }

    /// The features that it reads, in the manifest's order.
    pub fn inputs(&self) -> impl Iterator<Item = FeatureId> {
        self.0.model.inputs.iter().map(|input| input.feature)
    }

    /// What its calibrated scores are; `None`: it is not calibrated on this site yet.
    pub fn meaning(&self) -> Option<Meaning> {
        match &self.0.standing {
            Standing::Calibrated(table) => Some(table.meaning()),
            Standing::Calibrating { .. } => None,
        }
    }

    /// What a raw score means, in [0, 1]; `None`: nothing yet.
    pub fn calibrated(&self, raw: f64) -> Option<f64> {
        match self.0.part(raw, Role::Shadow).calibrated {
            Calibrated::Probability(value) | Calibrated::PValue(value) => Some(value),
            Calibrated::Calibrating { .. } => None,
        }
    }

    /// The raw scores of at most [`BATCH`] rows of values in the order of [`Served::inputs`], row after row; NaN is a missing value and
    /// becomes what the manifest says. Of a row without a score, why.
    pub fn raws(&self, values: &[f64], lane: Lane) -> Vec<Result<f64, String>> {
        let width = self.0.model.inputs.len().max(1);
        self.0.raws(values.chunks(width).map(|row| row.iter().copied()), lane)
    }
}

impl Bundle {
    /// A version of a model that is loaded in any part; without a number the champion.
    pub fn served(&self, model: &str, version: Option<u32>) -> Option<Served> {
        let slot = self.slots().iter().find(|slot| &*slot.name == model)?;
        let loaded = match version {
            Some(version) => slot.loaded().find(|loaded| loaded.version == version),
            None => slot.champion.as_ref(),
        };
        loaded.cloned().map(Served)
    }

    /// The versions of a model that are loaded, in rising order.
    pub fn loaded(&self, model: &str) -> Vec<u32> {
        let slot = self.slots().iter().find(|slot| &*slot.name == model);
        let mut versions: Vec<u32> = slot.into_iter().flat_map(Slot::loaded).map(|loaded| loaded.version).collect();
        versions.sort_unstable();
        versions
    }

    /// The scores of some rows with every version in shadow or on trial, each beside its champion's; of a model on probation for a row also
    /// the champion's beside that of the version before it. Scores everything anew: meant for a thread that nobody waits for.
    pub fn rivals(&self, vectors: &[&FeatureVector], lane: Lane, on_probation: impl Fn(usize, &str) -> bool) -> Vec<Vec<Rival>> {
        let mut rivals: Vec<Vec<Rival>> = vectors.iter().map(|_| Vec::new()).collect();
        for slot in self.slots() {
            let before = slot.previous.as_ref().zip(slot.champion.as_ref());
            let judged: Vec<bool> = (0..vectors.len()).map(|row| before.is_some() && on_probation(row, &slot.name)).collect();
            let watches = slot.canary.is_some() || !slot.shadows.is_empty();
            // Only these rows are asked about; everything below is in their order.
            let rows: Vec<usize> = judged.iter().enumerate().filter(|(_, judged)| watches || **judged).map(|(row, _)| row).collect();
            let vectors: Vec<&FeatureVector> = rows.iter().filter_map(|row| vectors.get(*row).copied()).collect();
            let judged: Vec<bool> = rows.iter().filter_map(|row| judged.get(*row).copied()).collect();
            for (row, found) in rows.iter().zip(slot.rivals(&vectors, &judged, lane)) {
                rivals.get_mut(*row).into_iter().for_each(|all| all.extend(found.iter().cloned()));
            }
        }
        rivals
    }
}

impl Slot {
    /// The rivals of each of these rows; the champion is one where the row is judged.
    fn rivals(&self, vectors: &[&FeatureVector], judged: &[bool], lane: Lane) -> Vec<Vec<Rival>> {
        let mut rivals: Vec<Vec<Rival>> = vectors.iter().map(|_| Vec::new()).collect();
        if vectors.is_empty() {
            return rivals;
        }
        let rival = |loaded: &Loaded, role, score, (baseline, beside): (u32, Option<ModelScore>)| Rival {
            model: Arc::clone(&self.name),
            version: loaded.version,
            role,
            score,
            baseline,
            beside,
        };
        let champion = self.champion.as_ref();
        let baseline = champion.map_or(0, |champion| champion.version);
        let champions = champion.map(|champion| champion.scores(vectors, lane)).unwrap_or_default();
        let beside = |row: usize| champions.get(row).and_then(|score| score.clone().ok());
        let trial = self.canary.iter().map(|trial| (&trial.loaded, Role::Canary));
        for (loaded, role) in self.shadows.iter().map(|loaded| (loaded, Role::Shadow)).chain(trial) {
            let scores = loaded.scores(vectors, lane);
            for (row, (score, all)) in scores.into_iter().zip(&mut rivals).enumerate() {
                all.push(rival(loaded, role, score, (baseline, beside(row))));
            }
        }
        if let (Some(before), Some(champion)) = (&self.previous, champion) {
            let rows: Vec<usize> = judged.iter().enumerate().filter(|(_, judged)| **judged).map(|(row, _)| row).collect();
            let vectors: Vec<&FeatureVector> = rows.iter().filter_map(|row| vectors.get(*row).copied()).collect();
            let scores = before.scores(&vectors, lane);
            for (row, score) in rows.iter().zip(scores) {
                let (Some(own), Some(all)) = (champions.get(*row), rivals.get_mut(*row)) else { continue };
                all.push(rival(champion, Role::Champion, own.clone(), (before.version, score.ok())));
            }
        }
        rivals
    }
}

#[cfg(test)]
mod tests;
