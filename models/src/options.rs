//! How models are loaded and run: plain values that the configuration gives.

use std::path::PathBuf;

use crate::contain::Containment;
use crate::judge::Limits;
use crate::trust::Trust;

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
    /// Most bytes of model files times sessions that are held in memory.
    pub max_bytes: u64,
    /// How foreign models are contained; `None`: they are refused.
    pub containment: Option<Containment>,
    /// Which ONNX models run contained.
    pub contained: Which,
    /// What a foreign model may be.
    pub limits: Limits,
    /// Whose signatures are believed, and what must be signed.
    pub trust: Trust,
}

/// Which ONNX models run in workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Those that were not made here.
    #[default]
    Foreign,
    /// All of them.
    All,
    /// None: every model is trusted.
    None,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        let library = PathBuf::from("target/onnxruntime/libonnxruntime.so");
        Self {
            library,
            lanes: 1,
            calibration_rows: 20_000,
            shipped_calibration: false,
            max_bytes: 1 << 30,
            containment: None,
            contained: Which::default(),
            limits: Limits::default(),
            trust: Trust::default(),
        }
    }
}
