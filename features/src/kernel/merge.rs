//! Merging a delta into a state: what two writers saw becomes what one would have seen.
//!
//! Two states of one plan enter, the first holds both afterwards. Counts, sums, tiles, times, the ring and pages come out equal in
//! whatever order states are merged; sets and gaps within the bounds that their modules state.

use crate::time::Timestamp;

use super::distinct::Distinct;
use super::layout::{Layout, Section};
use super::ring::{Row, Words};
use super::slots::Slot;
use super::state::{EntityState, Flush, Rare, SlotEntry};
use super::{NEVER, extremes, gaps, histogram, latest, matured, moments, tiles};

impl EntityState {
    /// Adds a delta: a state that began empty and holds what another writer applied since.
    pub fn merge(&mut self, layout: &Layout, delta: &Self) {
        self.high_water = self.high_water.max(delta.high_water);
        self.tombstone = self.tombstone.max(delta.tombstone);
        for section in &layout.sections {
            let Section::Distinct { horizon, index, sorting, .. } = *section else { continue };
            let Some(theirs) = delta.distinct.get(index).filter(|theirs| !theirs.is_empty()) else { continue };
            let forgotten = self.high_water.saturating_sub(horizon);
            self.distinct_mut(layout, index, |ours| ours.merge(theirs, forgotten, sorting));
        }
        let (early, late) = self.merge_rings(layout, delta);
        early.iter().for_each(|row| self.spill_row(layout, row));
        self.merge_words(layout, delta);
        self.merge_histograms(layout, delta);
        late.iter().for_each(|row| self.spill_row(layout, row));
        for entry in &delta.slots {
            self.merge_slot(*entry);
        }
        self.merge_rare(delta);
        self.settle(layout);
    }

    /// Drops members that no window reaches any more.
    pub(crate) fn settle(&mut self, layout: &Layout) {
        for section in &layout.sections {
            let Section::Distinct { horizon, index, .. } = *section else { continue };
            if let Some(distinct) = self.distinct.get_mut(index) {
                distinct.settle(self.high_water.saturating_sub(horizon));
            }
        }
        if self.distinct.iter().all(Distinct::is_empty) {
            self.distinct = Box::default();
        }
    }

    /// Makes one ring of both. Returns the rows that had to leave it, oldest first: those before anything that the delta spilled
    /// itself, which go into the tiles first so that gaps join in order, and the others.
    fn merge_rings(&mut self, layout: &Layout, delta: &Self) -> (Vec<Words>, Vec<Words>) {
        let bits = self.adopt_filters(layout, delta);
        let mut leaving = Vec::new();
        for row in delta.ring.rows(layout.stride) {
            let mut words = Words::from_slice(row.0);
            if let Some(filters) = words.get_mut(1) {
                *filters = bits.iter().fold(
                    row.filters() & layout.filters,
                    |mask, (theirs, ours)| {
                        if row.filters() & theirs == 0 { mask } else { mask | ours }
                    },
                ) as i64;
            }
            leaving.extend(self.ring.insert(&words));
        }
        let offsets = delta.sparse.offsets(layout);
        let firsts = layout.sections.iter().filter_map(|section| match *section {
            Section::Gaps { span, .. } => delta.sparse.part(offsets.of(span.part), gaps::WORDS).first().copied(),
            Section::Histogram { index, .. } => {
                let histogram = delta.histograms.as_ref().and_then(|all| all.get(index));
                histogram.and_then(|histogram| histogram.ends).map(|ends| ends.first.0)
            }
            _ => None,
        });
        let begin = firsts.min().unwrap_or(i64::MAX);
        leaving.into_iter().partition(|row| Row(row).time() <= begin)
    }

    fn merge_words(&mut self, layout: &Layout, delta: &Self) {
        self.spilled_until = self.spilled_until.max(delta.spilled_until);
        // Nothing spilled, but into histograms perhaps.
        if delta.sparse.is_empty() {
            return;
        }
        self.sparse.open(layout, delta.sparse.present(layout));
        let (ours, theirs) = (self.sparse.offsets(layout), delta.sparse.offsets(layout));
        for section in &layout.sections {
            match *section {
                Section::Count { span, .. } | Section::Sum { span, .. } => {
                    let other = delta.sparse.part(theirs.of(span.part), tiles::WORDS);
                    if let ([newest, cells @ ..], [other, theirs @ ..]) = (self.sparse.part_mut(ours.of(span.part), tiles::WORDS), other) {
                        tiles::merge::<1>(newest, cells, *other, theirs);
                    }
                }
                Section::Gaps { span, .. } => {
                    let other = delta.sparse.part(theirs.of(span.part), gaps::WORDS);
                    gaps::merge(self.sparse.part_mut(ours.of(span.part), gaps::WORDS), other, span);
                }
                Section::Seen { part, .. } => {
                    if let ([first, last], [other_first, other_last]) =
                        (self.sparse.part_mut(ours.of(part), 2), delta.sparse.part(theirs.of(part), 2))
                    {
                        *first = if *first == NEVER { *other_first } else { (*first).min(*other_first) };
                        *last = (*last).max(*other_last);
                    }
                }
                Section::Greatest { span, .. } | Section::Least { span, .. } => {
                    let other = delta.sparse.part(theirs.of(span.part), extremes::WORDS);
                    extremes::merge(self.sparse.part_mut(ours.of(span.part), extremes::WORDS), other);
                }
                Section::Moments { span, .. } => {
                    let other = delta.sparse.part(theirs.of(span.part), moments::WORDS);
                    moments::merge(self.sparse.part_mut(ours.of(span.part), moments::WORDS), other);
                }
                Section::Latest { part, .. } => {
                    latest::take(self.sparse.part_mut(ours.of(part), 2), delta.sparse.part(theirs.of(part), 2));
                }
                Section::Position { part, .. } => {
                    latest::take(self.sparse.part_mut(ours.of(part), 3), delta.sparse.part(theirs.of(part), 3));
                }
                Section::Matured { window, delay, part, .. } => {
                    let words = 1 + matured::cells(window, delay);
                    matured::merge(self.sparse.part_mut(ours.of(part), words), delta.sparse.part(theirs.of(part), words));
                }
                Section::Distinct { .. } | Section::Histogram { .. } => {}
            }
        }
    }

    fn merge_histograms(&mut self, layout: &Layout, delta: &Self) {
        let Some(theirs) = &delta.histograms else { return };
        for section in &layout.sections {
            let Section::Histogram { index, window, scale, .. } = *section else { continue };
            if let Some(theirs) = theirs.get(index).filter(|theirs| !theirs.is_empty()) {
                self.histogram_mut(layout, index, |ours| ours.merge(theirs, (scale, histogram::width(window))));
            }
        }
    }

    /// Filters of the delta's ring that the plan does not know: their bit there, and their bit here.
    fn adopt_filters(&mut self, layout: &Layout, delta: &Self) -> Vec<(u64, u64)> {
        let known = layout.filters.count_ones() as usize;
        let Some(theirs) = delta.rare.as_ref().map(|rare| &rare.filters).filter(|filters| !filters.is_empty()) else {
            return Vec::new();
        };
        let ours = &mut self.rare.get_or_insert_default().filters;
        let mut bits = Vec::with_capacity(theirs.len());
        for (index, tag) in theirs.iter().enumerate() {
            let place = ours.iter().position(|known| known == tag).unwrap_or_else(|| {
                ours.push(*tag);
                ours.len() - 1
            });
            bits.push((foreign_bit(known + index), foreign_bit(known + place)));
        }
        ours.truncate(64 - known);
        bits
    }

    fn merge_slot(&mut self, theirs: SlotEntry) {
        match self.slots.binary_search_by_key(&theirs.tag, |entry| entry.tag) {
            Ok(at) => {
                if let Some(ours) = self.slots.get_mut(at) {
                    ours.slot = ours.slot.merged(theirs.slot, theirs.spent_us);
                    ours.spent_us = ours.spent_us.saturating_add(theirs.spent_us);
                }
            }
            Err(_) => self.put_slot(theirs, Timestamp::from_micros(NEVER)),
        }
    }

    fn merge_rare(&mut self, delta: &Self) {
        let Some(theirs) = &delta.rare else { return };
        if theirs.flushes.is_empty() && theirs.opaque.is_empty() {
            return;
        }
        let ours: &mut Rare = self.rare.get_or_insert_default();
        for flush in &theirs.flushes {
            match ours.flushes.iter_mut().find(|known| known.writer == flush.writer) {
                Some(known) if known.sequence < flush.sequence => *known = *flush,
                Some(_) => {}
                None => ours.flushes.push(*flush),
            }
        }
        ours.flushes.truncate(64);
        for opaque in &theirs.opaque {
            if !ours.opaque.iter().any(|known| (known.tag, known.kind) == (opaque.tag, opaque.kind)) {
                ours.opaque.push(opaque.clone());
            }
        }
        ours.opaque.sort_by_key(|opaque| (opaque.tag, opaque.kind));
    }

    /// Whether a flush is already part of this state, as far as its header lists the writer.
    pub fn holds(&self, flush: Flush) -> bool {
        self.flushed(flush.writer).is_some_and(|known| known >= flush.sequence)
    }
}

fn foreign_bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}

impl Slot {
    /// This slot with a delta's: a bucket takes over what was spent there, from the later of both beginnings; evidence decays to the
    /// later time and adds up; a mark holds until the later time. Of two kinds the delta's stands.
    pub fn merged(self, delta: Self, spent_us: i64) -> Self {
        match (self, delta) {
            (Self::Bucket { arrival: ours }, Self::Bucket { arrival: theirs }) => {
                let began = theirs.micros().saturating_sub(spent_us);
                Self::Bucket { arrival: Timestamp::from_micros(ours.micros().max(began).saturating_add(spent_us)) }
            }
            (Self::Evidence { at: ours, half_life_us, .. }, Self::Evidence { at: theirs, .. }) => {
                let at = ours.max(theirs);
                Self::Evidence { amount: self.evidence(at) + delta.evidence(at), at, half_life_us }
            }
            (Self::Mark { until: ours }, Self::Mark { until: theirs }) => Self::Mark { until: ours.max(theirs) },
            (_, theirs) => theirs,
        }
    }

    /// When the slot says nothing any more: a bucket is full again, a mark has ended, evidence is below a millionth.
    pub fn lapses(self) -> Timestamp {
        match self {
            Self::Bucket { arrival } => arrival,
            Self::Mark { until } => until,
            Self::Evidence { amount, half_life_us, .. } if half_life_us <= 0 && amount > 0.0 => Timestamp::from_micros(i64::MAX),
            Self::Evidence { amount, at, half_life_us } => {
                let halvings = (amount * 1e6).log2().clamp(0.0, 1e6);
                Timestamp::from_micros(at.micros().saturating_add((halvings * half_life_us as f64) as i64))
            }
        }
    }
}
