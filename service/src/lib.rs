//! The scorer's service: gRPC in front, journal behind, the whole way of a transaction between, live and in replay.
//!
//! What enters is wire messages, files and commands; what leaves is verdicts, journals, reports. Decisions are made by the
//! policy crate, numbers by features and models: nothing of that kind happens here.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::allow_attributes,
        reason = "tests may unwrap"
    )
)]

mod cipher;
pub mod claim;
pub mod cli;
pub mod config;
pub mod convert;
pub mod demo;
pub mod error;
pub mod eval;
pub mod geo;
pub mod idempotency;
pub mod in_force;
pub mod journal;
pub mod mirror;
pub mod replay;
pub mod score;
pub mod server;
pub mod setup;
pub mod simulate;
pub mod snapshot;
mod stamp;
pub mod token;
pub mod transfer;
pub mod verdict;
pub mod warming;
