//! The ring turned on its side: for each filter, which of the last 16 events pass it.
//!
//! A ring enters, row numbers as bits leave: how many events of a filter lie in a window is then one `and` and one count of bits
//! instead of a walk over the ring for every feature. Bit `i` is row `i`, oldest first.

use super::ring::{EVENTS, MISSING, Ring, Row};

/// The rows of a ring as bits.
pub(crate) struct Recent<'a> {
    ring: &'a Ring,
    stride: usize,
    rows: usize,
    times: [i64; EVENTS],
    /// Rows that take back.
    negative: u16,
    /// Entry `i`: the rows that pass filter `i`, `i + 16`, `i + 32` and `i + 48`, 16 bits each.
    passing: [u64; EVENTS],
}

impl<'a> Recent<'a> {
    #[inline]
    pub(crate) fn new(ring: &'a Ring, stride: usize) -> Self {
        let mut recent = Self { ring, stride, rows: 0, times: [0; EVENTS], negative: 0, passing: [0; EVENTS] };
        for ((row, time), filters) in ring.rows(stride).zip(&mut recent.times).zip(&mut recent.passing) {
            *time = row.time();
            *filters = row.filters();
            recent.negative |= u16::from(row.sign() < 0) << recent.rows;
            recent.rows += 1;
        }
        turn(&mut recent.passing);
        recent
    }

    /// Rows that happened after `start`.
    #[inline]
    pub(crate) fn after(&self, start: i64) -> u16 {
        let known = self.times.get(..self.rows).unwrap_or_default();
        let before = known.partition_point(|time| *time <= start);
        u16::MAX.checked_shl(before as u32).unwrap_or(0)
    }

    /// Rows that pass a filter, given as its bit.
    #[inline]
    pub(crate) fn passing(&self, filter: u64) -> u16 {
        let bit = filter.trailing_zeros() as usize;
        let four = self.passing.get(bit % EVENTS).copied().unwrap_or_default();
        four.checked_shr((bit / EVENTS * EVENTS) as u32).unwrap_or(0) as u16
    }

    /// Rows that pass a filter and do not take back.
    #[inline]
    pub(crate) fn adding(&self, filter: u64) -> u16 {
        self.passing(filter) & !self.negative
    }

    /// How many of these rows there are, those that take back counted as −1.
    #[inline]
    pub(crate) fn weight(&self, rows: u16) -> i64 {
        i64::from(rows.count_ones()) - 2 * i64::from((rows & self.negative).count_ones())
    }

    /// Sum of a value over these rows, as far as they have it.
    pub(crate) fn sum(&self, rows: u16, value: usize) -> i64 {
        let rows = self.rows_of(rows).filter(|row| row.value(value) != MISSING);
        rows.map(|row| row.value(value) * row.sign()).sum()
    }

    /// The time of each of these rows, oldest first.
    pub(crate) fn times(&self, rows: u16) -> impl Iterator<Item = i64> + '_ {
        super::sparse::Bits(rows.into()).filter_map(|row| self.times.get(row).copied())
    }

    /// Time, word and sign of a value of each of these rows that has it, oldest first.
    pub(crate) fn values(&self, rows: u16, value: usize) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        self.rows_of(rows).map(move |row| (row.time(), row.value(value), row.sign())).filter(|(_, word, _)| *word != MISSING)
    }

    /// These rows, oldest first.
    pub(crate) fn rows_of(&self, rows: u16) -> impl Iterator<Item = Row<'_>> {
        super::sparse::Bits(rows.into()).filter_map(|row| self.ring.row(row, self.stride))
    }
}

/// Transposes the four 16 × 16 bit squares that stand side by side: bit `j` of word `i` and bit `i` of word `j` of each change places.
/// Warren, Hacker's Delight, 7-3: swaps halves, then quarters, then eighths, without a branch.
fn turn(rows: &mut [u64; EVENTS]) {
    swap::<8>(rows, 0x00ff_00ff_00ff_00ff);
    swap::<4>(rows, 0x0f0f_0f0f_0f0f_0f0f);
    swap::<2>(rows, 0x3333_3333_3333_3333);
    swap::<1>(rows, 0x5555_5555_5555_5555);
}

fn swap<const APART: usize>(rows: &mut [u64; EVENTS], low: u64) {
    for block in rows.chunks_exact_mut(2 * APART) {
        let (upper, lower) = block.split_at_mut(APART);
        for (upper, lower) in upper.iter_mut().zip(lower) {
            let changed = ((*upper >> APART) ^ *lower) & low;
            *upper ^= changed << APART;
            *lower ^= changed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn turning_is_transposing(rows in prop::array::uniform16(any::<u64>())) {
            let mut turned = rows;
            turn(&mut turned);
            for (i, row) in rows.iter().enumerate() {
                for filter in 0..64 {
                    let passes = turned[filter % 16] >> (filter / 16 * 16 + i) & 1;
                    prop_assert_eq!(row >> filter & 1, passes);
                }
            }
        }
    }
}
