//! The ring: an entity's last 16 events as they came.
//!
//! Rows enter in any order and stand sorted; what no longer fits leaves, oldest first, to be spilled into tiles. The ring of a
//! union is the latest 16 of both rings, so merging is exact.
//!
//! A row is `[stamp, filters, value…]`: stamp is the time with the sign in its lowest bit (1 takes back), values are fixed-point,
//! `MISSING` where there is none.

use smallvec::SmallVec;

use crate::event::Event;

use super::layout::Layout;
use super::{NEVER, TIME_LIMIT};

/// Events kept.
pub(crate) const EVENTS: usize = 16;
/// A value that the event does not have.
pub(crate) const MISSING: i64 = i64::MIN;
/// Values are clamped to ±2³².
const VALUE_LIMIT: f64 = 4_294_967_296.0;
/// Fixed point of values: 2⁻¹⁶.
pub(crate) const VALUE_SCALE: f64 = 65_536.0;

/// The greatest value word: 2³² at that scale.
pub(crate) const VALUE_WORD: u64 = 1 << 48;

/// The words of one event: two and at most 16 values.
pub(crate) type Words = SmallVec<[i64; 18]>;

/// One event of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a>(pub &'a [i64]);

impl Row<'_> {
    #[inline]
    pub(crate) fn time(self) -> i64 {
        self.0.first().map_or(NEVER, |stamp| stamp >> 1)
    }

    /// +1, or −1 when it takes back.
    #[inline]
    pub(crate) fn sign(self) -> i64 {
        self.0.first().map_or(1, |stamp| 1 - 2 * (stamp & 1))
    }

    #[inline]
    pub(crate) fn filters(self) -> u64 {
        self.0.get(1).map_or(0, |filters| *filters as u64)
    }

    #[inline]
    pub(crate) fn value(self, value: usize) -> i64 {
        self.0.get(2 + value).copied().unwrap_or(MISSING)
    }
}

/// The row of an event.
pub(crate) fn row(layout: &Layout, event: &Event) -> Words {
    let mut words = Words::new();
    words.push(time_of(event) * 2 + i64::from(event.sign < 0));
    words.push((event.filters & layout.filters) as i64);
    let values = event.values.iter().copied().chain(std::iter::repeat(f64::NAN));
    words.extend(values.take(layout.stride - 2).map(fixed));
    words
}

/// The event's time within the kernel's limits.
pub(crate) fn time_of(event: &Event) -> i64 {
    event.time.micros().clamp(-TIME_LIMIT, TIME_LIMIT)
}

/// A value as a word.
pub(crate) fn fixed(value: f64) -> i64 {
    if value.is_nan() { MISSING } else { (value.clamp(-VALUE_LIMIT, VALUE_LIMIT) * VALUE_SCALE).round() as i64 }
}

/// The last events, oldest first, `stride` words each.
// INVARIANT: sorted, at most `EVENTS` rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    words: Vec<i64>,
}

impl Ring {
    /// Rows that are already sorted; `None` when they are not, or too many.
    pub(crate) fn from_sorted(words: Vec<i64>, stride: usize) -> Option<Self> {
        let sorted = words.chunks_exact(stride).zip(words.chunks_exact(stride).skip(1)).all(|(older, newer)| older <= newer);
        (sorted && words.len() <= EVENTS * stride).then_some(Self { words })
    }

    /// Oldest first.
    pub(crate) fn rows(&self, stride: usize) -> impl DoubleEndedIterator<Item = Row<'_>> + ExactSizeIterator {
        self.words.chunks_exact(stride).map(Row)
    }

    /// A number made of a word of each cache line.
    pub(crate) fn touch(&self) -> i64 {
        self.words.iter().step_by(8).fold(0, |all, word| all ^ word)
    }

    /// The row of that number, counted from the oldest.
    pub(crate) fn row(&self, number: usize, stride: usize) -> Option<Row<'_>> {
        self.words.get(number * stride..(number + 1) * stride).map(Row)
    }

    /// Bytes on the heap, by content and not by allocator: equal rings weigh the same.
    pub(crate) fn bytes(&self, stride: usize) -> usize {
        (self.words.len() / stride).next_power_of_two() * stride * 8 * usize::from(!self.words.is_empty())
    }

    /// Puts a row in its place. Returns the row that had to leave, which may be the new one.
    pub(crate) fn insert(&mut self, row: &[i64]) -> Option<Words> {
        let stride = row.len();
        let rows = self.words.len() / stride;
        let after = self.words.rchunks_exact(stride).take_while(|known| *known > row).count();
        let place = rows - after;
        if rows < EVENTS {
            self.grow(rows, stride);
            let at = place * stride;
            let end = self.words.len();
            self.words.extend_from_slice(row);
            self.words.copy_within(at..end, at + stride);
            if let Some(slot) = self.words.get_mut(at..at + stride) {
                slot.copy_from_slice(row);
            }
            return None;
        }
        if place == 0 {
            return Some(Words::from_slice(row));
        }
        let leaving = self.words.get(..stride).map(Words::from_slice);
        self.words.copy_within(stride..place * stride, 0);
        if let Some(slot) = self.words.get_mut((place - 1) * stride..place * stride) {
            slot.copy_from_slice(row);
        }
        leaving
    }

    fn grow(&mut self, rows: usize, stride: usize) {
        if rows == 0 || rows.is_power_of_two() {
            let want = if rows == 0 { 1 } else { rows * 2 } * stride;
            self.words.reserve_exact(want - self.words.len());
        }
    }
}
