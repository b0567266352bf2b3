//! The inline proxy: stands before an API, asks the scorer about every request, and does what the verdict says.
//!
//! What enters is HTTP/1.1 from clients and decisions from the scorer; what leaves is clean HTTP/1.1 to the upstream,
//! transactions and outcomes to the scorer. It holds no policy, scores nothing, and lets requests pass when no verdict can be
//! had in time (unless their route fails closed).

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::allow_attributes,
        reason = "tests may"
    )
)]

pub mod aggregates;
pub mod alarm;
pub mod answers;
pub mod bucket;
pub mod clock;
pub mod config;
pub mod decisions;
pub mod decoy;
pub mod download;
pub mod hops;
pub mod hygiene;
pub mod id;
pub mod metrics;
mod proxy;
pub mod scorer;
mod server;
pub mod transaction;
pub mod upload;

pub use config::{ConfigError, Flags, Settings};
pub use server::{Running, StartError, start};
