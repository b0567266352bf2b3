//! The proxy in-process between a fake upstream and a fake scorer, over loopback sockets.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    clippy::disallowed_methods,
    reason = "tests may"
)]

mod actions;
mod decisions;
mod faults;
mod hygiene;
mod limits;
mod passive;
mod smuggling;
mod streaming;
mod support;
