//! The state of one entity: a compact, mergeable blob, and the only code that knows what is in it.
//!
//! `decode`, `apply(event)`, `merge(delta)`, `read(now)`, `encode`: no I/O, no clock, no configuration but the [`plan::EntityPlan`].
//! The same code serves online, in replay and between replicas, so a count means the same everywhere.

pub mod plan;
pub mod slots;
