//! Accuracy beside an exact reference that keeps every event: each aggregation, each window, each stream.
//!
//! Streams enter, figures leave. The full size (`TELLTALE_SIZE=full`, some minutes) writes one line of JSON an aggregation, window and stream to
//! `target/check/accuracy.ndjson` and the worst window of each to `target/check/accuracy.json`. Nothing here is random but by seed. Data
//! that is not there is said to be absent.

mod distinct;
mod errors;
mod plan;
mod reference;
mod row;
mod streams;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use telltale_features::kernel::{EntityState, Layout};

use self::errors::{Class, Figure};
use self::plan::{ALL, Aggregation, Happened};
use self::reference::Past;
use self::row::{Failure, Row};
use self::streams::Arrivals;

/// The windows of the shipped schemas, seconds.
const WINDOWS: [u64; 7] = [10, 60, 600, 3_600, 86_400, 604_800, 2_592_000];
/// Those of card payments.
const DAYS: [u64; 3] = [86_400, 604_800, 2_592_000];

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Size {
    /// Streams of each sort and window.
    pub streams: u64,
    /// Windows, seconds.
    pub windows: Vec<u64>,
    /// One of so many recorded customers and terminals; none without data.
    pub recorded: Option<(PathBuf, u64)>,
    /// Rounds of the distinct counts, and the greatest number of members.
    pub distinct: (u64, u64),
}

/// Errors by aggregation, class, stream and window.
type Errors = BTreeMap<(Aggregation, Class, String), BTreeMap<u64, Vec<f64>>>;

/// Every figure.
///
/// # Errors
/// When data that is there cannot be read.
pub fn measure(size: &Size) -> Result<Vec<Figure>, Failure> {
    let mut errors = Errors::new();
    let steady = [20.0, 50.0, 90.0, 115.0, 400.0].map(Arrivals::Steady);
    for seconds in &size.windows {
        for arrivals in steady.into_iter().chain([Arrivals::Sparse, Arrivals::Bursty, Arrivals::Diurnal]) {
            for seed in 0..size.streams {
                let (events, from) = streams::draw(arrivals, seed * 7_919 + seconds, *seconds as i64 * 1_000_000);
                follow(&events, (from, 3), *seconds, (&arrivals.name(), &mut errors));
            }
        }
    }
    if let Some((data, every)) = &size.recorded {
        match streams::handbook(data, *every)? {
            None => eprintln!("fraud_handbook/dev: absent in {}", data.display()),
            Some(recorded) => {
                for (name, streams) in [("card customers", &recorded.customers), ("card terminals", &recorded.terminals)] {
                    for (events, seconds) in streams.values().flat_map(|events| DAYS.iter().map(move |seconds| (events, seconds))) {
                        follow(events, (0, 1), *seconds, (name, &mut errors));
                    }
                }
            }
        }
    }
    let figure = |((aggregation, class, stream), windows): ((Aggregation, Class, String), BTreeMap<u64, Vec<f64>>)| {
        windows.into_iter().map(move |(window, errors)| Figure::new((aggregation, class), stream.clone(), window, errors))
    };
    Ok(errors.into_iter().flat_map(figure).collect())
}

/// Takes a stream through the kernel and beside it through the reference; asks from the step `from` on at every so many steps.
fn follow(events: &[Happened], (from, every): (usize, usize), seconds: u64, (stream, errors): (&str, &mut Errors)) {
    let layout = Layout::new(plan::plan(Duration::from_secs(seconds)));
    let mut state = EntityState::default();
    let mut reads = Vec::new();
    for (step, event) in events.iter().enumerate() {
        reads.clear();
        state.observe(&layout, &event.event(), &mut reads);
        if step < from || step % every != 0 {
            continue;
        }
        let past = Past::new(events.get(..=step).unwrap_or_default(), seconds as i64 * 1_000_000);
        for ((aggregation, _), read) in ALL.into_iter().zip(&reads) {
            for (class, error) in errors::of(aggregation, past, *read) {
                errors.entry((aggregation, class, stream.to_owned())).or_default().entry(seconds).or_default().push(error);
            }
        }
    }
}

/// One row an aggregation, class and stream: the window in which it is worst.
fn worst(figures: &[Figure]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (name, value, unit, limit) in figures.iter().flat_map(Figure::measures) {
        match rows.iter_mut().find(|row| row.name == name) {
            // A figure that cannot be told is the worst.
            Some(row) if value.is_nan() || value > row.value => row.value = value,
            Some(_) => {}
            None => rows.push(Row { name, value, unit, bar: limit }),
        }
    }
    rows
}

impl Figure {
    /// As lines of JSON: one a statistic.
    fn lines(&self) -> impl Iterator<Item = serde_json::Value> + '_ {
        self.measures().into_iter().map(|(name, value, unit, limit)| {
            json!({
                "name": name, "aggregation": self.aggregation, "class": self.class.name(), "stream": self.stream,
                "window_s": self.window, "reads": self.errors.len(), "value": value, "unit": unit,
                "bar": limit, "holds": limit.map(|limit| value <= limit),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// With `TELLTALE_SIZE=full` every window, and card payments where they are at hand.
    #[test]
    fn every_aggregation_is_within_its_bound() {
        let full = std::env::var("TELLTALE_SIZE").is_ok_and(|size| size == "full");
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let size = if full {
            // As the Makefile says it: from the project's root, unless it is absolute.
            let data = root.join(std::env::var_os("TELLTALE_DATA").unwrap_or_else(|| "../shared/data".into()));
            Size { streams: 72, windows: WINDOWS.to_vec(), recorded: Some((data, 25)), distinct: (100, 100_000) }
        } else {
            Size { streams: 10, windows: vec![10, 3_600, 2_592_000], recorded: None, distinct: (30, 10_000) }
        };
        let figures = measure(&size).unwrap();
        let rows: Vec<Row> = worst(&figures).into_iter().chain(distinct::rows(&size)).collect();
        if full {
            write(&root.join("target/check"), &figures, &rows);
        }
        let mut missed = Vec::new();
        for row in rows {
            println!("{:<70} {:>10.4} {:<8} {:?}", row.name, row.value, row.unit, row.bar);
            if row.holds() == Some(false) {
                missed.push(format!("{}: {} {}, {:?}", row.name, row.value, row.unit, row.bar));
            }
        }
        assert!(missed.is_empty(), "{}", missed.join("\n"));
    }

    fn write(folder: &Path, figures: &[Figure], rows: &[Row]) {
        std::fs::create_dir_all(folder).unwrap();
        let lines: Vec<String> = figures.iter().flat_map(Figure::lines).map(|line| line.to_string()).collect();
        std::fs::write(folder.join("accuracy.ndjson"), lines.join("\n") + "\n").unwrap();
        let table: Vec<serde_json::Value> = rows.iter().map(Row::json).collect();
        std::fs::write(folder.join("accuracy.json"), serde_json::to_string_pretty(&table).unwrap()).unwrap();
    }

    /// The reference beside numbers worked out by hand.
    #[test]
    fn the_reference_follows_the_definitions() {
        let event = |seconds: i64, amount: f64, kind: u64| Happened {
            time: seconds * 1_000_000,
            amount,
            member: kind,
            kind,
            before: kind,
            some: amount > 2.0,
            labelled: false,
            place: (0.0, 0.0),
        };
        let events = [event(0, 9.0, 1), event(10, 1.0, 1), event(14, 3.0, 2), event(20, 5.0, 1)];
        let past = Past::new(&events, 10_000_000);
        for (aggregation, expected) in [
            (Aggregation::Count, 2.0),
            (Aggregation::Sum, 8.0),
            (Aggregation::Ratio, 1.0),
            (Aggregation::Min, 3.0),
            (Aggregation::Stddev, 1.0),
            (Aggregation::Entropy, 1.0),
            (Aggregation::OwnShare, 0.0),
            (Aggregation::QuantileRank, 1.0),
            (Aggregation::Last, 3.0),
            (Aggregation::Age, 20.0),
            (Aggregation::SinceLast, 6.0),
            (Aggregation::Novelty, 1.0),
        ] {
            assert_eq!(past.exact(aggregation), expected, "{aggregation:?}");
        }
        let longer = Past::new(&events, 30_000_000);
        assert!((longer.exact(Aggregation::GapMean) - (10.0_f64 * 4.0).sqrt()).abs() < 1e-9);
        // From kind 2 nothing followed yet; from kind 1 once kind 1 and once kind 2.
        assert!(longer.exact(Aggregation::TransitionRarity).is_nan());
        let back = [events[0], events[1], events[2], event(20, 5.0, 1), event(21, 5.0, 2)];
        let rarity = Past::new(&back, 30_000_000).exact(Aggregation::TransitionRarity);
        assert!((rarity + (1.5_f64 / 3.5).ln()).abs() < 1e-9, "{rarity}");
    }
}
