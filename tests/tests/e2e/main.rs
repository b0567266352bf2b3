//! The end-to-end suites, one module each, in one binary so that linking is paid once.
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

mod alone;
mod bad_http;
mod bad_input;
mod disk;
mod drop_in;
mod erasure;
mod flood;
mod fuzzing;
mod geo;
mod killed;
mod many_scorers;
mod models;
mod operations;
mod parity;
mod proxying;
mod recorder;
mod recovery;
mod refusals;
mod replicas;
mod rolling;
mod rotation;
mod shared_state;
mod signatures;
mod simulator;
mod snapshots;
mod stage;
mod stores;
mod strict;
mod swaps;
mod templates;
mod wire;
