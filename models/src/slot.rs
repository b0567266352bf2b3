//! One model in the bundle: its versions in their parts, and which of them answers for whom. Immutable; never reads a file.

use std::sync::Arc;

use telltale_features::vector::FeatureVector;

use crate::ModelError;
use crate::bundle::{Engine, Model};
use crate::calibration::CalibrationTable;
use crate::loader::ModelState;
use crate::repository::Fallback;
use crate::score::{Absent, Asked, Calibrated, ModelScore, Role, Scores};

/// Whether a model's scores mean something here yet.
#[derive(Clone)]
pub(crate) enum Standing {
    Calibrated(Arc<CalibrationTable>),
    Calibrating { need: u64 },
}

/// A version in its part in the bundle.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) version: u32,
    pub(crate) model: Arc<Model>,
    pub(crate) standing: Standing,
    /// An online model with the latest profile that this site made for it; the version's own stays in `model`.
    pub(crate) renewed: Option<Engine>,
}

/// A version that counts for some of the entities.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) loaded: Loaded,
    /// Entities whose mixed key is below this are scored with it.
    pub(crate) below: u64,
}

/// A model with its versions in their parts.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) name: Arc<str>,
    pub(crate) state: ModelState,
    pub(crate) champion: Option<Loaded>,
    pub(crate) previous: Option<Loaded>,
    pub(crate) canary: Option<Trial>,
    pub(crate) shadows: Vec<Loaded>,
}

impl Slot {
    /// Every loaded version, each once: one may play two parts, as the version before and in shadow.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Loaded> {
        let is_first = move |at: usize, version: u32| !self.parts().take(at).any(|before| before.version == version);
        self.parts().enumerate().filter(move |(at, loaded)| is_first(*at, loaded.version)).map(|(_, loaded)| loaded)
    }

    /// The version of every part.
    fn parts(&self) -> impl Iterator<Item = &Loaded> {
        let trial = self.canary.as_ref().map(|trial| &trial.loaded);
        self.champion.iter().chain(&self.previous).chain(trial).chain(&self.shadows)
    }

    /// The version of every part, to be changed: one that plays two stands in both.
    pub(crate) fn loaded_mut(&mut self) -> impl Iterator<Item = &mut Loaded> {
        let trial = self.canary.as_mut().map(|trial| &mut trial.loaded);
        self.champion.iter_mut().chain(&mut self.previous).chain(trial).chain(&mut self.shadows)
    }

    /// Adds the score of the version that answers: trial, champion, previous. A version on trial that is not calibrated yet answers nobody:
    /// its points would be none, and the champion's would be missing.
    pub(crate) fn score(&self, vector: &FeatureVector, asked: &Asked<'_>, scores: &mut Scores) {
        let trial = self.canary.as_ref().filter(|trial| trial.loaded.is_calibrated());
        let trial = trial.filter(|trial| asked.actor.is_some_and(|actor| mixed(actor, &self.name) < trial.below));
        let trial = trial.map(|trial| (&trial.loaded, Role::Canary));
        let champion = self.champion.as_ref().map(|loaded| (loaded, Role::Champion));
        let previous = self.previous.as_ref().filter(|_| self.state.policy.fallback == Fallback::Previous);
        let previous = previous.map(|loaded| (loaded, Role::Champion));
        let mut problems = Vec::new();
        for (loaded, role) in [trial, champion, previous].into_iter().flatten() {
            match loaded.score(vector, asked) {
                Ok(raw) => {
                    scores.parts.push(loaded.part(raw, role));
                    if !problems.is_empty() {
                        scores.degraded.push(format!("{}; version {} answered instead", problems.join("; "), loaded.version));
                    }
                    return;
                }
                Err(problem) => {
                    problems.push(format!("model `{}` gave no score: {problem}", self.name));
                    scores.absent.push(Absent { model: self.name.clone(), version: loaded.version, problem });
                }
            }
        }
        scores.degraded.append(&mut problems);
    }
}

impl Loaded {
    /// The raw score of a row; the error says why there is none.
    pub(crate) fn score(&self, vector: &FeatureVector, asked: &Asked<'_>) -> Result<f64, String> {
        let known = asked.absent.iter().find(|absent| absent.version == self.version && absent.model == self.name);
        match known {
            Some(absent) => Err(absent.problem.clone()),
            None => self.engine().raw(&self.model.row(vector), asked.lane),
        }
    }

    /// What runs it now.
    pub(crate) fn engine(&self) -> &Engine {
        self.renewed.as_ref().unwrap_or(&self.model.engine)
    }

    /// Puts a profile of this site in force; a model that learns nothing stays as it is.
    pub(crate) fn renew(&mut self, profile: &[u8]) -> Result<(), ModelError> {
        if let Engine::HalfSpace(trees) = &self.model.engine {
            self.renewed = Some(Engine::HalfSpace(Arc::new(trees.with(profile)?)));
        }
        Ok(())
    }

    pub(crate) fn is_calibrated(&self) -> bool {
        matches!(self.standing, Standing::Calibrated(_))
    }

    /// What a raw score means; a score that is not calibrated never counts, whatever part its version plays.
    pub(crate) fn part(&self, raw: f64, role: Role) -> ModelScore {
        let (calibrated, role) = match &self.standing {
            Standing::Calibrated(table) => (table.apply(raw), role),
            Standing::Calibrating { need } => (Calibrated::Calibrating { have: 0, need: *need }, Role::Shadow),
        };
        ModelScore { model: self.name.clone(), version: self.version, raw, calibrated, role }
    }
}

/// An entity's place in the trials of a model: another one for each model, so that no entity is in all trials.
fn mixed(actor: u64, model: &str) -> u64 {
    // FNV-1a of the name.
    let salt = model.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    stirred(actor ^ salt)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the number moves about half of those that leave.
pub(crate) const fn stirred(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The bound below which that share of the entities lies.
pub(crate) fn share(percent: f64) -> u64 {
    // The cast saturates: 100 % is every key but the last one.
    (percent / 100.0 * (u64::MAX as f64)) as u64
}
