//! What is remembered of transactions: the verdict of each identifier, outcomes that came too early, reports already taken.
//!
//! Everything is bounded by number and by effective time. The oldest goes first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use telltale_features::domain::Outcome;
use telltale_features::time::Timestamp;
use telltale_proto::v1;
use tokio::sync::watch;

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

/// A verdict that several callers may wait for.
pub type Shared = Arc<v1::Verdict>;

/// Remembers.
pub struct Memory {
    bounds: Bounds,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    known: HashMap<String, Known>,
    oldest: VecDeque<(Timestamp, String)>,
    early: HashMap<String, Vec<Outcome>>,
    early_order: VecDeque<String>,
    early_count: usize,
    reports: HashSet<u64>,
    report_order: VecDeque<u64>,
}

struct Known {
    digest: u64,
    verdict: watch::Receiver<Option<Shared>>,
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
    /// It was scored, or is being scored.
    Again(watch::Receiver<Option<Shared>>),
}

/// The right to score an identifier; dropped without a verdict it frees the identifier.
pub struct Turn {
    memory: Arc<Memory>,
    id: String,
    answer: watch::Sender<Option<Shared>>,
    done: bool,
}

/// Where the context of a report is to be had.
pub enum Found {
    /// In the token of this verdict.
    Verdict(Shared),
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
        let mut conflict = false;
        if let Some(known) = inner.known.get(id) {
            if known.digest == digest {
                return Entered::Again(known.verdict.clone());
            }
            conflict = true;
        }
        let (answer, verdict) = watch::channel(None);
        inner.known.insert(id.to_owned(), Known { digest, verdict });
        inner.oldest.push_back((now, id.to_owned()));
        inner.forget(self.bounds, now);
        Entered::First { turn: Turn { memory: Arc::clone(self), id: id.to_owned(), answer, done: false }, conflict }
    }

    /// The verdict of a transaction, for a report without token; keeps an outcome whose transaction has not been decided yet.
    pub fn find(&self, id: &str, outcome: Option<&Outcome>) -> Found {
        let mut inner = self.inner.lock();
        if let Some(verdict) = inner.known.get(id).and_then(|known| known.verdict.borrow().clone()) {
            return Found::Verdict(verdict);
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
    pub fn restore(&self, id: &str, digest: u64, verdict: v1::Verdict, at: Timestamp) {
        let (_, receiver) = watch::channel(Some(Arc::new(verdict)));
        let mut inner = self.inner.lock();
        inner.known.insert(id.to_owned(), Known { digest, verdict: receiver });
        inner.oldest.push_back((at, id.to_owned()));
        inner.forget(self.bounds, at);
    }

    /// Transactions remembered and outcomes waiting.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.known.len(), inner.early_count)
    }
}

impl Inner {
    fn forget(&mut self, bounds: Bounds, now: Timestamp) {
        while let Some((at, _)) = self.oldest.front() {
            if self.oldest.len() <= bounds.transactions && now.micros_since(*at) <= bounds.micros {
                break;
            }
            if let Some((_, id)) = self.oldest.pop_front() {
                self.known.remove(&id);
            }
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
    pub fn answer(mut self, verdict: Shared) -> Vec<Outcome> {
        self.done = true;
        let mut inner = self.memory.inner.lock();
        self.answer.send_replace(Some(verdict));
        inner.take_early(&self.id)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.done {
            self.memory.inner.lock().known.remove(&self.id);
        }
    }
}
