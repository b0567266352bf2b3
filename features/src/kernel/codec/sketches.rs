//! Payloads of pages, extremes, latest values, histograms and matured counts.
//!
//! One section's words enter and bytes leave, or the other way; `None` says that what is read does not fit.

use crate::kernel::distinct::Page;
use crate::kernel::histogram::{self, Cell, Ends, Histogram, KEPT};
use crate::kernel::plan::Scale;
use crate::kernel::ring::{MISSING, VALUE_WORD};
use crate::kernel::thinned::{self, Thinned};
use crate::kernel::wire::{Reader, put, put_signed};
use crate::kernel::{NEVER, tiles::CELLS};

use super::in_range;
use super::sections::{get_cells, put_cells};

/// The oldest second, then seconds since it, 0 for an empty cell; of a sample how many cells are in use, and each as its distance from
/// the one before and its seconds.
pub(super) fn put_page(page: &Page, out: &mut Vec<u8>) {
    let sample = page.thinned.cells();
    let seconds = page.cells.iter().chain(sample.iter().map(|(_, last)| last)).copied();
    let oldest = seconds.filter(|last| *last != 0).min().unwrap_or(1) - 1;
    put(out, u64::from(oldest));
    page.cells.iter().for_each(|last| put(out, u64::from(last.saturating_sub(oldest))));
    if sample.is_empty() {
        return;
    }
    put(out, sample.len() as u64);
    let mut next = 0;
    for (cell, last) in sample {
        put(out, u64::from(cell.saturating_sub(next)));
        put(out, u64::from(last.saturating_sub(oldest)));
        next = cell.saturating_add(1);
    }
}

pub(super) fn get_page(sampled: bool, reader: &mut Reader<'_>) -> Option<Box<Page>> {
    let oldest = reader.varint().and_then(|oldest| u32::try_from(oldest).ok())?;
    let second = |reader: &mut Reader<'_>| u32::try_from(reader.varint()?).ok();
    let mut page = Box::<Page>::default();
    for last in &mut page.cells {
        let since = second(reader)?;
        *last = if since == 0 { 0 } else { oldest.checked_add(since)? };
    }
    if sampled {
        let count = reader.count().filter(|count| (1..=thinned::MOST).contains(count))?;
        let mut cells = Vec::with_capacity(count.next_power_of_two());
        let mut next = 0_u16;
        for _ in 0..count {
            let cell = next.checked_add(u16::try_from(reader.varint()?).ok()?)?;
            cells.push((cell, oldest.checked_add(second(reader)?)?));
            next = cell.checked_add(1)?;
        }
        page.thinned = Thinned::from_sorted(cells)?;
    }
    Some(page)
}

/// Shifted by one so that an empty cell is 0.
fn shifted(word: i64) -> i64 {
    if word == MISSING {
        0
    } else if word >= 0 {
        word.saturating_add(1)
    } else {
        word
    }
}

fn shifted_back(word: i64) -> Option<i64> {
    let known = word.unsigned_abs() <= VALUE_WORD + 1;
    known.then_some(if word == 0 {
        MISSING
    } else if word > 0 {
        word - 1
    } else {
        word
    })
}

/// The newest tile and its cells, as counts are written.
pub(super) fn put_extreme(section: &[i64], out: &mut Vec<u8>) {
    if let [newest, cells @ ..] = section {
        let mut words = [0; CELLS];
        words.iter_mut().zip(cells).for_each(|(word, cell)| *word = shifted(*cell));
        put_cells::<1>(*newest, &words, out);
    }
}

pub(super) fn get_extreme(section: &mut [i64], reader: &mut Reader<'_>) -> Option<()> {
    let (newest, cells) = section.split_first_mut()?;
    let mut words = [0; CELLS];
    get_cells::<1>(newest, &mut words, reader)?;
    for (cell, word) in cells.iter_mut().zip(words) {
        *cell = shifted_back(word)?;
    }
    Some(())
}

/// A time and values.
pub(super) fn put_row(section: &[i64], out: &mut Vec<u8>) {
    section.iter().for_each(|word| put_signed(out, *word));
}

pub(super) fn get_row(section: &mut [i64], reader: &mut Reader<'_>) -> Option<()> {
    let (time, values) = section.split_first_mut()?;
    *time = in_range(reader.signed()?)?;
    for value in values {
        *value = reader.signed().filter(|value| value.unsigned_abs() <= VALUE_WORD + 1)?;
    }
    Some(())
}

/// The newest tile, how many cells follow, and the cells from the newest back.
pub(super) fn put_matured(section: &[i64], out: &mut Vec<u8>) {
    let Some((newest, cells)) = section.split_first().filter(|(newest, _)| **newest != NEVER) else { return };
    let at = |back: usize| {
        let place = usize::try_from((newest - back as i64).rem_euclid(cells.len() as i64)).unwrap_or_default();
        cells.get(place).copied().unwrap_or_default()
    };
    let used = (0..cells.len()).rev().find(|back| at(*back) != 0).map_or(0, |back| back + 1);
    put_signed(out, *newest);
    put(out, used as u64);
    (0..used).for_each(|back| put_signed(out, at(back)));
}

pub(super) fn get_matured(section: &mut [i64], reader: &mut Reader<'_>) -> Option<()> {
    let (newest, cells) = section.split_first_mut()?;
    *newest = in_range(reader.signed()?)?;
    cells.fill(0);
    let used = reader.count().filter(|used| *used <= cells.len())?;
    let kept = cells.len() as i64;
    for back in 0..used {
        let place = usize::try_from((*newest - back as i64).rem_euclid(kept)).ok()?;
        *cells.get_mut(place)? = reader.signed()?;
    }
    Some(())
}

/// The newest tile; each cell as tiles back, bucket and count; where successions begin and end.
pub(super) fn put_histogram(histogram: &Histogram, out: &mut Vec<u8>) {
    if histogram.is_empty() {
        return;
    }
    put(out, u64::from(histogram.ends.is_some()) | u64::from(histogram.newest != NEVER) << 1);
    if let Some(Ends { first, last }) = histogram.ends {
        put_signed(out, first.0);
        put(out, first.1.into());
        put(out, last.0.saturating_sub(first.0) as u64);
        put(out, last.1.into());
    }
    if histogram.newest != NEVER {
        put_signed(out, histogram.newest);
        put(out, histogram.cells.len() as u64);
        for cell in &histogram.cells {
            put(out, (histogram.newest - cell.tile) as u64);
            put(out, cell.bucket.into());
            put_signed(out, cell.count.into());
        }
    }
}

pub(super) fn get_histogram(scale: Scale, reader: &mut Reader<'_>) -> Option<Histogram> {
    let mut histogram = Histogram::default();
    if reader.is_empty() {
        return Some(histogram);
    }
    let parts = reader.varint().filter(|parts| (1..4).contains(parts))?;
    let bucket = |reader: &mut Reader<'_>, limit: u16| {
        let bucket = u16::try_from(reader.varint()?).ok()?;
        (bucket < limit).then_some(bucket)
    };
    if parts & 1 == 1 {
        let first = (in_range(reader.signed()?)?, bucket(reader, histogram::STATES)?);
        let time = in_range(first.0.checked_add(i64::try_from(reader.varint()?).ok()?)?)?;
        histogram.ends = Some(Ends { first, last: (time, bucket(reader, histogram::STATES)?) });
    }
    if parts & 2 == 2 {
        histogram.newest = in_range(reader.signed()?)?;
        let limit = histogram::buckets(scale);
        let count = reader.count().filter(|count| *count <= histogram::most(scale).max(limit.into()))?;
        histogram.cells.reserve_exact(count);
        for _ in 0..count {
            let back = i64::try_from(reader.varint()?).ok().filter(|back| *back < KEPT)?;
            let bucket = bucket(reader, limit)?;
            let count = i32::try_from(reader.signed()?).ok().filter(|count| *count != 0)?;
            histogram.cells.push(Cell { tile: histogram.newest - back, bucket, count });
        }
        let sorted = histogram.cells.is_sorted_by(|a, b| (a.tile, a.bucket) < (b.tile, b.bucket));
        return sorted.then_some(histogram);
    }
    Some(histogram)
}
