//! An entity that was seen once or twice: its blob, squeezed, in place of a decoded state.
//!
//! A state enters and a few bytes leave, or the other way. A flood of random ids is made of such entities, so they are what must be
//! small: the blob is the kernel's own, in which every tag of the plan, eight bytes each, is replaced by two. Unpacking gives the state
//! back to the last bit, as a store that others share has to.

use crate::kernel::plan::EntityPlan;
use crate::kernel::slots::PROVED;
use crate::kernel::{EntityState, Layout};

use super::shard::Meta;

/// Announces a tag of the dictionary, or itself.
const ESCAPE: u8 = 0xfe;
/// After an escape: the escape's own byte. No tag has this number.
const ITSELF: u8 = 0xff;
/// Tag under which the kernel writes the last events; a blob that has it under another tag only squeezes a little less.
const EVENTS: u64 = 0x7269_6e67_0000_0001;
/// The first byte of the bytes of a stub that has policy slots.
const SLOTS: u8 = 1;

/// The tags that blobs of one entity type are full of.
pub(super) struct Dictionary {
    tags: Vec<u64>,
    /// Tag and number, by tag.
    numbers: Vec<(u64, u8)>,
    /// Whether any tag begins with that byte.
    begins: [bool; 256],
}

impl Dictionary {
    pub(super) fn new(plan: &EntityPlan) -> Self {
        let own = plan.accumulators.iter().map(|accumulator| accumulator.tag);
        let all = [EVENTS, PROVED].into_iter().chain(plan.filters.iter().copied()).chain(plan.values.iter().copied()).chain(own);
        let mut tags: Vec<u64> = Vec::new();
        for tag in all.filter(|tag| tag.to_le_bytes() != [0; 8]) {
            if tags.len() < usize::from(ITSELF) && !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        let mut numbers: Vec<(u64, u8)> = tags.iter().copied().zip(0..ITSELF).collect();
        numbers.sort_unstable();
        let mut begins = [false; 256];
        for tag in &tags {
            let [first, ..] = tag.to_le_bytes();
            if let Some(begins) = begins.get_mut(usize::from(first)) {
                *begins = true;
            }
        }
        Self { tags, numbers, begins }
    }

    fn number(&self, bytes: &[u8]) -> Option<u8> {
        let tag = u64::from_le_bytes(*bytes.first_chunk()?);
        let at = self.numbers.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.numbers.get(at).map(|(_, number)| *number)
    }

    fn squeeze(&self, blob: &[u8], out: &mut Vec<u8>) {
        let mut rest = blob;
        while let Some((first, after)) = rest.split_first() {
            let begins = self.begins.get(usize::from(*first)).copied().unwrap_or_default();
            if let Some(number) = self.number(rest).filter(|_| begins) {
                out.extend_from_slice(&[ESCAPE, number]);
                rest = rest.get(8..).unwrap_or_default();
                continue;
            }
            out.push(*first);
            if *first == ESCAPE {
                out.push(ITSELF);
            }
            rest = after;
        }
    }

    fn expand(&self, squeezed: &[u8]) -> Vec<u8> {
        let mut blob = Vec::with_capacity(squeezed.len() * 3);
        let mut bytes = squeezed.iter();
        while let Some(byte) = bytes.next() {
            let tag = if *byte == ESCAPE { bytes.next().and_then(|number| self.tags.get(usize::from(*number))) } else { None };
            match tag {
                Some(tag) => blob.extend_from_slice(&tag.to_le_bytes()),
                None => blob.push(*byte),
            }
        }
        blob
    }
}

/// One entity that is still on probation.
pub(super) struct Stub {
    pub meta: Meta,
    /// Whether it has slots, and the squeezed blob.
    bytes: Box<[u8]>,
}

impl Stub {
    pub(super) fn pack(meta: Meta, state: &EntityState, (layout, dictionary): (&Layout, &Dictionary)) -> Self {
        let blob = state.encode(layout);
        let mut bytes = Vec::with_capacity(blob.len() / 2);
        bytes.push(if state.slots().next().is_some() { SLOTS } else { 0 });
        dictionary.squeeze(&blob, &mut bytes);
        Self { meta, bytes: bytes.into_boxed_slice() }
    }

    /// The state.
    // INVARIANT: the bytes were packed with the same layout, so they decode; nothing but `pack` makes them.
    pub(super) fn unpack(&self, (layout, dictionary): (&Layout, &Dictionary)) -> EntityState {
        EntityState::decode(layout, &self.blob(dictionary)).unwrap_or_default()
    }

    pub(super) fn blob(&self, dictionary: &Dictionary) -> Vec<u8> {
        dictionary.expand(self.bytes.get(1..).unwrap_or_default())
    }

    pub(super) fn has_slots(&self) -> bool {
        self.bytes.first() == Some(&SLOTS)
    }

    /// Bytes that it takes, by content: its place in a table that is five eighths full on average, its bytes, the allocator's part.
    pub(super) fn weight(&self) -> u64 {
        (size_of::<Self>() * 8 / 5 + self.bytes.len() + 16) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squeezing_loses_nothing() {
        let tags = [0xfefe_fefe_fefe_fefe, 0x0102_0304_0506_07fe, 7];
        let plan = EntityPlan { filters: tags.to_vec(), ..super::super::tests::plan(60) };
        let dictionary = Dictionary::new(&plan);
        let mut blob = vec![ESCAPE, ITSELF, ESCAPE, 0, 1];
        for tag in tags.into_iter().chain([EVENTS, 99]) {
            blob.extend_from_slice(&tag.to_le_bytes());
            blob.push(ESCAPE);
        }
        // Ends within a tag.
        blob.extend_from_slice(&tags[1].to_le_bytes()[..7]);
        for end in 0..=blob.len() {
            let mut squeezed = Vec::new();
            dictionary.squeeze(&blob[..end], &mut squeezed);
            assert_eq!(dictionary.expand(&squeezed), blob[..end], "{end}");
        }
        let mut squeezed = Vec::new();
        dictionary.squeeze(&blob, &mut squeezed);
        // Four tags of two bytes each, and eight bytes that are written twice.
        assert_eq!(squeezed.len(), blob.len() - 4 * 6 + 8);
    }
}
