//! Reading features: what the history says before an event, and after it.
//!
//! A state, an event and an instant enter, one number a [`Read`] of the plan leaves; NaN stands for no evidence. Nothing is changed,
//! except by [`EntityState::observe`], which reads, applies and reads again.

mod histograms;
mod series;
mod weights;

use smallvec::SmallVec;

use crate::event::Event;
use crate::time::Timestamp;

use super::extremes;
use super::gaps::{self, Moments};
use super::latest::kilometres;
use super::layout::{Layout, Section, Span};
use super::plan::{AccumulatorId, GapStat, Read};
use super::recent::Recent;
use super::ring::{self, MISSING, VALUE_SCALE};
use super::sparse::Offsets;
use super::state::EntityState;
use super::tiles::{self, Stretch};
use super::{NEVER, TIME_LIMIT, matured, moments};

/// Which reads are wanted: those that exclude the event, or those that include it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    After,
}

fn phase(read: Read) -> Phase {
    match read {
        Read::Novelty(_)
        | Read::Interarrival { .. }
        | Read::Age(_)
        | Read::SinceLast(_)
        | Read::Last(_)
        | Read::Speed(_)
        | Read::OwnShare(_)
        | Read::QuantileRank(_)
        | Read::Zscore(_)
        | Read::TransitionRarity(_)
        | Read::StepRarity(_)
        | Read::Middle(_)
        | Read::Spread(_) => Phase::Before,
        Read::Count(_)
        | Read::Sum(_)
        | Read::Mean { .. }
        | Read::Ratio { .. }
        | Read::Distinct { .. }
        | Read::Extreme(_)
        | Read::Stddev(_)
        | Read::Entropy(_)
        | Read::TopShare(_)
        | Read::LabelRate { .. } => Phase::After,
    }
}

/// One reading: of which state, under which plan, of which event, at which instant.
struct Reading<'a> {
    state: &'a EntityState,
    layout: &'a Layout,
    event: Option<&'a Event>,
    at: i64,
    recent: Recent<'a>,
    offsets: Offsets,
    /// What each window of the layout takes in.
    windows: SmallVec<[Window; 8]>,
    /// Gaps of an interarrival section, kept between its two statistics.
    memo: Option<(AccumulatorId, Moments)>,
    /// Middle and spread of a baseline, kept between its reads.
    baseline: Option<(AccumulatorId, Option<(f64, f64)>)>,
}

/// What a window takes in: rows of the ring, and a stretch of tiles.
#[derive(Clone, Copy, Default)]
struct Window {
    start: i64,
    rows: u16,
    stretch: Stretch,
}

impl EntityState {
    /// Reads what goes before the event, applies it, reads what goes after it. `reads` gets one value a read of the plan; the
    /// return value is the event's lateness, seconds.
    pub fn observe(&mut self, layout: &Layout, event: &Event, reads: &mut impl Extend<f64>) -> f64 {
        let lateness = self.lateness(event);
        let plan = &layout.plan().reads;
        let at = self.high_water.max(ring::time_of(event));
        let mut before = SmallVec::<[f64; 16]>::new();
        if plan.iter().any(|read| phase(*read) == Phase::Before) {
            let mut reading = Reading::new(self, layout, Some(event), at);
            before.extend(plan.iter().filter(|read| phase(**read) == Phase::Before).map(|read| reading.one(*read)));
        }
        self.apply(layout, event);
        let mut reading = Reading::new(self, layout, Some(event), at);
        let mut before = before.into_iter();
        reads.extend(plan.iter().map(|read| match phase(*read) {
            Phase::Before => before.next().unwrap_or(f64::NAN),
            Phase::After => reading.one(*read),
        }));
        lateness
    }

    /// Reads every feature as it stands at `now`, or at the newest event if that is later. `event` is only asked for its members.
    pub fn read(&self, layout: &Layout, event: Option<&Event>, now: Timestamp) -> Vec<f64> {
        let at = self.high_water.max(now.micros().clamp(-TIME_LIMIT, TIME_LIMIT));
        let mut reading = Reading::new(self, layout, event, at);
        layout.plan().reads.iter().map(|read| reading.one(*read)).collect()
    }
}

impl<'a> Reading<'a> {
    #[inline]
    fn new(state: &'a EntityState, layout: &'a Layout, event: Option<&'a Event>, at: i64) -> Self {
        let recent = Recent::new(&state.ring, layout.stride);
        let windows = layout.windows.iter().map(|window| {
            let start = at - window;
            Window { start, rows: recent.after(start), stretch: Stretch::new(start, tiles::width(*window), state.spilled_until) }
        });
        Self {
            state,
            layout,
            event,
            at,
            windows: windows.collect(),
            recent,
            offsets: state.sparse.offsets(layout),
            memo: None,
            baseline: None,
        }
    }

    fn one(&mut self, read: Read) -> f64 {
        let at = self.at;
        match read {
            Read::Count(id) => self.weight(id).max(0.0),
            Read::Sum(id) => self.sum(id),
            Read::Mean { sum, count } => {
                let count = self.weight(count);
                if count > 0.0 { self.sum(sum) / count } else { f64::NAN }
            }
            Read::Ratio { part, whole } => {
                let whole = self.weight(whole);
                if whole > 0.0 { self.weight(part).max(0.0) / whole } else { f64::NAN }
            }
            Read::Distinct { of, window } => match self.layout.section(of) {
                Some(Section::Distinct { horizon, index, .. }) => {
                    let window = crate::time::micros(window).clamp(0, horizon);
                    self.state.distinct.get(index).map_or(0.0, |distinct| distinct.count(at - window))
                }
                _ => f64::NAN,
            },
            Read::Novelty(id) => self.novelty(id),
            Read::Interarrival { of, stat } => self.interarrival(of, stat),
            Read::Age(id) => self.seen(id).map_or(f64::NAN, |(first, _)| (at - first) as f64 / 1e6),
            Read::SinceLast(id) => self.seen(id).map_or(f64::NAN, |(_, last)| (at - last) as f64 / 1e6),
            Read::Extreme(id) => self.extreme(id),
            Read::Stddev(id) => self.deviation(id),
            Read::Last(id) => self.last(id),
            Read::Speed(id) => self.speed(id),
            Read::LabelRate { part, whole } => {
                let whole = self.matured(whole);
                if whole > 0.0 { self.matured(part).max(0.0) / whole } else { f64::NAN }
            }
            Read::Entropy(id) => self.entropy(id),
            Read::TopShare(id) => self.top_share(id),
            Read::OwnShare(id) => self.own_share(id),
            Read::QuantileRank(id) => self.rank(id),
            Read::Zscore(id) => self.zscore(id),
            Read::TransitionRarity(id) => self.rarity(id),
            Read::StepRarity(id) => self.step_rarity(id),
            Read::Middle(id) => self.baseline(id).map_or(f64::NAN, |(middle, _)| middle),
            Read::Spread(id) => self.baseline(id).map_or(f64::NAN, |(_, spread)| spread),
        }
    }

    /// This event's value, where it has it.
    fn own(&self, value: usize) -> Option<f64> {
        self.event.and_then(|event| event.values.get(value).copied()).filter(|value| !value.is_nan())
    }

    fn extreme(&self, id: AccumulatorId) -> f64 {
        let (filter, value, span, sign) = match self.layout.section(id) {
            Some(Section::Greatest { filter, value, span }) => (filter, value, span, 1),
            Some(Section::Least { filter, value, span }) => (filter, value, span, -1),
            _ => return f64::NAN,
        };
        let window = self.window(span);
        let spilled = extremes::greatest(self.part(span.part, extremes::WORDS), window.stretch);
        let recent = self.recent.values(self.recent.adding(filter) & window.rows, value).map(|(_, word, _)| word * sign);
        match recent.fold(spilled, i64::max) {
            MISSING => f64::NAN,
            greatest => greatest.saturating_mul(sign) as f64 / VALUE_SCALE,
        }
    }

    fn deviation(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Moments { filter, value, span }) = self.layout.section(id) else { return f64::NAN };
        let window = self.window(span);
        let mut moments = moments::Moments::default();
        moments.add_tiles(self.part(span.part, moments::WORDS), window.stretch);
        for (_, word, sign) in self.recent.values(self.recent.passing(filter) & window.rows, value) {
            moments.add(word, sign);
        }
        moments.deviation().unwrap_or(f64::NAN)
    }

    fn last(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Latest { filter, value, part }) = self.layout.section(id) else { return f64::NAN };
        let spilled = match self.part(part, 2) {
            [time, value] => Some((*time, *value)),
            _ => None,
        };
        let recent = self.recent.values(self.recent.adding(filter), value).map(|(time, word, _)| (time, word));
        recent.chain(spilled).max().map_or(f64::NAN, |(_, word)| word as f64 / VALUE_SCALE)
    }

    fn speed(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Position { filter, latitude, longitude, part }) = self.layout.section(id) else { return f64::NAN };
        let spilled = match self.part(part, 3) {
            [time, south, east] => Some((*time, *south, *east)),
            _ => None,
        };
        let recent = self.recent.rows_of(self.recent.adding(filter)).map(|row| (row.time(), row.value(latitude), row.value(longitude)));
        let latest = recent.filter(|(_, south, east)| *south != MISSING && *east != MISSING).chain(spilled).max();
        let (Some((time, south, east)), Some(here)) = (latest, self.own(latitude).zip(self.own(longitude))) else { return f64::NAN };
        let there = (south as f64 / VALUE_SCALE, east as f64 / VALUE_SCALE);
        let on_earth = |(south, east): (f64, f64)| south.abs() <= 90.0 && east.abs() <= 180.0;
        if !on_earth(there) || !on_earth(here) {
            return f64::NAN;
        }
        // Two events within a second are taken to be a second apart: clocks tell no better.
        kilometres(there, here) / ((self.at - time).max(1_000_000) as f64 / 3.6e9)
    }

    fn matured(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Matured { filter, window, delay, part }) = self.layout.section(id) else { return f64::NAN };
        let end = self.at - delay;
        let spilled = matured::total(
            self.part(part, 1 + matured::cells(window, delay)),
            (end - window, end),
            tiles::width(window),
            self.state.spilled_until,
        );
        let rows = self.recent.after(end - window - 1) & !self.recent.after(end - 1);
        spilled + self.recent.weight(self.recent.passing(filter) & rows) as f64
    }

    fn window(&self, span: Span) -> Window {
        self.windows.get(span.window).copied().unwrap_or_default()
    }

    fn part(&self, part: usize, words: usize) -> &[i64] {
        self.state.sparse.part(self.offsets.of(part), words)
    }

    fn tiles(&self, span: Span) -> (i64, f64) {
        match self.part(span.part, tiles::WORDS) {
            [newest, cells @ ..] => {
                let ([whole], [part]) = tiles::total::<1>(*newest, cells, self.window(span).stretch);
                (whole, part)
            }
            [] => (0, 0.0),
        }
    }

    fn weight(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Count { filter, span }) = self.layout.section(id) else { return f64::NAN };
        let (whole, part) = self.tiles(span);
        let ring = self.recent.weight(self.recent.passing(filter) & self.window(span).rows);
        whole.saturating_add(ring) as f64 + part
    }

    fn sum(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Sum { filter, value, span }) = self.layout.section(id) else { return f64::NAN };
        let (whole, part) = self.tiles(span);
        let ring = self.recent.sum(self.recent.passing(filter) & self.window(span).rows, value);
        (whole.saturating_add(ring) as f64 + part) / VALUE_SCALE
    }

    fn novelty(&self, id: AccumulatorId) -> f64 {
        let Some(Section::Distinct { member, horizon, index, sorting, .. }) = self.layout.section(id) else { return f64::NAN };
        match self.event.and_then(|event| event.members.get(member).copied().flatten()) {
            Some(member) => {
                self.state.distinct.get(index).map_or(1.0, |distinct| distinct.novelty(member, self.at - horizon, sorting.salt))
            }
            None => f64::NAN,
        }
    }

    fn interarrival(&mut self, id: AccumulatorId, stat: GapStat) -> f64 {
        let moments = match &self.memo {
            Some((known, moments)) if *known == id => *moments,
            _ => self.gaps(id),
        };
        self.memo = Some((id, moments));
        moments.statistics().map_or(f64::NAN, |(mean, deviation)| match stat {
            GapStat::GeometricMean => mean.exp(),
            GapStat::LogStddev => deviation,
        })
    }

    fn gaps(&self, id: AccumulatorId) -> Moments {
        let mut moments = Moments::default();
        let Some(Section::Gaps { filter, span }) = self.layout.section(id) else { return moments };
        let window = self.window(span);
        let mut previous = NEVER;
        if let [_, last, newest, cells @ ..] = self.part(span.part, gaps::WORDS) {
            previous = *last;
            moments.add_tiles(*newest, cells, window.stretch);
        }
        for time in self.recent.times(self.recent.adding(filter)) {
            if previous != NEVER && time > window.start {
                moments.add((time - previous).max(0));
            }
            previous = time;
        }
        moments
    }

    /// First and latest time of the events that a `Seen` section is about.
    fn seen(&self, id: AccumulatorId) -> Option<(i64, i64)> {
        let Some(Section::Seen { filter, part }) = self.layout.section(id) else { return None };
        let (first, last) = match self.part(part, 2) {
            [first, last] => (*first, *last),
            _ => (NEVER, NEVER),
        };
        let mut times = self.recent.times(self.recent.adding(filter));
        let oldest = times.next();
        let newest = times.last().or(oldest);
        let first = if first == NEVER { oldest } else { Some(oldest.map_or(first, |oldest| oldest.min(first))) };
        first.map(|first| (first, newest.map_or(last, |newest| newest.max(last))))
    }
}
