//! One entity as a replica holds it: what is stored, what was sealed and is on its way, what came since.
//!
//! Events and answers of the store enter; reads and writes leave. Pure: no I/O, no clock, so that every interleaving can be tested.
//!
//! INVARIANT: `view` = stored state of version `base` ⊕ `sealed` (unless that state shows its flush) ⊕ `open`. A sealed delta never
//! changes, and there is at most one: the next is sealed only when this one's fate is known.

mod fate;
mod moving;
mod sealed;

use crate::entity::EntityId;
use crate::event::Event;
use crate::kernel::slots::{PROVED, SlotChange, SlotTag};
use crate::kernel::{EntityState, Flush, Layout};
use crate::time::Timestamp;

use super::delta::{Delta, join, longest};
use super::heat::{PASSING, Rate, Worth};
use super::names::Standing;
use super::sole::Token;
use super::value::{self, Version, Write};
pub(super) use fate::Outcome;
use sealed::Sealed;
pub(super) use sealed::lives;

/// How current an entity's history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Currency {
    /// As stored, or what was stored a moment ago.
    Current,
    /// A copy that may lag.
    Old,
    /// A part: the store lost the rest.
    Part,
    /// Only what came since the store was out of reach.
    Unknown,
}

/// One entity.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: EntityId,
    pub view: EntityState,
    standing: Standing,
    base: Option<Version>,
    /// Under which token the base was what is stored.
    token: Token,
    /// Whether the store has told what it holds.
    known: bool,
    /// Counts what was learnt of the store: an answer to a question asked before is older than that.
    pub generation: u32,
    /// When the base was last seen to be what is stored.
    fresh: Timestamp,
    sealed: Option<Box<Sealed>>,
    open: Option<Box<Delta>>,
    /// Clock of the last event applied: the TTL counts from here.
    pub touched: Timestamp,
    /// Until when windows refill after a loss.
    partial: Timestamp,
    /// When this replica last set the key's time to live; another one can only have set it later.
    lives_from: Timestamp,
    rate: Rate,
    /// Transactions seen here.
    seen: u32,
    changes: u64,
    saved: u64,
    /// Whether it stands in the list of those to flush.
    pub queued: bool,
    pub weight: u64,
}

impl Entry {
    pub(super) fn new(id: EntityId, now: Timestamp, standing: Standing) -> Self {
        Self {
            id,
            view: EntityState::default(),
            standing,
            base: None,
            token: Token::NONE,
            known: false,
            generation: 0,
            fresh: Timestamp::from_micros(i64::MIN),
            sealed: None,
            open: None,
            touched: now,
            partial: Timestamp::from_micros(i64::MIN),
            lives_from: Timestamp::from_micros(i64::MIN),
            rate: Rate::default(),
            seen: 0,
            changes: 0,
            saved: 0,
            queued: false,
            weight: 0,
        }
    }

    /// Which of its names it has.
    pub(super) const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the stored state must be asked for before a read at `now`. A hot entity is read from here while what is known of it is
    /// younger than `lag` microseconds.
    pub(super) fn wants_reading(&self, now: Timestamp, lag: i64) -> bool {
        !(self.known && self.rate.is_hot(now) && now.micros_since(self.fresh) <= lag)
    }

    /// How current a read at `now` is, whether or not the store answered.
    pub(super) fn currency(&self, now: Timestamp, lag: i64, answered: bool) -> Currency {
        if !self.known {
            Currency::Unknown
        } else if self.partial > now {
            Currency::Part
        } else if answered || now.micros_since(self.fresh) <= lag {
            Currency::Current
        } else {
            Currency::Old
        }
    }

    /// How old what is known here is, microseconds; 0 where nothing is known.
    pub(super) fn age(&self, now: Timestamp) -> i64 {
        if self.known { now.micros_since(self.fresh).max(0) } else { 0 }
    }

    /// Whether something waits to be stored.
    pub(super) fn is_dirty(&self) -> bool {
        self.open.is_some() || self.sealed.is_some()
    }

    /// How dear it is to the cache: what is stored and quiet goes first, then what was seen once or twice of which the store holds
    /// nothing, then what is hot, last what has a history that is not stored yet.
    pub(super) fn worth(&self, now: Timestamp) -> Worth {
        match (self.is_dirty(), self.seen <= PASSING && self.base.is_none()) {
            (false, _) if self.rate.is_hot(now) => Worth::Hot,
            (false, _) => Worth::Stored,
            (true, true) => Worth::Passing,
            (true, false) => Worth::Waiting,
        }
    }

    /// Whether a write is on its way.
    pub(super) fn is_in_flight(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.in_flight)
    }

    /// Number of the last change.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether everything up to that change is stored.
    pub(super) const fn is_saved(&self, change: u64) -> bool {
        self.saved >= change
    }

    pub(super) fn expired(&self, layout: &Layout, now: Timestamp) -> bool {
        now.micros_since(self.touched) > layout.ttl()
    }

    /// The stored state as a question that was asked at `asked` found it; older answers than what is known are passed over.
    pub(super) fn learn(&mut self, layout: &Layout, asked: u32, found: Option<&[u8]>, now: Timestamp) -> Result<(), Unreadable> {
        if asked != self.generation {
            return Ok(());
        }
        let found_version = found.and_then(value::version);
        if self.known && found_version == self.base {
            self.fresh = self.fresh.max(now);
            return Ok(());
        }
        let missing = found.is_none() && self.base.is_some();
        if missing && !self.expired(layout, now) {
            // Lost, not expired: what is known here stays, and the next flush creates the key again.
            self.lost(layout, now);
            return Ok(());
        }
        let state = match found {
            Some(found) => value::unpack(layout, found).map_err(|_| Unreadable)?,
            None => EntityState::default(),
        };
        self.adopt(layout, found_version, state, now);
        Ok(())
    }

    /// Another version is known to be stored, of which no token tells yet.
    const fn rebase(&mut self, base: Option<Version>) {
        self.base = base;
        self.token = Token::NONE;
    }

    /// What was just learnt of the store was so while that token stood.
    pub(super) const fn seen_under(&mut self, token: Token) {
        self.token = token;
    }

    /// That flush was stored while that token stood.
    pub(super) fn stored_under(&mut self, flush: Flush, token: Token) {
        if self.base == Some(Version::of(flush)) {
            self.token = token;
        }
    }

    /// The store lost the key: reads are partial until the longest window has refilled.
    fn lost(&mut self, layout: &Layout, now: Timestamp) {
        self.rebase(None);
        self.generation = self.generation.wrapping_add(1);
        self.partial = now.plus(longest(layout));
        self.fresh = now;
    }

    fn adopt(&mut self, layout: &Layout, version: Option<Version>, state: EntityState, now: Timestamp) {
        self.view = state;
        self.rebase(version);
        self.known = true;
        self.fresh = self.fresh.max(now);
        self.generation = self.generation.wrapping_add(1);
        if let Some(sealed) = &self.sealed
            && !self.view.holds(sealed.flush)
        {
            join(&mut self.view, layout, &sealed.delta);
        }
        if let Some(open) = &self.open {
            join(&mut self.view, layout, open);
        }
    }

    /// Forgets what its TTL has outlived; what waits to be stored stays.
    pub(super) fn renew(&mut self, layout: &Layout, now: Timestamp) {
        self.touched = now;
        self.view = EntityState::default();
        for delta in [self.sealed.as_ref().map(|sealed| &sealed.delta), self.open.as_deref()].into_iter().flatten() {
            join(&mut self.view, layout, delta);
        }
    }

    fn open(&mut self, first: Timestamp) -> &mut Delta {
        self.changes += 1;
        let delta = self.open.get_or_insert_with(|| Box::new(Delta { state: EntityState::default(), first }));
        delta.first = delta.first.min(first);
        delta
    }

    /// Applies an event and reads; the return value is the event's lateness.
    pub(super) fn observe(&mut self, layout: &Layout, event: &Event, now: Timestamp, reads: &mut impl Extend<f64>) -> f64 {
        self.rate.count(now);
        self.seen = self.seen.saturating_add(1);
        let lateness = self.view.observe(layout, event, reads);
        self.follow(layout, event, now);
        lateness
    }

    /// Applies an event.
    pub(super) fn apply(&mut self, layout: &Layout, event: &Event, now: Timestamp) {
        self.view.apply(layout, event);
        self.follow(layout, event, now);
    }

    /// The delta's part of an event.
    fn follow(&mut self, layout: &Layout, event: &Event, now: Timestamp) {
        self.touched = self.touched.max(now);
        let buried = self.view.tombstone().is_some_and(|until| event.time <= until);
        if event.filters & layout.filters != 0 && event.weight > 0 && !buried {
            self.open(event.time).state.apply(layout, event);
        }
        if event.proves {
            let until = now.plus(layout.plan().ttl);
            self.change_slot(PROVED, SlotChange::Mark { until }, now);
        }
    }

    /// Changes a policy slot.
    pub(super) fn change_slot(&mut self, tag: SlotTag, change: SlotChange, now: Timestamp) {
        self.view.change_slot(tag, change, now);
        self.open(now).state.change_slot(tag, change, now);
    }

    /// Forgets everything up to `at`, here and, with the next flush, in the store.
    pub(super) fn bury(&mut self, at: Timestamp) {
        self.view.bury(at);
        let mut state = EntityState::default();
        state.bury(at);
        self.changes += 1;
        self.open = Some(Box::new(Delta { state, first: Timestamp::from_micros(i64::MAX) }));
    }

    /// The next write, if there is something to store and nothing on its way. A delta whose fate is open goes first.
    pub(super) fn next_write(&mut self, layout: &Layout, flush: Flush) -> Option<Write> {
        if let Some(sealed) = self.sealed.as_mut() {
            if sealed.in_flight {
                return None;
            }
            (sealed.in_flight, sealed.merges) = (true, 0);
            sealed.keeps &= sealed::keeps(layout, self.lives_from, flush.at);
            return Some(sealed.write(self.id, layout));
        }
        let delta = *self.open.take()?;
        self.view.stamp(flush);
        let (standing, covers, expected) = (self.standing, self.changes, self.base);
        let value = standing.pack(flush, &self.view, layout);
        let (unknown, closed) = (false, None);
        let keeps = sealed::keeps(layout, self.lives_from, flush.at);
        let sealed = Sealed { delta, flush, covers, value, expected, standing, closed, in_flight: true, unknown, merges: 0, keeps };
        let token = if standing == Standing::Settled { self.token } else { Token::NONE };
        let write = Write { token, ..sealed.write(self.id, layout) };
        self.sealed = Some(Box::new(sealed));
        Some(write)
    }

    /// Bytes that it takes: a function of content.
    pub(super) fn bytes(&self, layout: &Layout) -> u64 {
        let delta = |delta: &Delta| delta.state.bytes(layout);
        let sealed = self.sealed.as_ref().map_or(0, |sealed| size_of::<Sealed>() + delta(&sealed.delta) + sealed.value.len());
        let open = self.open.as_deref().map_or(0, delta);
        (size_of::<Self>() - size_of::<EntityState>() + self.view.bytes(layout) + sealed + open) as u64
    }
}

/// What is stored cannot be read by this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;
