//! The words of the sections that hold something.
//!
//! A section of tiles is 14 words, and most entities use few of theirs: nobody's failed resets, no card's declines. So words are
//! there only for sections in use, in the plan's order, behind a map of which these are: `[map…, section, section, …]`. What is not
//! in use costs one bit and is never looked at: with the shipped schema the entities of the core bench take 1,370 bytes in place of
//! 1,850.

use smallvec::SmallVec;

use super::NEVER;
use super::layout::Layout;

/// A section's words: how many, and how many of them say `NEVER` at first; the others are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub words: usize,
    pub heads: usize,
}

/// The words of one entity. Nothing at all when nothing was spilled.
// INVARIANT: empty, or as many words of map as the layout says and then the parts of the set bits, each not as it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse(Box<[i64]>);

/// Where each part begins; 0 for one that is not in use.
pub(crate) struct Offsets(SmallVec<[u16; 32]>);

impl Offsets {
    #[inline]
    pub(crate) fn of(&self, part: usize) -> usize {
        self.0.get(part).map_or(0, |at| usize::from(*at))
    }
}

impl Sparse {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Words, the map included.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A number made of a word of each cache line.
    pub(crate) fn touch(&self) -> i64 {
        self.0.iter().step_by(8).fold(0, |all, word| all ^ word)
    }

    /// The parts in use, ascending.
    pub(crate) fn present(&self, layout: &Layout) -> impl Iterator<Item = usize> + '_ {
        let map = self.0.iter().take(map_words(layout)).zip(0_usize..);
        map.flat_map(|(word, index)| Bits(*word as u64).map(move |bit| index * 64 + bit))
    }

    /// Where each part begins.
    #[inline]
    pub(crate) fn offsets(&self, layout: &Layout) -> Offsets {
        let mut offsets = SmallVec::from_elem(0, layout.parts.len());
        let mut next = map_words(layout);
        for part in self.present(layout) {
            if let (Some(offset), Some(part)) = (offsets.get_mut(part), layout.parts.get(part)) {
                // Half a megabyte of tiles is far beyond what a schema may declare.
                *offset = u16::try_from(next).unwrap_or(0);
                next += part.words;
            }
        }
        Offsets(offsets)
    }

    /// The words of a part, by its offset; none when it is not in use.
    #[inline]
    pub(crate) fn part(&self, offset: usize, words: usize) -> &[i64] {
        if offset == 0 { &[] } else { self.0.get(offset..offset + words).unwrap_or_default() }
    }

    /// The same, to be changed.
    pub(crate) fn part_mut(&mut self, offset: usize, words: usize) -> &mut [i64] {
        if offset == 0 { &mut [] } else { self.0.get_mut(offset..offset + words).unwrap_or_default() }
    }

    /// Brings parts into use, each empty. The caller then puts something into each.
    pub(crate) fn open(&mut self, layout: &Layout, wanted: impl Iterator<Item = usize>) {
        let mut map: SmallVec<[u64; 4]> = SmallVec::from_elem(0, map_words(layout));
        map.iter_mut().zip(&*self.0).for_each(|(map, known)| *map = *known as u64);
        let mut grown = false;
        for part in wanted {
            if let Some(word) = map.get_mut(part / 64) {
                grown |= *word & (1 << (part % 64)) == 0;
                *word |= 1 << (part % 64);
            }
        }
        if grown {
            self.rebuild(layout, &map);
        }
    }

    fn rebuild(&mut self, layout: &Layout, map: &[u64]) {
        let parts = || map.iter().zip(0_usize..).flat_map(|(word, index)| Bits(*word).map(move |bit| index * 64 + bit));
        let offsets = self.offsets(layout);
        let used = |part: usize| layout.parts.get(part).copied().unwrap_or(Part { words: 0, heads: 0 });
        let mut words = Vec::with_capacity(map.len() + parts().map(|part| used(part).words).sum::<usize>());
        words.extend(map.iter().map(|word| *word as i64));
        for part in parts() {
            let Part { words: count, heads } = used(part);
            match self.part(offsets.of(part), count) {
                [] => words.extend((0..count).map(|at| if at < heads { NEVER } else { 0 })),
                known => words.extend_from_slice(known),
            }
        }
        self.0 = words.into_boxed_slice();
    }
}

fn map_words(layout: &Layout) -> usize {
    layout.parts.len().div_ceil(64)
}

/// The places of the set bits, ascending.
#[derive(Clone, Copy)]
pub(crate) struct Bits(pub u64);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < 64).then_some(bit)
    }
}
