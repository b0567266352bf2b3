//! `manifest.toml` of a version: text enters, checked values leave. Unknown keys are refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `model.onnx`, by ONNX Runtime.
    Onnx,
    /// `model.bin`, a native isolation forest.
    Forest,
    /// `model.bin`, the reconstruction error of principal components.
    Pca,
    /// `model.bin`, the distance to the nearest component of a Gaussian mixture.
    Gmm,
    /// `model.bin`, the distance to the nearest centroid.
    Kmeans,
    /// `model.bin`, the probability of a logistic regression.
    Logistic,
    /// `model.bin`, streaming half-space trees.
    #[serde(rename = "half-space")]
    HalfSpace,
}

impl Kind {
    /// As manifests name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Forest => "forest",
            Self::Pca => "pca",
            Self::Gmm => "gmm",
            Self::Kmeans => "kmeans",
            Self::Logistic => "logistic",
            Self::HalfSpace => "half-space",
        }
    }

    /// Name of the model's file.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Onnx => "model.onnx",
            _ => "model.bin",
        }
    }

    /// Whether it is evaluated here, to the same bits on every machine, and takes no NaN.
    pub const fn is_native(self) -> bool {
        !matches!(self, Self::Onnx)
    }
}

/// Which way a version came into the repository. It decides where the version runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Made here, by `telltale train` or `make train`, or shipped.
    #[default]
    Own,
    /// By `telltale models publish`.
    Published,
    /// Dropped into the inbox.
    Inbox,
}

impl Origin {
    /// As manifests name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Published => "published",
            Self::Inbox => "inbox",
        }
    }

    /// Whether it was made here.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// The manifest itself.
pub const MANIFEST: &str = "manifest.toml";
/// Stored calibration of a version, if it has one.
pub const CALIBRATION: &str = "calibration.json";
/// Rows with the score that the model gave them when it was made.
pub const GOLDEN: &str = "golden.parquet";
/// Figures of the training run.
pub const REPORT: &str = "report.json";
/// How the rows of the training window were distributed, if it says so.
pub const PROFILE: &str = "profile.json";
const FILES: [&str; 6] = ["model.onnx", "model.bin", CALIBRATION, GOLDEN, REPORT, PROFILE];

/// `manifest.toml`: what a version is, reads and gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What runs it.
    pub kind: Kind,
    /// One line in plain words.
    #[serde(default)]
    pub description: String,
    /// SPDX expression.
    pub licence: String,
    /// Which way it came; never taken from what a foreign author wrote.
    #[serde(default, skip_serializing_if = "Origin::is_own")]
    pub origin: Origin,
    /// What comes out.
    #[serde(default)]
    pub output: Output,
    /// What it was trained on.
    pub training: Training,
    /// BLAKE3 of each file of the version, 64 hexadecimal digits.
    pub files: BTreeMap<String, String>,
    /// Figures on held-out rows, as in the report.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The inputs in the model's order.
    pub inputs: Vec<Input>,
}

/// Which number of an ONNX model is the score.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Name of the output; absent: the last output of float32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its column; absent: the last, which of two class probabilities is the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// How the score is made of it.
    #[serde(default, skip_serializing_if = "Form::is_direct")]
    pub form: Form,
    /// Whether lower numbers are more suspicious, as scikit-learn's outlier detectors say it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub negate: bool,
}

/// How the score is made of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One of its numbers is the score.
    #[default]
    Direct,
    /// It is the row rebuilt; the score is the mean squared difference.
    Reconstruction,
}

impl Form {
    /// Whether one of the numbers is the score.
    pub fn is_direct(&self) -> bool {
        *self == Self::Direct
    }
}

/// What a version was trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// First transaction time, in microseconds since 1970.
    pub from_us: i64,
    /// Last transaction time.
    pub to_us: i64,
    /// Rows.
    pub rows: u64,
    /// Digest of the feature schema.
    #[serde(default)]
    pub schema: String,
    /// Seed of every random choice.
    #[serde(default)]
    pub seed: u64,
}

/// One input of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The feature.
    pub name: String,
    /// Its definition hash when the model was trained: 16 hexadecimal digits.
    pub hash: String,
    /// Median of the training rows: what is usual.
    pub usual: f64,
    /// Half the width between the quartiles of the training rows.
    #[serde(default)]
    pub spread: f64,
    /// What stands for a missing value.
    #[serde(default)]
    pub missing: Missing,
}

/// What a model gets for a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Missing {
    /// This number.
    Value(f64),
    /// By name.
    Named(Named),
}

impl Default for Missing {
    fn default() -> Self {
        Self::Named(Named::Usual)
    }
}

/// Named replacements for a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Named {
    /// NaN itself: the model handles it.
    Nan,
    /// The usual value.
    Usual,
}

impl Input {
    /// The number that stands for a missing value.
    pub fn fill(&self) -> f64 {
        match self.missing {
            Missing::Value(value) => value,
            Missing::Named(Named::Nan) => f64::NAN,
            Missing::Named(Named::Usual) => self.usual,
        }
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Invalid`] with what is wrong, where and what is allowed.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::io("read", path))?;
        Self::parse(path, &text)
    }

    /// Checks the text of a manifest, which was read there.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] with what is wrong, where and what is allowed.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ModelError> {
        let manifest: Self = toml::from_str(text).map_err(|error| ModelError::invalid(path, error.to_string()))?;
        manifest.check().map_err(|problem| ModelError::invalid(path, problem))?;
        Ok(manifest)
    }

    /// The manifest as it is stored.
    ///
    /// # Errors
    /// [`ModelError::Data`] when a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, ModelError> {
        toml::to_string(self).map_err(|error| ModelError::Data(format!("the manifest cannot be written: {error}")))
    }

    fn check(&self) -> Result<(), String> {
        for name in self.files.keys() {
            if !FILES.contains(&name.as_str()) {
                return Err(format!("files: `{name}` is not allowed, only {}", FILES.join(", ")));
            }
        }
        for name in [self.kind.file(), GOLDEN] {
            if !self.files.contains_key(name) {
                return Err(format!("files: `{name}` is missing, every version of this kind has it"));
            }
        }
        if !(1..=4096).contains(&self.inputs.len()) {
            return Err(format!("{} inputs, allowed are 1 to 4096", self.inputs.len()));
        }
        for (at, input) in self.inputs.iter().enumerate() {
            if !input.usual.is_finite() || !input.spread.is_finite() {
                return Err(format!("input `{}`: usual and spread must be finite", input.name));
            }
            if let Missing::Value(value) = input.missing
                && !value.is_finite()
            {
                return Err(format!("input `{}`: missing must be a finite number, \"nan\" or \"usual\"", input.name));
            }
            if self.kind.is_native() && input.missing == Missing::Named(Named::Nan) {
                let kind = self.kind.name();
                return Err(format!("input `{}`: a {kind} takes no NaN; missing must be a number or \"usual\"", input.name));
            }
            if self.inputs.iter().take(at).any(|other| other.name == input.name) {
                return Err(format!("input `{}` is named twice", input.name));
            }
        }
        Ok(())
    }
}
