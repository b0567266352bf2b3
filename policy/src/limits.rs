//! Rate limits: the generic cell rate algorithm (ITU-T I.371) on a bucket of the entity's policy state.
//!
//! Exact within one replica, because state is read and written in one section of the store's order.

use telltale_features::entity::EntityType;
use telltale_features::kernel::slots::{PolicyState, Slot, SlotChange};
use telltale_features::time::Timestamp;

use crate::rule::Limit;

/// Spends one cell. `Some(wait)`: it exceeds the rate, nothing is spent, and after `wait` microseconds one would conform.
pub(crate) fn exceeds(state: &mut PolicyState, kind: EntityType, limit: &Limit, now: Timestamp) -> Option<i64> {
    let arrival = match state.get(kind, limit.tag) {
        Some(Slot::Bucket { arrival }) => arrival,
        _ => now,
    };
    let tolerance = limit.interval_us.saturating_mul(i64::from(limit.burst.saturating_sub(1)));
    let wait = arrival.micros_since(now).saturating_sub(tolerance);
    if wait > 0 {
        return Some(wait);
    }
    state.change(kind, limit.tag, SlotChange::Spend { at: now, increment_us: limit.interval_us });
    None
}
