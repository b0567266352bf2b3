//! How large an entity's blob can become: the sum over its sections, each at its worst.

use crate::kernel::plan::{AccumulatorKind, EntityPlan, Read, Scale};
use crate::kernel::{PAGE_CELLS, histogram_cells};

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
/// Bytes of a histogram's cell: tiles back, bucket, count.
const HISTOGRAM_CELL: usize = 1 + 2 + 5;
/// Bytes of a page's cell: seconds since the oldest. A month of them takes four.
const PAGE_CELL: usize = 4;
/// Bytes of a cell of the sample beside a page: distance to the one before, and seconds.
const SAMPLE_CELL: usize = 1 + 4;

/// Bytes of the largest blob that the plan allows, distinct pages included.
pub fn worst_case(plan: &EntityPlan) -> usize {
    let event = 24 + 8 * plan.values.len() + 9 * plan.members.len();
    let sections: usize = plan.accumulators.iter().map(|accumulator| SECTION + section(accumulator.kind)).sum();
    FRAME + RING * event + sections + samples(plan) * PAGE_CELLS.1 * SAMPLE_CELL
}

/// How many sections keep a sample beside their page: those whose members are counted, not only told from new ones.
fn samples(plan: &EntityPlan) -> usize {
    let counted = |at: usize| plan.reads.iter().any(|read| matches!(read, Read::Distinct { of, .. } if usize::from(*of) == at));
    (0..plan.accumulators.len()).filter(|at| counted(*at)).count()
}

const fn section(kind: AccumulatorKind) -> usize {
    match kind {
        AccumulatorKind::Count { .. } | AccumulatorKind::Sum { .. } => TILES,
        AccumulatorKind::Distinct { .. } => PAGE_CELLS.0 * PAGE_CELL,
        AccumulatorKind::Interarrival { .. } => GAPS,
        AccumulatorKind::Seen { .. } | AccumulatorKind::Latest { .. } => 16,
        AccumulatorKind::Position { .. } => 24,
        AccumulatorKind::Extreme { .. } => TILES,
        AccumulatorKind::Moments { .. } => MOMENTS,
        AccumulatorKind::Histogram { scale, .. } => {
            histogram_cells(scale) * HISTOGRAM_CELL + if matches!(scale, Scale::Successions) { 26 } else { 0 }
        }
        AccumulatorKind::Matured { window, delay, .. } => {
            // Twelve tiles a window, over window and delay.
            let windows = 2 + delay.as_secs() / if window.as_secs() == 0 { 1 } else { window.as_secs() };
            8 * (3 + 12 * if windows > 10 { 10 } else { windows as usize })
        }
    }
}
