//! What is kept of an entity type: filters, values, members, accumulators and the features read from them.
//!
//! The schema compiles a plan; the kernel follows it. An accumulator is one section of the blob under its tag; several features
//! may read the same one (a ratio reads two counts). Two plans that share a definition share its tag, so a new schema goes on
//! with the old history of everything that it still defines.

use std::time::Duration;

/// Index of a filter: a bit of [`crate::event::Event::filters`]. Bit 0 of every plan is "any event of the request phase".
pub type FilterId = u8;
/// Index into [`crate::event::Event::values`].
pub type ValueId = u8;
/// Index into [`crate::event::Event::members`].
pub type MemberId = u8;
/// Index of an accumulator in its plan.
pub type AccumulatorId = u16;

/// What is kept of one entity type.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityPlan {
    /// Name of the type, for messages.
    pub name: String,
    /// History that is not touched for this long is forgotten.
    pub ttl: Duration,
    /// Largest blob, bytes; the schema refuses a plan that could exceed it.
    pub max_bytes: usize,
    /// Tag of each filter: the hash of its source. At most 64.
    pub filters: Vec<u64>,
    /// Tag of each value. At most 16.
    pub values: Vec<u64>,
    /// Tag of each member. At most 32.
    pub members: Vec<u64>,
    /// The sections.
    pub accumulators: Vec<Accumulator>,
    /// The features, in the order in which [`crate::store::History`] gives them.
    pub reads: Vec<Read>,
}

/// One section of a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct Accumulator {
    /// Hash of the definition: kind, entity type, filter source, value or member name, window.
    pub tag: u64,
    /// What it accumulates.
    pub kind: AccumulatorKind,
}

/// What a section accumulates. Every event that passes `filter` enters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AccumulatorKind {
    /// Weight of events.
    Count {
        /// Which events.
        filter: FilterId,
        /// Over how long.
        window: Duration,
    },
    /// Sum of a value (NaN is skipped), clamped to ±2³² an event, weighted.
    Sum {
        /// Which events.
        filter: FilterId,
        /// Which value.
        value: ValueId,
        /// Over how long.
        window: Duration,
    },
    /// Members with the time each was last seen; one section answers every window up to `horizon`, and novelty.
    Distinct {
        /// Which events.
        filter: FilterId,
        /// Which member.
        member: MemberId,
        /// The longest window that is asked of it.
        horizon: Duration,
    },
    /// Gaps between successive events: count, sum and squares of ln Δt (Δt in seconds, at least 1 ms).
    Interarrival {
        /// Which events.
        filter: FilterId,
        /// Over how long.
        window: Duration,
    },
    /// When the first event and the latest were seen.
    Seen {
        /// Which events.
        filter: FilterId,
    },
    /// The greatest or the least value. Single events only, and what is taken back stays in.
    Extreme {
        /// Which events.
        filter: FilterId,
        /// Which value.
        value: ValueId,
        /// Over how long.
        window: Duration,
        /// The greatest, else the least.
        greatest: bool,
    },
    /// Count, sum and squares of a value. Single events only.
    Moments {
        /// Which events.
        filter: FilterId,
        /// Which value.
        value: ValueId,
        /// Over how long.
        window: Duration,
    },
    /// The value of the latest event that has it; of two at the same time the greater.
    Latest {
        /// Which events.
        filter: FilterId,
        /// Which value.
        value: ValueId,
    },
    /// Where the latest event was that has both coordinates, degrees.
    Position {
        /// Which events.
        filter: FilterId,
        /// Which value is the latitude.
        latitude: ValueId,
        /// Which value is the longitude.
        longitude: ValueId,
    },
    /// How often each bucket of a value came, in six tiles a window. Single events only.
    Histogram {
        /// Which events.
        filter: FilterId,
        /// Which value.
        value: ValueId,
        /// Over how long.
        window: Duration,
        /// How values are sorted into buckets.
        scale: Scale,
    },
    /// Weight of events in a window that ended `delay` ago: what can have its label by now.
    Matured {
        /// Which events.
        filter: FilterId,
        /// Over how long.
        window: Duration,
        /// How long ago the window ended.
        delay: Duration,
    },
}

/// How a value is sorted into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The value is the number of a cell already, 0 to 63: a member by its hash.
    Cells,
    /// Eight buckets to a doubling, from ±1/16 to ±2³²; what is smaller is one bucket.
    Magnitudes,
    /// Pairs of the cells of successive events.
    Successions,
    /// The value is the number of a pair of cells already, 0 to 4,095: a step that somebody else made.
    Pairs,
}

/// One feature, read from accumulators. "Before" and "after": see STATE, read order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read {
    /// Weight of events in the accumulator's window, after the event.
    Count(AccumulatorId),
    /// Sum of values, after.
    Sum(AccumulatorId),
    /// Sum over count, after; NaN without events.
    Mean {
        /// A `Sum`.
        sum: AccumulatorId,
        /// The `Count` of the events that have the value.
        count: AccumulatorId,
    },
    /// Count over count, after; NaN when the denominator is 0.
    Ratio {
        /// Numerator, a `Count`.
        part: AccumulatorId,
        /// Denominator, a `Count`.
        whole: AccumulatorId,
    },
    /// How many different members in the window, after.
    Distinct {
        /// A `Distinct`.
        of: AccumulatorId,
        /// The window asked, at most its horizon.
        window: Duration,
    },
    /// 1 when this event's member was not seen within the horizon, 0 when it was, before; NaN when the event has no such
    /// member, or when it cannot be told.
    Novelty(AccumulatorId),
    /// Statistic of the gaps in the window, before; NaN with fewer than 2 gaps.
    Interarrival {
        /// An `Interarrival`.
        of: AccumulatorId,
        /// Which statistic.
        stat: GapStat,
    },
    /// Seconds since the first event, before; NaN when there was none.
    Age(AccumulatorId),
    /// Seconds since the latest event, before; NaN when there was none.
    SinceLast(AccumulatorId),
    /// Greatest or least value of an `Extreme` in the window, after; NaN without values.
    Extreme(AccumulatorId),
    /// Standard deviation of the values of a `Moments` in the window, after; NaN with fewer than 2.
    Stddev(AccumulatorId),
    /// The value of a `Latest`, before; NaN when there was none.
    Last(AccumulatorId),
    /// Speed from the place of a `Position` to this event's, km/h, before; NaN when either is unknown.
    Speed(AccumulatorId),
    /// Entropy of the cells of a `Histogram`, bits, after; NaN without events.
    Entropy(AccumulatorId),
    /// Share of the events that fall into the most frequent cell of a `Histogram`, after; NaN without events.
    TopShare(AccumulatorId),
    /// Share of the earlier events that fall into this event's cell of a `Histogram`, before; NaN without events or without a cell.
    OwnShare(AccumulatorId),
    /// Share of the earlier values of a `Histogram` that are less than this event's, equal ones by half, before; NaN without any.
    QuantileRank(AccumulatorId),
    /// Robust z of this event's value among the earlier values of a `Histogram`, before; NaN with fewer than 4.
    Zscore(AccumulatorId),
    /// −ln of the probability of the step from the latest event's cell to this event's, before; NaN when nothing followed on that
    /// cell yet.
    TransitionRarity(AccumulatorId),
    /// −ln of the probability of this event's step among those of a `Histogram` of pairs that begin on the same cell, before; NaN
    /// when none does.
    StepRarity(AccumulatorId),
    /// The middle of the baseline of a `Zscore`, before; NaN with fewer than 4 values.
    Middle(AccumulatorId),
    /// Its spread.
    Spread(AccumulatorId),
    /// Count over count of two `Matured`, after; NaN when nothing has matured.
    LabelRate {
        /// Numerator: labels.
        part: AccumulatorId,
        /// Denominator: transactions.
        whole: AccumulatorId,
    },
}

/// A statistic of gaps between events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapStat {
    /// Geometric mean of the gaps, seconds: exp(mean ln Δt).
    GeometricMean,
    /// Standard deviation of ln Δt: 0 for a machine's beat, about 1 for people.
    LogStddev,
}
