//! When a version is taken back without anybody asking: what was counted of it enters, a reason in words leaves.

use std::collections::VecDeque;

use super::compare::Comparison;

/// Rows whose times and errors are kept.
const KEPT: usize = 1_000;
/// Parts of them that are looked at by themselves. A machine that stands still for a moment delays rows that follow each other: up to a
/// quarter of them lie in two quarters at most.
const QUARTERS: usize = 4;
/// Errors among the kept rows from which on a version is taken back.
const ERRORS: usize = 5;
/// Fewer rows than this say nothing about a distribution.
const ROWS_FOR_SCORES: u64 = 1_000;
/// Largest allowed ratio of the 99th percentiles of the time that models take.
const SLOWER: f64 = 1.5;
/// Largest allowed population stability index of a version's scores beside those that it gave in shadow, beyond what its baseline's have in
/// the same time. Two good models may differ by any index: one ties where the other does not.
const UNSTABLE: f64 = 0.25;
/// The alert rate may double or halve, and differ by one transaction in a hundred beyond that: beside the baseline's, and beside its own in
/// shadow.
const ALERTS: (f64, f64) = (2.0, 0.01);
/// More alerts than on this share of the transactions are not in order because there were as many in shadow.
const MOST_ALERTS: f64 = 0.05;

/// The last rows that a version answered, or did not.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Microseconds; `None`: no score.
    rows: VecDeque<Option<f64>>,
    /// How many of them came since the version counts.
    own: usize,
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

    /// The version counts from now on, and is judged by the rows from now on; others go on being held against all of them.
    pub fn begin_trial(&mut self) {
        self.rows.retain(Option::is_some);
        (self.own, self.errors) = (0, 0);
    }

    fn push(&mut self, row: Option<f64>) {
        self.own = KEPT.min(self.own + 1);
        self.errors += usize::from(row.is_none());
        self.rows.push_back(row);
        if self.rows.len() > KEPT
            && let Some(None) = self.rows.pop_front()
        {
            self.errors -= 1;
        }
    }

    /// 99th percentile of the times in each quarter of the kept rows, ascending; `None` before [`KEPT`] rows, or without a time in one.
    fn p99(&self) -> Option<[f64; QUARTERS]> {
        let quarter = |number: usize| {
            let rows = self.rows.range(number * KEPT / QUARTERS..(number + 1) * KEPT / QUARTERS);
            let mut times: Vec<f64> = rows.copied().flatten().collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() * 99 / 100).copied()
        };
        if self.rows.len() < KEPT {
            return None;
        }
        let mut quarters = [0.0; QUARTERS];
        for (number, p99) in quarters.iter_mut().enumerate() {
            *p99 = quarter(number)?;
        }
        quarters.sort_by(f64::total_cmp);
        Some(quarters)
    }

    /// Why this version must not answer any more.
    pub fn broken(&self) -> Option<String> {
        let (errors, rows) = (self.errors, self.own);
        (errors >= ERRORS).then(|| format!("{errors} of the last {rows} rows got no score: {}", self.problem))
    }

    /// Why it is too slow beside the other: in all quarters of its rows but one, and slower than the other is in any but its slowest. A
    /// difference up to `more` microseconds hurts nobody: a row in a worker takes a tenth of a millisecond more than one in the scorer, and
    /// on a busy machine now and then much more than that.
    pub fn slower_than(&self, other: &Self, more: f64) -> Option<String> {
        let ([_, own, ..], [.., others, _]) = (self.p99()?, other.p99()?);
        if self.own < KEPT {
            return None;
        }
        let slow = own > SLOWER * others && own > others + more;
        slow.then(|| {
            format!(
                "99 % of its rows take up to {own:.0} µs or more, {others:.0} µs without it; allowed is {SLOWER} times that, or {more:.0} µs more"
            )
        })
    }
}

/// Why a version's scores are too different from those that it replaces. `resumed` says that it counted already when this process began.
pub fn differs(comparison: &Comparison, resumed: bool) -> Option<String> {
    if comparison.transactions < ROWS_FOR_SCORES {
        return None;
    }
    if let Some((own, others)) = comparison.drift(ROWS_FOR_SCORES)
        && own > UNSTABLE + others
    {
        return Some(format!(
            "the stability index of its scores beside those that it gave in shadow is {own:.2}, that of version {} in the same time {others:.2}; \
             allowed is {UNSTABLE} more",
            comparison.baseline
        ));
    }
    let (baseline, version) = comparison.alert_rates(ROWS_FOR_SCORES)?;
    let shadow = comparison.alert_rates_in_shadow(ROWS_FOR_SCORES);
    // How many alerts it raised in shadow is not known here, and may have been more than its baseline's.
    if resumed && shadow.is_none() {
        return None;
    }
    // Who put it on trial saw in shadow how many alerts it raises: that many, and as many as its baseline, are both in order.
    let shadow = shadow.map_or(baseline, |(_, version)| version.min(MOST_ALERTS));
    let (times, more) = ALERTS;
    let out = version > baseline.max(shadow) * times + more || version < baseline.min(shadow) / times - more;
    out.then(|| {
        format!(
            "it raises an alert on {:.2} % of the transactions, version {} on {:.2} %; in shadow it was {:.2} %",
            100.0 * version,
            comparison.baseline,
            100.0 * baseline,
            100.0 * shadow
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
        // Errors of the trial before do not end the next one.
        (0..5).for_each(|_| window.failed("the score is NaN"));
        assert!(window.broken().is_some());
        window.begin_trial();
        (0..4).for_each(|_| window.failed("the score is NaN"));
        assert_eq!(window.broken(), None);
        window.failed("the score is NaN");
        assert_eq!(window.broken().unwrap(), "5 of the last 5 rows got no score: the score is NaN");
    }

    #[test]
    fn slow_means_slower_than_the_other_and_by_more_than_noise() {
        let filled = |micros: f64| {
            let mut window = Window::default();
            (0..KEPT).for_each(|_| window.answered(micros));
            window
        };
        assert!(filled(2_900.0).slower_than(&filled(1_500.0), 1_000.0).unwrap().contains("up to 2900 µs or more, 1500 µs"));
        assert_eq!(filled(4_300.0).slower_than(&filled(3_000.0), 1_000.0), None);
        assert_eq!(filled(900.0).slower_than(&filled(20.0), 1_000.0), None, "less than a millisecond more");
        assert_eq!(Window::default().slower_than(&filled(20.0), 1_000.0), None);
        let with = |slow: &dyn Fn(usize) -> bool| {
            let mut window = Window::default();
            (0..KEPT).for_each(|row| window.answered(if slow(row) { 9_000.0 } else { 20.0 }));
            window
        };
        // A machine that stands still for a moment delays as many rows as are late in a slow version, but one after the other.
        for at in 0..KEPT - 50 {
            assert_eq!(with(&|row| (at..at + 50).contains(&row)).slower_than(&filled(20.0), 1_000.0), None, "{at}");
        }
        let one_in_twenty = with(&|row| row % 20 == 0);
        assert!(one_in_twenty.slower_than(&filled(20.0), 1_000.0).is_some());
        assert!(one_in_twenty.slower_than(&with(&|row| row < 50), 1_000.0).is_some(), "what the other lost in one quarter is no yardstick");
        assert_eq!(filled(9_000.0).slower_than(&one_in_twenty, 1_000.0), None, "the other is as slow");
        // All rows, and no fewer, are asked for.
        let mut few = Window::default();
        (1..KEPT).for_each(|_| few.answered(9_000.0));
        assert_eq!(few.slower_than(&filled(20.0), 1_000.0), None);
        few.answered(9_000.0);
        assert!(few.slower_than(&filled(20.0), 1_000.0).is_some());
        // Tried once more it is judged by what it does then, and stays what another is held against.
        few.begin_trial();
        assert_eq!(few.slower_than(&filled(20.0), 1_000.0), None);
        assert!(filled(90_000.0).slower_than(&few, 1_000.0).is_some());
        (1..KEPT).for_each(|_| few.answered(9_000.0));
        assert_eq!(few.slower_than(&filled(20.0), 1_000.0), None);
        few.answered(9_000.0);
        assert!(few.slower_than(&filled(20.0), 1_000.0).is_some());
    }

    #[test]
    fn a_version_may_differ_from_the_other_and_must_not_change_by_itself() {
        use crate::server::models::compare::Pair;
        use telltale_features::time::Timestamp;
        use telltale_models::{Calibrated, ModelScore, Role};

        let score =
            |p: f64| ModelScore { model: "m".into(), version: 1, raw: 0.0, calibrated: Calibrated::PValue(p), role: Role::Champion };
        let pair = Pair { baseline: (false, 0.0), version: (false, 0.0) };
        // A thousand transactions; each power makes p-values that lie more to one side.
        let more = |comparison: &mut Comparison, counts: bool, (baseline, version): (i32, i32)| {
            for at in 0..1_000_u32 {
                comparison.counts(counts);
                let p = f64::from(at) / 1000.0;
                comparison.add("allow", pair, (&score(p.powi(baseline)), &score(p.powi(version))));
            }
        };
        let after = |shadow: (i32, i32), trial: (i32, i32)| {
            let mut comparison = Comparison::begin(1, Timestamp::from_micros(0));
            more(&mut comparison, false, shadow);
            more(&mut comparison, true, trial);
            (comparison.stability_index(), differs(&comparison, false))
        };
        let (beside_the_other, why) = after((1, 4), (1, 4));
        assert!(beside_the_other > 0.25 && why.is_none(), "{beside_the_other}: another distribution, and the same as in shadow: {why:?}");
        let (_, why) = after((1, 4), (1, 1));
        assert!(why.is_some_and(|why| why.contains("beside those that it gave in shadow")), "it changed and the other did not");
        assert_eq!(after((4, 1), (1, 4)).1, None, "the traffic changed for both");
        // Alerts: as many as in shadow are in order, up to a twentieth of the traffic; more than twice as many are not.
        let alerts = |comparison: &mut Comparison, counts: bool, version: u32| {
            for at in 0..1_000_u32 {
                comparison.counts(counts);
                let pair = Pair { baseline: (at < 10, 0.0), version: (at < version, 0.0) };
                comparison.add("allow", pair, (&score(0.5), &score(0.5)));
            }
        };
        for (shadow, trial, is_taken_back) in [(45, 50, false), (45, 120, true), (300, 300, true), (10, 50, true), (10, 25, false)] {
            let mut comparison = Comparison::begin(1, Timestamp::from_micros(0));
            alerts(&mut comparison, false, shadow);
            alerts(&mut comparison, true, trial);
            let why = differs(&comparison, false);
            assert_eq!(why.is_some(), is_taken_back, "{shadow} then {trial} in a thousand beside 10: {why:?}");
        }
        // Tried without shadow it is held against the other; after a restart, what it did in shadow is not known.
        for (shadow, resumed, is_taken_back) in [(false, false, true), (false, true, false), (true, true, true)] {
            let mut comparison = Comparison::begin(1, Timestamp::from_micros(0));
            if shadow {
                alerts(&mut comparison, false, 10);
            }
            alerts(&mut comparison, true, 120);
            assert_eq!(differs(&comparison, resumed).is_some(), is_taken_back, "shadow {shadow}, resumed {resumed}");
        }
        // What it did on its first trial is no excuse on the second: neither alerts nor scores.
        let mut again = Comparison::begin(1, Timestamp::from_micros(0));
        for trial in 0..3 {
            again.begin_trial();
            assert_eq!(differs(&again, false), None, "{trial}: nothing to judge it by yet");
            alerts(&mut again, true, 80);
            assert!(differs(&again, false).is_some(), "{trial}");
        }
        let mut again = Comparison::begin(1, Timestamp::from_micros(0));
        more(&mut again, false, (1, 4));
        for trial in 0..3 {
            again.begin_trial();
            more(&mut again, true, (1, 1));
            assert!(differs(&again, false).is_some(), "{trial}");
        }
        let mut fresh = Comparison::begin(1, Timestamp::from_micros(0));
        more(&mut fresh, true, (1, 4));
        assert_eq!(differs(&fresh, false), None, "nothing to hold it against");
    }
}
