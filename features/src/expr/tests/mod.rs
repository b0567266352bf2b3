//! The compiler against the specification's cases, against the interpreter, and against its own pinned cases.

mod conformance;
mod flat;
mod generate;
mod interpreter;
mod pinned;
mod textproto;
