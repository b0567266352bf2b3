//! How far a reading is from the reference, in the terms of its bound.
//!
//! A reading and the past enter, errors by class leave; many errors enter, a figure with its bars leaves. Of NaN one of both had
//! no answer.

use super::plan::{ALL, Aggregation};
use super::reference::Past;

/// What kind of window an error belongs to, and what it is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The entity has at most 16 events of any kind in the window: by definition, up to fixed-point rounding.
    Exact,
    /// 17 to 99 events enter: in events.
    Middling,
    /// 100 and more enter: relative.
    Long,
    /// More than 16 events: in the aggregation's own terms.
    Own,
    /// Readings that no window, longer or shorter by one tile, would give.
    BeyondATile,
    /// More than 16 events: beside the reference in which members that share a cell are one.
    ByCells,
}

impl Class {
    /// In a table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "≤ 16 events",
            Self::Middling => "17–99 events",
            Self::Long => "≥ 100 events",
            Self::Own => "> 16 events",
            Self::BeyondATile => "beyond a tile",
            Self::ByCells => "> 16 events, by cells",
        }
    }
}

/// The errors of a reading.
pub fn of(aggregation: Aggregation, past: Past<'_>, read: f64) -> Vec<(Class, f64)> {
    let by_cells = past.exact_by_cells(aggregation);
    let off = |truth: f64| if read.is_nan() && truth.is_nan() { 0.0 } else { (read - truth).abs() };
    if past.of_any_kind(aggregation) <= 16 {
        return vec![(Class::Exact, off(by_cells) / (1.0 + if by_cells.is_nan() { 0.0 } else { by_cells.abs() }))];
    }
    let truth = past.exact(aggregation);
    match aggregation {
        Aggregation::Count | Aggregation::CountOfSome | Aggregation::Rate | Aggregation::Sum | Aggregation::Mean | Aggregation::Ratio => {
            let entering = past.exact(if aggregation == Aggregation::CountOfSome { aggregation } else { Aggregation::Count });
            let relative = off(truth) / if aggregation == Aggregation::Ratio { 1.0 } else { truth.abs() };
            let mut errors = Vec::new();
            if entering >= 100.0 {
                errors.push((Class::Long, 100.0 * relative));
            } else if entering >= 17.0 {
                errors.push((Class::Middling, entering * relative));
            }
            if matches!(aggregation, Aggregation::Count | Aggregation::CountOfSome | Aggregation::Sum) {
                errors.push((Class::BeyondATile, beyond(aggregation, past, read)));
            }
            errors
        }
        Aggregation::Min | Aggregation::Max => vec![(Class::BeyondATile, beyond(aggregation, past, read))],
        Aggregation::Stddev | Aggregation::GapMean => vec![(Class::Own, 100.0 * off(truth) / truth.abs())],
        Aggregation::Zscore => vec![(Class::Own, off(truth) / (1.0 + truth.abs()))],
        Aggregation::Speed | Aggregation::Age | Aggregation::SinceLast | Aggregation::Last => {
            vec![(Class::Own, off(truth) / (1.0 + truth.abs()))]
        }
        Aggregation::Entropy | Aggregation::TopShare | Aggregation::OwnShare => {
            vec![(Class::Own, off(truth)), (Class::ByCells, off(by_cells))]
        }
        _ => vec![(Class::Own, off(truth))],
    }
}

/// 1 when no window that is longer or shorter by one tile gives as much and as little.
fn beyond(aggregation: Aggregation, past: Past<'_>, read: f64) -> f64 {
    let (short, long) = (past.by_a_tile(false).exact(aggregation), past.by_a_tile(true).exact(aggregation));
    // Of no value at all the least is infinite; fixed point rounds.
    let within = short.min(long) - 1e-3 <= read && read <= short.max(long) + 1e-3;
    f64::from(u8::from(!within))
}

/// The errors of one aggregation in one window of one stream.
#[derive(Clone, Debug)]
pub struct Figure {
    pub aggregation: &'static str,
    pub class: Class,
    pub stream: String,
    /// Seconds.
    pub window: u64,
    /// Ascending; without those of which one side had no answer.
    pub errors: Vec<f64>,
    unanswered: usize,
    of: Aggregation,
}

/// Name, value, unit and what it must not exceed.
pub type Measure = (String, f64, &'static str, Option<f64>);

impl Figure {
    pub fn new((of, class): (Aggregation, Class), stream: String, window: u64, mut errors: Vec<f64>) -> Self {
        let all = errors.len();
        errors.retain(|error| !error.is_nan());
        errors.sort_by(f64::total_cmp);
        let unanswered = all - errors.len();
        let aggregation = ALL.iter().find(|(known, _)| *known == of).map_or("", |(_, name)| name);
        Self { aggregation, class, stream, window, errors, unanswered, of }
    }

    fn mean(&self) -> f64 {
        self.errors.iter().sum::<f64>() / self.errors.len() as f64
    }

    fn quantile(&self, part: f64) -> f64 {
        let last = self.errors.len().saturating_sub(1);
        self.errors.get((last as f64 * part).floor() as usize).copied().unwrap_or(f64::NAN)
    }

    /// Each statistic beside its bar. Where one of reading and reference had no answer, only how often is told.
    pub fn measures(&self) -> Vec<Measure> {
        let named = |statistic: &str| format!("{}, {}, {}: {statistic}", self.aggregation, self.stream, self.class.name());
        let (unit, bars) = self.bars();
        match self.class {
            Class::Exact => return vec![(named("greatest"), self.quantile(1.0), unit, bars.0)],
            Class::BeyondATile => return vec![(named("share"), self.mean(), unit, bars.0)],
            _ => {}
        }
        let mut measures = vec![(named("mean"), self.mean(), unit, bars.0), (named("p99"), self.quantile(0.99), unit, bars.1)];
        if self.unanswered > 0 {
            let share = self.unanswered as f64 / (self.unanswered + self.errors.len()) as f64;
            // A step of which the only precedent lies in the tail; a member in a crowded page.
            let limit = match self.of {
                Aggregation::TransitionRarity | Aggregation::StepRarity if self.expected().is_some() => Some(0.1),
                Aggregation::TransitionRarity | Aggregation::StepRarity | Aggregation::Novelty | Aggregation::LabelRate => None,
                _ => Some(0.0),
            };
            measures.push((named("without an answer on one side"), share, "", limit));
        }
        measures
    }

    /// How many events a window of a steady stream holds on average.
    fn expected(&self) -> Option<f64> {
        self.stream.strip_prefix("steady ").and_then(|count| count.parse().ok())
    }

    /// Unit, and what mean and 99th percentile must not exceed. Beyond exactness only steady arrivals have bars, in the class of their
    /// mean: which windows of 115 on average hold fewer than 100 is no accident of the kernel's. What else comes, a window is at most one
    /// tile off.
    fn bars(&self) -> (&'static str, (Option<f64>, Option<f64>)) {
        let many = self.expected().map(|expected| if self.of == Aggregation::CountOfSome { 0.3 * expected } else { expected } >= 100.0);
        let bars = |of_many: (f64, f64), of_few: (f64, f64)| match many {
            Some(many) => {
                let (mean, p99) = if many { of_many } else { of_few };
                (Some(mean), Some(p99))
            }
            None => (None, None),
        };
        let only = |wanted: bool, (mean, p99): (f64, f64)| if many == Some(wanted) { (Some(mean), Some(p99)) } else { (None, None) };
        match (self.class, self.of) {
            // Squares of ln gap are fixed-point: of gaps of a day that are all equal the deviation is told to 0.02.
            (Class::Exact, Aggregation::GapSpread) => ("", (Some(0.02), None)),
            (Class::Exact, _) => ("", (Some(1e-3), None)),
            (Class::BeyondATile, _) => ("", (Some(0.0), None)),
            (Class::Middling, _) => ("events", only(false, (1.0, 4.0))),
            (Class::Long, _) => ("%", only(true, (1.0, 4.0))),
            (_, Aggregation::Age | Aggregation::SinceLast | Aggregation::Last | Aggregation::Speed) => ("", (Some(1e-3), Some(1e-3))),
            (_, Aggregation::Distinct) => ("members", bars((0.0, 0.0), (0.0, 0.0))),
            (_, Aggregation::Novelty) => ("", (Some(0.0), Some(0.0))),
            (_, Aggregation::QuantileRank) => ("", bars((0.02, 0.04), (0.02, 0.08))),
            (_, Aggregation::Stddev) => ("%", bars((0.6, 2.5), (1.2, 8.0))),
            (_, Aggregation::GapMean) => ("%", bars((1.4, 7.0), (2.5, 18.0))),
            (_, Aggregation::GapSpread) => ("", bars((0.015, 0.1), (0.02, 0.18))),
            (Class::ByCells, Aggregation::Entropy) => ("bits", bars((0.015, 0.06), (0.06, 0.3))),
            (_, Aggregation::Entropy) => ("bits", bars((0.3, 1.1), (0.3, 1.1))),
            (Class::ByCells, _) => ("", bars((0.006, 0.03), (0.015, 0.08))),
            (_, Aggregation::TopShare | Aggregation::OwnShare) => ("", bars((0.07, 0.3), (0.07, 0.3))),
            (_, Aggregation::Zscore) => ("", bars((0.03, 0.15), (0.03, 0.35))),
            (_, Aggregation::TransitionRarity | Aggregation::StepRarity) => ("nats", bars((0.15, 1.0), (0.3, 1.5))),
            (_, Aggregation::LabelRate) => ("", bars((0.008, 0.04), (0.02, 0.1))),
            _ => ("", (None, None)),
        }
    }
}
