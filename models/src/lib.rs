//! From a row of numbers to calibrated scores and the reasons for them.
//!
//! A [`telltale_features::vector::FeatureVector`] enters, [`Scores`] and [`Attribution`]s leave. Models live in a [`Repository`] of
//! immutable, digest-verified versions; what one verdict is scored with is a [`Bundle`]. Nothing here reads a clock or the
//! environment, knows a policy or a store, or decides anything.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::allow_attributes))]

mod batch;
mod bundle;
mod bytes;
pub mod calibration;
pub mod contain;
mod error;
mod explain;
#[cfg(test)]
mod exports_tests;
pub mod forest;
pub mod half_space;
pub mod intake;
pub mod judge;
pub mod linear;
mod loader;
mod onnx;
mod options;
pub mod profile;
pub mod repository;
pub mod scale;
mod score;
mod slot;
mod state;
pub mod table;
pub mod trust;
mod what_if;

pub use batch::{BATCH, Served};
pub use bundle::{Bundle, Failure, Rival};
pub use calibration::{CalibrationTable, Calibrator, CalibratorOptions, Finished};
pub use error::ModelError;
pub use explain::Risk;
pub use loader::{Loader, ModelState, Status};
pub use options::{RuntimeOptions, Which};
pub use repository::Repository;
pub use score::{Absent, Asked, Attribution, Calibrated, Lane, ModelScore, Role, Scores};
pub use state::State;
pub use what_if::Change;
