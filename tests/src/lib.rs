//! What the end-to-end suites, the fuzzer and the benches share: real processes on free ports, load with honest latencies,
//! and a target for every parser of foreign bytes.
//!
//! Everything started here listens on loopback, is bounded in count and time, and is ended by its own process id.

pub mod bench;
pub mod fuzz;
pub mod http;
pub mod load;
pub mod mmdb;
pub mod pacer;
pub mod process;
pub mod redis;
pub mod stand;
mod tcp_proxy;
pub mod traffic;
pub mod web;
