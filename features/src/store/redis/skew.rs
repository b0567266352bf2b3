//! The replica's clock beside the store's: the offset, slewed so that time never jumps.
//!
//! Measurements enter, the correction leaves. STATE, time: the median over masters; more than a second is reported.

use std::sync::atomic::{AtomicI64, Ordering};

/// From here on the difference is worth a report, microseconds.
const REPORTED: i64 = 1_000_000;
/// Differences below this are the network's, microseconds.
const NOISE: i64 = 2_000;

/// The correction of this replica's clock.
#[derive(Debug, Default)]
pub(super) struct Skew {
    applied: AtomicI64,
    measured: AtomicI64,
}

impl Skew {
    /// What to add to the own clock.
    pub(super) fn correction(&self) -> i64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// The difference last measured: the store's clock less this one.
    pub(super) fn measured(&self) -> i64 {
        self.measured.load(Ordering::Relaxed)
    }

    /// Whether it is worth a report.
    pub(super) fn is_large(&self) -> bool {
        self.measured().abs() > REPORTED
    }

    /// Takes the differences to each master, measured `elapsed` microseconds after the last time; `None` at the start, when nothing was
    /// timed yet and the correction may be taken at once. Later it moves by at most a tenth of the time that passed.
    pub(super) fn measure(&self, mut differences: Vec<i64>, elapsed: Option<i64>) {
        if differences.is_empty() {
            return;
        }
        differences.sort_unstable();
        let median = differences.get(differences.len() / 2).copied().unwrap_or_default();
        self.measured.store(median, Ordering::Relaxed);
        let applied = self.correction();
        let off = median - applied;
        if off.abs() > NOISE {
            let step = elapsed.map_or(i64::MAX, |elapsed| elapsed / 10);
            self.applied.store(applied + off.clamp(-step, step), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurement_counts_at_once_and_later_ones_slowly() {
        let skew = Skew::default();
        skew.measure(vec![10_000_000, 10_000_200, -5], None);
        assert_eq!(skew.correction(), 10_000_000);
        assert!(skew.is_large());
        skew.measure(vec![10_001_000], Some(1_000_000));
        assert_eq!(skew.correction(), 10_000_000, "noise moves nothing");
        skew.measure(vec![0], Some(1_000_000));
        assert_eq!(skew.correction(), 9_900_000);
        assert!(!skew.is_large());
        skew.measure(Vec::new(), Some(1));
        assert_eq!(skew.measured(), 0);
    }
}
