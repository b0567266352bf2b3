//! When a version is taken back without anybody asking: what was counted of it enters, a reason in words leaves.

use std::collections::VecDeque;

use super::compare::Comparison;

/// Rows whose times and errors are kept.
const KEPT: usize = 1_000;
/// Errors among the kept rows from which on a version is taken back.
const ERRORS: usize = 5;
/// Fewer rows than this say nothing about a 99th percentile.
const ROWS_FOR_TIMES: usize = 300;
/// Fewer rows than this say nothing about a distribution.
const ROWS_FOR_SCORES: u64 = 1_000;
/// Largest allowed ratio of the 99th percentiles of the time that models take.
const SLOWER: f64 = 1.5;
/// A difference below this, microseconds, hurts nobody: a row in a worker takes a tenth of a millisecond more than one in the scorer, and
/// on a busy machine now and then much more than that.
const SLOWER_US: f64 = 1_000.0;
/// Largest allowed population stability index.
const UNSTABLE: f64 = 0.25;
/// The alert rate may double or halve, and differ by one transaction in a hundred beyond that.
const ALERTS: (f64, f64) = (2.0, 0.01);

/// The last rows that a version answered, or did not.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Microseconds; `None`: no score.
    rows: VecDeque<Option<f64>>,
    errors: usize,
    /// Why there was no score the last time.
    problem: String,
}

impl Window {
    /// A row that it answered, with the time that all models took for it.
    pub fn answered(&mut self, micros: f64) {
        self.push(Some(micros));
    }

    /// A row that it did not answer.
    pub fn failed(&mut self, problem: &str) {
        self.push(None);
        problem.clone_into(&mut self.problem);
    }

    fn push(&mut self, row: Option<f64>) {
        self.errors += usize::from(row.is_none());
        self.rows.push_back(row);
        if self.rows.len() > KEPT
            && let Some(None) = self.rows.pop_front()
        {
            self.errors -= 1;
        }
    }

    fn p99(&self) -> Option<f64> {
        let mut times: Vec<f64> = self.rows.iter().copied().flatten().collect();
        if times.len() < ROWS_FOR_TIMES {
            return None;
        }
        times.sort_by(f64::total_cmp);
        times.get(times.len() * 99 / 100).copied()
    }

    /// Why this version must not answer any more.
    pub fn broken(&self) -> Option<String> {
        let (errors, rows) = (self.errors, self.rows.len());
        (errors >= ERRORS).then(|| format!("{errors} of the last {rows} rows got no score: {}", self.problem))
    }

    /// Why it is too slow beside the other.
    pub fn slower_than(&self, other: &Self) -> Option<String> {
        let (own, others) = (self.p99()?, other.p99()?);
        let slow = own > SLOWER * others && own > others + SLOWER_US;
        slow.then(|| format!("99 % of its rows take up to {own:.0} µs, {others:.0} µs without it; allowed is {SLOWER} times that"))
    }
}

/// Why a version's scores are too different from those that it replaces.
pub fn differs(comparison: &Comparison) -> Option<String> {
    if comparison.transactions < ROWS_FOR_SCORES {
        return None;
    }
    let index = comparison.stability_index();
    if index > UNSTABLE && comparison.is_comparable() {
        return Some(format!("the stability index of its scores is {index:.2}; allowed is {UNSTABLE}"));
    }
    let (baseline, version) = comparison.alert_rates();
    let (times, more) = ALERTS;
    let out = version > baseline * times + more || version < baseline / times - more;
    out.then(|| {
        format!(
            "it raises an alert on {:.2} % of the transactions, version {} on {:.2} %",
            100.0 * version,
            comparison.baseline,
            100.0 * baseline
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_errors_of_the_last_thousand_rows_are_enough() {
        let mut window = Window::default();
        for _ in 0..4 {
            window.failed("the score is NaN");
        }
        assert_eq!(window.broken(), None);
        window.failed("the score is NaN");
        assert_eq!(window.broken().unwrap(), "5 of the last 5 rows got no score: the score is NaN");
        for _ in 0..1_000 {
            window.answered(10.0);
        }
        assert_eq!(window.broken(), None);
    }

    #[test]
    fn slow_means_slower_than_the_other_and_by_more_than_noise() {
        let filled = |micros: f64| {
            let mut window = Window::default();
            (0..500).for_each(|_| window.answered(micros));
            window
        };
        assert!(filled(2_900.0).slower_than(&filled(1_500.0)).unwrap().contains("up to 2900 µs, 1500 µs"));
        assert_eq!(filled(4_300.0).slower_than(&filled(3_000.0)), None);
        assert_eq!(filled(900.0).slower_than(&filled(20.0)), None, "less than a millisecond more");
        assert_eq!(Window::default().slower_than(&filled(20.0)), None);
    }

    #[test]
    fn a_p_value_beside_a_probability_is_no_other_distribution() {
        use crate::server::models::compare::Pair;
        use telltale_features::time::Timestamp;
        use telltale_models::{Calibrated, ModelScore, Role};

        let score = |calibrated| ModelScore { model: "m".into(), version: 1, raw: 0.0, calibrated, role: Role::Champion };
        let pair = Pair { baseline: (false, 0.0), version: (false, 0.0) };
        let compared = |baseline: fn(f64) -> Calibrated| {
            let mut comparison = Comparison::begin(1, Timestamp::from_micros(0));
            for at in 0..1_000_u32 {
                let p = f64::from(at) / 1000.0;
                comparison.add("allow", pair, (&score(baseline(p)), &score(Calibrated::PValue(p))));
            }
            comparison
        };
        assert!(differs(&compared(|p| Calibrated::PValue(p * p * p))).unwrap().contains("stability index"));
        assert_eq!(differs(&compared(|p| Calibrated::Probability(1.0 - p * p * p))), None);
    }
}
