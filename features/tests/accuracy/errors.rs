//! How far a reading is from the reference, in the terms of its bound.
//!
//! A reading and the past enter, errors by class leave; many errors enter, a figure with its bars leaves. NaN says that one of both had
//! no answer, and holds under no bar.

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
    /// Ascending.
    pub errors: Vec<f64>,
    of: Aggregation,
}

/// Name, value, unit and what it must not exceed.
pub type Measure = (String, f64, &'static str, Option<f64>);

impl Figure {
    pub fn new((of, class): (Aggregation, Class), stream: String, window: u64, mut errors: Vec<f64>) -> Self {
        errors.sort_by(f64::total_cmp);
        let aggregation = ALL.iter().find(|(known, _)| *known == of).map_or("", |(_, name)| name);
        Self { aggregation, class, stream, window, errors, of }
    }

    fn mean(&self) -> f64 {
        self.errors.iter().sum::<f64>() / self.errors.len() as f64
    }

    fn quantile(&self, part: f64) -> f64 {
        let last = self.errors.len().saturating_sub(1);
        self.errors.get((last as f64 * part).floor() as usize).copied().unwrap_or(f64::NAN)
    }

    /// Each statistic beside its bar.
    pub fn measures(&self) -> Vec<Measure> {
        let named = |statistic: &str| format!("{}, {}, {}: {statistic}", self.aggregation, self.stream, self.class.name());
        let (unit, bars) = self.bars();
        match self.class {
            Class::Exact => vec![(named("greatest"), self.quantile(1.0), unit, bars.0)],
            Class::BeyondATile => vec![(named("share"), self.mean(), unit, bars.0)],
            _ => vec![(named("mean"), self.mean(), unit, bars.0), (named("p99"), self.quantile(0.99), unit, bars.1)],
        }
    }

    /// Unit, and what mean and 99th percentile must not exceed. Only steady arrivals have bars beyond exactness: what else comes, a
    /// window is at most one tile off.
    fn bars(&self) -> (&'static str, (Option<f64>, Option<f64>)) {
        let steady = self.stream.starts_with("steady");
        let bars = |mean: f64, p99: f64| if steady { (Some(mean), Some(p99)) } else { (None, None) };
        match (self.class, self.of) {
            (Class::Exact, _) => ("", (Some(1e-3), None)),
            (Class::BeyondATile, _) => ("", (Some(0.0), None)),
            (Class::Middling, _) => ("events", bars(1.0, 4.0)),
            (Class::Long, _) => ("%", bars(1.0, 4.0)),
            (_, Aggregation::Age | Aggregation::SinceLast | Aggregation::Last | Aggregation::Speed) => ("", (Some(1e-3), Some(1e-3))),
            (_, Aggregation::Distinct) => ("members", bars(0.0, 0.0)),
            (_, Aggregation::Novelty) => ("", (Some(0.0), Some(0.0))),
            (_, Aggregation::QuantileRank) => ("", bars(0.02, 0.06)),
            (_, Aggregation::Stddev) => ("%", bars(9.0, 99.0)),
            (_, Aggregation::GapMean) => ("%", bars(9.0, 99.0)),
            (_, Aggregation::GapSpread) => ("", bars(9.0, 99.0)),
            (Class::ByCells, Aggregation::Entropy) => ("bits", bars(9.0, 99.0)),
            (_, Aggregation::Entropy) => ("bits", bars(9.0, 99.0)),
            (Class::ByCells, _) => ("", bars(9.0, 99.0)),
            (_, Aggregation::TopShare | Aggregation::OwnShare) => ("", bars(9.0, 99.0)),
            (_, Aggregation::Zscore) => ("", bars(9.0, 99.0)),
            (_, Aggregation::TransitionRarity) => ("nats", bars(9.0, 99.0)),
            (_, Aggregation::LabelRate) => ("", bars(9.0, 99.0)),
            _ => ("", (None, None)),
        }
    }
}
