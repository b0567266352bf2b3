//! The exact reference: keeps every event and works each aggregation out by its documented definition.
//!
//! Events in order of time enter, the last of them the one that is asked about; a number leaves, NaN without evidence. It shares no code
//! with the kernel but the number of a member's cell.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Aggregation, DELAY, Happened, cell};

/// Everything that happened so far, and over how long is asked.
#[derive(Clone, Copy)]
pub struct Past<'a> {
    all: &'a [Happened],
    window: i64,
}

impl<'a> Past<'a> {
    /// The events up to the one that is asked about, and a window, microseconds.
    pub const fn new(all: &'a [Happened], window: i64) -> Self {
        Self { all, window }
    }

    fn at(self) -> i64 {
        self.all.last().map_or(0, |event| event.time)
    }

    fn since(self, start: i64) -> &'a [Happened] {
        let from = self.all.partition_point(|event| event.time <= start);
        self.all.get(from..).unwrap_or_default()
    }

    /// The events in `(at − window, at]`.
    pub fn inside(self) -> &'a [Happened] {
        self.since(self.at() - self.window)
    }

    /// The same events but the last one.
    fn earlier(self) -> &'a [Happened] {
        self.inside().split_last().map_or(&[], |(_, earlier)| earlier)
    }

    /// Everything but the last event, as old as it may be.
    fn before(self) -> &'a [Happened] {
        self.all.split_last().map_or(&[], |(_, before)| before)
    }

    /// How many events of any kind the window holds that the aggregation is about.
    pub fn of_any_kind(self, aggregation: Aggregation) -> usize {
        match aggregation {
            Aggregation::LabelRate => self.since(self.at() - self.window * i64::from(DELAY + 1) - 1).len(),
            _ => self.inside().len(),
        }
    }

    /// The same with a window shorter or longer by a twelfth.
    pub const fn by_a_tile(self, longer: bool) -> Self {
        let tile = self.window / 12 + 1;
        Self { all: self.all, window: if longer { self.window + tile } else { self.window - tile } }
    }

    /// What the aggregation is, by definition.
    pub fn exact(self, aggregation: Aggregation) -> f64 {
        let inside = self.inside();
        let count = inside.len() as f64;
        let of_some = inside.iter().filter(|event| event.some).count() as f64;
        let sum = || inside.iter().map(|event| event.amount).sum::<f64>();
        match aggregation {
            Aggregation::Count | Aggregation::Rate => count,
            Aggregation::CountOfSome => of_some,
            Aggregation::Sum => sum(),
            Aggregation::Mean => sum() / count,
            Aggregation::Ratio => of_some / count,
            Aggregation::Min => inside.iter().map(|event| event.amount).fold(f64::INFINITY, f64::min),
            Aggregation::Max => inside.iter().map(|event| event.amount).fold(f64::NEG_INFINITY, f64::max),
            Aggregation::Stddev => at_least(2, inside, || deviation(inside.iter().map(|event| event.amount))),
            Aggregation::Distinct => inside.iter().map(|event| event.member).collect::<BTreeSet<_>>().len() as f64,
            Aggregation::Novelty => {
                let own = self.all.last().map(|event| event.member);
                f64::from(u8::from(!self.earlier().iter().any(|event| Some(event.member) == own)))
            }
            Aggregation::Entropy => entropy(inside, |event| event.kind),
            Aggregation::TopShare => shares(inside, |event| event.kind).into_values().fold(0.0, f64::max),
            Aggregation::OwnShare => self.own_share(|event| event.kind),
            Aggregation::QuantileRank => self.rank(),
            Aggregation::Zscore => at_least(4, self.earlier(), || self.zscore()),
            Aggregation::TransitionRarity => self.rarity(),
            Aggregation::StepRarity => self.step_rarity(),
            Aggregation::GapMean => self.gaps().map_or(f64::NAN, |gaps| (gaps.iter().sum::<f64>() / gaps.len() as f64).exp()),
            Aggregation::GapSpread => self.gaps().map_or(f64::NAN, |gaps| deviation(gaps.into_iter())),
            Aggregation::Age => self.before().first().map_or(f64::NAN, |first| (self.at() - first.time) as f64 / 1e6),
            Aggregation::SinceLast => self.before().last().map_or(f64::NAN, |last| (self.at() - last.time) as f64 / 1e6),
            Aggregation::Last => self.before().last().map_or(f64::NAN, |last| last.amount),
            Aggregation::Speed => self.speed(),
            Aggregation::LabelRate => self.label_rate(),
        }
    }

    /// The same where members that share a cell are one.
    pub fn exact_by_cells(self, aggregation: Aggregation) -> f64 {
        let inside = self.inside();
        match aggregation {
            Aggregation::Entropy => entropy(inside, |event| cell(event.kind)),
            Aggregation::TopShare => shares(inside, |event| cell(event.kind)).into_values().fold(0.0, f64::max),
            Aggregation::OwnShare => self.own_share(|event| cell(event.kind)),
            other => self.exact(other),
        }
    }

    fn own_share(self, of: impl Fn(&Happened) -> u64) -> f64 {
        let Some(own) = self.all.last().map(&of) else { return f64::NAN };
        at_least(1, self.earlier(), || shares(self.earlier(), of).get(&own).copied().unwrap_or(0.0))
    }

    fn rank(self) -> f64 {
        let Some(own) = self.all.last().map(|event| event.amount) else { return f64::NAN };
        let earlier = self.earlier();
        let below = earlier.iter().filter(|event| event.amount < own).count() as f64;
        let equal = earlier.iter().filter(|event| event.amount == own).count() as f64;
        at_least(1, earlier, || (below + equal / 2.0) / earlier.len() as f64)
    }

    fn zscore(self) -> f64 {
        let Some(own) = self.all.last() else { return f64::NAN };
        let fresh = |time: i64| (-4.0 * (own.time - time) as f64 / self.window as f64).exp2();
        let points: Vec<(f64, f64)> = self.earlier().iter().map(|event| (event.amount, fresh(event.time))).collect();
        let middle = median(points.clone());
        let spread = 1.482_602_2 * median(points.iter().map(|(value, weight)| ((value - middle).abs(), *weight)).collect());
        (own.amount - middle) / spread.max(0.05 * middle.abs()).max(1.0 / 256.0)
    }

    fn rarity(self) -> f64 {
        let before = self.before();
        let (Some(from), Some(to)) = (before.last().map(|event| cell(event.kind)), self.all.last().map(|event| cell(event.kind))) else {
            return f64::NAN;
        };
        let start = self.at() - self.window;
        let mut steps: BTreeMap<u64, f64> = BTreeMap::new();
        for (earlier, later) in before.iter().zip(before.iter().skip(1)) {
            if cell(earlier.kind) == from && later.time > start {
                *steps.entry(cell(later.kind)).or_default() += 1.0;
            }
        }
        among(&steps, to)
    }

    fn step_rarity(self) -> f64 {
        let Some(own) = self.all.last().map(Happened::step) else { return f64::NAN };
        let mut steps: BTreeMap<u64, f64> = BTreeMap::new();
        for event in self.earlier().iter().filter(|event| event.step() / 64 == own / 64) {
            *steps.entry(event.step() % 64).or_default() += 1.0;
        }
        among(&steps, own % 64)
    }

    /// ln of each gap in the window, of which the later event lies inside; nothing with fewer than two.
    fn gaps(self) -> Option<Vec<f64>> {
        let before = self.before();
        let start = self.at() - self.window;
        let pairs = before.iter().zip(before.iter().skip(1)).filter(|(_, later)| later.time > start);
        let gaps: Vec<f64> = pairs.map(|(earlier, later)| ((later.time - earlier.time) as f64 / 1e6).max(1e-3).ln()).collect();
        (gaps.len() >= 2).then_some(gaps)
    }

    fn speed(self) -> f64 {
        let (Some(there), Some(here)) = (self.before().last(), self.all.last()) else { return f64::NAN };
        let hours = (here.time - there.time).max(1_000_000) as f64 / 3.6e9;
        // On the sphere by the angle between two vectors, not by haversines.
        let vector = |(north, east): (f64, f64)| {
            let (north, east) = (north.to_radians(), east.to_radians());
            [north.cos() * east.cos(), north.cos() * east.sin(), north.sin()]
        };
        let ([a, b, c], [x, y, z]) = (vector(there.place), vector(here.place));
        let across = [b * z - c * y, c * x - a * z, a * y - b * x].map(|part| part * part).iter().sum::<f64>().sqrt();
        6_371.008_8 * across.atan2(a * x + b * y + c * z) / hours
    }

    fn label_rate(self) -> f64 {
        let end = self.at() - self.window * i64::from(DELAY);
        let matured = self.since(end - self.window - 1);
        let matured = matured.get(..matured.partition_point(|event| event.time < end)).unwrap_or_default();
        at_least(1, matured, || matured.iter().filter(|event| event.labelled).count() as f64 / matured.len() as f64)
    }
}

/// −ln of the share of one, half a step added for each that followed and for one more.
fn among(steps: &BTreeMap<u64, f64>, to: u64) -> f64 {
    let all: f64 = steps.values().sum();
    let known = steps.get(&to).copied().unwrap_or_default();
    if all > 0.0 { -((known + 0.5) / (all + 0.5 * (steps.len() as f64 + 1.0))).ln() } else { f64::NAN }
}

fn at_least(least: usize, events: &[Happened], value: impl FnOnce() -> f64) -> f64 {
    if events.len() < least { f64::NAN } else { value() }
}

fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

fn shares(events: &[Happened], of: impl Fn(&Happened) -> u64) -> BTreeMap<u64, f64> {
    let mut shares = BTreeMap::new();
    for event in events {
        *shares.entry(of(event)).or_default() += 1.0 / events.len() as f64;
    }
    shares
}

fn entropy(events: &[Happened], of: impl Fn(&Happened) -> u64) -> f64 {
    at_least(1, events, || shares(events, of).into_values().map(|share| -share * share.log2()).sum())
}

/// The value at which half of the weight is reached; exactly between two of them their mean.
fn median(mut points: Vec<(f64, f64)>) -> f64 {
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let half = points.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut reached = 0.0;
    let mut points = points.into_iter().peekable();
    while let Some((value, weight)) = points.next() {
        reached += weight;
        if reached == half {
            return points.peek().map_or(value, |(next, _)| (value + next) / 2.0);
        }
        if reached > half {
            return value;
        }
    }
    f64::NAN
}
