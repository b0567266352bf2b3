//! Writing back: every interval the open deltas are sealed and sent, in batches, each with one pipeline a node; and the store's counters.
//!
//! Coalesced: an entity that changed a hundred times in an interval is written once. A delta whose fate is open is sent again
//! unchanged; the script and the header of what is stored see to it that it counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::kernel::Flush;
use crate::store::StoreStats;

use super::entry::Outcome;
use super::value::{Write, Written};
use super::{Acknowledge, Shared, claims, shard_of};

/// Writes in one pipeline.
const BATCH: usize = 64;
/// In synchronous mode callers wait: what is changed within this time is written together.
const GATHER: Duration = Duration::from_micros(500);

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) reads: AtomicU64,
    pub(super) found: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) cached: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) missing: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) ambiguous: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) reconnects: AtomicU64,
    /// Entities found under their name of before a change of secrets, and those brought from there.
    pub(super) before: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) claims_won: AtomicU64,
    pub(super) claims_lost: AtomicU64,
    pub(super) claims_unanswered: AtomicU64,
    /// The oldest copy that answered lately.
    pub(super) cache_age: super::ages::Ages,
}

/// Flushes until the store is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    for tick in 0.. {
        let wait = jittered(shared.options.flush_every, shared.options.writer ^ tick);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.wanted.notified() => {
                if shared.options.acknowledge != Acknowledge::Asynchronous {
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
        tick_once(&shared);
    }
}

/// Within 20 % of the interval, so that replicas that started together do not write together.
fn jittered(interval: Duration, seed: u64) -> Duration {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let part = (mixed >> 33) as f64 / f64::from(1_u32 << 31);
    interval.mul_f64(0.8 + 0.4 * part)
}

/// Seals what is due and sends it, as far as batches may be on their way; the rest waits for the next tick and coalesces meanwhile.
fn tick_once(shared: &Arc<Shared>) {
    if !shared.writes.is_up() {
        return;
    }
    claims::write(shared);
    let start = usize::try_from(shared.flushes.load(Ordering::Relaxed) % super::SHARDS as u64).unwrap_or_default();
    let mut batch = Vec::with_capacity(BATCH);
    let Some(mut permit) = permit(shared) else { return };
    for at in 0..super::SHARDS {
        let Some(shard) = shared.shards.get((start + at) % super::SHARDS) else { continue };
        loop {
            let now = shared.now();
            let next = || Flush { writer: shared.options.writer, sequence: shared.flushes.fetch_add(1, Ordering::Relaxed) + 1, at: now };
            let more = shard.lock().due(BATCH - batch.len(), now, next);
            batch.extend(more);
            if batch.len() < BATCH {
                break;
            }
            tokio::spawn(send(Arc::clone(shared), std::mem::take(&mut batch), permit));
            match self::permit(shared) {
                Some(next) => permit = next,
                None => return,
            }
        }
    }
    if !batch.is_empty() {
        tokio::spawn(send(Arc::clone(shared), batch, permit));
    }
}

fn permit(shared: &Arc<Shared>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&shared.batches).try_acquire_owned().ok()
}

/// Sends a batch, and again what another writer was faster with.
async fn send(shared: Arc<Shared>, mut batch: Vec<Write>, permit: OwnedSemaphorePermit) {
    while !batch.is_empty() {
        let answers = shared.writes.write(&batch, |write| shared.key(write.entity, write.standing)).await;
        let now = shared.now();
        let mut again = Vec::new();
        for (write, (written, token)) in batch.iter().zip(answers) {
            shared.count(write, &written);
            let Some(shard) = shared.shards.get(shard_of(write.entity)) else { continue };
            match shard.lock().answered((write.entity, write.flush), (written, token), now) {
                Outcome::Again(write) => again.push(write),
                Outcome::Ambiguous => add(&shared.counts.ambiguous),
                Outcome::Unreadable => add(&shared.counts.unreadable),
                Outcome::Done | Outcome::Later | Outcome::Stale => {}
            }
        }
        batch = again;
    }
    drop(permit);
    shared.rounds.send_modify(|rounds| *rounds += 1);
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Shared {
    fn count(&self, write: &Write, written: &Written) {
        let counts = &self.counts;
        add(&counts.writes);
        if write.closes() && matches!(written, Written::Stored) {
            add(&counts.moved);
        }
        add(match written {
            Written::Stored => &counts.stored,
            Written::Other(_) => &counts.conflicts,
            Written::Missing => &counts.missing,
            Written::Refused(code) => {
                tracing::debug!(%code, "Redis refused a write");
                &counts.refused
            }
            Written::Unknown => &counts.unknown,
        });
    }

    pub(super) fn stats(&self) -> StoreStats {
        let kinds = self.layouts.len();
        let mut stats = StoreStats { entities: vec![0; kinds], bytes: vec![0; kinds], ..StoreStats::default() };
        let (mut dirty, mut lost) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            stats.entities.iter_mut().zip(&shard.totals.entities).for_each(|(sum, part)| *sum += part);
            stats.bytes.iter_mut().zip(&shard.totals.bytes).for_each(|(sum, part)| *sum += part);
            stats.evicted += shard.totals.evicted;
            stats.expired += shard.totals.expired;
            dirty += shard.totals.dirty;
            lost += shard.totals.lost;
        }
        let counts = &self.counts;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.shared = vec![
            ("up", u64::from(self.writes.is_up() && self.breaker.is_closed())),
            ("reads", load(&counts.reads)),
            ("reads_found", load(&counts.found)),
            ("reads_missed", load(&counts.missed)),
            ("cache_reads", load(&counts.cached)),
            ("names_before", load(&counts.before)),
            ("names_moved", load(&counts.moved)),
            ("writes", load(&counts.writes)),
            ("writes_stored", load(&counts.stored)),
            ("writes_sole", load(&self.writes.sole_writes)),
            ("write_conflicts", load(&counts.conflicts)),
            ("keys_missing", load(&counts.missing)),
            ("writes_refused", load(&counts.refused)),
            ("writes_unanswered", load(&counts.unknown)),
            ("flush_ambiguous", load(&counts.ambiguous)),
            ("unreadable", load(&counts.unreadable)),
            ("reconnects", load(&counts.reconnects)),
            ("claims_won", load(&counts.claims_won)),
            ("claims_lost", load(&counts.claims_lost)),
            ("claims_unanswered", load(&counts.claims_unanswered)),
            ("breaker_openings", self.breaker.openings()),
            ("breaker_open", u64::from(!self.breaker.is_closed())),
            ("backlog", dirty),
            ("backlog_lost", lost),
            ("cache_age_us", counts.cache_age.greatest(self.now())),
            ("clock_skew_us", self.skew.measured().unsigned_abs()),
        ];
        stats
    }
}
