//! How a version differs from the one it would replace, on the same transactions: pairs of scores enter, counts leave.

use std::collections::BTreeMap;

use telltale_features::time::Timestamp;
use telltale_models::profile::stability_index;
use telltale_models::{Calibrated, ModelScore};
use telltale_proto::v1;

use crate::convert;

/// Parts that calibrated scores are counted in.
const TENTHS: usize = 10;

type Tenths = [u64; TENTHS];

/// What was counted of the baseline and of the version on the same transactions.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    scores: [Tenths; 2],
    alerts: [u64; 2],
    transactions: u64,
}

/// What was counted so far.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The version that it is compared with.
    pub baseline: u32,
    /// When it began.
    pub since: Timestamp,
    /// Transactions that both scored since the version is calibrated.
    pub transactions: u64,
    /// Transactions on which the version gave no score.
    pub errors: u64,
    /// Why it gave none the last time.
    pub problem: String,
    /// Alerts that either raises or neither.
    pub agreed: u64,
    /// Alerts that only the baseline raises.
    pub baseline_alone: u64,
    /// Alerts that only the version raises.
    pub version_alone: u64,
    risk_change: f64,
    /// Whether the version counts at present.
    is_trial: bool,
    /// While it did not, and since it does.
    shadow: Part,
    trial: Part,
    baseline_scores: Tenths,
    version_scores: Tenths,
    actions: BTreeMap<&'static str, Tally>,
    labels: BTreeMap<String, Tally>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    transactions: u64,
    more: u64,
    fewer: u64,
}

/// What both make of one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Whether the risk with the baseline raises an alert, and its points.
    pub baseline: (bool, f64),
    /// The same with the version.
    pub version: (bool, f64),
}

impl Comparison {
    /// Nothing counted yet.
    pub fn begin(baseline: u32, since: Timestamp) -> Self {
        Self { baseline, since, ..Self::default() }
    }

    /// Counts one transaction that both scored.
    pub fn add(&mut self, action: &'static str, pair: Pair, scores: (&ModelScore, &ModelScore)) {
        self.transactions += 1;
        self.risk_change += (pair.version.1 - pair.baseline.1).abs();
        match (pair.baseline.0, pair.version.0) {
            (true, false) => self.baseline_alone += 1,
            (false, true) => self.version_alone += 1,
            (true, true) | (false, false) => self.agreed += 1,
        }
        self.actions.entry(action).or_default().add(pair);
        let tenths = [tenth(scores.0), tenth(scores.1)];
        for (counts, tenth) in [&mut self.baseline_scores, &mut self.version_scores].into_iter().zip(tenths) {
            count(counts, tenth);
        }
        let part = if self.is_trial { &mut self.trial } else { &mut self.shadow };
        part.transactions += 1;
        for (alerts, raised) in part.alerts.iter_mut().zip([pair.baseline.0, pair.version.0]) {
            *alerts += u64::from(raised);
        }
        for (counts, tenth) in part.scores.iter_mut().zip(tenths) {
            count(counts, tenth);
        }
    }

    /// Counts the label of a transaction that was counted before.
    pub fn label(&mut self, label: &str, pair: Pair) {
        self.labels.entry(label.to_owned()).or_default().add(pair);
    }

    /// Population stability index of the version's calibrated scores beside the baseline's (Siddiqi, Credit Risk Scorecards, 2006);
    /// empty tenths count as half a transaction.
    pub fn stability_index(&self) -> f64 {
        index(&self.baseline_scores, &self.version_scores)
    }

    /// Notes whether the version counts at present: its trials are held against what it did in shadow.
    pub fn counts(&mut self, counts: bool) {
        self.is_trial = counts;
    }

    /// Begins a trial: what it did when it counted the last time has been judged.
    pub fn begin_trial(&mut self) {
        self.trial = Part::default();
    }

    /// Stability index of the scores since the version counts beside those in shadow: its own, and its baseline's on the same
    /// transactions. `None` with fewer than `rows` scores on either side.
    pub fn drift(&self, rows: u64) -> Option<(f64, f64)> {
        let ([baseline, version], [baseline_since, version_since]) = (self.shadow.scores, self.trial.scores);
        let enough = [&version, &version_since].iter().all(|counts| counts.iter().sum::<u64>() >= rows);
        enough.then(|| (index(&version, &version_since), index(&baseline, &baseline_since)))
    }

    /// Shares of the transactions that raise an alert, since the version counts: with the baseline, with the version. `None` with fewer
    /// than `rows` transactions.
    pub fn alert_rates(&self, rows: u64) -> Option<(f64, f64)> {
        self.trial.alert_rates(rows)
    }

    /// The same of the time when the version was in shadow.
    pub fn alert_rates_in_shadow(&self, rows: u64) -> Option<(f64, f64)> {
        self.shadow.alert_rates(rows)
    }

    /// The wire's form.
    pub fn to_proto(&self, version: u32, dropped: u64, calibration: String) -> v1::CompareModelResponse {
        v1::CompareModelResponse {
            champion: self.baseline,
            version,
            transactions: self.transactions,
            dropped,
            errors: self.errors,
            calibration,
            agreed: self.agreed,
            champion_alone: self.baseline_alone,
            version_alone: self.version_alone,
            mean_risk_change: self.risk_change / self.transactions.max(1) as f64,
            stability_index: if self.transactions == 0 { 0.0 } else { self.stability_index() },
            champion_scores: self.baseline_scores.to_vec(),
            version_scores: self.version_scores.to_vec(),
            actions: self.actions.iter().map(|(action, tally)| tally.action(action)).collect(),
            since: Some(convert::timestamp_to_proto(self.since)),
            labels: self.labels.iter().map(|(label, tally)| tally.label(label)).collect(),
        }
    }
}

impl Part {
    fn alert_rates(&self, rows: u64) -> Option<(f64, f64)> {
        let [baseline, version] = self.alerts.map(|alerts| alerts as f64 / self.transactions as f64);
        (self.transactions >= rows.max(1)).then_some((baseline, version))
    }
}

fn count(counts: &mut Tenths, tenth: Option<usize>) {
    if let Some(count) = tenth.and_then(|tenth| counts.get_mut(tenth)) {
        *count += 1;
    }
}

fn index(one: &Tenths, other: &Tenths) -> f64 {
    stability_index(one.iter().copied(), other.iter().copied())
}

impl Tally {
    fn add(&mut self, pair: Pair) {
        self.transactions += 1;
        self.more += u64::from(pair.version.0 && !pair.baseline.0);
        self.fewer += u64::from(pair.baseline.0 && !pair.version.0);
    }

    fn action(&self, action: &str) -> v1::ActionChange {
        let Self { transactions, more, fewer } = *self;
        v1::ActionChange { action: action.to_owned(), transactions, alerts_more: more, alerts_fewer: fewer }
    }

    fn label(&self, label: &str) -> v1::LabelChange {
        let Self { transactions, more, fewer } = *self;
        v1::LabelChange { label: label.to_owned(), transactions, alerts_more: more, alerts_fewer: fewer }
    }
}

/// Which tenth a calibrated score lies in, from harmless to suspicious.
fn tenth(score: &ModelScore) -> Option<usize> {
    let sureness = match score.calibrated {
        Calibrated::Probability(probability) => probability,
        Calibrated::PValue(p) => 1.0 - p,
        Calibrated::Calibrating { .. } => return None,
    };
    // The cast saturates; the last tenth holds 1 itself.
    Some(((sureness * TENTHS as f64) as usize).min(TENTHS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use telltale_models::Role;

    fn score(probability: f64) -> ModelScore {
        ModelScore {
            model: "m".into(),
            version: 1,
            raw: probability,
            calibrated: Calibrated::Probability(probability),
            role: Role::Champion,
        }
    }

    #[test]
    fn what_both_say_is_counted_by_action_and_label() {
        let mut comparison = Comparison::begin(1, Timestamp::from_micros(7));
        let pair = |baseline, version| Pair { baseline: (baseline, 40.0), version: (version, 50.0) };
        for at in 0..100_u32 {
            let p = f64::from(at) / 100.0;
            comparison.add("allow", pair(at >= 90, at >= 80), (&score(p), &score(p)));
        }
        comparison.label("fraud", pair(false, true));
        assert_eq!((comparison.agreed, comparison.baseline_alone, comparison.version_alone), (90, 0, 10));
        assert!(comparison.stability_index().abs() < 1e-12);
        let (baseline, version) = comparison.alert_rates_in_shadow(100).unwrap();
        assert_eq!(comparison.alert_rates(1), None, "it never counted");
        assert!((baseline - 0.1).abs() < 1e-12 && (version - 0.2).abs() < 1e-12, "{baseline} {version}");
        let wire = comparison.to_proto(2, 3, String::new());
        assert_eq!((wire.transactions, wire.dropped, wire.mean_risk_change), (100, 3, 10.0));
        assert_eq!((wire.actions[0].alerts_more, wire.labels[0].alerts_more, wire.champion_scores[9]), (10, 1, 10));
    }

    #[test]
    fn another_distribution_shows_in_the_stability_index() {
        let mut comparison = Comparison::begin(1, Timestamp::from_micros(0));
        let pair = Pair { baseline: (false, 0.0), version: (false, 0.0) };
        for at in 0..1_000_u32 {
            let p = f64::from(at) / 1000.0;
            comparison.add("allow", pair, (&score(p), &score(p.sqrt().sqrt())));
        }
        assert!(comparison.stability_index() > 0.25, "{}", comparison.stability_index());
    }
}
