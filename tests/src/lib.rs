//! What the end-to-end suites and the benches share: real processes on free ports, and load with honest latencies.
//!
//! Everything started here listens on loopback, is bounded in count and time, and is ended by its own process id.

pub mod load;
pub mod process;
pub mod traffic;
