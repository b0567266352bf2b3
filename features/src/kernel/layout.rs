//! A plan made ready: masks, widths and places computed once, so that an event costs no look-up.
//!
//! An [`EntityPlan`] enters; a [`Layout`] leaves, which every other function of the kernel is given. It never changes.

use super::distinct::Sorting;
use super::plan::{Accumulator, AccumulatorId, AccumulatorKind, EntityPlan, FilterId, Read, Scale};
use super::sparse::{Bits, Part};
use super::{extremes, gaps, matured, moments, tiles};
use crate::time::micros;

/// Where an accumulator's state stands and how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// Weights in tiles.
    Count { filter: u64, span: Span },
    /// Fixed-point values in tiles.
    Sum { filter: u64, value: usize, span: Span },
    /// Gaps in tiles of three lanes.
    Gaps { filter: u64, span: Span },
    /// First and latest time: two words.
    Seen { filter: u64, part: usize },
    /// Set or page number `index`.
    Distinct { filter: u64, member: usize, horizon: i64, index: usize, sorting: Sorting },
    /// Greatest values in tiles.
    Greatest { filter: u64, value: usize, span: Span },
    /// Least values in tiles, negated.
    Least { filter: u64, value: usize, span: Span },
    /// Count, sum and squares in tiles of four lanes.
    Moments { filter: u64, value: usize, span: Span },
    /// Time and value of the latest event.
    Latest { filter: u64, value: usize, part: usize },
    /// Time, latitude and longitude of the latest event.
    Position { filter: u64, latitude: usize, longitude: usize, part: usize },
    /// Histogram number `index`.
    Histogram { filter: u64, value: u16, scale: Scale, index: usize, window: i64 },
    /// Weights in tiles that reach beyond the window.
    Matured { filter: u64, window: i64, delay: i64, part: usize },
}

/// A window in tiles: which one, the width of its tiles in microseconds, and which part holds its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index into [`Layout::windows`].
    pub window: usize,
    pub width: i64,
    /// Index into [`Layout::parts`].
    pub part: usize,
}

/// A compiled [`EntityPlan`].
#[derive(Clone, Debug)]
pub struct Layout {
    plan: EntityPlan,
    pub(crate) sections: Vec<Section>,
    /// Sections by filter: entry `i` holds those of filter `i`.
    by_filter: Vec<Vec<Section>>,
    /// Sections by tag, sorted.
    by_tag: Vec<(u64, Section)>,
    /// The words of each section of tiles, gaps or times.
    pub(crate) parts: Vec<Part>,
    /// The different windows of tiles, microseconds.
    pub(crate) windows: Vec<i64>,
    /// How many distinct sections.
    pub(crate) distinct: usize,
    /// How many histograms.
    pub(crate) histograms: usize,
    /// Bits of the filters that the plan knows.
    pub(crate) filters: u64,
    /// Words of one event in the ring: stamp, filters, values.
    pub(crate) stride: usize,
}

impl Layout {
    /// Compiles a plan. An accumulator that names a filter beyond the 64th never receives anything.
    pub fn new(plan: EntityPlan) -> Self {
        let known = plan.filters.len().min(64);
        let mut layout = Self {
            sections: Vec::with_capacity(plan.accumulators.len()),
            by_filter: vec![Vec::new(); 64],
            by_tag: Vec::with_capacity(plan.accumulators.len()),
            parts: Vec::new(),
            windows: Vec::new(),
            distinct: 0,
            histograms: 0,
            filters: if known == 64 { u64::MAX } else { (1 << known) - 1 },
            stride: 2 + plan.values.len().min(16),
            plan,
        };
        for at in 0..layout.plan.accumulators.len() {
            let Some(Accumulator { tag, kind }) = layout.plan.accumulators.get(at).cloned() else { continue };
            let counted = layout.plan.reads.iter().any(|read| matches!(read, Read::Distinct { of, .. } if usize::from(*of) == at));
            let section = layout.place(Sorting { salt: tag, counted }, kind);
            layout.sections.push(section);
            layout.by_tag.push((tag, section));
            if let Some(of_filter) = layout.by_filter.get_mut(section.filter().trailing_zeros() as usize) {
                of_filter.push(section);
            }
        }
        layout.by_tag.sort_by_key(|(tag, _)| *tag);
        layout
    }

    /// The plan that was compiled.
    pub fn plan(&self) -> &EntityPlan {
        &self.plan
    }

    /// History that is not touched for this long is forgotten, microseconds.
    pub fn ttl(&self) -> i64 {
        micros(self.plan.ttl)
    }

    #[inline]
    pub(crate) fn section(&self, id: AccumulatorId) -> Option<Section> {
        self.sections.get(usize::from(id)).copied()
    }

    /// The sections that events passing these filters enter: those of other filters are not looked at.
    pub(crate) fn entered(&self, filters: u64) -> impl Iterator<Item = Section> + '_ {
        Bits(filters & self.filters).filter_map(|filter| self.by_filter.get(filter)).flatten().copied()
    }

    /// Each accumulator with its section, in the plan's order.
    pub(crate) fn tagged(&self) -> impl Iterator<Item = (u64, Section)> + '_ {
        self.plan.accumulators.iter().zip(&self.sections).map(|(accumulator, section)| (accumulator.tag, *section))
    }

    /// The sections under a tag.
    pub(crate) fn under(&self, tag: u64) -> impl Iterator<Item = Section> + '_ {
        let from = self.by_tag.partition_point(|(known, _)| *known < tag);
        let rest = self.by_tag.get(from..).unwrap_or_default();
        rest.iter().take_while(move |(known, _)| *known == tag).map(|(_, section)| *section)
    }

    fn place(&mut self, sorting: Sorting, kind: AccumulatorKind) -> Section {
        match kind {
            AccumulatorKind::Count { filter, window } => {
                Section::Count { filter: bit(filter), span: self.span(micros(window), Part { words: tiles::WORDS, heads: 1 }) }
            }
            AccumulatorKind::Sum { filter, value, window } => {
                let span = self.span(micros(window), Part { words: tiles::WORDS, heads: 1 });
                Section::Sum { filter: bit(filter), value: usize::from(value), span }
            }
            AccumulatorKind::Interarrival { filter, window } => {
                Section::Gaps { filter: bit(filter), span: self.span(micros(window), Part { words: gaps::WORDS, heads: gaps::HEADS }) }
            }
            AccumulatorKind::Seen { filter } => Section::Seen { filter: bit(filter), part: self.part(Part { words: 2, heads: 2 }) },
            AccumulatorKind::Distinct { filter, member, horizon } => {
                let index = self.distinct;
                self.distinct += 1;
                let horizon = micros(horizon).clamp(1, super::TIME_LIMIT);
                Section::Distinct { filter: bit(filter), member: usize::from(member), horizon, index, sorting }
            }
            AccumulatorKind::Extreme { filter, value, window, greatest } => {
                let (filter, value) = (bit(filter), usize::from(value));
                let span = self.span(micros(window), Part { words: extremes::WORDS, heads: extremes::WORDS });
                if greatest { Section::Greatest { filter, value, span } } else { Section::Least { filter, value, span } }
            }
            AccumulatorKind::Moments { filter, value, window } => {
                let span = self.span(micros(window), Part { words: moments::WORDS, heads: 1 });
                Section::Moments { filter: bit(filter), value: usize::from(value), span }
            }
            AccumulatorKind::Latest { filter, value } => {
                let part = self.part(Part { words: 2, heads: 2 });
                Section::Latest { filter: bit(filter), value: usize::from(value), part }
            }
            AccumulatorKind::Position { filter, latitude, longitude } => {
                let part = self.part(Part { words: 3, heads: 3 });
                Section::Position { filter: bit(filter), latitude: usize::from(latitude), longitude: usize::from(longitude), part }
            }
            AccumulatorKind::Histogram { filter, value, window, scale } => {
                let index = self.histograms;
                self.histograms += 1;
                let window = micros(window).clamp(1, super::TIME_LIMIT);
                Section::Histogram { filter: bit(filter), value: u16::from(value), scale, index, window }
            }
            AccumulatorKind::Matured { filter, window, delay } => {
                let window = micros(window).clamp(1, super::TIME_LIMIT / 16);
                let delay = micros(delay).clamp(0, window * matured::LONGEST);
                let part = self.part(Part { words: 1 + matured::cells(window, delay), heads: 1 });
                Section::Matured { filter: bit(filter), window, delay, part }
            }
        }
    }

    fn span(&mut self, window: i64, part: Part) -> Span {
        let window = window.clamp(1, super::TIME_LIMIT);
        let known = self.windows.iter().position(|known| *known == window);
        let place = known.unwrap_or_else(|| {
            self.windows.push(window);
            self.windows.len() - 1
        });
        Span { window: place, width: tiles::width(window), part: self.part(part) }
    }

    fn part(&mut self, part: Part) -> usize {
        self.parts.push(part);
        self.parts.len() - 1
    }
}

impl Section {
    /// Bit of the filter whose events enter; 0 when none ever does.
    pub(crate) const fn filter(self) -> u64 {
        match self {
            Self::Count { filter, .. }
            | Self::Sum { filter, .. }
            | Self::Gaps { filter, .. }
            | Self::Seen { filter, .. }
            | Self::Distinct { filter, .. }
            | Self::Greatest { filter, .. }
            | Self::Least { filter, .. }
            | Self::Moments { filter, .. }
            | Self::Latest { filter, .. }
            | Self::Position { filter, .. }
            | Self::Histogram { filter, .. }
            | Self::Matured { filter, .. } => filter,
        }
    }

    /// The part that holds its words, if it has any.
    pub(crate) const fn part(self) -> Option<usize> {
        match self {
            Self::Count { span, .. }
            | Self::Sum { span, .. }
            | Self::Gaps { span, .. }
            | Self::Greatest { span, .. }
            | Self::Least { span, .. }
            | Self::Moments { span, .. } => Some(span.part),
            Self::Seen { part, .. } | Self::Latest { part, .. } | Self::Position { part, .. } | Self::Matured { part, .. } => Some(part),
            Self::Distinct { .. } | Self::Histogram { .. } => None,
        }
    }
}

fn bit(filter: FilterId) -> u64 {
    1_u64.checked_shl(u32::from(filter)).unwrap_or(0)
}
