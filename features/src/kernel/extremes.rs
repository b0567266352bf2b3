//! The greatest value of each tile: maximum, and minimum as the greatest of the negated values.
//!
//! Spilled values enter with their time; the greatest within a window leaves. Replicas' tiles meet by maximum, so merging is exact.
//! The tile in which the window begins counts whole: what left the window less than a twelfth of it ago may still stand.
//!
//! Layout of a section: the number of the newest tile, then 13 cells, `MISSING` where nothing is.

use super::NEVER;
use super::ring::MISSING;
use super::tiles::{self, CELLS, Stretch};

/// Words of a section; each says [`MISSING`] at first.
pub(crate) const WORDS: usize = 1 + CELLS;

/// Takes in a value.
pub(crate) fn add(section: &mut [i64], width: i64, time: i64, value: i64) {
    let Some((newest, cells)) = section.split_first_mut() else { return };
    if let Some([greatest]) = tiles::cell_of::<1>(newest, cells, time.div_euclid(width), MISSING) {
        *greatest = (*greatest).max(value);
    }
}

/// Takes in another section, tile by tile.
pub(crate) fn merge(ours: &mut [i64], theirs: &[i64]) {
    let (Some((newest, cells)), Some((other, theirs))) = (ours.split_first_mut(), theirs.split_first()) else { return };
    if *other == NEVER {
        return;
    }
    for index in (0..CELLS as i64).rev().map(|back| other.saturating_sub(back)) {
        let theirs = tiles::lanes_of::<1>(theirs, index).first().copied().unwrap_or(MISSING);
        // An empty tile moves nothing but the newest one, which clears what has left the window.
        if index != *other && theirs == MISSING {
            continue;
        }
        if let Some([ours]) = tiles::cell_of::<1>(newest, cells, index, MISSING) {
            *ours = (*ours).max(theirs);
        }
    }
}

/// The greatest value in the stretch; [`MISSING`] when there is none.
pub(crate) fn greatest(section: &[i64], stretch: Stretch) -> i64 {
    let Some((newest, cells)) = section.split_first() else { return MISSING };
    tiles::reached(*newest, stretch).map_or(MISSING, |tiles| {
        let cells = tiles.map(|index| tiles::lanes_of::<1>(cells, index).first().copied().unwrap_or(MISSING));
        cells.max().unwrap_or(MISSING)
    })
}
