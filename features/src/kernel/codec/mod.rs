//! The blob: header and tag–length–value sections.
//!
//! A state enters and bytes leave, or the other way. Decoding foreign bytes never panics and never allocates more than they justify;
//! what it accepts satisfies the state's invariants. A section that the plan does not know is carried along unread until the
//! entity's TTL has passed since the first reader who did not know it.
//!
//! ```text
//! blob    = version:u8 flags:u8 high-water [spilled] [tombstone] [flushes] section*
//! section = tag:u64 kind:u8 length payload        kind & 0x80: payload begins with the second since when it is unknown
//! ```
//! Numbers are varints, signed ones zigzag; times are differences to the high-water mark.

mod sections;
mod sketches;

use crate::time::Timestamp;

use super::layout::{Layout, Section};
use super::sparse::Offsets;
use super::state::{EntityState, Flush, Opaque, Rare};
use super::wire::{Reader, put, put_fixed, put_signed};
use super::{NEVER, TIME_LIMIT};

const FORMAT: u8 = 1;
const SPILLED: u8 = 1;
const TOMBSTONE: u8 = 2;
const FLUSHES: u8 = 4;
const EMPTY: u8 = 8;
const UNKNOWN: u8 = 0x80;

/// Tag of the ring's section.
const RING: u64 = 0x7269_6e67_0000_0001;

/// What a section's payload is.
mod kind {
    pub const RING: u8 = 1;
    pub const COUNT: u8 = 2;
    pub const SUM: u8 = 3;
    pub const GAPS: u8 = 4;
    pub const SEEN: u8 = 5;
    pub const SET: u8 = 6;
    pub const PAGE: u8 = 7;
    /// A page and the thinned sample beside it.
    pub const SAMPLED_PAGE: u8 = 8;
    pub const SLOT: u8 = 9;
    pub const EXTREME: u8 = 10;
    pub const MOMENTS: u8 = 11;
    pub const LATEST: u8 = 12;
    pub const POSITION: u8 = 13;
    pub const HISTOGRAM: u8 = 14;
    pub const MATURED: u8 = 15;
}

/// Why bytes are not a blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another format.
    #[error("blob has format `{found}`, this version reads `1`")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// The header ends early or holds a number out of range.
    #[error("blob header is malformed")]
    Header,
    /// A section ends early or holds a number out of range.
    #[error("section `{tag:016x}` of kind `{kind}` is malformed")]
    Section {
        /// Its tag.
        tag: u64,
        /// Its kind.
        kind: u8,
    },
}

impl EntityState {
    /// The blob of this state.
    pub fn encode(&self, layout: &Layout) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.put_header(&mut out);
        let mut payload = Vec::with_capacity(128);
        let mut section = |tag: u64, kind: u8, payload: &mut Vec<u8>| {
            if !payload.is_empty() {
                put_fixed(&mut out, tag);
                out.push(kind);
                put(&mut out, payload.len() as u64);
                out.append(payload);
            }
        };
        self.put_ring(layout, &mut payload);
        section(RING, kind::RING, &mut payload);
        let offsets = self.sparse.offsets(layout);
        for (tag, of) in layout.tagged() {
            let kind = self.put_section(of, &offsets, &mut payload);
            section(tag, kind, &mut payload);
        }
        for entry in &self.slots {
            sections::put_slot(entry, &mut payload);
            section(entry.tag, kind::SLOT, &mut payload);
        }
        for opaque in self.rare.iter().flat_map(|rare| &rare.opaque) {
            put(&mut payload, opaque.since);
            payload.extend_from_slice(&opaque.payload);
            section(opaque.tag, opaque.kind | UNKNOWN, &mut payload);
        }
        out
    }

    fn put_header(&self, out: &mut Vec<u8>) {
        let flushes = self.rare.as_ref().map_or(&[][..], |rare| &rare.flushes);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(FORMAT);
        out.push(
            flag(self.spilled_until != NEVER, SPILLED)
                | flag(self.tombstone != NEVER, TOMBSTONE)
                | flag(!flushes.is_empty(), FLUSHES)
                | flag(self.high_water == NEVER, EMPTY),
        );
        put_signed(out, if self.high_water == NEVER { 0 } else { self.high_water });
        if self.spilled_until != NEVER {
            put_signed(out, self.spilled_until);
        }
        if self.tombstone != NEVER {
            put_signed(out, self.tombstone);
        }
        if !flushes.is_empty() {
            put(out, flushes.len() as u64);
            for flush in flushes {
                put_fixed(out, flush.writer);
                put(out, flush.sequence);
                put_signed(out, flush.at.micros());
            }
        }
    }

    /// The state that a blob holds, ready for this plan.
    ///
    /// # Errors
    /// When the bytes are of another format, end early, or hold a number that no state can have.
    pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.byte() {
            Some(FORMAT) => {}
            found => return Err(DecodeError::Format { found: found.unwrap_or(0) }),
        }
        let mut state = get_header(&mut reader).ok_or(DecodeError::Header)?;
        state.make_room(layout, reader);
        let mut offsets = state.sparse.offsets(layout);
        while !reader.is_empty() {
            let frame = get_frame(&mut reader).ok_or(DecodeError::Header)?;
            state.get_section(layout, frame, &mut offsets).ok_or(DecodeError::Section { tag: frame.0, kind: frame.1 })?;
        }
        if let Some(rare) = &mut state.rare {
            rare.opaque.sort_by_key(|opaque| (opaque.tag, opaque.kind));
        }
        Ok(state)
    }

    /// Brings every part into use that the sections ahead fill, in one go: one by one each would move those before it.
    fn make_room(&mut self, layout: &Layout, mut ahead: Reader<'_>) {
        let frames = std::iter::from_fn(|| get_frame(&mut ahead)).filter(|(_, _, payload)| !payload.is_empty());
        let filled = frames.filter_map(|(tag, kind, _)| layout.under(tag).find(|of| sections::fits(*of, kind)));
        self.sparse.open(layout, filled.filter_map(Section::part));
    }

    fn get_section(&mut self, layout: &Layout, (tag, kind, payload): Frame<'_>, offsets: &mut Offsets) -> Option<()> {
        let mut reader = Reader(payload);
        let since = if kind & UNKNOWN == 0 { self.second() } else { reader.varint()? };
        let kind = kind & !UNKNOWN;
        let known = match kind {
            kind::RING if tag == RING => {
                self.get_ring(layout, &mut reader)?;
                true
            }
            kind::SLOT => {
                self.get_slot(tag, &mut reader)?;
                true
            }
            _ => match layout.under(tag).find(|of| sections::fits(*of, kind)) {
                Some(of) => {
                    self.get_accumulator(layout, (of, kind), offsets, &mut reader)?;
                    true
                }
                None => false,
            },
        };
        if known {
            return reader.is_empty().then_some(());
        }
        let ttl = u64::try_from(layout.ttl() / 1_000_000).unwrap_or_default();
        if self.second() <= since.saturating_add(ttl) {
            let opaque = &mut self.rare.get_or_insert_default().opaque;
            opaque.push(Opaque { tag, kind, since, payload: reader.0.into() });
        }
        Some(())
    }

    fn second(&self) -> u64 {
        u64::try_from(self.high_water / 1_000_000).unwrap_or(0)
    }
}

fn get_header(reader: &mut Reader<'_>) -> Option<EntityState> {
    let flags = reader.byte()?;
    let mut state = EntityState::default();
    let high_water = in_range(reader.signed()?)?;
    if flags & EMPTY == 0 {
        state.high_water = high_water;
    }
    if flags & SPILLED != 0 {
        state.spilled_until = in_range(reader.signed()?)?;
    }
    if flags & TOMBSTONE != 0 {
        state.tombstone = in_range(reader.signed()?)?;
    }
    if flags & FLUSHES != 0 {
        let count = reader.count().filter(|count| (1..=64).contains(count))?;
        let mut flushes = Vec::with_capacity(count);
        for _ in 0..count {
            let writer = reader.fixed()?;
            flushes.push(Flush { writer, sequence: reader.varint()?, at: Timestamp::from_micros(reader.signed()?) });
        }
        state.rare = Some(Box::new(Rare { flushes, ..Rare::default() }));
    }
    Some(state)
}

/// Tag, kind and payload of a section.
type Frame<'a> = (u64, u8, &'a [u8]);

fn get_frame<'a>(reader: &mut Reader<'a>) -> Option<Frame<'a>> {
    let tag = reader.fixed()?;
    let kind = reader.byte()?;
    let length = reader.varint()?;
    Some((tag, kind, reader.take(length)?))
}

/// A time that a state can hold.
fn in_range(time: i64) -> Option<i64> {
    (-TIME_LIMIT..=TIME_LIMIT).contains(&time).then_some(time)
}

impl Section {
    /// The kind under which a section is written; a distinct section says itself whether it is a set or a page.
    fn kind(self) -> u8 {
        match self {
            Self::Count { .. } => kind::COUNT,
            Self::Sum { .. } => kind::SUM,
            Self::Gaps { .. } => kind::GAPS,
            Self::Seen { .. } => kind::SEEN,
            Self::Distinct { .. } => kind::SET,
            Self::Greatest { .. } | Self::Least { .. } => kind::EXTREME,
            Self::Moments { .. } => kind::MOMENTS,
            Self::Latest { .. } => kind::LATEST,
            Self::Position { .. } => kind::POSITION,
            Self::Histogram { .. } => kind::HISTOGRAM,
            Self::Matured { .. } => kind::MATURED,
        }
    }
}
