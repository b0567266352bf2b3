//! Which of several scorers applies a transaction: one `SET NX PX` in the pipeline that reads the history anyway.
//!
//! A name enters, whose it is leaves. Who won writes what it decided under the same name with its next flush; who lost applies nothing
//! and reads what is known, as if it were the one. A claim that nobody answered counts here: rather twice than not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::kernel::EntityState;
use crate::store::{Claim, EntityReads, Happening, History, Moment, Order};
use crate::time::Timestamp;

use super::entry::Currency;
use super::{Answers, RedisStore, Shared, status};

/// Decisions that may wait to be written; beyond, their claims stay without one and repeated calls are scored without being applied.
const WAITING: usize = 65_536;
/// What a claim's key begins with, behind the prefix.
pub(super) const CLAIM: &str = ":{claim:";
/// Decisions in one pipeline.
const BATCH: usize = 256;

/// Claims with what was decided about them.
#[derive(Debug, Default)]
pub(super) struct Decided(Mutex<Vec<(String, Vec<u8>)>>);

impl RedisStore {
    /// What was decided about a transaction that this scorer won, in the caller's own form; written with the next flush.
    pub fn conclude(&self, name: &str, decision: Vec<u8>) {
        let mut waiting = self.shared.decided.0.lock();
        if waiting.len() < WAITING {
            waiting.push((self.shared.claim_key(name), decision));
        }
    }
}

/// The same before the store is closed: returns once they are written.
pub(super) async fn write_last(shared: &Shared) {
    if let Some(lives) = shared.options.claims {
        write_all(shared, lives).await;
    }
}

/// Writes what was decided since the last flush.
pub(super) fn write(shared: &Arc<Shared>) {
    let Some(lives) = shared.options.claims else { return };
    if !shared.decided.0.lock().is_empty() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { write_all(&shared, lives).await });
    }
}

async fn write_all(shared: &Shared, lives: Duration) {
    let decided = std::mem::take(&mut *shared.decided.0.lock());
    for batch in decided.chunks(BATCH) {
        if let Err(error) = shared.writes.put(batch, lives).await {
            tracing::debug!(%error, "decisions about claimed transactions were not written");
            let mut waiting = shared.decided.0.lock();
            let room = WAITING.saturating_sub(waiting.len());
            waiting.extend(batch.iter().take(room).cloned());
        }
    }
}

impl Shared {
    fn claim_key(&self, name: &str) -> String {
        format!("{}{CLAIM}{name}}}", self.options.prefix)
    }

    /// The key of a claim and how long it stands, where scorers claim at all.
    pub(super) fn claim_of(&self, name: Option<&str>) -> Option<(String, Duration)> {
        Some((self.claim_key(name?), self.options.claims?))
    }

    pub(super) fn counted(&self, claim: Claim, name: Option<&str>) -> Claim {
        let counter = match &claim {
            Claim::Won => &self.counts.claims_won,
            Claim::Lost(_) => &self.counts.claims_lost,
            Claim::Unasked if name.is_some() => &self.counts.claims_unanswered,
            Claim::Unasked => return claim,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        claim
    }

    /// What a transaction's entities read with it, applied to copies only: no number of the order is taken.
    pub(super) fn look(&self, happening: Happening<'_>, order: Order<'_>, asked: &Answers) -> History {
        let mut locked = self.lock(happening.entities());
        let moment = self.peek(order);
        let now = moment.now;
        let (events, clamped) = happening.at(order, moment);
        let (mut entities, mut currencies) = (SmallVec::new(), SmallVec::<[Currency; 8]>::new());
        for (entity, event) in &events.events {
            let (Some(shard), Some(layout)) = (locked.shard(*entity), self.layouts.get(entity.kind.index())) else { continue };
            let answered = self.learn(shard, *entity, asked, now);
            let known = shard.find(*entity).filter(|entry| !entry.expired(layout, now));
            let mut view = known.map_or_else(EntityState::default, |entry| entry.view.clone());
            let mut reads = EntityReads { entity: *entity, lateness: 0.0, reads: Default::default() };
            reads.lateness = view.observe(layout, event, &mut reads.reads);
            currencies.push(known.map_or(Currency::Unknown, |entry| entry.currency(now, self.lag(), answered)));
            entities.push(reads);
        }
        let event_time = events.events.first().map_or(now, |(_, event)| event.time);
        History { moment, event_time, clamped, status: status(&currencies), entities, ..History::default() }
    }

    /// The moment as it is, without taking it.
    fn peek(&self, order: Order<'_>) -> Moment {
        let head = self.head.lock();
        let now = match order {
            Order::Live(clock) => Timestamp::from_micros(clock.now().micros().saturating_add(self.skew.correction())),
            Order::Recorded(moment) => moment.now,
        };
        Moment { sequence: head.sequence, now: head.now.max(now) }
    }
}
