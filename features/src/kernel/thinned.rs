//! Distinct members beyond a page: a multiresolution bitmap of timestamped cells.
//!
//! Members (mixed hashes) and seconds enter; how many were last seen after an instant leaves. Half of the members go to no level, a
//! quarter to the first, an eighth to the second, and so on; each level has 160 cells with the second in which a member of that cell
//! was last seen. Levels that are not crowded are counted as a page is and their sum is scaled up (Estan, Varghese and Fisk, Bitmap
//! algorithms for counting active flows on high-speed links, 2006). Cells are kept in a list, because few are in use until there are
//! thousands of members. Merge: cell-wise maximum. Measured: 5.5 to 6.5 % RMSE from 1,500 to 100,000 members; a timestamped HyperLogLog
//! of the same error needs as many cells, which come and go with each member where these stay.

/// Cells of a level.
const CELLS: u16 = 160;
/// Levels; the last one also takes what would go further: about 1.7 million members can be told.
const LEVELS: u16 = 12;
/// A level of which more than this part is in use counts no more.
const CROWDED: f64 = 0.93;
/// Cells that there can be.
pub(crate) const MOST: usize = (CELLS * LEVELS) as usize;

/// The cells in use: number, and the second in which a member of it was last seen.
// INVARIANT: sorted by number without repeats, numbers below `MOST`, no second is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thinned(Vec<(u16, u32)>);

/// The cell of a member; `None` for the half that goes to no level.
fn cell(mixed: u64) -> Option<u16> {
    let level = (mixed.trailing_zeros() as u16).min(LEVELS).checked_sub(1)?;
    let place = ((mixed >> 32) * u64::from(CELLS)) >> 32;
    Some(level * CELLS + place as u16)
}

impl Thinned {
    /// Cells as they stand in a blob; `None` when they cannot be such.
    pub(crate) fn from_sorted(cells: Vec<(u16, u32)>) -> Option<Self> {
        let sorted = cells.is_sorted_by(|(a, _), (b, _)| a < b);
        let known = cells.iter().all(|(cell, second)| usize::from(*cell) < MOST && *second != 0);
        (sorted && known).then_some(Self(cells))
    }

    /// Number and second of each cell in use, ascending.
    pub(crate) fn cells(&self) -> &[(u16, u32)] {
        &self.0
    }

    /// Bytes on the heap, by content.
    pub(crate) fn bytes(&self) -> usize {
        if self.0.is_empty() { 0 } else { self.0.len().next_power_of_two() * size_of::<(u16, u32)>() }
    }

    /// Takes in a member by its mixed hash.
    pub(crate) fn insert(&mut self, mixed: u64, second: u32) {
        if let Some(cell) = cell(mixed) {
            self.raise(cell, second);
        }
    }

    fn raise(&mut self, cell: u16, second: u32) {
        match self.0.binary_search_by_key(&cell, |(known, _)| *known) {
            Ok(at) => {
                if let Some((_, last)) = self.0.get_mut(at) {
                    *last = (*last).max(second);
                }
            }
            Err(at) => self.0.insert(at, (cell, second)),
        }
    }

    /// Takes in another one's cells.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(cell, second)| self.raise(*cell, *second));
    }

    /// Drops what was last seen before that second.
    pub(crate) fn settle(&mut self, edge: u32) {
        self.0.retain(|(_, last)| *last >= edge);
    }

    /// How many members were last seen after the second `edge`, of which a `share` lies inside. Whole numbers and a level at a time: a
    /// sample of a thousand cells is read with every transaction of a busy entity, for each of its windows.
    pub(crate) fn count(&self, edge: u32, share: f64) -> f64 {
        let cells = f64::from(CELLS);
        let (mut told, mut base, mut rest) = (0.0, None, self.0.as_slice());
        for level in 0..LEVELS {
            let (own, further) = rest.split_at(rest.partition_point(|(cell, _)| *cell < (level + 1) * CELLS));
            rest = further;
            let (mut after, mut within) = (0_u32, 0_u32);
            for (_, last) in own {
                after += u32::from(*last > edge);
                within += u32::from(*last == edge);
            }
            let occupied = f64::from(after) + f64::from(within) * share;
            if base.is_none() && (occupied <= CROWDED * cells || level + 1 == LEVELS) {
                base = Some(level);
            }
            if base.is_some() && occupied > 0.0 {
                told -= cells * (1.0 - occupied.min(cells - 0.5) / cells).ln();
            }
        }
        told * (f64::from(base.unwrap_or(0)) + 1.0).exp2()
    }
}
