//! Weights in a window that ended some time ago: transactions old enough to have their labels.
//!
//! Spilled weights enter with their time; the weight within `[end − window, end)` leaves, `end` being the delay before the instant of
//! the read. Tiles are a twelfth of the window and reach over window and delay; of the tiles in which the window begins and ends a
//! share counts. Replicas' tiles add up one by one.
//!
//! Layout of a section: the number of the newest tile, then the cells.

use super::NEVER;
use super::tiles;

/// Longest delay in windows: what a section may take.
pub(crate) const LONGEST: i64 = 9;

/// Cells that cover window and delay.
pub(crate) fn cells(window: i64, delay: i64) -> usize {
    let whole = window.saturating_add(delay.min(window.saturating_mul(LONGEST)));
    usize::try_from(whole / tiles::width(window).max(1)).unwrap_or_default() + 2
}

fn place(cells: &[i64], index: i64) -> usize {
    usize::try_from(index.rem_euclid(cells.len().max(1) as i64)).unwrap_or_default()
}

/// Adds to the tile of that number.
fn add_to(section: &mut [i64], index: i64, weight: i64) {
    let Some((newest, cells)) = section.split_first_mut() else { return };
    let kept = cells.len() as i64;
    if *newest == NEVER || index.saturating_sub(*newest) >= kept {
        cells.fill(0);
        *newest = index;
    }
    while *newest < index {
        *newest += 1;
        let at = place(cells, *newest);
        if let Some(cell) = cells.get_mut(at) {
            *cell = 0;
        }
    }
    if index > *newest - kept {
        let at = place(cells, index);
        if let Some(cell) = cells.get_mut(at) {
            *cell = cell.saturating_add(weight);
        }
    }
}

/// Adds to the tile of that time.
pub(crate) fn add(section: &mut [i64], window: i64, time: i64, weight: i64) {
    add_to(section, time.div_euclid(tiles::width(window).max(1)), weight);
}

/// Adds another section, tile by tile.
pub(crate) fn merge(ours: &mut [i64], theirs: &[i64]) {
    let Some((newest, cells)) = theirs.split_first().filter(|(newest, _)| **newest != NEVER) else { return };
    add_to(ours, *newest, 0);
    for index in (newest - cells.len() as i64 + 1)..=*newest {
        let weight = cells.get(place(cells, index)).copied().unwrap_or_default();
        if weight != 0 {
            add_to(ours, index, weight);
        }
    }
}

/// The weight in `[start, end)`; what was spilled ends at `spilled_until`, so no tile is taken to be filled further.
pub(crate) fn total(section: &[i64], (start, end): (i64, i64), width: i64, spilled_until: i64) -> f64 {
    let Some((newest, cells)) = section.split_first().filter(|(newest, _)| **newest != NEVER && width > 0) else { return 0.0 };
    let (mut whole, mut part) = (0_i64, 0.0);
    for index in start.div_euclid(width).max(newest - cells.len() as i64 + 1)..=(end - 1).div_euclid(width).min(*newest) {
        let weight = cells.get(place(cells, index)).copied().unwrap_or_default();
        let begin = index.saturating_mul(width);
        let filled = begin.saturating_add(width).min(spilled_until.saturating_add(1)).max(begin + 1);
        let inside = filled.min(end) - begin.max(start);
        if inside >= filled - begin {
            whole = whole.saturating_add(weight);
        } else {
            part += weight as f64 * inside.max(0) as f64 / (filled - begin) as f64;
        }
    }
    whole as f64 + part
}
