//! The decoded state of one entity, laid out to be worked on in place.
//!
//! Events and slot changes enter; what is read and encoded from it stands in `read` and `codec`. No event allocates once the ring is
//! full and each section that its filters concern has its words.

use crate::event::Event;
use crate::time::Timestamp;

use super::distinct::Distinct;
use super::histogram::{self, Histogram};
use super::layout::{Layout, Section};
use super::plan::Scale;
use super::ring::{self, MISSING, Ring, Row, Words};
use super::slots::{Slot, SlotChange, SlotTag};
use super::sparse::Sparse;
use super::{NEVER, extremes, gaps, latest, matured, moments, tiles};

/// Random number of a writing process, new at every start.
pub type WriterId = u64;

/// Slots that an entity may carry; a further one replaces the one that matters least.
const SLOTS: usize = 64;
/// From here on a new slot makes those go that have lapsed; before, a delta must keep what was spent.
const CROWDED: usize = 16;
/// Writers listed in a header, and for how long.
const WRITERS: usize = 64;
const WRITER_AGE: i64 = 600_000_000;

/// Which flush of which writer: the version of a blob, never a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Who wrote.
    pub writer: WriterId,
    /// Number of that writer's flush.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
}

/// A slot with what was spent from it since this state was empty: what a merge adds, when this state is a delta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlotEntry {
    pub tag: SlotTag,
    pub slot: Slot,
    pub spent_us: i64,
}

/// A section that this plan does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opaque {
    pub tag: u64,
    pub kind: u8,
    /// Second since which nobody has known it.
    pub since: u64,
    pub payload: Box<[u8]>,
}

/// What few entities have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rare {
    /// The last flush of each writer; the first one is the version.
    pub flushes: Vec<Flush>,
    /// Tags of filters that the ring uses and the plan does not know; bit = number of the plan's filters + index.
    pub filters: Vec<u64>,
    pub opaque: Vec<Opaque>,
}

/// State of one entity.
// INVARIANT: `sparse` holds exactly the sections that something was spilled into; `distinct` is empty or has one entry a section, and so
// has `histograms`, where it is; `slots` is sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityState {
    pub(crate) high_water: i64,
    /// When the latest of what went into the tiles happened.
    pub(crate) spilled_until: i64,
    /// Events up to here are forgotten on request.
    pub(crate) tombstone: i64,
    pub(crate) ring: Ring,
    pub(crate) sparse: Sparse,
    pub(crate) distinct: Box<[Distinct]>,
    #[expect(clippy::box_collection, reason = "a word in place where a vector takes three: few entities have any")]
    pub(crate) histograms: Option<Box<Vec<Histogram>>>,
    pub(crate) slots: Vec<SlotEntry>,
    pub(crate) rare: Option<Box<Rare>>,
}

impl Default for EntityState {
    fn default() -> Self {
        Self {
            high_water: NEVER,
            spilled_until: NEVER,
            tombstone: NEVER,
            ring: Ring::default(),
            sparse: Sparse::default(),
            distinct: Box::default(),
            histograms: None,
            slots: Vec::new(),
            rare: None,
        }
    }
}

/// Something to put into the tiles.
pub(crate) struct Spill<'a> {
    pub row: Row<'a>,
    /// Signed.
    pub weight: i64,
    /// Whether it is one event as it came: an aggregate or a taken-back label tells nothing of gaps and first times.
    pub single: bool,
}

impl Spill<'_> {
    /// A histogram's part of it: bucket and sign.
    fn bucket(&self, value: u16, scale: Scale) -> (u16, i32) {
        (histogram::bucket(scale, self.row.value(value.into())), if self.weight < 0 { -1 } else { 1 })
    }

    /// Whether it leaves something in a section whose filter it passes.
    fn enters(&self, section: Section) -> bool {
        match section {
            Section::Count { .. } => true,
            Section::Sum { value, .. } => self.row.value(value) != MISSING,
            Section::Gaps { .. } | Section::Seen { .. } => self.single,
            Section::Distinct { .. } => false,
            Section::Greatest { value, .. } | Section::Least { value, .. } | Section::Latest { value, .. } => {
                self.single && self.row.value(value) != MISSING
            }
            Section::Position { latitude, longitude, .. } => {
                self.single && self.row.value(latitude) != MISSING && self.row.value(longitude) != MISSING
            }
            Section::Moments { value, .. } => self.weight.abs() == 1 && self.row.value(value) != MISSING,
            Section::Histogram { value, scale, .. } => {
                let counts = if scale == Scale::Successions { self.single } else { self.weight.abs() == 1 };
                counts && self.row.value(value.into()) != MISSING
            }
            Section::Matured { .. } => true,
        }
    }
}

impl EntityState {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.high_water == NEVER && self.slots.is_empty() && self.rare.is_none() && self.tombstone == NEVER
    }

    /// The greatest event time applied.
    pub fn high_water(&self) -> Option<Timestamp> {
        (self.high_water != NEVER).then(|| Timestamp::from_micros(self.high_water))
    }

    /// Seconds between the event and the newest event known, 0 when in order.
    pub fn lateness(&self, event: &Event) -> f64 {
        (self.high_water.max(ring::time_of(event)) - ring::time_of(event)) as f64 / 1e6
    }

    /// Forgets on request: later events up to `at` are dropped.
    pub fn bury(&mut self, at: Timestamp) {
        *self = Self { tombstone: at.micros().clamp(-super::TIME_LIMIT, super::TIME_LIMIT), ..Self::default() };
    }

    /// Applies an event, late or not. False when it has no bit of the plan, no weight, or lies under a tombstone: then nothing changed.
    pub fn apply(&mut self, layout: &Layout, event: &Event) -> bool {
        let time = ring::time_of(event);
        if event.filters & layout.filters == 0 || event.weight == 0 || time <= self.tombstone {
            return false;
        }
        self.high_water = self.high_water.max(time);
        let row = ring::row(layout, event);
        if event.weight > 1 {
            let weight = i64::from(event.weight) * i64::from(event.sign.signum() | 1);
            self.spill(layout, &Spill { row: Row(&row), weight, single: false });
            return true;
        }
        if event.sign >= 0 {
            self.see_members(layout, event, time);
        }
        if let Some(leaving) = self.ring.insert(&row) {
            self.spill_row(layout, &leaving);
        }
        true
    }

    /// Puts a row that left the ring into the tiles.
    pub(crate) fn spill_row(&mut self, layout: &Layout, words: &Words) {
        let row = Row(words);
        self.spill(layout, &Spill { row, weight: row.sign(), single: row.sign() > 0 });
    }

    fn see_members(&mut self, layout: &Layout, event: &Event, time: i64) {
        for section in layout.entered(event.filters) {
            let Section::Distinct { member, horizon, index, sorting, .. } = section else { continue };
            let Some(member) = event.members.get(member).copied().flatten() else { continue };
            let forgotten = self.high_water - horizon;
            self.distinct_mut(layout, index, |distinct| distinct.insert(member, time, forgotten, sorting));
        }
    }

    pub(crate) fn distinct_mut(&mut self, layout: &Layout, index: usize, change: impl FnOnce(&mut Distinct)) {
        if self.distinct.is_empty() {
            self.distinct = vec![Distinct::default(); layout.distinct].into_boxed_slice();
        }
        if let Some(distinct) = self.distinct.get_mut(index) {
            change(distinct);
        }
    }

    pub(crate) fn spill(&mut self, layout: &Layout, spill: &Spill<'_>) {
        let time = spill.row.time();
        self.spilled_until = self.spilled_until.max(time);
        let entered = || layout.entered(spill.row.filters()).filter(|section| spill.enters(*section));
        self.sparse.open(layout, entered().filter_map(Section::part));
        let offsets = self.sparse.offsets(layout);
        for section in entered() {
            match section {
                Section::Count { span, .. } => {
                    tiles::add(self.sparse.part_mut(offsets.of(span.part), tiles::WORDS), span.width, time, spill.weight);
                }
                Section::Sum { value, span, .. } => {
                    let amount = spill.row.value(value).saturating_mul(spill.weight);
                    tiles::add(self.sparse.part_mut(offsets.of(span.part), tiles::WORDS), span.width, time, amount);
                }
                Section::Gaps { span, .. } => gaps::spill(self.sparse.part_mut(offsets.of(span.part), gaps::WORDS), span.width, time),
                Section::Seen { part, .. } => {
                    if let [first, last] = self.sparse.part_mut(offsets.of(part), 2) {
                        *first = if *first == NEVER { time } else { (*first).min(time) };
                        *last = (*last).max(time);
                    }
                }
                Section::Greatest { value, span, .. } => {
                    extremes::add(self.sparse.part_mut(offsets.of(span.part), extremes::WORDS), span.width, time, spill.row.value(value));
                }
                Section::Least { value, span, .. } => {
                    extremes::add(self.sparse.part_mut(offsets.of(span.part), extremes::WORDS), span.width, time, -spill.row.value(value));
                }
                Section::Moments { value, span, .. } => {
                    let part = self.sparse.part_mut(offsets.of(span.part), moments::WORDS);
                    moments::add(part, span.width, time, (spill.row.value(value), spill.weight));
                }
                Section::Latest { value, part, .. } => {
                    latest::take(self.sparse.part_mut(offsets.of(part), 2), &[time, spill.row.value(value)]);
                }
                Section::Position { latitude, longitude, part, .. } => {
                    let row = [time, spill.row.value(latitude), spill.row.value(longitude)];
                    latest::take(self.sparse.part_mut(offsets.of(part), 3), &row);
                }
                Section::Matured { window, delay, part, .. } => {
                    let words = 1 + matured::cells(window, delay);
                    matured::add(self.sparse.part_mut(offsets.of(part), words), window, time, spill.weight);
                }
                Section::Histogram { value, scale, index, window, .. } => {
                    let (bucket, sign) = spill.bucket(value, scale);
                    let place = (scale, histogram::width(window));
                    self.histogram_mut(layout, index, |histogram| histogram.spill(place, time, bucket, sign));
                }
                Section::Distinct { .. } => {}
            }
        }
    }

    pub(crate) fn histogram_mut(&mut self, layout: &Layout, index: usize, change: impl FnOnce(&mut Histogram)) {
        let histograms = self.histograms.get_or_insert_with(|| Box::new(vec![Histogram::default(); layout.histograms]));
        if let Some(histogram) = histograms.get_mut(index) {
            change(histogram);
        }
    }

    /// The slot of that tag.
    pub fn slot(&self, tag: SlotTag) -> Option<Slot> {
        self.slots.binary_search_by_key(&tag, |entry| entry.tag).ok().and_then(|at| self.slots.get(at)).map(|entry| entry.slot)
    }

    /// All slots, by tag.
    pub fn slots(&self) -> impl Iterator<Item = (SlotTag, Slot)> + '_ {
        self.slots.iter().map(|entry| (entry.tag, entry.slot))
    }

    /// Changes a slot at `now`. When many are there, those that say nothing any more make room; with 64 live ones the new one replaces
    /// the one that lapses first, so that rules cannot make a blob grow without bound.
    pub fn change_slot(&mut self, tag: SlotTag, change: SlotChange, now: Timestamp) {
        let spent = if let SlotChange::Spend { increment_us, .. } = change { increment_us } else { 0 };
        match self.slots.binary_search_by_key(&tag, |entry| entry.tag) {
            Ok(at) => {
                if let Some(entry) = self.slots.get_mut(at) {
                    entry.slot = Slot::changed(Some(entry.slot), change);
                    entry.spent_us = entry.spent_us.saturating_add(spent);
                }
            }
            Err(_) => self.put_slot(SlotEntry { tag, slot: Slot::changed(None, change), spent_us: spent }, now),
        }
    }

    pub(crate) fn put_slot(&mut self, entry: SlotEntry, now: Timestamp) {
        if self.slots.len() >= CROWDED {
            self.slots.retain(|known| known.slot.lapses() > now);
        }
        if self.slots.len() >= SLOTS {
            let least = self.slots.iter().enumerate().min_by_key(|(_, known)| (known.slot.lapses(), known.tag)).map(|(at, _)| at);
            least.map(|at| self.slots.remove(at));
        }
        let at = self.slots.partition_point(|known| known.tag < entry.tag);
        self.slots.reserve_exact(usize::from(self.slots.len() == self.slots.capacity()));
        self.slots.insert(at, entry);
    }

    /// The last write's version.
    pub fn version(&self) -> Option<Flush> {
        self.rare.as_ref().and_then(|rare| rare.flushes.first().copied())
    }

    /// The highest flush of that writer which this state holds, as far as it is listed.
    pub fn flushed(&self, writer: WriterId) -> Option<u64> {
        let flushes = &self.rare.as_ref()?.flushes;
        flushes.iter().filter(|flush| flush.writer == writer).map(|flush| flush.sequence).max()
    }

    /// How many writers the header lists: at most 64.
    pub fn writers(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.flushes.len())
    }

    /// Until when everything was forgotten on request.
    pub fn tombstone(&self) -> Option<Timestamp> {
        (self.tombstone != NEVER).then(|| Timestamp::from_micros(self.tombstone))
    }

    /// Marks this state as written by a flush, which becomes its version. Writers of more than 10 minutes ago leave the list.
    pub fn stamp(&mut self, flush: Flush) {
        let rare = self.rare.get_or_insert_default();
        rare.flushes.retain(|known| known.writer != flush.writer && flush.at.micros_since(known.at) <= WRITER_AGE);
        rare.flushes.insert(0, flush);
        rare.flushes.truncate(WRITERS);
    }

    /// A number made of a word of each allocation: see the embedded store.
    pub(crate) fn touch(&self) -> i64 {
        self.distinct.iter().fold(self.ring.touch() ^ self.sparse.touch(), |all, distinct| all ^ distinct.touch())
    }

    /// Bytes that this state takes in memory. A function of the content alone, so that stores with equal content evict alike.
    pub fn bytes(&self, layout: &Layout) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            let opaque: usize = rare.opaque.iter().map(|opaque| opaque.payload.len() + size_of::<Opaque>()).sum();
            size_of::<Rare>() + rare.flushes.len() * size_of::<Flush>() + rare.filters.len() * 8 + opaque
        });
        size_of::<Self>()
            + self.ring.bytes(layout.stride)
            + self.sparse.len() * 8
            + self.distinct.iter().map(|distinct| size_of::<Distinct>() + distinct.bytes()).sum::<usize>()
            + self.histograms.iter().flat_map(|all| &**all).map(|one| size_of::<Histogram>() + one.bytes()).sum::<usize>()
            + self.slots.len() * size_of::<SlotEntry>()
            + rare
    }
}
