//! The one question before an answer: which entities does the cache not hold currently enough, what stands in Redis, whose is it.
//!
//! Entities and the name of a claim enter, what was found leaves, at most `read_deadline` later. Nothing is applied here.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::timeout;

use crate::entity::EntityId;
use crate::store::Claim;
use crate::time::Timestamp;

use super::entry::Entry;
use super::names::Standing;
use super::shard::Shard;
use super::sole::Token;
use super::{Shared, shard_of, value};

/// What the store was asked for one entity.
pub(super) struct Asked {
    entity: EntityId,
    generation: u32,
    /// Which token stood when it was asked, and how many entities the shard had given up.
    token: Token,
    evicted: u64,
    /// How old the copy here is, microseconds.
    age: i64,
    /// Which of its names it has, as far as is known.
    standing: Standing,
    answer: Answer,
    /// What stands under the name of before, where that was asked for.
    before: Option<Vec<u8>>,
}

enum Answer {
    /// The cache is current enough.
    Unasked,
    /// Not in time.
    Missed,
    /// What stands under its key.
    Found(Option<Vec<u8>>),
}

pub(super) type Answers = SmallVec<[Asked; 8]>;

impl Shared {
    /// Asks Redis for those of the entities that the cache does not hold currently enough, and whose the transaction of that name is.
    pub(super) async fn ask(
        &self,
        entities: impl Iterator<Item = EntityId>,
        name: Option<&str>,
        wants: impl Fn(&Entry, Timestamp) -> bool,
    ) -> (Answers, Claim) {
        // Not the last event's moment: after a pause a copy would look younger than it is.
        let now = self.now().max(self.head.lock().now);
        let token = self.token();
        let mut asked: Answers = entities
            .map(|entity| {
                let shard = self.shards.get(shard_of(entity)).map(Mutex::lock);
                let known = shard.as_ref().and_then(|shard| shard.find(entity));
                let evicted = shard.as_ref().map_or(0, |shard| shard.totals.evicted);
                let wanted = known.is_none_or(|entry| wants(entry, now));
                let answer = if wanted { Answer::Missed } else { Answer::Unasked };
                let age = known.map_or(0, |entry| entry.age(now));
                let standing = known.map_or(self.options.names.standing(), Entry::standing);
                Asked { entity, generation: known.map_or(0, |entry| entry.generation), token, evicted, age, standing, answer, before: None }
            })
            .collect();
        let missed = || asked.iter().filter(|one| matches!(one.answer, Answer::Missed));
        let mut keys: Vec<String> = missed().map(|one| self.key(one.entity, Standing::Settled)).collect();
        self.counts.cached.fetch_add((asked.len() - keys.len()) as u64, Ordering::Relaxed);
        let newest = keys.len();
        keys.extend(missed().filter(|one| one.standing != Standing::Settled).map(|one| self.key(one.entity, one.standing)));
        if keys.is_empty() && name.is_none() {
            self.note_ages(&asked, now);
            return (asked, Claim::Unasked);
        }
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        if !self.breaker.is_closed() {
            self.counts.missed.fetch_add(1, Ordering::Relaxed);
            self.note_ages(&asked, now);
            return (asked, self.counted(Claim::Unasked, name));
        }
        let mut claim = Claim::Unasked;
        match timeout(self.options.read_deadline, self.reads.get(&keys, self.claim_of(name))).await {
            Ok(Ok((mut found, answered))) => {
                claim = answered;
                self.breaker.answered();
                self.counts.found.fetch_add(1, Ordering::Relaxed);
                // An answer of another server than the one that is written to tells nothing.
                let token = if self.token() == token { token } else { Token::NONE };
                let mut before = found.split_off(newest.min(found.len())).into_iter();
                let waiting = asked.iter_mut().filter(|one| matches!(one.answer, Answer::Missed));
                waiting.zip(found).for_each(|(one, found)| {
                    if one.standing != Standing::Settled {
                        one.before = before.next().flatten();
                        let only_there = found.is_none() && one.before.as_deref().is_some_and(|found| !value::is_closed(found));
                        self.counts.before.fetch_add(u64::from(only_there), Ordering::Relaxed);
                    }
                    (one.answer, one.token) = (Answer::Found(found), token);
                });
            }
            Ok(Err(_)) => {
                self.breaker.lost();
                self.counts.missed.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.breaker.missed();
                self.counts.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.note_ages(&asked, now);
        (asked, self.counted(claim, name))
    }

    /// How old the oldest copy is that answers for what is stored.
    fn note_ages(&self, asked: &Answers, now: Timestamp) {
        let oldest = asked.iter().filter(|one| !matches!(one.answer, Answer::Found(_))).map(|one| one.age).max();
        self.counts.cache_age.note(u64::try_from(oldest.unwrap_or(0)).unwrap_or(0), now);
    }

    /// Takes in what was found of an entity; whether anything was.
    pub(super) fn learn(&self, shard: &mut Shard, entity: EntityId, asked: &Answers, now: Timestamp) -> bool {
        let Some(Asked { generation, token, evicted, answer: Answer::Found(found), before, .. }) =
            asked.iter().find(|one| one.entity == entity)
        else {
            return false;
        };
        let found = (found.as_deref(), before.as_deref());
        // An entity that was given up meanwhile and is new here has an earlier generation again.
        let token = if shard.totals.evicted == *evicted { *token } else { Token::NONE };
        let learnt = shard.change(entity, now, |entry, layout| {
            let is_newest = entry.generation == *generation;
            let learnt = entry.learn_either(layout, *generation, found, now);
            if is_newest && learnt.is_ok() {
                entry.seen_under(token);
            }
            learnt
        });
        let readable = !matches!(learnt, Some(Err(_)));
        self.counts.unreadable.fetch_add(u64::from(!readable), Ordering::Relaxed);
        readable
    }
}
