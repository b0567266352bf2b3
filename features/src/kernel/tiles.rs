//! Tiles: what was spilled, by stretches of a twelfth of the window.
//!
//! A time and an amount enter, the amount within a window leaves. Tiles stand on an absolute grid, so two replicas' tiles add up
//! one by one. Twelve tiles make the window; the thirteenth holds the tail, of which a share is counted.
//!
//! Layout of a section: the number of the newest tile, then 13 cells of `LANES` words, tile `i` in cell `i mod 13`.

use super::NEVER;

/// Tiles of a window.
pub(crate) const TILES: i64 = 12;
/// Cells kept: the window and its tail.
pub(crate) const CELLS: usize = 13;
/// Words of a section with one lane.
pub(crate) const WORDS: usize = 1 + CELLS;

/// Width of a tile, microseconds: 12 of them cover the window.
pub(crate) fn width(window: i64) -> i64 {
    window.saturating_add(TILES - 1) / TILES
}

/// A window as it stands at an instant: the same for every section that has it, so worked out once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch {
    /// Number of the tile in which the window begins: of its events a share counts.
    tail: i64,
    share: f64,
    /// Whether anything that was spilled reaches into the window.
    reached: bool,
}

impl Stretch {
    /// The stretch `(start, now]` in tiles of that width. Spilled events end at `spilled_until`, so a tail tile is taken to be filled
    /// evenly up to there and no further.
    #[inline]
    pub(crate) fn new(start: i64, width: i64, spilled_until: i64) -> Self {
        if width <= 0 || spilled_until <= start {
            return Self::default();
        }
        let tail = start.div_euclid(width);
        let begin = tail.saturating_mul(width);
        let end = begin.saturating_add(width).min(spilled_until.saturating_add(1));
        let share = (end - start - 1).max(0) as f64 / (end - begin).max(1) as f64;
        Self { tail, share, reached: true }
    }

    /// The tile in which it begins; `None` when nothing that was spilled reaches into it.
    pub(crate) fn begin(self) -> Option<i64> {
        self.reached.then_some(self.tail)
    }

    /// The share of a tile that lies inside; `None` for all of it.
    pub(crate) fn share_of(self, index: i64) -> Option<f64> {
        (index == self.tail).then_some(self.share)
    }
}

fn place_of(index: i64) -> usize {
    usize::try_from(index.rem_euclid(CELLS as i64)).unwrap_or_default()
}

/// The cell of that tile, ready to be added to; tiles that leave the window are cleared. `None` when the tile has left already.
pub(crate) fn cell<'a, const LANES: usize>(newest: &mut i64, cells: &'a mut [i64], index: i64) -> Option<&'a mut [i64]> {
    cell_of::<LANES>(newest, cells, index, 0)
}

/// The same where an empty word is not 0.
pub(crate) fn cell_of<'a, const LANES: usize>(newest: &mut i64, cells: &'a mut [i64], index: i64, empty: i64) -> Option<&'a mut [i64]> {
    if *newest == NEVER {
        *newest = index;
    } else if index > *newest {
        if index.saturating_sub(*newest) >= CELLS as i64 {
            cells.fill(empty);
        } else {
            for passed in (*newest + 1)..=index {
                let at = place_of(passed) * LANES;
                cells.get_mut(at..at + LANES)?.fill(empty);
            }
        }
        *newest = index;
    } else if index <= newest.saturating_sub(CELLS as i64) {
        return None;
    }
    let at = place_of(index) * LANES;
    cells.get_mut(at..at + LANES)
}

/// The tiles that the stretch takes in, the one in which it begins included; `None` when there are none.
pub(crate) fn reached(newest: i64, stretch: Stretch) -> Option<std::ops::RangeInclusive<i64>> {
    let begin = stretch.tail.max(newest.saturating_sub(CELLS as i64 - 1));
    (newest != NEVER && stretch.reached && begin <= newest).then_some(begin..=newest)
}

/// Adds to the tile of that time.
pub(crate) fn add(section: &mut [i64], width: i64, time: i64, amount: i64) {
    let Some((newest, cells)) = section.split_first_mut() else { return };
    if let Some([total]) = cell::<1>(newest, cells, time.div_euclid(width)) {
        *total = total.saturating_add(amount);
    }
}

/// Adds the cells of another section, tile by tile.
pub(crate) fn merge<const LANES: usize>(newest: &mut i64, cells: &mut [i64], other_newest: i64, other: &[i64]) {
    if other_newest == NEVER {
        return;
    }
    for index in (0..CELLS as i64).rev().map(|back| other_newest.saturating_sub(back)) {
        let at = place_of(index) * LANES;
        let Some(theirs) = other.get(at..at + LANES) else { continue };
        // An empty tile moves nothing but the newest one, which clears what has left the window.
        if index != other_newest && theirs.iter().all(|word| *word == 0) {
            continue;
        }
        if let Some(ours) = cell::<LANES>(newest, cells, index) {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours = ours.saturating_add(*theirs));
        }
    }
}

/// Totals in the stretch: whole tiles as they are, and the tail tile by its share.
pub(crate) fn total<const LANES: usize>(newest: i64, cells: &[i64], stretch: Stretch) -> ([i64; LANES], [f64; LANES]) {
    let (mut whole, mut part) = ([0_i64; LANES], [0.0; LANES]);
    let Stretch { tail, share, reached } = stretch;
    if newest == NEVER || !reached || tail > newest {
        return (whole, part);
    }
    let oldest = newest.saturating_sub(CELLS as i64 - 1);
    let inside = (tail + 1).max(oldest)..=newest;
    match sums::<LANES>(cells) {
        // Most often all cells but one lie inside: what lies outside is taken off the sum of all.
        Some(all) => {
            whole = all;
            for outside in oldest..*inside.start() {
                let lanes = lanes_of::<LANES>(cells, outside);
                whole.iter_mut().zip(lanes).for_each(|(total, lane)| *total -= lane);
            }
        }
        None => {
            for index in inside {
                let lanes = lanes_of::<LANES>(cells, index);
                whole.iter_mut().zip(lanes).for_each(|(total, lane)| *total = total.saturating_add(*lane));
            }
        }
    }
    if tail >= oldest {
        let lanes = lanes_of::<LANES>(cells, tail);
        part.iter_mut().zip(lanes).for_each(|(part, lane)| *part = *lane as f64 * share);
    }
    (whole, part)
}

pub(crate) fn lanes_of<const LANES: usize>(cells: &[i64], index: i64) -> &[i64] {
    let at = place_of(index) * LANES;
    cells.get(at..at + LANES).unwrap_or_default()
}

/// The sum of all cells; `None` when one is so large that the order of saturating additions could matter.
fn sums<const LANES: usize>(cells: &[i64]) -> Option<[i64; LANES]> {
    const LARGE: i64 = 1 << 58;
    let (mut sums, mut sizes) = ([0_i64; LANES], 0_u64);
    for lanes in cells.chunks_exact(LANES) {
        for (sum, lane) in sums.iter_mut().zip(lanes) {
            *sum = sum.wrapping_add(*lane);
            // Within ±2⁵⁸ this stays below 2⁵⁹, and an `or` of such numbers too.
            sizes |= lane.wrapping_add(LARGE) as u64;
        }
    }
    (sizes < 2 * LARGE as u64).then_some(sums)
}
