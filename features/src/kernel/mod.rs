//! The state of one entity: a compact, mergeable blob, and the only code that knows what is in it.
//!
//! `decode`, `apply(event)`, `merge(delta)`, `read(now)`, `encode`: no I/O, no clock, no configuration but the [`plan::EntityPlan`],
//! compiled once into a [`Layout`]. The same code serves online, in replay and between replicas, so a count means the same everywhere.
//!
//! The last 16 events stay in the ring as they are; what the ring gives up is *spilled* into tiles. A read adds both, so a window
//! that nothing spilled reaches into is exact, whatever the order in which events came or replicas were merged.

mod codec;
mod distinct;
mod exercise;
mod extremes;
mod gaps;
mod histogram;
mod latest;
mod layout;
mod matured;
mod merge;
mod moments;
mod read;
mod recent;
mod ring;
mod sparse;
mod state;
#[cfg(test)]
mod tests;
mod thinned;
mod tiles;
mod wire;

pub mod plan;
pub mod slots;

pub use codec::DecodeError;
pub use exercise::Exercise;
pub use layout::Layout;
pub use state::{EntityState, Flush, WriterId};

/// The number of a step between two cells as a value of an event.
pub(crate) fn step(from: f64, to: f64) -> f64 {
    histogram::step(from, to)
}

/// Most cells of a histogram of that scale.
pub(crate) const fn histogram_cells(scale: plan::Scale) -> usize {
    histogram::most(scale)
}

/// Most cells of a page, and of the sample beside it.
pub(crate) const PAGE_CELLS: (usize, usize) = (distinct::PAGE, thinned::MOST);

/// Times further than this from 1970 are clamped: about ±36,000 years, so that differences never overflow.
pub(crate) const TIME_LIMIT: i64 = 1 << 60;

/// "No time yet", in fields that hold microseconds.
pub(crate) const NEVER: i64 = i64::MIN;
