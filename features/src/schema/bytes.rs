//! How large an entity's blob can become: the sum over its sections, each at its worst.

use crate::kernel::plan::{AccumulatorKind, EntityPlan};

/// Header, at most 64 writers of 16 bytes, and policy slots.
const FRAME: usize = 64 + 64 * 16 + 512;
/// Events in the ring.
const RING: usize = 16;
/// Tag, length and tile bookkeeping of a section.
const SECTION: usize = 24;
/// Words of a section's tiles: the newest tile's number and 13 cells.
const TILES: usize = 8 * 14;
/// Three such lanes and the first and latest event.
const GAPS: usize = 8 * 45;
/// Cells of a page and bytes of each.
const PAGE: usize = 512 * 4;

/// Bytes of the largest blob that the plan allows, distinct pages included.
pub fn worst_case(plan: &EntityPlan) -> usize {
    let event = 24 + 8 * plan.values.len() + 9 * plan.members.len();
    let sections: usize = plan.accumulators.iter().map(|accumulator| SECTION + section(accumulator.kind)).sum();
    FRAME + RING * event + sections
}

const fn section(kind: AccumulatorKind) -> usize {
    match kind {
        AccumulatorKind::Count { .. } | AccumulatorKind::Sum { .. } => TILES,
        AccumulatorKind::Distinct { .. } => PAGE,
        AccumulatorKind::Interarrival { .. } => GAPS,
        AccumulatorKind::Seen { .. } => 16,
    }
}
