//! Payloads of a blob's sections.
//!
//! One section's state enters and bytes leave, or the other way. Empty sections write nothing; what is read is checked against the
//! limits of the state, and `None` says that it does not fit.

use crate::kernel::distinct::{Distinct, SET};
use crate::kernel::layout::{Layout, Section};
use crate::kernel::ring::{self, MISSING, Ring};
use crate::kernel::slots::Slot;
use crate::kernel::sparse::Offsets;
use crate::kernel::state::{EntityState, SlotEntry};
use crate::kernel::tiles::{self, CELLS};
use crate::kernel::wire::{Reader, put, put_fixed, put_signed};
use crate::kernel::{NEVER, gaps};
use crate::kernel::{extremes, matured, moments};
use crate::time::Timestamp;

use super::{in_range, kind, sketches};

/// Whether a payload of that kind can be read into that section.
pub(super) fn fits(section: Section, kind: u8) -> bool {
    section.kind() == kind || (matches!(section, Section::Distinct { .. }) && matches!(kind, kind::PAGE | kind::SAMPLED_PAGE))
}

impl EntityState {
    /// Rows: the tags of the filters in use, the tags of the values, then each event newest first.
    pub(super) fn put_ring(&self, layout: &Layout, out: &mut Vec<u8>) {
        let rows = self.ring.rows(layout.stride);
        if rows.len() == 0 {
            return;
        }
        let used = self.ring.rows(layout.stride).fold(0, |used, row| used | row.filters());
        let foreign = self.rare.as_ref().map_or(&[][..], |rare| &rare.filters);
        let tags = layout.plan().filters.iter().take(64).chain(foreign);
        let bits: Vec<(u32, u64)> = (0..64).zip(tags.copied()).filter(|(bit, _)| used >> bit & 1 == 1).collect();
        put(out, bits.len() as u64);
        bits.iter().for_each(|(_, tag)| put_fixed(out, *tag));
        let values = layout.stride - 2;
        put(out, values as u64);
        layout.plan().values.iter().take(values).for_each(|tag| put_fixed(out, *tag));
        put(out, rows.len() as u64);
        let mut previous = self.high_water;
        for row in rows.rev() {
            let negative = u64::from(row.sign() < 0);
            put(out, ((previous - row.time()) as u64) << 1 | negative);
            previous = row.time();
            let mask = bits
                .iter()
                .zip(0..)
                .filter(|((bit, _), _)| row.filters() >> bit & 1 == 1)
                .fold(0, |mask, (_, place)| mask | 1_u64 << place);
            put(out, mask);
            for value in 0..values {
                // Shifted by one so that a missing value, the least number, takes one byte.
                let value = row.value(value);
                put_signed(
                    out,
                    if value == MISSING {
                        0
                    } else if value >= 0 {
                        value + 1
                    } else {
                        value
                    },
                );
            }
        }
    }

    pub(super) fn get_ring(&mut self, layout: &Layout, reader: &mut Reader<'_>) -> Option<()> {
        let count = reader.count().filter(|count| *count <= 64)?;
        let mut bits = [0_u64; 64];
        for bit in bits.iter_mut().take(count) {
            *bit = self.filter_bit(layout, reader.fixed()?);
        }
        let count = reader.count().filter(|count| *count <= 16)?;
        let mut places = [None; 16];
        for place in places.iter_mut().take(count) {
            let tag = reader.fixed()?;
            *place = layout.plan().values.iter().take(layout.stride - 2).position(|known| *known == tag);
        }
        let rows = reader.count().filter(|rows| *rows <= ring::EVENTS)?;
        let mut kept: Vec<[i64; 18]> = Vec::with_capacity(rows);
        let mut previous = self.high_water;
        for _ in 0..rows {
            let stamp = reader.varint()?;
            previous = in_range(previous.checked_sub(i64::try_from(stamp >> 1).ok()?)?)?;
            let mask = reader.varint()?;
            let mut row = [MISSING; 18];
            let filters = (0..64).zip(bits).filter(|(place, _)| mask >> place & 1 == 1).fold(0, |all, (_, bit)| all | bit);
            let values = row.split_first_chunk_mut::<2>().map(|(head, values)| {
                *head = [previous * 2 + (stamp & 1) as i64, filters as i64];
                values
            })?;
            for place in places.iter().take(count) {
                let value = reader.signed().filter(|value| value.unsigned_abs() <= ring::VALUE_WORD + 1)?;
                if let Some(slot) = place.and_then(|place| values.get_mut(place)) {
                    *slot = if value == 0 {
                        MISSING
                    } else if value > 0 {
                        value - 1
                    } else {
                        value
                    };
                }
            }
            // An event that passes no filter of this plan any more says nothing to it.
            if filters != 0 {
                kept.push(row);
            }
        }
        kept.sort_unstable();
        let words: Vec<i64> = kept.iter().flat_map(|row| row.iter().take(layout.stride)).copied().collect();
        self.ring = Ring::from_sorted(words, layout.stride)?;
        Some(())
    }

    /// The bit of a filter; one that the plan does not know gets a bit above the plan's, as long as there is room.
    fn filter_bit(&mut self, layout: &Layout, tag: u64) -> u64 {
        let known = layout.filters.count_ones() as usize;
        let place = layout.plan().filters.iter().take(64).position(|filter| *filter == tag).or_else(|| {
            let foreign = &mut self.rare.get_or_insert_default().filters;
            let place = foreign.iter().position(|filter| *filter == tag);
            place
                .or_else(|| {
                    (known + foreign.len() < 64).then(|| {
                        foreign.push(tag);
                        foreign.len() - 1
                    })
                })
                .map(|place| known + place)
        });
        place.map_or(0, |place| 1 << place)
    }

    /// Writes one accumulator's payload, nothing when it is empty; returns its kind.
    pub(super) fn put_section(&self, section: Section, offsets: &Offsets, out: &mut Vec<u8>) -> u8 {
        match section {
            Section::Count { span, .. } | Section::Sum { span, .. } => {
                if let [newest, cells @ ..] = self.sparse.part(offsets.of(span.part), tiles::WORDS) {
                    put_cells::<1>(*newest, cells, out);
                }
            }
            Section::Gaps { span, .. } => {
                if let [first, last, newest, cells @ ..] = self.sparse.part(offsets.of(span.part), gaps::WORDS) {
                    put_signed(out, *first);
                    put_signed(out, last - first);
                    put_cells::<3>(*newest, cells, out);
                }
            }
            Section::Seen { part, .. } => {
                if let [first, last] = self.sparse.part(offsets.of(part), 2) {
                    put_signed(out, *first);
                    put_signed(out, last - first);
                }
            }
            Section::Distinct { index, .. } => return self.put_distinct(index, out),
            Section::Greatest { span, .. } | Section::Least { span, .. } => {
                sketches::put_extreme(self.sparse.part(offsets.of(span.part), extremes::WORDS), out);
            }
            Section::Moments { span, .. } => {
                if let [newest, cells @ ..] = self.sparse.part(offsets.of(span.part), moments::WORDS) {
                    put_cells::<{ moments::LANES }>(*newest, cells, out);
                }
            }
            Section::Latest { part, .. } => sketches::put_row(self.sparse.part(offsets.of(part), 2), out),
            Section::Position { part, .. } => sketches::put_row(self.sparse.part(offsets.of(part), 3), out),
            Section::Histogram { index, .. } => {
                if let Some(histogram) = self.histograms.as_ref().and_then(|all| all.get(index)) {
                    sketches::put_histogram(histogram, out);
                }
            }
            Section::Matured { window, delay, part, .. } => {
                sketches::put_matured(self.sparse.part(offsets.of(part), 1 + matured::cells(window, delay)), out);
            }
        }
        section.kind()
    }

    fn put_distinct(&self, index: usize, out: &mut Vec<u8>) -> u8 {
        match self.distinct.get(index) {
            Some(Distinct::Page(page)) => {
                sketches::put_page(page, out);
                if page.thinned.cells().is_empty() { kind::PAGE } else { kind::SAMPLED_PAGE }
            }
            Some(Distinct::Set(members)) if !members.is_empty() => {
                put(out, members.len() as u64);
                for (member, last) in members {
                    put_fixed(out, *member);
                    put_signed(out, self.high_water - last);
                }
                kind::SET
            }
            _ => kind::SET,
        }
    }

    /// Reads one accumulator's payload. `offsets` are those of the parts in use, and are kept so.
    pub(super) fn get_accumulator(
        &mut self,
        layout: &Layout,
        (section, kind): (Section, u8),
        offsets: &mut Offsets,
        reader: &mut Reader<'_>,
    ) -> Option<()> {
        if let Section::Distinct { index, .. } = section {
            let read = get_distinct(self.high_water, kind, reader)?;
            self.distinct_mut(layout, index, |distinct| *distinct = read);
            return Some(());
        }
        if let Section::Histogram { index, scale, .. } = section {
            let read = sketches::get_histogram(scale, reader)?;
            self.histogram_mut(layout, index, |histogram| *histogram = read);
            self.reach();
            return Some(());
        }
        if reader.is_empty() && !matches!(section, Section::Gaps { .. } | Section::Seen { .. }) {
            // What holds nothing is not in use.
            return Some(());
        }
        self.reach();
        let part = section.part()?;
        let words = layout.parts.get(part)?.words;
        if offsets.of(part) == 0 {
            self.sparse.open(layout, std::iter::once(part));
            *offsets = self.sparse.offsets(layout);
        }
        match (section, self.sparse.part_mut(offsets.of(part), words)) {
            (Section::Count { .. } | Section::Sum { .. }, [newest, cells @ ..]) => get_cells::<1>(newest, cells, reader),
            (Section::Gaps { .. }, [first, last, newest, cells @ ..]) => {
                (*first, *last) = get_pair(reader)?;
                get_cells::<3>(newest, cells, reader)
            }
            (Section::Seen { .. }, [first, last]) => {
                (*first, *last) = get_pair(reader)?;
                Some(())
            }
            (Section::Greatest { .. } | Section::Least { .. }, section) => sketches::get_extreme(section, reader),
            (Section::Moments { .. }, [newest, cells @ ..]) => get_cells::<{ moments::LANES }>(newest, cells, reader),
            (Section::Latest { .. } | Section::Position { .. }, section) => sketches::get_row(section, reader),
            (Section::Matured { .. }, section) => sketches::get_matured(section, reader),
            _ => None,
        }
    }

    /// Tiles without a header that tells of them are taken as reaching to the newest event.
    fn reach(&mut self) {
        if self.spilled_until == NEVER {
            self.spilled_until = self.high_water.max(-crate::kernel::TIME_LIMIT);
        }
    }

    pub(super) fn get_slot(&mut self, tag: u64, reader: &mut Reader<'_>) -> Option<()> {
        let slot = match reader.byte()? {
            1 => Slot::Bucket { arrival: Timestamp::from_micros(reader.signed()?) },
            2 => {
                let at = Timestamp::from_micros(reader.signed()?);
                let half_life_us = reader.signed()?;
                let amount = f64::from_bits(reader.fixed()?);
                Slot::Evidence { amount: (amount.is_finite() && amount >= 0.0).then_some(amount)?, at, half_life_us }
            }
            3 => Slot::Mark { until: Timestamp::from_micros(reader.signed()?) },
            _ => return None,
        };
        let entry = SlotEntry { tag, slot, spent_us: reader.signed()? };
        self.slots.retain(|known| known.tag != tag);
        let at = self.slots.partition_point(|known| known.tag < tag);
        self.slots.insert(at, entry);
        Some(())
    }
}

/// Writes a slot's payload.
pub(super) fn put_slot(entry: &SlotEntry, out: &mut Vec<u8>) {
    match entry.slot {
        Slot::Bucket { arrival } => {
            out.push(1);
            put_signed(out, arrival.micros());
        }
        Slot::Evidence { amount, at, half_life_us } => {
            out.push(2);
            put_signed(out, at.micros());
            put_signed(out, half_life_us);
            put_fixed(out, amount.to_bits());
        }
        Slot::Mark { until } => {
            out.push(3);
            put_signed(out, until.micros());
        }
    }
    put_signed(out, entry.spent_us);
}

/// The newest tile's number, how many cells follow, and the cells from the newest back; nothing when there is none.
pub(super) fn put_cells<const LANES: usize>(newest: i64, cells: &[i64], out: &mut Vec<u8>) {
    if newest == NEVER {
        return;
    }
    let at = |back: usize| {
        let cell = usize::try_from((newest - back as i64).rem_euclid(CELLS as i64)).unwrap_or_default();
        cells.get(cell * LANES..(cell + 1) * LANES).unwrap_or_default()
    };
    let used = (0..CELLS).rev().find(|back| at(*back).iter().any(|word| *word != 0)).map_or(0, |back| back + 1);
    put_signed(out, newest);
    put(out, used as u64);
    (0..used).flat_map(at).for_each(|word| put_signed(out, *word));
}

pub(super) fn get_cells<const LANES: usize>(newest: &mut i64, cells: &mut [i64], reader: &mut Reader<'_>) -> Option<()> {
    if reader.is_empty() {
        return Some(());
    }
    *newest = in_range(reader.signed()?)?;
    cells.fill(0);
    let used = reader.count().filter(|used| *used <= CELLS)?;
    for back in 0..used {
        let cell = usize::try_from((*newest - back as i64).rem_euclid(CELLS as i64)).ok()?;
        for word in cells.get_mut(cell * LANES..(cell + 1) * LANES)? {
            *word = reader.signed()?;
        }
    }
    Some(())
}

fn get_pair(reader: &mut Reader<'_>) -> Option<(i64, i64)> {
    let first = in_range(reader.signed()?)?;
    let last = in_range(first.checked_add(reader.signed()?)?)?;
    (first <= last).then_some((first, last))
}

fn get_distinct(high_water: i64, kind: u8, reader: &mut Reader<'_>) -> Option<Distinct> {
    if kind != kind::SET {
        return sketches::get_page(kind == kind::SAMPLED_PAGE, reader).map(Distinct::Page);
    }
    let count = reader.count().filter(|count| (1..=SET).contains(count))?;
    let mut members = Vec::with_capacity(count.next_power_of_two());
    for _ in 0..count {
        members.push((reader.fixed()?, in_range(high_water.checked_sub(reader.signed()?)?)?));
    }
    members.is_sorted_by(|(a, _), (b, _)| a < b).then_some(Distinct::Set(members))
}
