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
const SUMS: &str = "as a count, times √(1 + the square of the values' coefficient of variation)";
const NONE: &str = "exact";

/// The entry of an aggregation; `of` is what it is about, where it has different meanings with and without.
pub(super) fn entry(aggregation: &str, of: &str) -> Entry {
    let (definition, error) = match aggregation {
        "count" => ("how many events lie in the window; an aggregate counts with its weight", TILES),
        "rate" => ("events in the window, divided by its seconds", TILES),
        "sum" => ("sum of the number over the window, each value clamped to ±2³² and rounded to 2⁻¹⁶", SUMS),
        "mean" => ("sum of the number over the window, divided by how many events have it", TILES),
        "min" | "max" => (
            "least or greatest value in the window; aggregates do not enter, and what is taken back stays in",
            "exact while the window reaches into the last 16 events only; else a value that left it less than a twelfth of it ago may stand",
        ),
        "stddev" => (
            "standard deviation of the population, √(Σ(x − mean)²/n), over the window; aggregates do not enter",
            "exact while the window reaches into the last 16 events only; else of 100 even values 0.4 % off, 2 % at the 99th percentile, of 20 \
             1 % and 8 %; the more, the longer the tails of the values; and within 2⁻²⁶ of the mean",
        ),
        "ratio" => ("events of the window that pass `part`, divided by those that pass `whole`", TILES),
        "distinct" => (
            "how many different members were seen in the window",
            "exact to 64; beyond, 5 % RMSE to 1,000 members (linear counting) and 8 % to a million (a thinned sample)",
        ),
        "novelty" => (
            "1 when the member was not seen within the window, 0 when it was",
            "exact to 64 members; beyond, 1 when its cell is empty, else missing",
        ),
        "entropy" => (
            "Shannon's entropy of the members of the window, bits; members fall into 64 cells by their hash",
            "members that share a cell count as one: at most 6 bits, of 16 equally frequent members 0.23 bits too little on average, 0.8 at the \
             99th percentile; the window adds 0.01 bits with 100 events, 0.04 with 20",
        ),
        "heavy_hitters" => (
            "share of the window's events that have the most frequent member (top_share), or this event's member, before it is counted \
             (own_share); members fall into 64 cells by their hash",
            "too great by the share of others in the same cell: a 64th of the rest on average; of 16 equally frequent members the greatest share \
             is 0.05 too great, because the fullest cell is taken; the window adds 0.004 with 100 events, 0.01 with 20",
        ),
        "transition_rarity" if of.contains('>') => (
            "−ln of the probability of the step from the member `after` to the member `of` among all steps of the window that anybody in this \
             entity's transactions made, half a step added for each member that followed and for one unseen (Krichevsky and Trofimov); \
             members fall into 64 cells",
            "counts add up exactly over replicas; what a replica did not see of a session it cannot follow; a sixth of the window at its \
             beginning counts by a share; members that share a cell count as one",
        ),
        "quotient" => (
            "the feature `of` divided by the feature `against`, both as this transaction reads them; missing when either is or when it is 0",
            "as its parts",
        ),
        "difference" => ("the feature `of` less the feature `against`, both as this transaction reads them", "as its parts"),
        "zscore_against" => (
            "how far the feature `of` lies from the median of the values that the feature `against`, a zscore_self, is about, in its spreads: \
             one entity's reading beside the earlier values of another",
            "as zscore_self, and as the feature `of`",
        ),
        "transition_rarity" => (
            "−ln of the probability of the step from the latest event's member to this one's: steps of the window, half a step added for \
             each member that followed and for one unseen (Krichevsky and Trofimov); members fall into 64 cells",
            "a sixth of the window at its beginning counts by a share: with 400 steps 0.06 off on average, 0.6 at the 99th percentile. Steps of \
             one writer in order are all counted; each stretch between two writers' turns may be missing or counted once more",
        ),
        "quantile_rank" => (
            "share of the earlier values in the window that are less than this one, equal ones by half",
            "exact among the last 16 events; else values count by buckets an eighth wide at most: 1 % of rank for values that are not tied, \
             3 % at the 99th percentile with 100 events and 6 % with 20",
        ),
        "zscore_self" => (
            "(x − median) / (1.4826 · median of |x − median|) over the earlier values of the window, whose weight halves each quarter of it; \
             the spread is at least a twentieth of the median. Missing with fewer than 4 values",
            "median and spread are told to a quarter of a bucket that is an eighth wide at most: 2 % of 1 + |z| on average, at the 99th percentile \
             8 % with 100 values and 22 % with 20; half of the weight may be outliers",
        ),
        "interarrival" => (
            "geometric mean of the gaps between successive events in the window, seconds, or the standard deviation of ln gap",
            "the mean 1 % off with 100 gaps, 5 % at the 99th percentile, with 20 gaps 2 % and 13 %; the deviation 0.01 and 0.1, and to 0.02 where \
             gaps of a day are all equal; writers who take turns for long stretch the mean up to three times",
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
