//! How many values, their sum and the sum of their squares, in tiles.
//!
//! Spilled values enter with their time and sign; a standard deviation leaves. Sums are fixed-point integers, the squares in 128
//! bits, so replicas add them up exactly and a spread that is small beside the mean is not lost.
//!
//! Layout of a section: the number of the newest tile, then 13 cells of (count, Σ v, high and low half of Σ v²).

use super::NEVER;
use super::ring::VALUE_SCALE;
use super::tiles::{self, CELLS, Stretch};

/// Words of a cell.
pub(crate) const LANES: usize = 4;
/// Words of a section.
pub(crate) const WORDS: usize = 1 + CELLS * LANES;

/// Count, sum and squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    count: i64,
    sum: i64,
    squares: i128,
    /// The share of the tile in which the window begins.
    part: [f64; 3],
}

fn squares_of(high: i64, low: i64) -> i128 {
    (i128::from(high) << 64) | i128::from(low as u64)
}

impl Moments {
    /// Adds a value, or takes it back.
    pub(crate) fn add(&mut self, value: i64, sign: i64) {
        self.count = self.count.saturating_add(sign);
        self.sum = self.sum.saturating_add(value.saturating_mul(sign));
        self.squares = self.squares.saturating_add(i128::from(value) * i128::from(value) * i128::from(sign));
    }

    fn of(cell: &[i64]) -> Self {
        match *cell {
            [count, sum, high, low] => Self { count, sum, squares: squares_of(high, low), part: [0.0; 3] },
            _ => Self::default(),
        }
    }

    fn put(self, cell: &mut [i64]) {
        if let [count, sum, high, low] = cell {
            (*count, *sum, *high, *low) = (self.count, self.sum, (self.squares >> 64) as i64, self.squares as i64);
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            sum: self.sum.saturating_add(other.sum),
            squares: self.squares.saturating_add(other.squares),
            part: self.part,
        }
    }

    /// Adds what tiles hold.
    pub(crate) fn add_tiles(&mut self, section: &[i64], stretch: Stretch) {
        let Some((newest, cells)) = section.split_first() else { return };
        let Some(tiles) = tiles::reached(*newest, stretch) else { return };
        for index in tiles {
            let cell = Self::of(tiles::lanes_of::<LANES>(cells, index));
            match stretch.share_of(index) {
                None => *self = self.plus(cell),
                Some(share) => self.part = [cell.count as f64, cell.sum as f64, cell.squares as f64].map(|all| all * share),
            }
        }
    }

    /// The standard deviation of the population, √(Σ(v − m)²/n); `None` with fewer than 2 values. Exact up to the rounding of its
    /// root while no tile counts by a share; then within 2⁻²⁶ of the mean.
    pub(crate) fn deviation(&self) -> Option<f64> {
        let [part_count, part_sum, part_squares] = self.part;
        let count = self.count as f64 + part_count;
        if count < 2.0 {
            return None;
        }
        let whole = i128::from(self.count).checked_mul(self.squares).zip(i128::from(self.sum).checked_mul(self.sum.into()));
        let deviation = match whole.and_then(|(squares, sum)| squares.checked_sub(sum)).filter(|_| part_count == 0.0) {
            Some(spread) => (spread.max(0) as f64).sqrt() / count,
            None => {
                let mean = (self.sum as f64 + part_sum) / count;
                ((self.squares as f64 + part_squares) / count - mean * mean).max(0.0).sqrt()
            }
        };
        Some(deviation / VALUE_SCALE)
    }
}

/// Takes in a value, or takes it back.
pub(crate) fn add(section: &mut [i64], width: i64, time: i64, (value, sign): (i64, i64)) {
    let Some((newest, cells)) = section.split_first_mut() else { return };
    if let Some(cell) = tiles::cell_of::<LANES>(newest, cells, time.div_euclid(width), 0) {
        let mut moments = Moments::of(cell);
        moments.add(value, sign);
        moments.put(cell);
    }
}

/// Adds another section, tile by tile.
pub(crate) fn merge(ours: &mut [i64], theirs: &[i64]) {
    let (Some((newest, cells)), Some((other, theirs))) = (ours.split_first_mut(), theirs.split_first()) else { return };
    if *other == NEVER {
        return;
    }
    for index in (0..CELLS as i64).rev().map(|back| other.saturating_sub(back)) {
        let theirs = tiles::lanes_of::<LANES>(theirs, index);
        if index != *other && theirs.iter().all(|word| *word == 0) {
            continue;
        }
        if let Some(ours) = tiles::cell_of::<LANES>(newest, cells, index, 0) {
            Moments::of(ours).plus(Moments::of(theirs)).put(ours);
        }
    }
}
