//! What is remembered of transactions: the verdict of each identifier, outcomes that came too early, reports already taken.
//!
//! Everything is bounded by number and by effective time. The oldest goes first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use telltale_features::domain::Outcome;
use telltale_features::time::Timestamp;
use tokio::sync::oneshot;

use super::wire::Sealed;
use crate::snapshot::Remembered;

/// Reports remembered, so that a repeated one is ignored.
const REPORTS: usize = 1 << 18;

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Transactions.
    pub transactions: usize,
    /// Microseconds of effective time.
    pub micros: i64,
    /// Early outcomes.
    pub early: usize,
}

/// Remembers.
pub struct Memory {
    bounds: Bounds,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Arc<str>, Known>,
    oldest: VecDeque<(Timestamp, u64, Arc<str>)>,
    turns: u64,
    early: HashMap<String, Vec<Outcome>>,
    early_order: VecDeque<String>,
    early_count: usize,
    reports: HashSet<u64>,
    report_order: VecDeque<u64>,
}

struct Known {
    digest: u64,
    /// Whose entry this is: an identifier may have been used before.
    turn: u64,
    state: State,
}

enum State {
    /// Being scored; these wait for its verdict.
    Deciding(Vec<oneshot::Sender<Sealed>>),
    Decided(Sealed),
}

/// What is known of an identifier.
pub enum Entered {
    /// Nothing: score it. `conflict` says that it was used for another content before.
    First {
        /// To be told the verdict.
        turn: Turn,
        /// Whether the identifier had been used for something else.
        conflict: bool,
    },
    /// It was scored.
    Again(Sealed),
    /// It is being scored.
    Soon(oneshot::Receiver<Sealed>),
}

/// The right to score an identifier; dropped without a verdict it frees the identifier.
pub struct Turn {
    memory: Arc<Memory>,
    id: Arc<str>,
    number: u64,
    done: bool,
}

/// Where the context of a report is to be had.
pub enum Found {
    /// In the token of this verdict.
    Verdict(Sealed),
    /// Not yet: the outcome was kept until its transaction comes.
    Held {
        /// Older ones that had to go for it.
        dropped: usize,
    },
    /// Nowhere.
    Nowhere,
}

impl Memory {
    /// Empty.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, inner: Mutex::new(Inner::default()) }
    }

    /// What is known of that identifier with that content.
    pub fn enter(self: &Arc<Self>, id: &str, digest: u64, now: Timestamp) -> Entered {
        let mut inner = self.inner.lock();
        inner.turns += 1;
        let number = inner.turns;
        let first = |id, conflict| Entered::First { turn: Turn { memory: Arc::clone(self), id, number, done: false }, conflict };
        match inner.known.get_mut(id) {
            Some(known) if known.digest == digest => match &mut known.state {
                State::Decided(verdict) => return Entered::Again(verdict.clone()),
                State::Deciding(waiting) => {
                    let (answer, verdict) = oneshot::channel();
                    waiting.push(answer);
                    return Entered::Soon(verdict);
                }
            },
            // What is being scored under that identifier keeps its place, and those who wait for it.
            Some(Known { state: State::Deciding(_), .. }) => return first(id.into(), true),
            _ => {}
        }
        let id: Arc<str> = id.into();
        let known = Known { digest, turn: number, state: State::Deciding(Vec::new()) };
        let conflict = inner.known.insert(Arc::clone(&id), known).is_some();
        inner.oldest.push_back((now, number, Arc::clone(&id)));
        inner.forget(self.bounds, now);
        first(id, conflict)
    }

    /// The verdict of a transaction, for a report without token; keeps an outcome whose transaction has not been decided yet.
    pub fn find(&self, id: &str, outcome: Option<&Outcome>) -> Found {
        let mut inner = self.inner.lock();
        if let Some(Known { state: State::Decided(verdict), .. }) = inner.known.get(id) {
            return Found::Verdict(verdict.clone());
        }
        let Some(outcome) = outcome else { return Found::Nowhere };
        if self.bounds.early == 0 {
            return Found::Nowhere;
        }
        let mut dropped = 0;
        while inner.early_count >= self.bounds.early {
            let Some(oldest) = inner.early_order.front().cloned() else { break };
            dropped += inner.take_early(&oldest).len();
        }
        inner.early_count += 1;
        inner.early_order.push_back(id.to_owned());
        inner.early.entry(id.to_owned()).or_default().push(outcome.clone());
        Found::Held { dropped }
    }

    /// Notes a report; false when it was taken before.
    pub fn first_report(&self, kind: &str, id: &str) -> bool {
        let key = telltale_features::hash::member(&format!("{kind}\0{id}"));
        let mut inner = self.inner.lock();
        if !inner.reports.insert(key) {
            return false;
        }
        inner.report_order.push_back(key);
        if inner.report_order.len() > REPORTS
            && let Some(oldest) = inner.report_order.pop_front()
        {
            inner.reports.remove(&oldest);
        }
        true
    }

    /// Takes a note back: the report could not be applied after all.
    pub fn forget_report(&self, kind: &str, id: &str) {
        self.inner.lock().reports.remove(&telltale_features::hash::member(&format!("{kind}\0{id}")));
    }

    /// Remembers a verdict as it was given before a restart.
    pub fn restore(&self, id: &str, digest: u64, verdict: Sealed, at: Timestamp) {
        let id: Arc<str> = id.into();
        let mut inner = self.inner.lock();
        inner.turns += 1;
        let turn = inner.turns;
        inner.known.insert(Arc::clone(&id), Known { digest, turn, state: State::Decided(verdict) });
        inner.oldest.push_back((at, turn, id));
        inner.forget(self.bounds, at);
    }

    /// At most so many of the verdicts given, oldest first, that were asked for after that turn; and the turn of the last one looked at,
    /// `None` at the end. For snapshots.
    pub fn decided_after(&self, turn: u64, most: usize) -> Option<(Vec<Remembered>, u64)> {
        let inner = self.inner.lock();
        let from = inner.oldest.partition_point(|(_, known, _)| *known <= turn);
        let (_, last, _) = inner.oldest.range(from..).take(most).next_back()?;
        let decided = inner.oldest.range(from..).take(most).filter_map(|(at, turn, id)| match inner.known.get(id) {
            Some(Known { digest, turn: known, state: State::Decided(verdict) }) if known == turn => {
                Some(Remembered { id: id.to_string(), digest: *digest, at_us: at.micros(), verdict: verdict.bytes() })
            }
            _ => None,
        });
        Some((decided.collect(), *last))
    }

    /// Forgets the verdicts that hold what is to be forgotten; their identifiers are free again.
    pub fn forget(&self, holds: impl Fn(&Sealed) -> bool) {
        let decided: Vec<(Arc<str>, u64, Sealed)> = {
            let inner = self.inner.lock();
            let decided = inner.known.iter().filter_map(|(id, known)| match &known.state {
                State::Decided(verdict) => Some((Arc::clone(id), known.turn, verdict.clone())),
                State::Deciding(_) => None,
            });
            decided.collect()
        };
        // Not under the lock: there may be many.
        for (id, turn, _) in decided.iter().filter(|(_, _, verdict)| holds(verdict)) {
            self.inner.lock().give_up(id, *turn);
        }
    }

    /// Transactions remembered and outcomes waiting.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.known.len(), inner.early_count)
    }
}

impl Inner {
    fn forget(&mut self, bounds: Bounds, now: Timestamp) {
        while let Some((at, ..)) = self.oldest.front() {
            if self.oldest.len() <= bounds.transactions && now.micros_since(*at) <= bounds.micros {
                break;
            }
            if let Some((_, turn, id)) = self.oldest.pop_front() {
                self.give_up(&id, turn);
            }
        }
    }

    /// Forgets that entry, unless the identifier is another's by now.
    fn give_up(&mut self, id: &str, turn: u64) {
        if self.known.get(id).is_some_and(|known| known.turn == turn) {
            self.known.remove(id);
        }
    }

    fn take_early(&mut self, id: &str) -> Vec<Outcome> {
        let early = self.early.remove(id).unwrap_or_default();
        if !early.is_empty() {
            self.early_count -= early.len();
            self.early_order.retain(|waiting| waiting != id);
        }
        early
    }
}

impl Turn {
    /// Tells the verdict to everybody who waits; returns the outcomes that came before it.
    pub fn answer(mut self, verdict: &Sealed) -> Vec<Outcome> {
        self.done = true;
        let mut inner = self.memory.inner.lock();
        if let Some(known) = inner.known.get_mut(&self.id).filter(|known| known.turn == self.number)
            && let State::Deciding(waiting) = std::mem::replace(&mut known.state, State::Decided(verdict.clone()))
        {
            for waiting in waiting {
                // Who waited may have given up.
                waiting.send(verdict.clone()).ok();
            }
        }
        inner.take_early(&self.id)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.done {
            self.memory.inner.lock().give_up(&self.id, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(transactions: usize) -> Arc<Memory> {
        Arc::new(Memory::new(Bounds { transactions, micros: i64::MAX, early: 4 }))
    }

    fn first(memory: &Arc<Memory>, id: &str, digest: u64) -> (Turn, bool) {
        match memory.enter(id, digest, Timestamp::default()) {
            Entered::First { turn, conflict } => (turn, conflict),
            _ => panic!("`{id}` is known"),
        }
    }

    fn sealed(id: &str) -> Sealed {
        Sealed::new(&telltale_proto::v1::Verdict { transaction_id: id.to_owned(), ..Default::default() })
    }

    #[test]
    fn an_identifier_used_for_two_contents_at_once_disturbs_nobody() {
        let memory = memory(10);
        let (turn, _) = first(&memory, "a", 1);
        let Entered::Soon(mut waiting) = memory.enter("a", 1, Timestamp::default()) else { panic!("not being scored") };
        let (other, conflict) = first(&memory, "a", 2);
        assert!(conflict);
        other.answer(&sealed("other"));
        turn.answer(&sealed("a"));
        assert_eq!(waiting.try_recv().unwrap(), sealed("a"));
        assert!(matches!(memory.enter("a", 1, Timestamp::default()), Entered::Again(verdict) if verdict == sealed("a")));
        // Once it is decided, another content takes the identifier.
        let (turn, conflict) = first(&memory, "a", 2);
        assert!(conflict);
        turn.answer(&sealed("b"));
        assert!(matches!(memory.enter("a", 2, Timestamp::default()), Entered::Again(verdict) if verdict == sealed("b")));
    }

    #[test]
    fn a_turn_without_verdict_frees_the_identifier_and_the_oldest_go_first() {
        let memory = memory(2);
        drop(first(&memory, "a", 1));
        assert_eq!(memory.sizes().0, 0);
        for id in ["a", "b", "c", "d"] {
            first(&memory, id, 1).0.answer(&sealed(id));
        }
        assert_eq!(memory.sizes().0, 2);
        assert!(matches!(memory.enter("d", 1, Timestamp::default()), Entered::Again(_)));
        assert!(matches!(memory.enter("a", 1, Timestamp::default()), Entered::First { conflict: false, .. }));
    }
}
