//! Joins a label with what versions made of its transaction, whichever comes first: labels and scores enter, joined pairs leave.
//!
//! Versions in shadow score after the answer, so a label may overtake them; it waits, bounded in number and time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use telltale_features::time::Timestamp;

/// Labels that may wait for a score.
const EARLY: usize = 16_384;
/// How long they wait: the queue of the versions that watch is shorter than that.
const PATIENCE_US: i64 = 120_000_000;

/// What is known of transactions by their identifier: `T` is what was made of one.
pub struct Labels<T> {
    scored: HashMap<Arc<str>, T>,
    order: VecDeque<Arc<str>>,
    /// Scored transactions that are remembered.
    remembered: usize,
    early: BTreeMap<u64, Early>,
    by_id: HashMap<String, Vec<u64>>,
    next: u64,
    dropped: u64,
}

struct Early {
    id: String,
    label: String,
    since: Timestamp,
}

impl<T> Labels<T> {
    /// Remembers that many scored transactions, the latest.
    pub fn new(remembered: usize) -> Self {
        let (scored, order) = Default::default();
        Self { scored, order, remembered, early: BTreeMap::new(), by_id: HashMap::new(), next: 0, dropped: 0 }
    }

    /// Takes a label: what was made of its transaction. `None`: nothing yet, and the label waits.
    pub fn label(&mut self, id: &str, label: &str, now: Timestamp) -> Option<&T> {
        if !self.scored.contains_key(id) {
            self.wait(id, label, now);
        }
        self.scored.get(id)
    }

    /// Takes what was made of a transaction: the labels that came before it.
    pub fn score(&mut self, id: &str, made: T, now: Timestamp) -> Vec<String> {
        self.expire(now);
        let key: Arc<str> = Arc::from(id);
        if self.scored.insert(Arc::clone(&key), made).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.remembered
            && let Some(oldest) = self.order.pop_front()
        {
            self.scored.remove(&oldest);
        }
        let waiting = self.by_id.remove(id).unwrap_or_default();
        waiting.into_iter().filter_map(|number| self.early.remove(&number)).map(|early| early.label).collect()
    }

    /// Labels that were given up for want of room.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn wait(&mut self, id: &str, label: &str, now: Timestamp) {
        self.expire(now);
        if self.early.len() >= EARLY {
            self.give_up();
            self.dropped += 1;
        }
        self.early.insert(self.next, Early { id: id.to_owned(), label: label.to_owned(), since: now });
        self.by_id.entry(id.to_owned()).or_default().push(self.next);
        self.next += 1;
    }

    /// Gives up the labels whose transaction nothing scored in time: most of them were made before anything watched.
    fn expire(&mut self, now: Timestamp) {
        let late = |early: &Early| now.micros() - early.since.micros() > PATIENCE_US;
        while self.early.first_key_value().is_some_and(|(_, early)| late(early)) {
            self.give_up();
        }
    }

    /// Gives up the label that has waited longest.
    fn give_up(&mut self) {
        let Some((number, early)) = self.early.pop_first() else { return };
        if let Some(numbers) = self.by_id.get_mut(&early.id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_id.remove(&early.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_label_is_joined_whether_it_comes_before_or_after_the_score() {
        let mut labels = Labels::new(1_000);
        assert_eq!(labels.label("early", "fraud", at(0)), None);
        assert_eq!(labels.label("early", "abuse", at(1)), None);
        assert_eq!(labels.label("other", "benign", at(1)), None);
        assert_eq!(labels.score("early", 7, at(60)), ["fraud", "abuse"]);
        assert_eq!(labels.score("early", 7, at(61)), [""; 0], "joined once");
        assert_eq!(labels.score("late", 8, at(61)), [""; 0]);
        assert_eq!(labels.label("late", "benign", at(90_000)), Some(&8));
    }

    #[test]
    fn what_waits_is_bounded_in_time_and_number() {
        let mut labels = Labels::new(1_000);
        labels.label("old", "fraud", at(0));
        assert_eq!(labels.score("old", 1, at(121)), [""; 0], "given up after two minutes");
        for number in 0..EARLY + 10 {
            labels.label(&number.to_string(), "fraud", at(200));
        }
        assert_eq!((labels.early.len(), labels.by_id.len(), labels.dropped()), (EARLY, EARLY, 10));
        assert_eq!(labels.score("9", 1, at(200)), [""; 0], "the oldest go first");
        assert_eq!(labels.score("10", 1, at(200)), ["fraud"]);
        for number in 0..1_500 {
            labels.score(&format!("s{number}"), 1, at(200));
        }
        assert_eq!((labels.scored.len(), labels.order.len()), (1_000, 1_000));
        labels.label("nobody's", "fraud", at(1_000));
        assert_eq!((labels.early.len(), labels.by_id.len()), (1, 1), "all others were given up");
    }
}
