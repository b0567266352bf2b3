//! Gaps between successive events: how many, the sum and the squares of ln Δt, in tiles.
//!
//! Spilled times enter one by one; moments of ln Δt leave. Δt is in seconds, at least 1 ms; logarithms are fixed-point at 2⁻¹⁶,
//! so that replicas add them up exactly. A gap belongs to the time of its later event.
//!
//! Layout of a section: first and latest time spilled, number of the newest tile, then 13 cells of (gaps, Σ ln Δt, Σ ln² Δt).

use super::tiles::{self, CELLS, Stretch};
use super::{NEVER, layout::Span};

/// Words before the cells.
pub(crate) const HEADS: usize = 3;
/// Words of a cell.
pub(crate) const LANES: usize = 3;
/// Words of a section.
pub(crate) const WORDS: usize = HEADS + CELLS * LANES;

const SCALE: f64 = 65_536.0;

/// Count, sum and squares of ln Δt, as in a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub whole: [i64; LANES],
    pub part: [f64; LANES],
}

/// A section taken apart.
pub(crate) struct Parts<'a> {
    pub first: &'a mut i64,
    pub last: &'a mut i64,
    pub newest: &'a mut i64,
    pub cells: &'a mut [i64],
}

impl<'a> Parts<'a> {
    pub(crate) fn of(section: &'a mut [i64]) -> Option<Self> {
        match section {
            [first, last, newest, cells @ ..] => Some(Self { first, last, newest, cells }),
            _ => None,
        }
    }
}

fn lanes(gap: i64) -> [i64; LANES] {
    let ln = (gap as f64 / 1e6).max(1e-3).ln();
    [1, (ln * SCALE).round() as i64, (ln * ln * SCALE).round() as i64]
}

impl Moments {
    /// Adds one gap, microseconds.
    pub(crate) fn add(&mut self, gap: i64) {
        self.whole.iter_mut().zip(lanes(gap)).for_each(|(total, lane)| *total = total.saturating_add(lane));
    }

    /// Adds what tiles hold.
    pub(crate) fn add_tiles(&mut self, newest: i64, cells: &[i64], stretch: Stretch) {
        let (whole, part) = tiles::total::<LANES>(newest, cells, stretch);
        self.whole.iter_mut().zip(whole).for_each(|(total, lane)| *total = total.saturating_add(lane));
        self.part.iter_mut().zip(part).for_each(|(total, lane)| *total += lane);
    }

    /// Gaps, mean and standard deviation of ln Δt; `None` with fewer than 2 gaps.
    pub(crate) fn statistics(&self) -> Option<(f64, f64)> {
        let [count, sum, squares] = [0, 1, 2].map(|lane| {
            let whole = self.whole.get(lane).copied().unwrap_or_default() as f64;
            whole + self.part.get(lane).copied().unwrap_or_default()
        });
        (count >= 2.0).then(|| {
            let mean = sum / count / SCALE;
            (mean, (squares / count / SCALE - mean * mean).max(0.0).sqrt())
        })
    }
}

/// Takes in a spilled time. One between the first and the latest would split a gap that is already counted: it adds nothing.
pub(crate) fn spill(section: &mut [i64], width: i64, time: i64) {
    let Some(parts) = Parts::of(section) else { return };
    if *parts.last == NEVER {
        (*parts.first, *parts.last) = (time, time);
    } else if time >= *parts.last {
        record(parts.newest, parts.cells, time.div_euclid(width), time - *parts.last);
        *parts.last = time;
    } else if time < *parts.first {
        record(parts.newest, parts.cells, parts.first.div_euclid(width), *parts.first - time);
        *parts.first = time;
    }
}

fn record(newest: &mut i64, cells: &mut [i64], index: i64, gap: i64) {
    if let Some(cell) = tiles::cell::<LANES>(newest, cells, index) {
        cell.iter_mut().zip(lanes(gap)).for_each(|(total, lane)| *total = total.saturating_add(lane));
    }
}

/// Adds another section, and the gap that joins both when one ends before the other begins.
pub(crate) fn merge(ours: &mut [i64], theirs: &[i64], span: Span) {
    let (Some(parts), [first, last, newest, cells @ ..]) = (Parts::of(ours), theirs) else { return };
    tiles::merge::<LANES>(parts.newest, parts.cells, *newest, cells);
    if *last == NEVER {
        return;
    }
    if *parts.last == NEVER {
        (*parts.first, *parts.last) = (*first, *last);
        return;
    }
    if first >= parts.last {
        record(parts.newest, parts.cells, first.div_euclid(span.width), first - *parts.last);
    } else if last <= parts.first {
        record(parts.newest, parts.cells, parts.first.div_euclid(span.width), *parts.first - last);
    }
    *parts.first = (*parts.first).min(*first);
    *parts.last = (*parts.last).max(*last);
}
