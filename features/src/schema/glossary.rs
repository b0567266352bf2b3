//! What each aggregation says, and how far it may be off: the text of `telltale features explain`.
//!
//! The name of an aggregation and of its statistic enter, sentences leave. The kernel's tests hold the bounds.

/// What an aggregation says.
pub(super) struct Entry {
    /// The definition.
    pub definition: &'static str,
    /// How far a reading may be off.
    pub error: &'static str,
}

const TILES: &str = "exact while the window reaches into the entity's last 16 events only; else it begins within a twelfth of the window, \
                     taken to be filled evenly: of 100 events about 1 % off, 4 % at the 99th percentile";
const NONE: &str = "exact";

/// The entry of an aggregation; `of` is what it is about, where it has different meanings with and without.
pub(super) fn entry(aggregation: &str, of: &str) -> Entry {
    let (definition, error) = match aggregation {
        "count" => ("how many events lie in the window; an aggregate counts with its weight", TILES),
        "rate" => ("events in the window, divided by its seconds", TILES),
        "sum" => ("sum of the number over the window, each value clamped to ±2³² and rounded to 2⁻¹⁶", TILES),
        "mean" => ("sum of the number over the window, divided by how many events have it", TILES),
        "min" | "max" => (
            "least or greatest value in the window; aggregates do not enter, and what is taken back stays in",
            "exact while the window reaches into the last 16 events only; else a value that left it less than a twelfth of it ago may stand",
        ),
        "stddev" => (
            "standard deviation of the population, √(Σ(x − mean)²/n), over the window; aggregates do not enter",
            "exact while the window reaches into the last 16 events only; else as a count, and within 2⁻²⁶ of the mean",
        ),
        "ratio" => ("events of the window that pass `part`, divided by those that pass `whole`", TILES),
        "distinct" => (
            "how many different members were seen in the window",
            "exact to 64; beyond, linear counting over 512 cells: 5 % RMSE to 1,000 members, at most 3,549 can be told",
        ),
        "novelty" => (
            "1 when the member was not seen within the window, 0 when it was",
            "exact to 64 members; beyond, 1 when its cell is empty, else missing",
        ),
        "entropy" => (
            "Shannon's entropy of the members of the window, bits; members fall into 64 cells by their hash",
            "members that share a cell count as one: at most 6 bits, of 16 equally frequent members 0.3 bits too little on average",
        ),
        "heavy_hitters" => (
            "share of the window's events that have the most frequent member (top_share), or this event's member, before it is counted \
             (own_share); members fall into 64 cells by their hash",
            "too great by the share of others in the same cell: a 64th of the rest on average",
        ),
        "transition_rarity" => (
            "−ln of the probability of the step from the latest event's member to this one's: steps of the window, half a step added for \
             each member that followed and for one unseen (Krichevsky and Trofimov); members fall into 64 cells",
            "steps of one writer in order are exact; each stretch between two writers' turns may be missing or counted once more",
        ),
        "quantile_rank" => (
            "share of the earlier values in the window that are less than this one, equal ones by half",
            "exact among the last 16 events; else values count by buckets an eighth wide at most: 2 % of rank for values that are not tied",
        ),
        "zscore_self" => (
            "(x − median) / (1.4826 · median of |x − median|) over the earlier values of the window, whose weight halves each quarter of it; \
             the spread is at least a twentieth of the median. Missing with fewer than 4 values",
            "median and spread are told to a quarter of a bucket that is an eighth wide at most; half of the weight may be outliers",
        ),
        "interarrival" => (
            "geometric mean of the gaps between successive events in the window, seconds, or the standard deviation of ln gap",
            "as a count; writers who take turns for long stretch the mean up to three times",
        ),
        "age" => ("seconds since the first event", NONE),
        "last" if of.is_empty() => ("seconds since the latest event", NONE),
        "last" => ("the number of the latest event that has it; of two at one time the greater; aggregates do not enter", NONE),
        "label_rate" => (
            "labels that pass `part` of transactions that happened in the window that ended `delay` ago, divided by the transactions of that \
             window that pass `whole`: what is younger cannot have its label yet and counts in neither",
            "exact while both ends of the window lie within the last 16 events; else begin and end are each off by a twelfth of the window",
        ),
        "geo_velocity" => (
            "kilometres from where the latest event was to here (haversine), divided by the hours between, which are a second at least; km/h",
            "0.6 % of the distance: the Earth is taken to be a sphere",
        ),
        "lateness" => ("seconds between the event and the newest one known of its entities", NONE),
        _ => ("a value of the transaction itself", NONE),
    };
    Entry { definition, error }
}
