//! Reads of histograms: entropy, shares, rank, robust z, rarity of a step.
//!
//! A reading and a section enter, one number leaves; NaN stands for no evidence. Rows of the ring count as they are, what was spilled
//! counts by bucket.

use smallvec::SmallVec;

use crate::kernel::histogram::{self, Histogram, STATES};
use crate::kernel::layout::Section;
use crate::kernel::plan::{AccumulatorId, Scale};
use crate::kernel::ring::{self, VALUE_SCALE};
use crate::kernel::tiles::Stretch;

use super::{Reading, weights};

/// Fewer earlier values than this are no baseline.
const EVIDENCE: f64 = 4.0;
/// Half-lives of a baseline in its window.
const HALVINGS: f64 = 4.0;

/// A histogram as it stands in its window.
struct Found<'a> {
    filter: u64,
    value: usize,
    scale: Scale,
    window: i64,
    rows: u16,
    stretch: Stretch,
    spilled: Option<&'a Histogram>,
}

impl Found<'_> {
    /// Bucket, weight and tile of what was spilled.
    fn weights(&self) -> impl Iterator<Item = (u16, f64, i64)> + '_ {
        self.spilled.into_iter().flat_map(|spilled| spilled.weights(self.stretch))
    }
}

impl Reading<'_> {
    fn histogram(&self, id: AccumulatorId) -> Option<Found<'_>> {
        let Some(Section::Histogram { filter, value, scale, index, window }) = self.layout.section(id) else { return None };
        let start = self.at - window;
        Some(Found {
            filter,
            value: value.into(),
            scale,
            window,
            rows: self.recent.after(start),
            stretch: Stretch::new(start, histogram::width(window), self.state.spilled_until),
            spilled: self.state.histograms.as_ref().and_then(|all| all.get(index)),
        })
    }

    /// The weight of each cell.
    fn cells(&self, id: AccumulatorId) -> Option<(Found<'_>, [f64; STATES as usize])> {
        let found = self.histogram(id)?;
        let mut cells = [0.0; STATES as usize];
        let mut add = |bucket: u16, weight: f64| {
            if let Some(cell) = cells.get_mut(usize::from(bucket)) {
                *cell += weight;
            }
        };
        found.weights().for_each(|(bucket, weight, _)| add(bucket, weight));
        for (_, word, sign) in self.recent.values(self.recent.passing(found.filter) & found.rows, found.value) {
            add(histogram::bucket(found.scale, word), sign as f64);
        }
        cells.iter_mut().for_each(|cell| *cell = cell.max(0.0));
        Some((found, cells))
    }

    pub(super) fn entropy(&self, id: AccumulatorId) -> f64 {
        self.cells(id).map_or(f64::NAN, |(_, cells)| weights::entropy(&cells))
    }

    pub(super) fn top_share(&self, id: AccumulatorId) -> f64 {
        self.cells(id).map_or(f64::NAN, |(_, cells)| weights::share(&cells, cells.iter().copied().fold(0.0, f64::max)))
    }

    pub(super) fn own_share(&self, id: AccumulatorId) -> f64 {
        let Some((found, cells)) = self.cells(id) else { return f64::NAN };
        let own = self.own(found.value).map(|own| histogram::bucket(found.scale, ring::fixed(own)));
        own.and_then(|own| cells.get(usize::from(own))).map_or(f64::NAN, |cell| weights::share(&cells, *cell))
    }

    pub(super) fn rank(&self, id: AccumulatorId) -> f64 {
        let Some(found) = self.histogram(id) else { return f64::NAN };
        let Some(own) = self.own(found.value).map(ring::fixed) else { return f64::NAN };
        let (mut below, mut total) = (0.0, 0.0);
        for (_, word, sign) in self.recent.values(self.recent.passing(found.filter) & found.rows, found.value) {
            total += sign as f64;
            below += sign as f64
                * match word.cmp(&own) {
                    std::cmp::Ordering::Less => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Greater => 0.0,
                };
        }
        let own = own as f64 / VALUE_SCALE;
        for (bucket, weight, _) in found.weights() {
            // Within its bucket values are taken to be spread evenly.
            let (low, high) = histogram::bounds(bucket);
            total += weight;
            below += weight * ((own - low) / (high - low)).clamp(0.0, 1.0);
        }
        if total > 0.0 { (below / total).clamp(0.0, 1.0) } else { f64::NAN }
    }

    pub(super) fn zscore(&mut self, id: AccumulatorId) -> f64 {
        let Some(own) = self.histogram(id).map(|found| found.value).and_then(|value| self.own(value)) else { return f64::NAN };
        self.baseline(id).map_or(f64::NAN, |(middle, spread)| (own - middle) / spread)
    }

    /// Middle and spread of the earlier values, recent ones weighing more; nothing with fewer than four.
    pub(super) fn baseline(&mut self, id: AccumulatorId) -> Option<(f64, f64)> {
        match self.baseline {
            Some((known, baseline)) if known == id => baseline,
            _ => {
                let baseline = self.middle_and_spread(id);
                self.baseline = Some((id, baseline));
                baseline
            }
        }
    }

    fn middle_and_spread(&self, id: AccumulatorId) -> Option<(f64, f64)> {
        let found = self.histogram(id)?;
        let width = histogram::width(found.window);
        let fresh = |time: i64| (-HALVINGS * (self.at - time).max(0) as f64 / found.window as f64).exp2();
        let mut count = 0.0;
        let mut points = SmallVec::<[(f64, f64); 64]>::new();
        for (time, word, _) in self.recent.values(self.recent.adding(found.filter) & found.rows, found.value) {
            count += 1.0;
            points.push((word as f64 / VALUE_SCALE, fresh(time)));
        }
        for (bucket, weight, tile) in found.weights().filter(|(_, weight, _)| *weight > 0.0) {
            count += weight;
            let (low, high) = histogram::bounds(bucket);
            let weight = weight * fresh(tile.saturating_mul(width).saturating_add(width / 2)) / 4.0;
            // Spread evenly over its bucket: four points of it.
            points.extend([0.125, 0.375, 0.625, 0.875].map(|part| (low + part * (high - low), weight)));
        }
        (count >= EVIDENCE).then(|| weights::middle_and_spread(&mut points))
    }

    /// −ln of the share of steps that led to this event's cell among those from the cell before, smoothed by half a step for each cell
    /// that they led to and for one more (Krichevsky and Trofimov 1981).
    pub(super) fn rarity(&self, id: AccumulatorId) -> f64 {
        let Some(found) = self.histogram(id) else { return f64::NAN };
        let cell = |word: i64| histogram::bucket(found.scale, word);
        let Some(to) = self.own(found.value).map(|own| cell(ring::fixed(own))) else { return f64::NAN };
        let rows = self.recent.values(self.recent.adding(found.filter), found.value).map(|(time, word, _)| (time, cell(word)));
        let ends = found.spilled.and_then(|spilled| spilled.ends);
        let path: SmallVec<[(i64, u16); 17]> = ends.map(|ends| ends.last).into_iter().chain(rows).collect();
        let Some((_, from)) = path.last().copied() else { return f64::NAN };
        let mut steps = [0.0; STATES as usize];
        let mut add = |step: u16, weight: f64| {
            if let Some(known) = steps.get_mut(usize::from(step % STATES)).filter(|_| step / STATES == from) {
                *known += weight;
            }
        };
        found.weights().for_each(|(step, weight, _)| add(step, weight));
        for (earlier, later) in path.iter().zip(path.iter().skip(1)) {
            if later.0 > self.at - found.window {
                add(histogram::pair(earlier.1, later.1), 1.0);
            }
        }
        among(&steps, to)
    }

    /// The same where each event says its step itself, because somebody else made it.
    pub(super) fn step_rarity(&self, id: AccumulatorId) -> f64 {
        let Some(found) = self.histogram(id) else { return f64::NAN };
        let Some(own) = self.own(found.value).map(|own| histogram::bucket(found.scale, ring::fixed(own))) else { return f64::NAN };
        let (from, to) = (own / STATES, own % STATES);
        let mut steps = [0.0; STATES as usize];
        let mut add = |to: u16, weight: f64| {
            if let Some(known) = steps.get_mut(usize::from(to)) {
                *known += weight;
            }
        };
        found.spilled.into_iter().flat_map(|spilled| spilled.steps_from(from, found.stretch)).for_each(|(to, weight)| add(to, weight));
        for (_, word, sign) in self.recent.values(self.recent.passing(found.filter) & found.rows, found.value) {
            let step = histogram::bucket(found.scale, word);
            if step / STATES == from {
                add(step % STATES, sign as f64);
            }
        }
        steps.iter_mut().for_each(|weight| *weight = weight.max(0.0));
        among(&steps, to)
    }
}

/// −ln of the share of one among the steps from a cell, smoothed; NaN when there are none.
fn among(steps: &[f64], to: u16) -> f64 {
    let all: f64 = steps.iter().sum();
    let led_to = steps.iter().filter(|weight| **weight > 0.0).count() as f64;
    let known = steps.get(usize::from(to)).copied().unwrap_or_default();
    if all > 0.0 { -((known + 0.5) / (all + 0.5 * (led_to + 1.0))).ln() } else { f64::NAN }
}
