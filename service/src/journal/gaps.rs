//! Sequence numbers that were lost and not yet written down as gaps.

use std::collections::BTreeMap;

/// Most separate ranges that are remembered; beyond, neighbours are joined. A gap that covers a present number is harmless.
const RANGES: usize = 1_024;

/// Ranges of lost numbers.
#[derive(Debug, Default)]
pub struct GapList {
    ranges: BTreeMap<u64, u64>,
}

impl GapList {
    /// Notes one lost number.
    pub fn add(&mut self, sequence: u64) {
        self.add_range(sequence, sequence);
    }

    /// Notes lost numbers, the last included.
    pub fn add_range(&mut self, first: u64, last: u64) {
        if first == 0 {
            return;
        }
        let before = self.ranges.range_mut(..=first).next_back();
        match before {
            Some((_, end)) if *end + 1 >= first => *end = (*end).max(last),
            _ => {
                self.ranges.insert(first, last);
            }
        }
        if self.ranges.len() > RANGES {
            self.join_nearest();
        }
    }

    /// The ranges noted so far, neighbours joined; the list is empty afterwards.
    pub fn take(&mut self) -> Vec<(u64, u64)> {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, last) in std::mem::take(&mut self.ranges) {
            match joined.last_mut() {
                Some((_, end)) if *end + 1 >= first => *end = (*end).max(last),
                _ => joined.push((first, last)),
            }
        }
        joined
    }

    fn join_nearest(&mut self) {
        let starts: Vec<(u64, u64)> = self.ranges.iter().map(|(first, last)| (*first, *last)).collect();
        let nearest = starts.windows(2).filter_map(|pair| match pair {
            [(first, last), (next, end)] => Some((next.saturating_sub(*last), *first, *next, *end)),
            _ => None,
        });
        if let Some((_, first, next, end)) = nearest.min() {
            self.ranges.remove(&next);
            self.ranges.insert(first, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_the_list_stays_bounded() {
        let mut list = GapList::default();
        for sequence in [5, 6, 7, 10, 9, 3] {
            list.add(sequence);
        }
        list.add_range(11, 14);
        assert_eq!(list.take(), [(3, 3), (5, 7), (9, 14)]);
        for sequence in (0..10_000).map(|step| step * 2 + 1) {
            list.add(sequence);
        }
        let ranges = list.take();
        assert!(ranges.len() <= RANGES, "{}", ranges.len());
        assert!((0..10_000_u64).all(|step| ranges.iter().any(|(first, last)| (first..=last).contains(&&(step * 2 + 1)))));
    }
}
