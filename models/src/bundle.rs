//! What one verdict is scored with: the loaded versions of every model in their parts. Immutable; never reads a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;
use telltale_features::vector::{FeatureId, FeatureVector};

use crate::ModelError;
use crate::calibration::CalibrationTable;
use crate::contain::Contained;
use crate::forest::{Forest, Row};
use crate::half_space::{HalfSpace, Shape};
use crate::linear::Linear;
use crate::loader::ModelState;
use crate::onnx::Onnx;
use crate::repository::{Kind, ModelPolicy};
use crate::score::{Asked, Lane, ModelScore, Role, Scores};
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
    Linear(Arc<Linear>),
    HalfSpace(Arc<HalfSpace>),
    Onnx(Arc<Onnx>),
    Contained(Arc<Contained>),
}

impl Engine {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Forest(_) => Kind::Forest.name(),
            Self::Linear(linear) => linear.name(),
            Self::HalfSpace(_) => Kind::HalfSpace.name(),
            Self::Onnx(_) => Kind::Onnx.name(),
            Self::Contained(_) => "onnx in a worker",
        }
    }

    /// The raw score of a row; the error says why there is none.
    pub(crate) fn raw(&self, row: &[f32], lane: Lane) -> Result<f64, String> {
        let raw = match self {
            Self::Forest(forest) => forest.score(&Row::new(row)),
            Self::Linear(linear) => linear.score(row),
            Self::HalfSpace(trees) => trees.score(row),
            Self::Onnx(onnx) => onnx.score(row, lane)?,
            Self::Contained(contained) => contained.score(row, lane)?,
        };
        finite(raw)
    }

    /// The raw scores of some rows, in one run where the model allows it.
    pub(crate) fn raws(&self, matrix: Vec<f32>, rows: usize, lane: Lane) -> Result<Vec<f64>, String> {
        let rows_of = || matrix.chunks((matrix.len() / rows.max(1)).max(1));
        match self {
            Self::Forest(forest) => Ok(rows_of().map(|row| forest.score(&Row::new(row))).collect()),
            Self::Linear(linear) => Ok(rows_of().map(|row| linear.score(row)).collect()),
            Self::HalfSpace(trees) => Ok(rows_of().map(|row| trees.score(row)).collect()),
            Self::Onnx(onnx) => onnx.scores(&matrix, rows, lane),
            Self::Contained(_) if rows == 0 => Ok(Vec::new()),
            Self::Contained(contained) => contained.scores(matrix, rows, lane),
        }
    }
}

/// A raw score that may be used; the error says why there is none.
pub(crate) fn finite(raw: f64) -> Result<f64, String> {
    if raw.is_finite() { Ok(raw) } else { Err(format!("the score is {raw}")) }
}

/// Where an input comes from.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) feature: FeatureId,
    pub(crate) usual: f64,
    /// Half the width between the quartiles of the training rows; 0 when not known.
    pub(crate) spread: f64,
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

    /// Whether a feature is among its inputs.
    pub(crate) fn reads(&self, feature: FeatureId) -> bool {
        self.inputs.iter().any(|input| input.feature == feature)
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
    /// The latest profile made on this site of every online version.
    profiles: BTreeMap<(Arc<str>, u32), Arc<[u8]>>,
}

impl Bundle {
    /// No models: rules decide alone.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn new(slots: Vec<Slot>, failures: Vec<Failure>) -> Self {
        Self { slots, failures, calibrations: BTreeMap::new(), profiles: BTreeMap::new() }
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

    /// The latest profile made on this site of every online version, as bytes.
    pub fn profiles(&self) -> impl Iterator<Item = (&str, u32, &[u8])> {
        self.profiles.iter().map(|((model, version), profile)| (&**model, *version, &**profile))
    }

    /// Whether any loaded version learns from what it scores.
    pub fn has_online(&self) -> bool {
        self.online().next().is_some()
    }

    /// Every loaded version that learns from what it scores, with what makes its row of a vector. One that is not calibrated yet keeps its
    /// profile: a table of raw scores of several profiles would mean nothing.
    pub(crate) fn online(&self) -> impl Iterator<Item = (&Arc<str>, u32, &Shape, impl Fn(&FeatureVector) -> Vec<f32>)> {
        self.slots.iter().flat_map(Slot::loaded).filter(|loaded| loaded.is_calibrated()).filter_map(|loaded| match &loaded.model.engine {
            Engine::HalfSpace(trees) => {
                let row = |vector: &FeatureVector| loaded.model.row(vector).to_vec();
                Some((&loaded.name, loaded.version, &**trees.shape(), row))
            }
            _ => None,
        })
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

    /// What runs a loaded version, as manifests name it; one that runs in a worker process is told apart. `None` when it is not loaded.
    pub fn kind(&self, model: &str, version: u32) -> Option<&'static str> {
        self.version(model, version).map(|loaded| loaded.engine().kind())
    }

    /// Whether a loaded version has a calibration; `None` when it is not loaded.
    pub fn is_calibrated(&self, model: &str, version: u32) -> Option<bool> {
        self.version(model, version).map(Loaded::is_calibrated)
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

    /// The same bundle with one online version's profile replaced. It is kept for a version that plays no part at present.
    ///
    /// # Errors
    /// [`ModelError::Data`] when no such model is loaded, or the bytes are no profile of it.
    pub fn with_profile(&self, model: &str, version: u32, profile: Arc<[u8]>) -> Result<Self, ModelError> {
        let mut bundle = self.clone();
        let slot = bundle.slots.iter_mut().find(|slot| &*slot.name == model);
        let slot = slot.ok_or_else(|| ModelError::Data(format!("model `{model}` is not loaded: its profile cannot be set")))?;
        slot.loaded_mut().filter(|loaded| loaded.version == version).try_for_each(|loaded| loaded.renew(&profile))?;
        bundle.profiles.insert((Arc::clone(&slot.name), version), profile);
        Ok(bundle)
    }

    /// This bundle with one model as the other has it: what was built aside comes into force. Calibrations and profiles that were
    /// finished in the meantime hold.
    #[must_use]
    pub fn adopting(&self, built: &Self, model: &str) -> Self {
        let mut slot = built.slot(model).cloned();
        for loaded in slot.iter_mut().flat_map(Slot::loaded_mut) {
            if let Some(table) = self.site_calibration(model, loaded.version).filter(|_| !loaded.is_calibrated()) {
                loaded.standing = Standing::Calibrated(table);
            }
            // It fitted this version before, which never changes.
            let renewed = self.site_profile(model, loaded.version).map_or(Ok(()), |profile| loaded.renew(&profile));
            debug_assert!(renewed.is_ok(), "a profile that was in force does not fit its version");
        }
        self.with_slot(model, slot)
    }

    /// The calibration made on this site for a version.
    pub(crate) fn site_calibration(&self, model: &str, version: u32) -> Option<Arc<CalibrationTable>> {
        self.calibrations.get(&(Arc::from(model), version)).cloned()
    }

    /// The latest profile made on this site for a version.
    pub(crate) fn site_profile(&self, model: &str, version: u32) -> Option<Arc<[u8]>> {
        self.profiles.get(&(Arc::from(model), version)).cloned()
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

    /// A loaded version.
    pub(crate) fn version(&self, model: &str, version: u32) -> Option<&Loaded> {
        self.slot(model)?.loaded().find(|loaded| loaded.version == version)
    }

    fn slot(&self, model: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| &*slot.name == model)
    }
}
