//! What one verdict is scored with: the loaded champions, each with its calibration. Immutable.

use std::path::PathBuf;
use std::sync::Arc;

use telltale_features::vector::FeatureVector;

use crate::ModelError;
use crate::calibration::CalibrationTable;
use crate::score::{Attribution, Lane, Scores};

/// How models are loaded and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The ONNX Runtime library: what `ORT_DYLIB_PATH` or the configuration names.
    pub library: PathBuf,
    /// Worker slots: each gets its own session of every ONNX model.
    pub lanes: usize,
    /// Transactions of this site's own that calibrate a model.
    pub calibration_rows: u64,
    /// Trust the calibration that came with a version instead of the site's own. For evaluation on the traffic it was made for.
    pub shipped_calibration: bool,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            library: PathBuf::from("target/onnxruntime/libonnxruntime.so"),
            lanes: 1,
            calibration_rows: 20_000,
            shipped_calibration: false,
        }
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

/// The models in force. Shared as `Arc<Bundle>`; clones share everything loaded.
#[derive(Clone, Default)]
pub struct Bundle {
    failures: Vec<Failure>,
}

impl Bundle {
    /// No models: rules decide alone.
    pub fn none() -> Self {
        Self::default()
    }

    /// Models that could not be loaded.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The scores of one row.
    pub fn score(&self, vector: &FeatureVector, lane: Lane) -> Scores {
        let _ = (vector, lane);
        Scores::default()
    }

    /// Why the champions scored this row as they did: at most five features a model, largest part first.
    pub fn explain(&self, vector: &FeatureVector, scores: &Scores, lane: Lane) -> Vec<Attribution> {
        let _ = (vector, scores, lane);
        Vec::new()
    }

    /// The same bundle with one model's calibration replaced: its role becomes champion.
    ///
    /// # Errors
    /// [`ModelError::Data`] when no such model is loaded.
    pub fn with_calibration(&self, model: &str, table: CalibrationTable) -> Result<Self, ModelError> {
        let _ = table;
        Err(ModelError::Data(format!("model `{model}` is not loaded")))
    }
}
