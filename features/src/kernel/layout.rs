//! A plan made ready: masks, widths and offsets computed once, so that an event costs no look-up.
//!
//! An [`EntityPlan`] enters; a [`Layout`] leaves, which every other function of the kernel is given. It never changes.

use super::plan::{Accumulator, AccumulatorId, AccumulatorKind, EntityPlan, FilterId};
use super::{gaps, tiles};
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
    /// First and latest time: two words at `at`.
    Seen { filter: u64, at: usize },
    /// Set or page number `index`.
    Distinct { filter: u64, member: usize, horizon: i64, index: usize, salt: u64 },
}

/// A window in tiles: its length and tile width in microseconds, and where its words begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub window: i64,
    pub width: i64,
    pub at: usize,
}

/// A compiled [`EntityPlan`].
#[derive(Clone, Debug)]
pub struct Layout {
    plan: EntityPlan,
    pub(crate) sections: Vec<Section>,
    /// Words of all tiles, gaps and seen times together.
    pub(crate) words: usize,
    /// How many distinct sections.
    pub(crate) distinct: usize,
    /// Bits of the filters that the plan knows.
    pub(crate) filters: u64,
    /// Words of one event in the ring: stamp, filters, values.
    pub(crate) stride: usize,
}

impl Layout {
    /// Compiles a plan. An accumulator that names a filter beyond the 64th never receives anything.
    pub fn new(plan: EntityPlan) -> Self {
        let mut words = 0;
        let mut distinct = 0;
        let sections = plan.accumulators.iter().map(|accumulator| section(accumulator, &mut words, &mut distinct)).collect();
        let known = plan.filters.len().min(64);
        let filters = if known == 64 { u64::MAX } else { (1 << known) - 1 };
        let stride = 2 + plan.values.len().min(16);
        Self { plan, sections, words, distinct, filters, stride }
    }

    /// The plan that was compiled.
    pub fn plan(&self) -> &EntityPlan {
        &self.plan
    }

    /// History that is not touched for this long is forgotten, microseconds.
    pub fn ttl(&self) -> i64 {
        micros(self.plan.ttl)
    }

    pub(crate) fn section(&self, id: AccumulatorId) -> Option<Section> {
        self.sections.get(usize::from(id)).copied()
    }

    /// Each accumulator with its section.
    pub(crate) fn tagged(&self) -> impl Iterator<Item = (u64, Section)> + '_ {
        self.plan.accumulators.iter().zip(&self.sections).map(|(accumulator, section)| (accumulator.tag, *section))
    }

    /// The words of a plan before anything was spilled.
    pub(crate) fn empty_words(&self) -> Box<[i64]> {
        let mut words = vec![0; self.words].into_boxed_slice();
        for section in &self.sections {
            let heads = match *section {
                Section::Count { span, .. } | Section::Sum { span, .. } => words.get_mut(span.at..=span.at),
                Section::Gaps { span, .. } => words.get_mut(span.at..span.at + gaps::HEADS),
                Section::Seen { at, .. } => words.get_mut(at..at + 2),
                Section::Distinct { .. } => None,
            };
            heads.into_iter().flatten().for_each(|word| *word = super::NEVER);
        }
        words
    }
}

fn section(accumulator: &Accumulator, words: &mut usize, distinct: &mut usize) -> Section {
    let mut take = |count: usize| {
        let at = *words;
        *words += count;
        at
    };
    let mut span = |window, count| {
        let window = micros(window).clamp(1, super::TIME_LIMIT);
        Span { window, width: tiles::width(window), at: take(count) }
    };
    match accumulator.kind {
        AccumulatorKind::Count { filter, window } => Section::Count { filter: bit(filter), span: span(window, tiles::WORDS) },
        AccumulatorKind::Sum { filter, value, window } => {
            Section::Sum { filter: bit(filter), value: usize::from(value), span: span(window, tiles::WORDS) }
        }
        AccumulatorKind::Interarrival { filter, window } => Section::Gaps { filter: bit(filter), span: span(window, gaps::WORDS) },
        AccumulatorKind::Seen { filter } => Section::Seen { filter: bit(filter), at: take(2) },
        AccumulatorKind::Distinct { filter, member, horizon } => {
            let index = *distinct;
            *distinct += 1;
            let horizon = micros(horizon).clamp(1, super::TIME_LIMIT);
            Section::Distinct { filter: bit(filter), member: usize::from(member), horizon, index, salt: accumulator.tag }
        }
    }
}

fn bit(filter: FilterId) -> u64 {
    1_u64.checked_shl(u32::from(filter)).unwrap_or(0)
}
