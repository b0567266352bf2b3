//! Whether reasons are true: does the risk fall once the feature that a model names first is at its usual value?
//!
//! Enter scored transactions, leave for each kind of model and each model: alerts, how many of their first reasons were true, what
//! reasons cost. The changed row goes the whole way again: models, calibration, the policy's combination.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;
use telltale_features::vector::{FeatureId, FeatureVector};
use telltale_models::{Asked, Attribution, Scores};

use crate::score::{Engine, Scored};

/// The row of all models together: the first reason of the whole verdict.
const TOGETHER: &str = "all models together";
/// Nanoseconds in a microsecond.
const NANOS: f64 = 1_000.0;
/// Costs beyond a minute, nanoseconds, count as that.
const LONGEST: u64 = 60_000_000_000;

/// What became of the reasons of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TruthRow {
    /// Verdicts above the alert threshold to whose risk the kind added points.
    pub alerts: u64,
    /// Those of them without any reason of that kind.
    pub unexplained: u64,
    /// Those whose first reason lowers the risk once its feature is at its usual value.
    #[serde(rename = "true")]
    pub held: u64,
    /// `true / alerts`; an alert without a reason counts as one whose reason is not true.
    pub share: f64,
    /// Median cost of the reasons of one verdict, microseconds.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
}

#[derive(Default)]
struct Counts {
    alerts: u64,
    unexplained: u64,
    held: u64,
    nanos: Option<Histogram<u64>>,
}

/// Counts reasons that are true.
#[derive(Default)]
pub struct Reasons {
    by: BTreeMap<String, Counts>,
}

impl Reasons {
    /// Counts one transaction; below the alert threshold it has no reasons.
    pub fn count(&mut self, engine: &Engine, scored: &Scored) {
        let assessed = &scored.assessed;
        if !assessed.combined.alert {
            return;
        }
        let (bundle, policy) = (&scored.force.bundle, &scored.force.policy);
        let asked = engine.asked(&scored.admitted, Default::default());
        let falls = |feature: FeatureId, usual: f64| {
            let mut values = assessed.vector.values.to_vec();
            if let Some(value) = values.get_mut(feature.index()) {
                *value = usual;
            }
            let changed = FeatureVector { values: values.into() };
            policy.combine(&bundle.score_as(&changed, &asked), assessed.combined.ensemble).risk < assessed.combined.risk
        };
        let first = |reasons: &[&Attribution]| reasons.first().map(|first| falls(first.feature, first.usual));
        let points = assessed.combined.contributions.iter();
        let mut strongest: Option<(f64, &Attribution)> = None;
        for (part, points) in assessed.scores.parts.iter().zip(points).filter(|(_, points)| **points > 0.0) {
            let reasons: Vec<_> = assessed.attributions.iter().filter(|reason| reason.model == part.model).collect();
            let alone = Scores { parts: vec![part.clone()], ..Scores::default() };
            let nanos = cost(scored, &alone, &asked);
            let kind = bundle.kind(&part.model, part.version).unwrap_or("unknown");
            let held = first(&reasons);
            for name in [format!("kind {kind}"), format!("model {}", part.model)] {
                self.by.entry(name).or_default().add(held, nanos);
            }
            for reason in reasons {
                let share = points * reason.share;
                if strongest.is_none_or(|(most, _)| share > most) {
                    strongest = Some((share, reason));
                }
            }
        }
        let nanos = cost(scored, &assessed.scores, &asked);
        let held = strongest.map(|(_, reason)| falls(reason.feature, reason.usual));
        self.by.entry(TOGETHER.to_owned()).or_default().add(held, nanos);
    }

    /// One row a kind, one a model, and one of all models together.
    pub fn rows(&self) -> BTreeMap<&str, TruthRow> {
        self.by.iter().map(|(name, counts)| (name.as_str(), counts.row())).collect()
    }
}

/// What the reasons of these scores cost, nanoseconds.
#[expect(clippy::disallowed_methods, reason = "a cost is about this process, not about events")]
fn cost(scored: &Scored, scores: &Scores, asked: &Asked<'_>) -> u64 {
    let (bundle, policy, ensemble) = (&scored.force.bundle, &scored.force.policy, scored.assessed.combined.ensemble);
    let begun = Instant::now();
    std::hint::black_box(bundle.explain(&scored.assessed.vector, scores, asked, &|scores| policy.combine(scores, ensemble).risk));
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Counts {
    fn add(&mut self, held: Option<bool>, nanos: u64) {
        self.alerts += 1;
        self.unexplained += u64::from(held.is_none());
        self.held += u64::from(held == Some(true));
        if self.nanos.is_none() {
            self.nanos = Histogram::new_with_bounds(1, LONGEST, 3).ok();
        }
        if let Some(costs) = &mut self.nanos {
            costs.saturating_record(nanos);
        }
    }

    fn row(&self) -> TruthRow {
        let at = |quantile| self.nanos.as_ref().map_or(f64::NAN, |costs| costs.value_at_quantile(quantile) as f64 / NANOS);
        let share = self.held as f64 / self.alerts.max(1) as f64;
        TruthRow { alerts: self.alerts, unexplained: self.unexplained, held: self.held, share, p50_us: at(0.5), p99_us: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{ConfigArgs, Shape};
    use crate::eval::{Args, Known};
    use crate::simulate::attack::Variants;

    const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default");
    /// As many alerts as make nine in ten mean something.
    const LEAST: u64 = 30;

    #[test]
    fn first_reasons_of_the_shipped_models_are_true() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args {
            seed: 92_103,
            days: 0.4,
            customers: 60,
            attacks: vec!["brute-force".into(), "scraping".into()],
            intensity: vec!["medium".into()],
            variants: Variants::Eval,
            out: None,
            reasons: Some(folder.path().join("reasons.json")),
            threads: 1,
            config: ConfigArgs {
                config: None,
                policy: None,
                models: Some(SHIPPED.into()),
                schema: None,
                mode: None,
                shipped_calibration: true,
            },
            shape: Shape::default(),
        };
        let traffic = folder.path().join("traffic.ndjson.gz");
        let known = Known::simulate(&args.world().unwrap(), &traffic).unwrap();
        let judgement = args.judge(&known, &traffic).unwrap();
        let reasons = judgement.truth.unwrap();
        let rows = reasons.rows();
        assert!(rows.contains_key("kind onnx") && rows.contains_key("kind forest"), "{rows:#?}");
        let mut told = 0;
        for (name, row) in rows.iter().filter(|(_, row)| row.alerts >= LEAST) {
            assert!(row.share >= 0.9 && row.p50_us > 0.1, "{name}: {row:?}");
            told += 1;
        }
        assert!(told >= 3, "a kind, a model, all together: {rows:#?}");
    }
}
