//! Distinct members: an exact set first, a page of timestamped cells beyond.
//!
//! Members (64-bit hashes) and times enter; how many were last seen within a window leaves, and whether one is new. One section
//! answers every window. The set holds up to 64 members with the microsecond each was last seen; a page is 512 cells with the
//! second in which a member of that cell was last seen, read by linear counting (Whang et al., 1990), merged by cell-wise maximum
//! and never demoted. Measured: 4.7 % RMSE at 1,000 members. A section that is counted keeps a thinned sample beside its page, which
//! answers beyond: see [`Thinned`]. One that only tells what is new does without.

use super::thinned::Thinned;

/// Members of an exact set.
pub(crate) const SET: usize = 64;
/// Cells of a page.
pub(crate) const PAGE: usize = 512;

/// Members from which on the thinned sample is the better estimate.
const CROWDED: f64 = 1_200.0;

/// How a section's members fall into cells, and whether they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sorting {
    /// Keeps sections apart.
    pub salt: u64,
    /// Whether how many they are is asked, not only whether one is new.
    pub counted: bool,
}

/// Seconds since 1970 of the latest member of each cell, 0 for none, and the sample beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub cells: [u32; PAGE],
    pub thinned: Thinned,
}

impl Default for Page {
    fn default() -> Self {
        Self { cells: [0; PAGE], thinned: Thinned::default() }
    }
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Distinct {
    /// Members and when each was last seen.
    // INVARIANT: sorted by member, at most `SET`.
    Set(Vec<(u64, i64)>),
    /// Cells.
    Page(Box<Page>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Set(Vec::new())
    }
}

fn cell(member: u64, salt: u64) -> usize {
    // Fibonacci hashing: members of one entity type differ in all bits, the salt keeps sections apart.
    let mixed = (member ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - PAGE.trailing_zeros())) as usize
}

/// Every bit depends on every bit of the member: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mixed(member: u64, salt: u64) -> u64 {
    let mut bits = member ^ salt.rotate_left(32);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn second(time: i64) -> u32 {
    u32::try_from(time.div_euclid(1_000_000).max(1)).unwrap_or(u32::MAX)
}

impl Page {
    fn insert(&mut self, member: u64, time: i64, sorting: Sorting) {
        if let Some(last) = self.cells.get_mut(cell(member, sorting.salt)) {
            *last = (*last).max(second(time));
        }
        if sorting.counted {
            self.thinned.insert(mixed(member, sorting.salt), second(time));
        }
    }

    fn count(&self, start: i64) -> f64 {
        let edge = second(start);
        let (mut after, mut within) = (0_u32, 0_u32);
        for last in &self.cells {
            after += u32::from(*last > edge);
            within += u32::from(*last == edge);
        }
        // Of the second in which the window begins, the share that lies inside.
        let share = 1.0 - start.rem_euclid(1_000_000) as f64 / 1e6;
        let occupied = f64::from(after) + f64::from(within) * share;
        let cells = PAGE as f64;
        // An empty page is 0, not −0.
        let counted = 0.0 - cells * (1.0 - occupied.min(cells - 0.5) / cells).ln();
        if counted <= CROWDED {
            return counted;
        }
        // A page from before there were samples has one of its latest members only, if any.
        let told = self.thinned.count(edge, share);
        if told < counted / 2.0 { counted } else { told }
    }
}

impl Distinct {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Set(members) if members.is_empty())
    }

    /// A number made of one word.
    pub(crate) fn touch(&self) -> i64 {
        match self {
            Self::Set(members) => members.first().map_or(0, |(_, last)| *last),
            Self::Page(page) => page.cells.first().map_or(0, |last| i64::from(*last)),
        }
    }

    /// Bytes on the heap, by content.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Set(members) if members.is_empty() => 0,
            Self::Set(members) => members.len().next_power_of_two() * 16,
            Self::Page(page) => size_of::<Page>() + page.thinned.bytes(),
        }
    }

    /// Takes in a member; `forgotten` is the time up to which nothing is asked any more.
    pub(crate) fn insert(&mut self, member: u64, time: i64, forgotten: i64, sorting: Sorting) {
        match self {
            Self::Set(members) => match members.binary_search_by_key(&member, |(known, _)| *known) {
                Ok(at) => {
                    if let Some((_, last)) = members.get_mut(at) {
                        *last = (*last).max(time);
                    }
                }
                Err(_) if second(time) < second(forgotten) => {}
                Err(at) if !members.is_empty() && !members.len().is_power_of_two() => members.insert(at, (member, time)),
                Err(_) => self.insert_full(member, time, forgotten, sorting),
            },
            Self::Page(page) => page.insert(member, time, sorting),
        }
    }

    /// The set must grow: what is forgotten goes first, then it doubles, then it becomes a page.
    fn insert_full(&mut self, member: u64, time: i64, forgotten: i64, sorting: Sorting) {
        let Self::Set(members) = self else { return };
        members.retain(|(_, last)| second(*last) >= second(forgotten));
        if members.len() >= SET {
            self.promote(sorting);
            return self.insert(member, time, forgotten, sorting);
        }
        if members.len() == members.capacity() {
            members.reserve_exact(members.len().max(1));
        }
        let at = members.partition_point(|(known, _)| *known < member);
        members.insert(at, (member, time));
    }

    /// Turns a set into a page; a page stays one.
    pub(crate) fn promote(&mut self, sorting: Sorting) {
        if let Self::Set(members) = self {
            let mut page = Box::<Page>::default();
            members.iter().for_each(|(member, time)| page.insert(*member, *time, sorting));
            *self = Self::Page(page);
        }
    }

    /// Adds another section's members.
    pub(crate) fn merge(&mut self, other: &Self, forgotten: i64, sorting: Sorting) {
        match other {
            Self::Set(members) => {
                for (member, time) in members {
                    self.insert(*member, *time, forgotten, sorting);
                }
            }
            Self::Page(theirs) => {
                self.promote(sorting);
                if let Self::Page(ours) = self {
                    ours.cells.iter_mut().zip(&theirs.cells).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
                    ours.thinned.merge(&theirs.thinned);
                }
            }
        }
    }

    /// Drops what is forgotten, to the second: sections that saw the same are equal then, in whatever order they saw it.
    pub(crate) fn settle(&mut self, forgotten: i64) {
        let edge = second(forgotten);
        match self {
            Self::Set(members) => members.retain(|(_, last)| second(*last) >= edge),
            Self::Page(page) => {
                page.cells.iter_mut().filter(|last| **last < edge).for_each(|last| *last = 0);
                page.thinned.settle(edge);
            }
        }
    }

    /// How many members were last seen after `start`.
    pub(crate) fn count(&self, start: i64) -> f64 {
        match self {
            Self::Set(members) => members.iter().filter(|(_, last)| *last > start).count() as f64,
            Self::Page(page) => page.count(start),
        }
    }

    /// 1 when the member was not seen after `start`, 0 when it was, NaN when a page cannot tell.
    pub(crate) fn novelty(&self, member: u64, start: i64, salt: u64) -> f64 {
        match self {
            Self::Set(members) => {
                let seen = members.binary_search_by_key(&member, |(known, _)| *known).ok().and_then(|at| members.get(at));
                if seen.is_some_and(|(_, last)| *last > start) { 0.0 } else { 1.0 }
            }
            Self::Page(page) => match page.cells.get(cell(member, salt)) {
                Some(last) if *last != 0 && *last >= second(start) => f64::NAN,
                _ => 1.0,
            },
        }
    }
}
