//! Streams of events: steady, sparse, bursty, diurnal, and those of published card payments.
//!
//! A seed and a window enter, or a folder; events in order of time leave. What is drawn depends on the seed alone.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::plan::Happened;
use super::row::Failure;

/// 2026-01-01, microseconds.
const START: i64 = 1_767_225_600_000_000;
const DAY: f64 = 86_400e6;
/// Members counted; few enough for an exact set.
const MEMBERS: usize = 50;
/// Members of which entropy, shares and steps are told, equally frequent.
const KINDS: usize = 16;

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Poisson, so many in a window on average.
    Steady(f64),
    /// Poisson, so few that a window holds at most 16 in most cases.
    Sparse,
    /// Bursts of about 40, a two-hundredth of a window apart, with pauses of half a window between them.
    Bursty,
    /// Poisson with a rate that follows the hour: 1.9 times the mean at noon, a tenth of it at midnight.
    Diurnal,
}

impl Arrivals {
    /// Its name in a table.
    pub fn name(self) -> String {
        match self {
            Self::Steady(expected) => format!("steady {expected}"),
            Self::Sparse => "sparse".to_owned(),
            Self::Bursty => "bursty".to_owned(),
            Self::Diurnal => "diurnal".to_owned(),
        }
    }

    const fn expected(self) -> f64 {
        match self {
            Self::Steady(expected) => expected,
            Self::Sparse => 8.0,
            Self::Bursty => 60.0,
            Self::Diurnal => 200.0,
        }
    }

    fn gap(self, rng: &mut ChaCha8Rng, window: f64, time: f64) -> f64 {
        let exponential = -(1.0 - rng.random::<f64>()).ln();
        match self {
            Self::Steady(_) | Self::Sparse => exponential * window / self.expected(),
            Self::Bursty if rng.random_bool(1.0 / 40.0) => exponential * window / 2.0,
            Self::Bursty => exponential * window / 200.0,
            Self::Diurnal => {
                let rate = 1.0 - 0.9 * (time / DAY * std::f64::consts::TAU).cos();
                exponential * window / self.expected() / rate.max(0.1)
            }
        }
    }
}

/// A stream over a window, microseconds: at least four windows of events, and from which on all windows are full.
pub fn draw(arrivals: Arrivals, seed: u64, window: i64) -> (Vec<Happened>, usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let members: Vec<u64> = (0..MEMBERS).map(|_| rng.random()).collect();
    let kinds: Vec<u64> = (0..KINDS).map(|_| rng.random()).collect();
    let (mut time, end, full) = (START as f64, START as f64 + 4.5 * window as f64, START as f64 + 3.2 * window as f64);
    let (mut events, mut from) = (Vec::new(), 0);
    while time < end {
        time += arrivals.gap(&mut rng, window as f64, time);
        let of = |pool: &[u64], at: usize| pool.get(at).copied().unwrap_or_default();
        events.push(Happened {
            time: time as i64,
            // A sum is off as a count is, times √(1 + the square of the values' coefficient of variation): here 1.1.
            amount: f64::from(rng.random_range(100..1_000_u32)) / 4.0,
            member: of(&members, rng.random_range(0..MEMBERS)),
            kind: of(&kinds, rng.random_range(0..KINDS)),
            before: of(&kinds, rng.random_range(0..KINDS)),
            some: rng.random_bool(0.3),
            labelled: rng.random_bool(0.125),
            place: (rng.random_range(35.0..60.0), rng.random_range(-10.0..30.0)),
        });
        if time < full {
            from = events.len();
        }
    }
    (events, from)
}

/// Payments of one in `every` customers and of one in `every` terminals, each of them a stream.
///
/// # Errors
/// When a file of the folder cannot be read; a folder that is not there gives nothing.
pub fn handbook(data: &Path, every: u64) -> Result<Option<Recorded>, Failure> {
    let folder = data.join("fraud_handbook/dev");
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut names: Vec<_> = std::fs::read_dir(&folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    let mut recorded = Recorded::default();
    for month in names.iter().filter_map(|name| name.strip_prefix("tx_")) {
        let payments = lines(&folder.join(format!("tx_{month}")))?;
        let labels = lines(&folder.join(format!("labels_{month}")))?;
        for (payment, label) in payments.zip(labels) {
            recorded.add(&payment?, &label?, every)?;
        }
    }
    Ok(Some(recorded))
}

/// The lines of a compressed file but its head.
fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>, Failure> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(BufReader::new(GzDecoder::new(file)).lines().skip(1))
}

/// Streams of payments by customer and by terminal.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Of customers: the members are terminals.
    pub customers: std::collections::BTreeMap<u64, Vec<Happened>>,
    /// Of terminals: the members are customers.
    pub terminals: std::collections::BTreeMap<u64, Vec<Happened>>,
}

impl Recorded {
    fn add(&mut self, payment: &str, label: &str, every: u64) -> Result<(), Failure> {
        let fields: Vec<&str> = payment.split(',').collect();
        let [_, _, customer, terminal, amount, seconds, ..] = fields.as_slice() else {
            return Err(format!("`{payment}` is no payment").into());
        };
        let (customer, terminal): (u64, u64) = (customer.parse()?, terminal.parse()?);
        if customer % every != 0 && terminal % every != 0 {
            return Ok(());
        }
        let amount: f64 = amount.parse()?;
        let fraud = label.split(',').nth(1) == Some("1");
        let time = START + seconds.parse::<i64>()? * 1_000_000;
        let happened = |member: u64| Happened {
            time,
            amount,
            member: scattered(member),
            // Sixteen neighbourhoods.
            kind: scattered(member % KINDS as u64),
            before: scattered((member + terminal) % KINDS as u64),
            some: amount > 100.0,
            labelled: fraud,
            place: (35.0 + (terminal % 25) as f64, (terminal % 40) as f64 - 10.0),
        };
        if customer % every == 0 {
            self.customers.entry(customer).or_default().push(happened(terminal));
        }
        if terminal % every == 0 {
            self.terminals.entry(terminal).or_default().push(happened(customer));
        }
        Ok(())
    }
}

/// A number as a member: the finaliser of SplitMix64.
fn scattered(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
