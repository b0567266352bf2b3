//! The oldest copy that answered lately, for whoever asks and however often.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::time::Timestamp;

/// Length of a period, microseconds: what is told covers the last one or two of them.
const PERIOD: i64 = 60_000_000;

/// Greatest ages of this period and of the one before. Two threads at the turn of a period may lose an age; a gauge can bear that.
#[derive(Debug, Default)]
pub(super) struct Ages {
    period: AtomicI64,
    current: AtomicU64,
    before: AtomicU64,
}

impl Ages {
    /// Notes an age, microseconds.
    pub(super) fn note(&self, age: u64, now: Timestamp) {
        self.turn(now);
        self.current.fetch_max(age, Ordering::Relaxed);
    }

    /// The greatest age of the last one to two minutes, microseconds. Asking changes nothing.
    pub(super) fn greatest(&self, now: Timestamp) -> u64 {
        self.turn(now);
        self.current.load(Ordering::Relaxed).max(self.before.load(Ordering::Relaxed))
    }

    fn turn(&self, now: Timestamp) {
        let period = now.micros().div_euclid(PERIOD);
        let known = self.period.load(Ordering::Relaxed);
        if period > known && self.period.compare_exchange(known, period, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let last = self.current.swap(0, Ordering::Relaxed);
            self.before.store(if period == known + 1 { last } else { 0 }, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scraper_is_told_the_same_and_an_age_is_forgotten_after_two_periods() {
        let ages = Ages::default();
        let at = |seconds: i64| Timestamp::from_micros(1_767_225_600_000_000 + seconds * 1_000_000);
        ages.note(700, at(0));
        ages.note(300, at(1));
        assert_eq!((ages.greatest(at(2)), ages.greatest(at(2))), (700, 700));
        ages.note(200, at(61));
        assert_eq!(ages.greatest(at(119)), 700);
        assert_eq!(ages.greatest(at(121)), 200);
        assert_eq!(ages.greatest(at(400)), 0);
    }
}
