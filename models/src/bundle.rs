//! What one verdict is scored with: the loaded champions, each with its calibration. Immutable; never reads a file.

use std::path::PathBuf;
use std::sync::Arc;

use smallvec::SmallVec;
use telltale_features::vector::{FeatureId, FeatureVector};

use crate::ModelError;
use crate::calibration::CalibrationTable;
use crate::forest::{Forest, Row};
use crate::onnx::Onnx;
use crate::score::{Attribution, Calibrated, Lane, ModelScore, Role, Scores};

/// How models are loaded and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The ONNX Runtime library: what `ORT_DYLIB_PATH` or the configuration names.
    pub library: PathBuf,
    /// Worker slots: each gets its own session of every ONNX model.
    pub lanes: usize,
    /// Transactions of this site's own that calibrate a model.
    pub calibration_rows: u64,
    /// Trust the calibration that came with a version, even before the site's own: for evaluation on the traffic it was made for.
    pub shipped_calibration: bool,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        let library = PathBuf::from("target/onnxruntime/libonnxruntime.so");
        Self { library, lanes: 1, calibration_rows: 20_000, shipped_calibration: false }
    }
}

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
}

impl Engine {
    /// The raw score of a row; the error says why there is none.
    pub(crate) fn raw(&self, row: &[f32], lane: Lane) -> Result<f64, String> {
        let raw = match self {
            Self::Forest(forest) => forest.score(&Row::new(row)),
            Self::Onnx(onnx) => onnx.score(row, lane)?,
        };
        if raw.is_finite() { Ok(raw) } else { Err(format!("the score is {raw}")) }
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

/// Whether a model's scores mean something here yet.
#[derive(Clone)]
pub(crate) enum Standing {
    Calibrated(Arc<CalibrationTable>),
    Calibrating { need: u64 },
}

/// A model in its part in the bundle.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) name: Arc<str>,
    pub(crate) version: u32,
    pub(crate) model: Arc<Model>,
    pub(crate) standing: Standing,
}

/// The models in force. Shared as `Arc<Bundle>`; clones share everything loaded.
#[derive(Clone, Default)]
pub struct Bundle {
    loaded: Vec<Loaded>,
    failures: Vec<Failure>,
}

impl Bundle {
    /// No models: rules decide alone.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn new(loaded: Vec<Loaded>, failures: Vec<Failure>) -> Self {
        Self { loaded, failures }
    }

    /// Models that could not be loaded.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Name and version of every loaded model, in name order.
    pub fn models(&self) -> impl Iterator<Item = (&str, u32)> {
        self.loaded.iter().map(|loaded| (&*loaded.name, loaded.version))
    }

    /// The loaded models that have no calibration yet.
    pub fn uncalibrated(&self) -> impl Iterator<Item = (Arc<str>, u32)> {
        let waiting = self.loaded.iter().filter(|loaded| matches!(loaded.standing, Standing::Calibrating { .. }));
        waiting.map(|loaded| (loaded.name.clone(), loaded.version))
    }

    /// The calibration in force of a model.
    pub fn calibration(&self, model: &str) -> Option<&CalibrationTable> {
        match &self.loaded.iter().find(|loaded| &*loaded.name == model)?.standing {
            Standing::Calibrated(table) => Some(table),
            Standing::Calibrating { .. } => None,
        }
    }

    /// The scores of one row. A model that fails is named in [`Scores::degraded`]; the others answer.
    pub fn score(&self, vector: &FeatureVector, lane: Lane) -> Scores {
        let mut scores = Scores { parts: Vec::with_capacity(self.loaded.len()), degraded: Vec::new() };
        scores.degraded.extend(self.failures.iter().map(|failure| format!("model `{}` is not loaded", failure.model)));
        for loaded in &self.loaded {
            match loaded.model.engine.raw(&loaded.model.row(vector), lane) {
                Ok(raw) => scores.parts.push(loaded.part(raw)),
                Err(problem) => scores.degraded.push(format!("model `{}` gave no score: {problem}", loaded.name)),
            }
        }
        scores
    }

    /// Why the champions scored this row as they did: at most five features a model, the largest part first. Each of them alone, set to
    /// its usual value, lowers the raw score. Meant for rows above the alert threshold: it scores the row several times again.
    pub fn explain(&self, vector: &FeatureVector, scores: &Scores, lane: Lane) -> Vec<Attribution> {
        let mut out = Vec::new();
        for part in scores.parts.iter().filter(|part| part.role == Role::Champion) {
            if let Some(loaded) = self.loaded.iter().find(|loaded| loaded.name == part.model && loaded.version == part.version) {
                out.extend(crate::explain::explain(loaded, vector, part.raw, lane));
            }
        }
        out
    }

    /// The same bundle with one model's calibration replaced: from then on its score counts.
    ///
    /// # Errors
    /// [`ModelError::Data`] when no such model is loaded.
    pub fn with_calibration(&self, model: &str, table: CalibrationTable) -> Result<Self, ModelError> {
        let mut bundle = self.clone();
        let loaded = bundle.loaded.iter_mut().find(|loaded| &*loaded.name == model);
        let loaded = loaded.ok_or_else(|| ModelError::Data(format!("model `{model}` is not loaded: its calibration cannot be set")))?;
        loaded.standing = Standing::Calibrated(Arc::new(table));
        Ok(bundle)
    }
}

impl Loaded {
    fn part(&self, raw: f64) -> ModelScore {
        let (calibrated, role) = match &self.standing {
            Standing::Calibrated(table) => (table.apply(raw), Role::Champion),
            Standing::Calibrating { need } => (Calibrated::Calibrating { have: 0, need: *need }, Role::Shadow),
        };
        ModelScore { model: self.name.clone(), version: self.version, raw, calibrated, role }
    }
}
