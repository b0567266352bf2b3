//! How often each bucket came, in tiles: what entropy, shares, ranks, robust baselines and successions are read from.
//!
//! Spilled buckets enter with their time; weights within a window leave. A histogram stands in 6 tiles a window and a seventh for the
//! tail, of which a share is counted. Replicas' cells add up one by one, so merging is exact up to [`most`] cells; beyond, the oldest
//! tile goes, and the window is shorter by it. Successions (pairs of buckets) join where one part ends and the other begins.
//!
//! Magnitudes: eight buckets to a doubling, linear within it as in HdrHistogram, so at most an eighth wide; worked out on integers,
//! so that every machine sorts alike.

use super::NEVER;
use super::plan::Scale;
use super::tiles::Stretch;

/// Tiles of a window.
pub(crate) const TILES: i64 = 6;
/// Tiles kept: the window and its tail.
pub(crate) const KEPT: i64 = TILES + 1;
/// Cells of a histogram: beyond, the oldest tile goes, and in a single tile no further bucket begins.
pub(crate) const fn most(scale: Scale) -> usize {
    match scale {
        Scale::Cells | Scale::Successions => 512,
        // A population's: twenty routes make up to 400 steps, in each of seven tiles.
        Scale::Pairs => 4_096,
        // Every bucket of one tile.
        Scale::Magnitudes => 600,
    }
}
/// Cells that a member can fall into.
pub(crate) const STATES: u16 = 64;
/// Values nearer to zero than 2⁻⁴ share a bucket: that power of two as a fixed-point word.
const LEAST: u32 = 12;
/// The greatest power of two of a value word.
const GREATEST: u32 = 48;
/// The bucket of values about zero; above it the positive ones, below the negative ones.
const ZERO: u16 = ((GREATEST - LEAST + 1) * 8) as u16;

/// Width of a tile, microseconds.
pub(crate) fn width(window: i64) -> i64 {
    window.saturating_add(TILES - 1) / TILES
}

/// One bucket of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub tile: i64,
    pub bucket: u16,
    /// Never 0.
    pub count: i32,
}

/// Where successions begin and end: time and cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub first: (i64, u16),
    pub last: (i64, u16),
}

/// One section.
// INVARIANT: cells are sorted by tile and bucket, without repeats, and none is older than `KEPT` tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// Number of the newest tile.
    pub newest: i64,
    pub cells: Vec<Cell>,
    pub ends: Option<Ends>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { newest: NEVER, cells: Vec::new(), ends: None }
    }
}

impl Histogram {
    pub(crate) fn is_empty(&self) -> bool {
        self.newest == NEVER && self.ends.is_none()
    }

    /// Bytes on the heap, by content.
    pub(crate) fn bytes(&self) -> usize {
        if self.cells.is_empty() { 0 } else { self.cells.len().next_power_of_two() * size_of::<Cell>() }
    }

    /// Adds to a bucket of a tile; what is older than all that is kept adds nothing.
    fn add(&mut self, scale: Scale, tile: i64, bucket: u16, count: i32) {
        if tile > self.newest {
            self.newest = tile;
            self.cells.retain(|cell| cell.tile > tile - KEPT);
        } else if tile <= self.newest - KEPT {
            return;
        }
        match self.cells.binary_search_by_key(&(tile, bucket), |cell| (cell.tile, cell.bucket)) {
            Ok(at) => {
                let sum = self.cells.get_mut(at).map_or(0, |cell| {
                    cell.count = cell.count.saturating_add(count);
                    cell.count
                });
                if sum == 0 {
                    self.cells.remove(at);
                }
            }
            Err(at) => self.begin(scale, at, Cell { tile, bucket, count }),
        }
    }

    /// A cell that was not there. A client that invents paths makes as many steps as there are pairs: it shortens its own window.
    fn begin(&mut self, scale: Scale, at: usize, cell: Cell) {
        if self.cells.len() < most(scale) {
            return self.cells.insert(at, cell);
        }
        let oldest = self.cells.first().map_or(cell.tile, |first| first.tile.min(cell.tile));
        if oldest == self.newest {
            return;
        }
        self.cells.retain(|known| known.tile > oldest);
        if cell.tile > oldest {
            let at = self.cells.partition_point(|known| (known.tile, known.bucket) < (cell.tile, cell.bucket));
            self.cells.insert(at, cell);
        }
    }

    /// Takes in a spilled bucket, or takes it back.
    pub(crate) fn spill(&mut self, (scale, width): (Scale, i64), time: i64, bucket: u16, sign: i32) {
        if scale != Scale::Successions {
            return self.add(scale, time.div_euclid(width), bucket, sign);
        }
        let Some(ends) = self.ends else {
            self.ends = Some(Ends { first: (time, bucket), last: (time, bucket) });
            return;
        };
        // One between the ends would split a step that is counted already: it adds nothing.
        if time >= ends.last.0 {
            self.add(scale, time.div_euclid(width), pair(ends.last.1, bucket), 1);
            self.ends = Some(Ends { last: (time, bucket), ..ends });
        } else if time < ends.first.0 {
            self.add(scale, ends.first.0.div_euclid(width), pair(bucket, ends.first.1), 1);
            self.ends = Some(Ends { first: (time, bucket), ..ends });
        }
    }

    /// Adds another one, and the step that joins both when one ends before the other begins.
    pub(crate) fn merge(&mut self, other: &Self, (scale, width): (Scale, i64)) {
        if other.newest > self.newest {
            self.newest = other.newest;
            self.cells.retain(|cell| cell.tile > other.newest - KEPT);
        }
        for cell in &other.cells {
            self.add(scale, cell.tile, cell.bucket, cell.count);
        }
        match (self.ends, other.ends) {
            (Some(ours), Some(theirs)) => {
                if theirs.first.0 >= ours.last.0 {
                    self.add(scale, theirs.first.0.div_euclid(width), pair(ours.last.1, theirs.first.1), 1);
                } else if theirs.last.0 <= ours.first.0 {
                    self.add(scale, ours.first.0.div_euclid(width), pair(theirs.last.1, ours.first.1), 1);
                }
                let first = if theirs.first.0 < ours.first.0 { theirs.first } else { ours.first };
                let last = if theirs.last.0 > ours.last.0 { theirs.last } else { ours.last };
                self.ends = Some(Ends { first, last });
            }
            (None, theirs) => self.ends = theirs,
            (Some(_), None) => {}
        }
    }

    /// Each bucket of a tile that reaches into the stretch, with the share of it that counts and the tile's number.
    pub(crate) fn weights(&self, stretch: Stretch) -> impl Iterator<Item = (u16, f64, i64)> + '_ {
        let begin = stretch.begin();
        let from = begin.map_or(self.cells.len(), |begin| self.cells.partition_point(|cell| cell.tile < begin));
        let inside = self.cells.get(from..).unwrap_or_default();
        inside.iter().map(move |cell| (cell.bucket, f64::from(cell.count) * stretch.share_of(cell.tile).unwrap_or(1.0), cell.tile))
    }
}

impl Histogram {
    /// Where steps lead that begin on a cell: the same as [`Self::weights`], and only those are looked at.
    pub(crate) fn steps_from(&self, from: u16, stretch: Stretch) -> impl Iterator<Item = (u16, f64)> + '_ {
        let oldest = stretch.begin().map_or(i64::MAX, |begin| begin.max(self.newest.saturating_sub(KEPT)));
        (oldest..=self.newest).flat_map(move |tile| {
            let at = |bucket: u16| self.cells.partition_point(|cell| (cell.tile, cell.bucket) < (tile, bucket));
            let row = self.cells.get(at(from * STATES)..at(from * STATES + STATES)).unwrap_or_default();
            let share = stretch.share_of(tile).unwrap_or(1.0);
            row.iter().map(move |cell| (cell.bucket % STATES, f64::from(cell.count) * share))
        })
    }
}

/// The number of a step as a value.
pub(crate) fn step(from: f64, to: f64) -> f64 {
    from * f64::from(STATES) + to
}

/// The bucket of a step.
pub(crate) const fn pair(from: u16, to: u16) -> u16 {
    from % STATES * STATES + to % STATES
}

/// The bucket of a value word.
pub(crate) fn bucket(scale: Scale, word: i64) -> u16 {
    match scale {
        Scale::Cells | Scale::Successions => ((word >> 16) as u16) % STATES,
        Scale::Pairs => ((word >> 16) as u16) % (STATES * STATES),
        Scale::Magnitudes => {
            let size = word.unsigned_abs();
            let exponent = 63_u32.saturating_sub(size.leading_zeros());
            if exponent < LEAST {
                return ZERO;
            }
            let exponent = exponent.min(GREATEST);
            let step = (exponent - LEAST) as u16 * 8 + ((size >> (exponent - 3)) & 7) as u16 + 1;
            if word < 0 { ZERO - step.min(ZERO) } else { ZERO + step }
        }
    }
}

/// Buckets that a scale has.
pub(crate) const fn buckets(scale: Scale) -> u16 {
    match scale {
        Scale::Cells => STATES,
        Scale::Magnitudes => 2 * ZERO + 1,
        Scale::Successions | Scale::Pairs => STATES * STATES,
    }
}

/// From where to where the values of a bucket of magnitudes lie.
pub(crate) fn bounds(bucket: u16) -> (f64, f64) {
    let of = |step: u16| {
        let step = f64::from(step);
        ((step / 8.0).floor() + f64::from(LEAST) - 16.0).exp2() * (1.0 + (step % 8.0) / 8.0)
    };
    match bucket.cmp(&ZERO) {
        std::cmp::Ordering::Equal => (-of(0), of(0)),
        std::cmp::Ordering::Greater => (of(bucket - ZERO - 1), of(bucket - ZERO)),
        std::cmp::Ordering::Less => (-of(ZERO - bucket), -of(ZERO - bucket - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(word in -(1_i64 << 48)..=(1_i64 << 48)) {
            let value = word as f64 / 65_536.0;
            let bucket = bucket(Scale::Magnitudes, word);
            prop_assert!(bucket < buckets(Scale::Magnitudes));
            let (low, high) = bounds(bucket);
            prop_assert!(low <= value && value <= high, "{value} is not in {low}..{high}");
            prop_assert!(high - low <= 0.1251 * value.abs().max(1.0));
        }
    }
}
