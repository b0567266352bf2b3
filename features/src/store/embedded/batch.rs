//! Recorded batches, entity shards in parallel.
//!
//! Steps with their moments enter, histories leave. Each thread goes through the whole batch in order and does what falls to its own
//! shards, so every shard sees its operations in sequence; which thread does it changes nothing.

use crate::event::EntityEvents;
use crate::store::{EntityReads, History, Moment, Order};

use super::{EmbeddedStore, SHARDS, history, shard_of};

/// One step of a recorded batch: see [`EmbeddedStore::replay`].
#[derive(Clone, Debug)]
pub enum Step {
    /// A transaction.
    Observe(EntityEvents, Moment),
    /// An outcome or a label.
    Apply(EntityEvents, Moment),
}

impl Step {
    fn parts(&self) -> (&EntityEvents, Moment, bool) {
        match self {
            Self::Observe(events, moment) => (events, *moment, true),
            Self::Apply(events, moment) => (events, *moment, false),
        }
    }
}

/// What one thread found: step, place among its entities, reads.
type Found = Vec<(usize, EntityReads)>;

impl EmbeddedStore {
    /// Applies a recorded batch, in ascending sequence, on that many threads; one history an `Observe`, `None` for an `Apply`. Gives
    /// what `observe_now` and `apply_now` in the same order give, as long as nobody else uses the store meanwhile. The caller cuts
    /// batches at multiples of [`super::EPOCH`] and runs the decisions of a batch after it.
    pub fn replay(&self, steps: &[Step], threads: usize) -> Vec<Option<History>> {
        let threads = threads.clamp(1, SHARDS);
        let mut histories: Vec<Option<History>> = steps
            .iter()
            .map(|step| {
                let (events, moment, reads) = step.parts();
                self.take(Order::Recorded(moment));
                reads.then(|| history(events, moment, Default::default()))
            })
            .collect();
        let found: Vec<Found> = if threads == 1 {
            vec![self.replay_part(steps, 0, 1)]
        } else {
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|part| scope.spawn(move || self.replay_part(steps, part, threads))).collect();
                workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            })
        };
        for (step, reads) in found.into_iter().flatten() {
            if let Some(Some(history)) = histories.get_mut(step) {
                history.entities.push(reads);
            }
        }
        for history in histories.iter_mut().flatten() {
            history.entities.sort_by_key(|reads| reads.entity);
        }
        histories
    }

    fn replay_part(&self, steps: &[Step], part: usize, parts: usize) -> Found {
        let generation = self.head.lock().generation;
        let mut found = Vec::with_capacity(steps.len() * 4 / parts);
        for (step, (events, moment, reads)) in steps.iter().map(Step::parts).enumerate() {
            for (entity, event) in events.events.iter().filter(|(entity, _)| shard_of(*entity) % parts == part) {
                let Some(shard) = self.shards.get(shard_of(*entity)) else { continue };
                let mut shard = shard.lock();
                shard.open(moment, generation);
                if reads {
                    found.push((step, shard.observe(*entity, event, moment)));
                } else {
                    shard.apply(*entity, event, moment);
                }
            }
        }
        found
    }
}
