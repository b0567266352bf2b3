//! Every aggregation over one window: what is measured, and the plan that the kernel follows for it.
//!
//! A window enters, an entity plan leaves whose reads stand in the order of [`ALL`]. Nothing is measured here.

use std::time::Duration;

use smallvec::smallvec;
use telltale_features::event::Event;
use telltale_features::kernel::plan::{Accumulator, AccumulatorKind, EntityPlan, GapStat, Read, Scale};
use telltale_features::time::Timestamp;

/// An aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aggregation {
    Count,
    CountOfSome,
    Rate,
    Sum,
    Mean,
    Ratio,
    Min,
    Max,
    Stddev,
    Distinct,
    Novelty,
    Entropy,
    TopShare,
    OwnShare,
    QuantileRank,
    Zscore,
    TransitionRarity,
    StepRarity,
    GapMean,
    GapSpread,
    Age,
    SinceLast,
    Last,
    Speed,
    LabelRate,
}

/// All of them with their names, in the order of the plan's reads.
pub const ALL: [(Aggregation, &str); 25] = [
    (Aggregation::Count, "count"),
    (Aggregation::CountOfSome, "count, filtered"),
    (Aggregation::Rate, "rate"),
    (Aggregation::Sum, "sum"),
    (Aggregation::Mean, "mean"),
    (Aggregation::Ratio, "ratio"),
    (Aggregation::Min, "min"),
    (Aggregation::Max, "max"),
    (Aggregation::Stddev, "stddev"),
    (Aggregation::Distinct, "distinct"),
    (Aggregation::Novelty, "novelty"),
    (Aggregation::Entropy, "entropy"),
    (Aggregation::TopShare, "heavy_hitters top_share"),
    (Aggregation::OwnShare, "heavy_hitters own_share"),
    (Aggregation::QuantileRank, "quantile_rank"),
    (Aggregation::Zscore, "zscore_self"),
    (Aggregation::TransitionRarity, "transition_rarity"),
    (Aggregation::StepRarity, "transition_rarity of a population"),
    (Aggregation::GapMean, "interarrival geometric_mean"),
    (Aggregation::GapSpread, "interarrival log_stddev"),
    (Aggregation::Age, "age"),
    (Aggregation::SinceLast, "last"),
    (Aggregation::Last, "last of a number"),
    (Aggregation::Speed, "geo_velocity"),
    (Aggregation::LabelRate, "label_rate"),
];

/// How many windows ago a label rate's window ended.
pub const DELAY: u32 = 2;

const ANY: u8 = 0;
const SOME: u8 = 1;
const LABEL: u8 = 2;

/// What happened, before it is told to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    /// Microseconds.
    pub time: i64,
    pub amount: f64,
    /// Counted by `distinct` and `novelty`.
    pub member: u64,
    /// What entropy, shares and steps are about.
    pub kind: u64,
    /// The kind of what the same session did before, among many sessions.
    pub before: u64,
    /// Whether it passes the filter.
    pub some: bool,
    /// Whether it is labelled in the end.
    pub labelled: bool,
    /// Degrees north and east.
    pub place: (f64, f64),
}

/// The cell into which a member falls, as the schema has it.
pub const fn cell(member: u64) -> u64 {
    member.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58
}

impl Happened {
    /// The number of the step from the cell before to this one.
    pub const fn step(&self) -> u64 {
        cell(self.before) * 64 + cell(self.kind)
    }

    /// As the kernel is told of it.
    pub fn event(&self) -> Event {
        Event {
            time: Timestamp::from_micros(self.time),
            weight: 1,
            sign: 1,
            filters: 1 | u64::from(self.some) << SOME | u64::from(self.labelled) << LABEL,
            values: smallvec![self.amount, cell(self.kind) as f64, self.place.0, self.place.1, self.step() as f64],
            members: smallvec![Some(self.member)],
            proves: false,
        }
    }
}

/// The plan of one window.
pub fn plan(window: Duration) -> EntityPlan {
    let delay = window * DELAY;
    let kinds = [
        AccumulatorKind::Count { filter: ANY, window },
        AccumulatorKind::Count { filter: SOME, window },
        AccumulatorKind::Sum { filter: ANY, value: 0, window },
        AccumulatorKind::Extreme { filter: ANY, value: 0, window, greatest: false },
        AccumulatorKind::Extreme { filter: ANY, value: 0, window, greatest: true },
        AccumulatorKind::Moments { filter: ANY, value: 0, window },
        AccumulatorKind::Distinct { filter: ANY, member: 0, horizon: window },
        AccumulatorKind::Histogram { filter: ANY, value: 1, window, scale: Scale::Cells },
        AccumulatorKind::Histogram { filter: ANY, value: 0, window, scale: Scale::Magnitudes },
        AccumulatorKind::Histogram { filter: ANY, value: 1, window, scale: Scale::Successions },
        AccumulatorKind::Interarrival { filter: ANY, window },
        AccumulatorKind::Seen { filter: ANY },
        AccumulatorKind::Latest { filter: ANY, value: 0 },
        AccumulatorKind::Position { filter: ANY, latitude: 2, longitude: 3 },
        AccumulatorKind::Matured { filter: LABEL, window, delay },
        AccumulatorKind::Matured { filter: ANY, window, delay },
        AccumulatorKind::Histogram { filter: ANY, value: 4, window, scale: Scale::Pairs },
    ];
    let accumulators = kinds.into_iter().zip(5_000..).map(|(kind, tag)| Accumulator { tag, kind });
    EntityPlan {
        name: "measured".to_owned(),
        ttl: window * 10,
        max_bytes: 1 << 20,
        filters: vec![1, 2, 3],
        values: vec![11, 12, 13, 14, 15],
        members: vec![21],
        accumulators: accumulators.collect(),
        reads: ALL.iter().map(|(aggregation, _)| read(*aggregation, window)).collect(),
    }
}

const fn read(aggregation: Aggregation, window: Duration) -> Read {
    match aggregation {
        Aggregation::Count | Aggregation::Rate => Read::Count(0),
        Aggregation::CountOfSome => Read::Count(1),
        Aggregation::Sum => Read::Sum(2),
        Aggregation::Mean => Read::Mean { sum: 2, count: 0 },
        Aggregation::Ratio => Read::Ratio { part: 1, whole: 0 },
        Aggregation::Min => Read::Extreme(3),
        Aggregation::Max => Read::Extreme(4),
        Aggregation::Stddev => Read::Stddev(5),
        Aggregation::Distinct => Read::Distinct { of: 6, window },
        Aggregation::Novelty => Read::Novelty(6),
        Aggregation::Entropy => Read::Entropy(7),
        Aggregation::TopShare => Read::TopShare(7),
        Aggregation::OwnShare => Read::OwnShare(7),
        Aggregation::QuantileRank => Read::QuantileRank(8),
        Aggregation::Zscore => Read::Zscore(8),
        Aggregation::TransitionRarity => Read::TransitionRarity(9),
        Aggregation::StepRarity => Read::StepRarity(16),
        Aggregation::GapMean => Read::Interarrival { of: 10, stat: GapStat::GeometricMean },
        Aggregation::GapSpread => Read::Interarrival { of: 10, stat: GapStat::LogStddev },
        Aggregation::Age => Read::Age(11),
        Aggregation::SinceLast => Read::SinceLast(11),
        Aggregation::Last => Read::Last(12),
        Aggregation::Speed => Read::Speed(13),
        Aggregation::LabelRate => Read::LabelRate { part: 14, whole: 15 },
    }
}
