//! From a row of numbers to calibrated scores and the reasons for them.
//!
//! A [`telltale_features::vector::FeatureVector`] enters, [`Scores`] and [`Attribution`]s leave. Models live in a [`Repository`] of
//! immutable, digest-verified versions; what one verdict is scored with is a [`Bundle`]. Nothing here reads a clock or the
//! environment, knows a policy or a store, or decides anything.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::allow_attributes))]

mod bundle;
pub mod calibration;
mod error;
mod explain;
pub mod forest;
mod onnx;
pub mod repository;
mod score;
pub mod table;

pub use bundle::{Bundle, Failure, RuntimeOptions};
pub use calibration::{CalibrationTable, Calibrator, CalibratorOptions, Finished};
pub use error::ModelError;
pub use repository::Repository;
pub use score::{Attribution, Calibrated, Lane, ModelScore, Role, Scores};
