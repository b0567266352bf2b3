//! How large an entity's blob can become: the sum over its sections, each at its worst.

use crate::kernel::plan::{AccumulatorKind, EntityPlan, Scale};

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
/// Count, sum and squares: four lanes, of which the squares may take ten bytes each.
const MOMENTS: usize = 8 + 13 * (3 + 8 + 20);
/// Cells of a histogram and bytes of each: tile, bucket, count.
const HISTOGRAM: usize = 600 * 6;
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
        AccumulatorKind::Seen { .. } | AccumulatorKind::Latest { .. } => 16,
        AccumulatorKind::Position { .. } => 24,
        AccumulatorKind::Extreme { .. } => TILES,
        AccumulatorKind::Moments { .. } => MOMENTS,
        AccumulatorKind::Histogram { scale, .. } => HISTOGRAM + if matches!(scale, Scale::Successions) { 26 } else { 0 },
        AccumulatorKind::Matured { window, delay, .. } => {
            // Twelve tiles a window, over window and delay.
            let windows = 2 + delay.as_secs() / if window.as_secs() == 0 { 1 } else { window.as_secs() };
            8 * (3 + 12 * if windows > 10 { 10 } else { windows as usize })
        }
    }
}
