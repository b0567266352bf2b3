//! What a replica adds to a stored state: a delta, and how it is joined to what another one stored.
//!
//! A state and a delta enter, their sum leaves.

use crate::kernel::plan::AccumulatorKind;
use crate::kernel::{EntityState, Layout};
use crate::time::Timestamp;

/// What was applied since the last seal.
#[derive(Debug)]
pub(super) struct Delta {
    pub state: EntityState,
    /// The earliest event in it.
    pub first: Timestamp,
}

/// Adds a delta to a state. A tombstone on either side drops whole what is not later than it.
pub(super) fn join(state: &mut EntityState, layout: &Layout, delta: &Delta) {
    match (state.tombstone(), delta.state.tombstone()) {
        (Some(ours), theirs) if theirs.is_none_or(|theirs| theirs <= ours) => {
            if delta.first <= ours {
                return;
            }
        }
        (_, Some(theirs)) => state.bury(theirs),
        (_, None) => {}
    }
    state.merge(layout, &delta.state);
}

/// The longest window of a plan.
pub(super) fn longest(layout: &Layout) -> std::time::Duration {
    let windows = layout.plan().accumulators.iter().map(|accumulator| match accumulator.kind {
        AccumulatorKind::Count { window, .. } | AccumulatorKind::Sum { window, .. } | AccumulatorKind::Interarrival { window, .. } => {
            window
        }
        AccumulatorKind::Extreme { window, .. } | AccumulatorKind::Moments { window, .. } | AccumulatorKind::Histogram { window, .. } => {
            window
        }
        AccumulatorKind::Matured { window, delay, .. } => window + delay,
        AccumulatorKind::Distinct { horizon, .. } => horizon,
        AccumulatorKind::Seen { .. } | AccumulatorKind::Latest { .. } | AccumulatorKind::Position { .. } => layout.plan().ttl,
    });
    windows.max().unwrap_or_default()
}
