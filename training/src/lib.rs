//! The native trainer: a feature file enters, a published version of a native model leaves. Never serves.
//!
//! [`features`] reads what `telltale replay --features` writes, a [`Recipe`] fits, [`train`] splits by time, calibrates, reports and publishes.
//! Every random choice comes from a seed: the same rows and options give the same bytes on one CPU type.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::allow_attributes))]

pub mod features;
pub mod forest;
pub mod half_space;
pub mod linear;
pub mod metrics;
mod recipe;
mod scaled;
mod train;

pub use recipe::{Fitted, Recipe};
pub use train::{TrainOptions, Trained, train};
