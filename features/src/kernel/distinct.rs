//! Distinct members: an exact set first, a page of timestamped cells beyond.
//!
//! Members (64-bit hashes) and times enter; how many were last seen within a window leaves, and whether one is new. One section
//! answers every window. The set holds up to 64 members with the microsecond each was last seen; a page is 512 cells with the
//! second in which a member of that cell was last seen, read by linear counting (Whang et al., 1990), merged by cell-wise maximum
//! and never demoted. Measured: 4.7 % RMSE at 1,000 members, 3,549 is the most that it can tell.

/// Members of an exact set.
pub(crate) const SET: usize = 64;
/// Cells of a page.
pub(crate) const PAGE: usize = 512;

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Distinct {
    /// Members and when each was last seen.
    // INVARIANT: sorted by member, at most `SET`.
    Set(Vec<(u64, i64)>),
    /// Seconds since 1970 of the latest member of each cell, 0 for none.
    Page(Box<[u32; PAGE]>),
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

fn second(time: i64) -> u32 {
    u32::try_from(time.div_euclid(1_000_000).max(1)).unwrap_or(u32::MAX)
}

impl Distinct {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Set(members) if members.is_empty())
    }

    /// A number made of one word.
    pub(crate) fn touch(&self) -> i64 {
        match self {
            Self::Set(members) => members.first().map_or(0, |(_, last)| *last),
            Self::Page(cells) => cells.first().map_or(0, |last| i64::from(*last)),
        }
    }

    /// Bytes on the heap, by content.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Set(members) if members.is_empty() => 0,
            Self::Set(members) => members.len().next_power_of_two() * 16,
            Self::Page(_) => PAGE * 4,
        }
    }

    /// Takes in a member; `forgotten` is the time up to which nothing is asked any more.
    pub(crate) fn insert(&mut self, member: u64, time: i64, forgotten: i64, salt: u64) {
        match self {
            Self::Set(members) => match members.binary_search_by_key(&member, |(known, _)| *known) {
                Ok(at) => {
                    if let Some((_, last)) = members.get_mut(at) {
                        *last = (*last).max(time);
                    }
                }
                Err(_) if second(time) < second(forgotten) => {}
                Err(at) if !members.is_empty() && !members.len().is_power_of_two() => members.insert(at, (member, time)),
                Err(_) => self.insert_full(member, time, forgotten, salt),
            },
            Self::Page(cells) => {
                if let Some(last) = cells.get_mut(cell(member, salt)) {
                    *last = (*last).max(second(time));
                }
            }
        }
    }

    /// The set must grow: what is forgotten goes first, then it doubles, then it becomes a page.
    fn insert_full(&mut self, member: u64, time: i64, forgotten: i64, salt: u64) {
        let Self::Set(members) = self else { return };
        members.retain(|(_, last)| second(*last) >= second(forgotten));
        if members.len() >= SET {
            self.promote(salt);
            return self.insert(member, time, forgotten, salt);
        }
        if members.len() == members.capacity() {
            members.reserve_exact(members.len().max(1));
        }
        let at = members.partition_point(|(known, _)| *known < member);
        members.insert(at, (member, time));
    }

    /// Turns a set into a page; a page stays one.
    pub(crate) fn promote(&mut self, salt: u64) {
        if let Self::Set(members) = self {
            let mut page = Box::new([0; PAGE]);
            for (member, time) in members.iter() {
                if let Some(last) = page.get_mut(cell(*member, salt)) {
                    *last = (*last).max(second(*time));
                }
            }
            *self = Self::Page(page);
        }
    }

    /// Adds another section's members.
    pub(crate) fn merge(&mut self, other: &Self, forgotten: i64, salt: u64) {
        match other {
            Self::Set(members) => {
                for (member, time) in members {
                    self.insert(*member, *time, forgotten, salt);
                }
            }
            Self::Page(theirs) => {
                self.promote(salt);
                if let Self::Page(ours) = self {
                    ours.iter_mut().zip(theirs.iter()).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
                }
            }
        }
    }

    /// Drops what is forgotten, to the second: sections that saw the same are equal then, in whatever order they saw it.
    pub(crate) fn settle(&mut self, forgotten: i64) {
        let edge = second(forgotten);
        match self {
            Self::Set(members) => members.retain(|(_, last)| second(*last) >= edge),
            Self::Page(cells) => cells.iter_mut().filter(|last| **last < edge).for_each(|last| *last = 0),
        }
    }

    /// How many members were last seen after `start`.
    pub(crate) fn count(&self, start: i64) -> f64 {
        match self {
            Self::Set(members) => members.iter().filter(|(_, last)| *last > start).count() as f64,
            Self::Page(cells) => {
                let edge = second(start);
                let (mut after, mut within) = (0_u32, 0_u32);
                for last in cells.iter() {
                    after += u32::from(*last > edge);
                    within += u32::from(*last == edge);
                }
                // Of the second in which the window begins, the share that lies inside.
                let share = 1.0 - start.rem_euclid(1_000_000) as f64 / 1e6;
                let occupied = f64::from(after) + f64::from(within) * share;
                let cells = PAGE as f64;
                -cells * (1.0 - occupied.min(cells - 0.5) / cells).ln()
            }
        }
    }

    /// 1 when the member was not seen after `start`, 0 when it was, NaN when a page cannot tell.
    pub(crate) fn novelty(&self, member: u64, start: i64, salt: u64) -> f64 {
        match self {
            Self::Set(members) => {
                let seen = members.binary_search_by_key(&member, |(known, _)| *known).ok().and_then(|at| members.get(at));
                if seen.is_some_and(|(_, last)| *last > start) { 0.0 } else { 1.0 }
            }
            Self::Page(cells) => match cells.get(cell(member, salt)) {
                Some(last) if *last != 0 && *last >= second(start) => f64::NAN,
                _ => 1.0,
            },
        }
    }
}
