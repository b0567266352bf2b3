//! What one verdict is scored with: the loaded versions of every model in their parts. Immutable; never reads a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;
use telltale_features::vector::{FeatureId, FeatureVector};

use crate::ModelError;
use crate::calibration::CalibrationTable;
use crate::contain::Contained;
use crate::forest::{Forest, Row};
use crate::loader::ModelState;
use crate::onnx::Onnx;
use crate::repository::ModelPolicy;
use crate::score::{Absent, Asked, Attribution, Lane, ModelScore, Role, Scores};
use crate::slot::{Loaded, Slot, Standing};

/// A model that could not be loaded; the others serve without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub model: Arc<str>,
    /// What is wrong, where, and what is allowed.
    pub reason: String,
}

/// The float32 row that a model reads.
pub(crate) type Values = SmallVec<[f32; 128]>;

/// What runs a model.
#[derive(Clone)]
pub(crate) enum Engine {
    Forest(Arc<Forest>),
    Onnx(Arc<Onnx>),
    Contained(Arc<Contained>),
}

impl Engine {
    /// The raw score of a row; the error says why there is none.
    pub(crate) fn raw(&self, row: &[f32], lane: Lane) -> Result<f64, String> {
        let raw = match self {
            Self::Forest(forest) => forest.score(&Row::new(row)),
            Self::Onnx(onnx) => onnx.score(row, lane)?,
            Self::Contained(contained) => contained.score(row, lane)?,
        };
        if raw.is_finite() { Ok(raw) } else { Err(format!("the score is {raw}")) }
    }

    /// The raw scores of some rows, in one run where the model allows it.
    pub(crate) fn raws(&self, matrix: Vec<f32>, rows: usize, lane: Lane) -> Result<Vec<f64>, String> {
        match self {
            Self::Forest(forest) => {
                let width = (matrix.len() / rows.max(1)).max(1);
                Ok(matrix.chunks(width).map(|row| forest.score(&Row::new(row))).collect())
            }
            Self::Onnx(onnx) => onnx.scores(&matrix, rows, lane),
            Self::Contained(_) if rows == 0 => Ok(Vec::new()),
            Self::Contained(contained) => contained.scores(matrix, rows, lane),
        }
    }
}

/// Where an input comes from.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) feature: FeatureId,
    pub(crate) usual: f64,
    pub(crate) fill: f64,
}

/// A model ready to score.
pub(crate) struct Model {
    pub(crate) engine: Engine,
    pub(crate) inputs: Vec<Input>,
}

impl Model {
    /// The row of these input values; a missing one gets what the manifest says.
    pub(crate) fn fill(&self, values: impl Iterator<Item = f64>) -> Values {
        values.zip(&self.inputs).map(|(value, input)| narrow(if value.is_nan() { input.fill } else { value })).collect()
    }

    pub(crate) fn row(&self, vector: &FeatureVector) -> Values {
        self.fill(self.inputs.iter().map(|input| vector.get(input.feature)))
    }
}

/// To float32 without becoming infinite.
pub(crate) fn narrow(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

/// A version's score of a row beside the one it is compared with.
#[derive(Clone, Debug)]
pub struct Rival {
    /// The model.
    pub model: Arc<str>,
    /// The version.
    pub version: u32,
    /// The part that it plays.
    pub role: Role,
    /// Its score, as if it were in force; else why there is none.
    pub score: Result<ModelScore, String>,
    /// The version that it is compared with; 0: none.
    pub baseline: u32,
    /// That one's score.
    pub beside: Option<ModelScore>,
}

/// The models in force. Shared as `Arc<Bundle>`; clones share everything loaded.
// INVARIANT: slots are in the order of their names, so that scores come in name order.
#[derive(Clone, Default)]
pub struct Bundle {
    slots: Vec<Slot>,
    failures: Vec<Failure>,
    /// Every calibration made on this site, by model and version: a version that comes back keeps its own.
    calibrations: BTreeMap<(Arc<str>, u32), Arc<CalibrationTable>>,
}

impl Bundle {
    /// No models: rules decide alone.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn new(slots: Vec<Slot>, failures: Vec<Failure>) -> Self {
        Self { slots, failures, calibrations: BTreeMap::new() }
    }

    /// Models that could not be loaded.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Name and version of every champion, in name order.
    pub fn models(&self) -> impl Iterator<Item = (&str, u32)> {
        self.slots.iter().filter_map(|slot| slot.champion.as_ref()).map(|loaded| (&*loaded.name, loaded.version))
    }

    /// The features that the champions read; one that several read comes several times.
    pub fn inputs(&self) -> impl Iterator<Item = FeatureId> {
        let champions = self.slots.iter().filter_map(|slot| slot.champion.as_ref());
        champions.flat_map(|loaded| loaded.model.inputs.iter().map(|input| input.feature))
    }

    /// The features that the champion of a model reads, in its order.
    pub fn inputs_of(&self, model: &str) -> Vec<FeatureId> {
        let champion = self.slot(model).and_then(|slot| slot.champion.as_ref());
        champion.map(|loaded| loaded.model.inputs.iter().map(|input| input.feature).collect()).unwrap_or_default()
    }

    /// The champions that have no calibration yet.
    pub fn uncalibrated(&self) -> impl Iterator<Item = (Arc<str>, u32)> {
        let waiting = self.slots.iter().filter_map(|slot| slot.champion.as_ref()).filter(|loaded| !loaded.is_calibrated());
        waiting.map(|loaded| (loaded.name.clone(), loaded.version))
    }

    /// The policy that a model's parts were given by.
    pub fn policy(&self, model: &str) -> Option<&ModelPolicy> {
        self.slot(model).map(|slot| &slot.state.policy)
    }

    /// Name and state of every model that has a version loaded, in name order.
    pub fn states(&self) -> impl Iterator<Item = (&str, &ModelState)> {
        self.slots.iter().map(|slot| (&*slot.name, &slot.state))
    }

    /// Every calibration made on this site, by model and version.
    pub fn calibrations(&self) -> impl Iterator<Item = (&str, u32, &CalibrationTable)> {
        self.calibrations.iter().map(|((model, version), table)| (&**model, *version, &**table))
    }

    /// The versions in shadow or on trial that have no calibration yet.
    pub fn uncalibrated_rivals(&self) -> impl Iterator<Item = (Arc<str>, u32)> {
        let rivals = self.slots.iter().flat_map(|slot| slot.shadows.iter().chain(slot.canary.as_ref().map(|trial| &trial.loaded)));
        let waiting = rivals.filter(|loaded| !loaded.is_calibrated());
        waiting.map(|loaded| (loaded.name.clone(), loaded.version))
    }

    /// The calibration in force of a model's champion.
    pub fn calibration(&self, model: &str) -> Option<&CalibrationTable> {
        match &self.slot(model)?.champion.as_ref()?.standing {
            Standing::Calibrated(table) => Some(table),
            Standing::Calibrating { .. } => None,
        }
    }

    /// Whether a loaded version has a calibration; `None` when it is not loaded.
    pub fn is_calibrated(&self, model: &str, version: u32) -> Option<bool> {
        let slot = self.slot(model)?;
        slot.loaded().find(|loaded| loaded.version == version).map(Loaded::is_calibrated)
    }

    /// Whether any version is in shadow or on trial.
    pub fn has_rivals(&self) -> bool {
        self.slots.iter().any(|slot| !slot.shadows.is_empty() || slot.canary.is_some())
    }

    /// The scores of one row with the champions, as somebody who is in no trial gets them.
    pub fn score(&self, vector: &FeatureVector, lane: Lane) -> Scores {
        self.score_as(vector, &Asked { lane, ..Asked::default() })
    }

    /// The scores of one row. A version that fails is named in [`Scores::absent`] and the next of its model answers: trial, champion,
    /// previous. What then is missing is named in [`Scores::degraded`]; the other models answer.
    pub fn score_as(&self, vector: &FeatureVector, asked: &Asked<'_>) -> Scores {
        let mut scores = Scores { parts: Vec::with_capacity(self.slots.len()), degraded: Vec::new(), absent: Vec::new() };
        scores.degraded.extend(self.failures.iter().map(|failure| format!("model `{}` is not loaded", failure.model)));
        for slot in &self.slots {
            slot.score(vector, asked, &mut scores);
        }
        scores
    }

    /// The scores of one row with every version in shadow or on trial, each beside its champion's; of a model on probation also the
    /// champion's beside that of the version before it. Scores everything anew: meant for a thread that nobody waits for.
    pub fn rivals(&self, vector: &FeatureVector, lane: Lane, on_probation: impl Fn(&str) -> bool) -> Vec<Rival> {
        let mut rivals = Vec::new();
        let asked = Asked { lane, ..Asked::default() };
        for slot in &self.slots {
            let score = |loaded: &Loaded| loaded.score(vector, &asked).map(|raw| loaded.part(raw, Role::Champion));
            let before = slot.previous.as_ref().filter(|_| on_probation(&slot.name));
            let trial = slot.canary.iter().map(|trial| (&trial.loaded, Role::Canary));
            let watching: Vec<_> = slot.shadows.iter().map(|loaded| (loaded, Role::Shadow)).chain(trial).collect();
            if watching.is_empty() && before.is_none() {
                continue;
            }
            let champion = slot.champion.as_ref().map(score);
            for (loaded, role) in watching {
                let (baseline, beside) = (slot.champion.as_ref().map_or(0, |champion| champion.version), champion.clone());
                let (score, beside) = (score(loaded), beside.and_then(Result::ok));
                rivals.push(Rival { model: slot.name.clone(), version: loaded.version, role, score, baseline, beside });
            }
            if let (Some(before), Some(loaded), Some(score)) = (before, &slot.champion, champion) {
                let beside = loaded_score(before, vector, &asked);
                let (version, role) = (loaded.version, Role::Champion);
                rivals.push(Rival { model: slot.name.clone(), version, role, score, baseline: before.version, beside });
            }
        }
        rivals
    }

    /// Why the versions that count scored this row as they did: at most five features a model, the largest part first. Each of them
    /// alone, set to its usual value, lowers the raw score. Meant for rows above the alert threshold: it scores the row several times.
    /// A version listed in [`Asked::unexplained`] is not asked; one that gives no reasons is listed in what leaves.
    pub fn explain(&self, vector: &FeatureVector, scores: &Scores, asked: &Asked<'_>) -> (Vec<Attribution>, Vec<Absent>) {
        let (mut out, mut absent) = (Vec::new(), Vec::new());
        for part in scores.parts.iter().filter(|part| part.role.counts()) {
            let found = self.slot(&part.model).and_then(|slot| slot.loaded().find(|loaded| loaded.version == part.version));
            let Some(loaded) = found else { continue };
            let known = asked.unexplained.iter().find(|known| known.version == part.version && known.model == part.model);
            match known.map_or_else(|| crate::explain::explain(loaded, vector, part.raw, asked.lane), |known| Err(known.clone())) {
                Ok(reasons) => out.extend(reasons),
                Err(why) => absent.push(why),
            }
        }
        (out, absent)
    }

    /// The same bundle with one version's calibration replaced: from then on its score counts. It is kept for a version that plays no
    /// part at present.
    ///
    /// # Errors
    /// [`ModelError::Data`] when no such model is loaded.
    pub fn with_calibration(&self, model: &str, version: u32, table: CalibrationTable) -> Result<Self, ModelError> {
        let mut bundle = self.clone();
        let table = Arc::new(table);
        let slot = bundle.slots.iter_mut().find(|slot| &*slot.name == model);
        let slot = slot.ok_or_else(|| ModelError::Data(format!("model `{model}` is not loaded: its calibration cannot be set")))?;
        for loaded in slot.loaded_mut().filter(|loaded| loaded.version == version) {
            loaded.standing = Standing::Calibrated(Arc::clone(&table));
        }
        bundle.calibrations.insert((Arc::clone(&slot.name), version), table);
        Ok(bundle)
    }

    /// This bundle with one model as the other has it: what was built aside comes into force. Calibrations that were finished in the
    /// meantime hold.
    #[must_use]
    pub fn adopting(&self, built: &Self, model: &str) -> Self {
        let mut slot = built.slot(model).cloned();
        for loaded in slot.iter_mut().flat_map(Slot::loaded_mut) {
            if let Some(table) = self.site_calibration(model, loaded.version).filter(|_| !loaded.is_calibrated()) {
                loaded.standing = Standing::Calibrated(table);
            }
        }
        self.with_slot(model, slot)
    }

    /// The calibration made on this site for a version.
    pub(crate) fn site_calibration(&self, model: &str, version: u32) -> Option<Arc<CalibrationTable>> {
        self.calibrations.get(&(Arc::from(model), version)).cloned()
    }

    /// The same bundle with one model's slot replaced; `None` takes the model out.
    pub(crate) fn with_slot(&self, model: &str, slot: Option<Slot>) -> Self {
        let mut bundle = self.clone();
        bundle.slots.retain(|slot| &*slot.name != model);
        bundle.failures.retain(|failure| &*failure.model != model);
        if let Some(slot) = slot {
            let at = bundle.slots.partition_point(|other| other.name < slot.name);
            bundle.slots.insert(at, slot);
        }
        bundle
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn slot(&self, model: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| &*slot.name == model)
    }
}

fn loaded_score(loaded: &Loaded, vector: &FeatureVector, asked: &Asked<'_>) -> Option<ModelScore> {
    loaded.score(vector, asked).ok().map(|raw| loaded.part(raw, Role::Champion))
}
