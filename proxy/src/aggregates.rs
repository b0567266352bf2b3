//! What the proxy denied on its own, gathered by entity and decision, sent once a second as weighted aggregates.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;
use pbjson_types::Timestamp;
use telltale_proto::v1::{Action, Aggregate, Transaction};

use crate::decisions::EntityKey;
use crate::scorer::Scorers;

/// Most pairs of entity and decision held at once.
const CAPACITY: usize = 10_000;

/// One denial.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// Whom it hit.
    pub entity: EntityKey,
    /// Identifier of the decision.
    pub decision: &'a str,
    /// What was done.
    pub enforced: Action,
    /// When.
    pub time: Timestamp,
}

/// The denials since the last report.
#[derive(Debug, Default)]
pub struct Aggregates(Mutex<HashMap<(EntityKey, String), Aggregate>>);

impl Aggregates {
    /// Counts a denial. `sample` is made for the first of a pair only. False when there is no room.
    pub fn add(&self, denial: Denial<'_>, sample: impl FnOnce() -> Transaction) -> bool {
        let Denial { entity, decision, enforced, time } = denial;
        let mut held = self.0.lock();
        let full = held.len() >= CAPACITY;
        match held.entry((entity, decision.to_owned())) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.count = known.count.saturating_add(1);
                if let Some(sample) = &mut known.sample {
                    sample.time = Some(time);
                }
                true
            }
            Entry::Vacant(_) if full => false,
            Entry::Vacant(place) => {
                let sample = Some(sample());
                place.insert(Aggregate { id: crate::id::fresh(), sample, count: 1, first: Some(time), enforced: enforced.into() });
                true
            }
        }
    }

    /// Sends all of them; what finds no stream is kept for the next time.
    pub fn flush(&self, scorers: &Scorers) {
        self.0.lock().retain(|_, aggregate| !scorers.aggregate(|| std::mem::take(aggregate)));
    }

    /// How many pairs wait.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
