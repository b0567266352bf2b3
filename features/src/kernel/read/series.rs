//! A window as people look at it: what fell into each twelfth of it.
//!
//! A state, a read and an instant enter, twelve amounts leave. For eyes only: no feature and no decision uses it.

use crate::time::Timestamp;

use super::super::layout::{Layout, Section, Span};
use super::super::plan::{AccumulatorId, Read};
use super::super::recent::Recent;
use super::super::ring::{MISSING, VALUE_SCALE};
use super::super::state::EntityState;
use super::super::tiles::{CELLS, TILES, WORDS, lanes_of};
use super::super::{NEVER, TIME_LIMIT};

/// Twelfths of a window.
const PARTS: usize = TILES as usize;

impl EntityState {
    /// What fell into each twelfth of the window that ends at `now`, oldest first, of a read that adds up: a count, a sum, the count
    /// behind a mean, or the numerator of a ratio. `None` for every other read.
    pub fn series(&self, layout: &Layout, read: Read, now: Timestamp) -> Option<[f64; PARTS]> {
        let at = self.high_water.max(now.micros().clamp(-TIME_LIMIT, TIME_LIMIT));
        match read {
            Read::Count(id) | Read::Mean { count: id, .. } | Read::Ratio { part: id, .. } | Read::Sum(id) => self.amounts(layout, id, at),
            _ => None,
        }
    }

    fn amounts(&self, layout: &Layout, id: AccumulatorId, at: i64) -> Option<[f64; PARTS]> {
        let (filter, value, span) = match layout.section(id)? {
            Section::Count { filter, span } => (filter, None, span),
            Section::Sum { filter, value, span } => (filter, Some(value), span),
            _ => return None,
        };
        let scale = if value.is_some() { VALUE_SCALE } else { 1.0 };
        let newest = at.div_euclid(span.width);
        let mut amounts = [0.0; PARTS];
        for (amount, index) in amounts.iter_mut().zip(newest - (TILES - 1)..=newest) {
            *amount = self.spilled(layout, span, index) as f64 / scale;
        }
        let recent = Recent::new(&self.ring, layout.stride);
        for row in recent.rows_of(recent.passing(filter)) {
            let word = match value.map(|value| row.value(value)) {
                Some(MISSING) => continue,
                Some(word) => word,
                None => 1,
            };
            let place = row.time().div_euclid(span.width) - (newest - (TILES - 1));
            if let Some(amount) = usize::try_from(place).ok().and_then(|place| amounts.get_mut(place)) {
                *amount += (word * row.sign()) as f64 / scale;
            }
        }
        Some(amounts)
    }

    /// What the tile of that number holds.
    fn spilled(&self, layout: &Layout, span: Span, index: i64) -> i64 {
        let offsets = self.sparse.offsets(layout);
        match self.sparse.part(offsets.of(span.part), WORDS) {
            [newest, cells @ ..] if *newest != NEVER && index <= *newest && index > newest - CELLS as i64 => {
                lanes_of::<1>(cells, index).first().copied().unwrap_or_default()
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{SECOND, START, event, plan};
    use super::*;

    #[test]
    fn a_series_adds_up_to_what_the_window_holds() {
        let layout = Layout::new(plan(&[3_600]));
        let mut state = EntityState::default();
        // Twice as many in each five minutes as in those before; far more than the ring holds.
        let mut expected = [0.0; PARTS];
        let start = START.div_euclid(300 * SECOND) * 300 * SECOND;
        for (part, expected) in expected.iter_mut().enumerate() {
            for second in 0..(part as i64 + 1) * 5 {
                state.apply(&layout, &event(start + (part as i64 * 300 + second) * SECOND));
                *expected += 1.0;
            }
        }
        let now = Timestamp::from_micros(start + 3_599 * SECOND);
        let reads = &layout.plan().reads;
        let count = reads.iter().copied().find(|read| matches!(read, Read::Count(_))).unwrap();
        assert_eq!(state.series(&layout, count, now), Some(expected));
        assert_eq!(state.read(&layout, None, now)[reads.iter().position(|read| *read == count).unwrap()], expected.iter().sum::<f64>());
        // Ten minutes later the two oldest twelfths are gone and two empty ones have come.
        let later = state.series(&layout, count, Timestamp::from_micros(now.micros() + 600 * SECOND)).unwrap();
        assert_eq!((&later[..10], &later[10..]), (&expected[2..], &[0.0, 0.0][..]));
        let age = reads.iter().copied().find(|read| matches!(read, Read::Age(_))).unwrap();
        assert_eq!(state.series(&layout, age, now), None);
    }
}
