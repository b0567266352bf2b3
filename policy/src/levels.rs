//! Threat levels: evidence that decays, on the client's side only.
//!
//! A rule's match adds evidence to the client's entities, divided by how many others share each (a NAT address, a common
//! browser). A user who is named in the transaction never collects hostile evidence: they may be the victim, and what others do
//! in their name is `targeted`. A level reaches the other subjects of the same transaction one hop far and up to a cap; what is
//! propagated is computed anew each time, so it can neither pile up nor travel on.

use std::sync::Arc;

use telltale_features::entity::{EntityType, Subjects};
use telltale_features::kernel::slots::{PolicyState, Slot, SlotChange, SlotTag};
use telltale_features::time::Timestamp;

use crate::decision::Threat;

/// The levels section of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Levels {
    /// Entity types that can be hostile, with the place of their degree in a row's numbers.
    pub hostile: Vec<(EntityType, Option<u16>)>,
    /// The entity type of people.
    pub user: Option<EntityType>,
    pub half_life_us: i64,
    pub propagate: f64,
    pub propagate_cap: f64,
}

/// Tag of hostile evidence.
pub(crate) const HOSTILE: SlotTag = 0x686f_7374_696c_6501;
/// Tag of being attacked.
pub(crate) const TARGETED: SlotTag = 0x7461_7267_6574_0001;

impl Levels {
    pub fn is_hostile_type(&self, kind: EntityType) -> bool {
        self.hostile.iter().any(|(known, _)| *known == kind)
    }

    /// How many others share an entity; at least 1.
    fn degree(&self, kind: EntityType, numbers: &[f64]) -> f64 {
        let place = self.hostile.iter().find(|(known, _)| *known == kind).and_then(|(_, place)| *place);
        let degree = place.and_then(|place| numbers.get(usize::from(place))).copied().unwrap_or(1.0);
        if degree.is_nan() { 1.0 } else { degree.max(1.0) }
    }

    /// Own level of an entity.
    pub fn own(&self, state: &PolicyState, kind: EntityType, now: Timestamp) -> f64 {
        level(state, kind, HOSTILE, now)
    }

    /// The greatest level that reaches that subject from another one of this transaction.
    pub fn propagated(&self, state: &PolicyState, subjects: &Subjects, to: EntityType, (numbers, now): (&[f64], Timestamp)) -> f64 {
        let from = subjects.iter().filter(|other| other.id.kind != to && self.is_hostile_type(other.id.kind));
        from.map(|other| {
            let kind = other.id.kind;
            (self.own(state, kind, now) * self.propagate / self.degree(kind, numbers)).min(self.propagate_cap)
        })
        .fold(0.0, f64::max)
    }

    /// Adds what a match proves. `first` is the rule's own entity; the others of the client get half.
    pub fn add(&self, state: &mut PolicyState, subjects: &Subjects, first: Option<EntityType>, given: &Given<'_>) {
        let change = |amount: f64| SlotChange::Add { at: given.now, amount, half_life_us: self.half_life_us };
        for subject in subjects.iter() {
            let kind = subject.id.kind;
            if self.is_hostile_type(kind) {
                let share = if first.is_none_or(|first| first == kind) { 1.0 } else { 0.5 };
                let amount = given.amount * share / self.degree(kind, given.numbers);
                let room = (100.0 - self.own(state, kind, given.now)).max(0.0);
                state.change(kind, HOSTILE, change(amount.min(room)));
            } else if Some(kind) == self.user {
                let room = (100.0 - level(state, kind, TARGETED, given.now)).max(0.0);
                state.change(kind, TARGETED, change(given.amount.min(room)));
            }
        }
    }

    /// The levels after this transaction, of subjects that have one.
    pub fn threats(&self, state: &PolicyState, subjects: &Subjects, numbers: &[f64], origin: &Origin) -> Vec<Threat> {
        let now = origin.now;
        let threats = subjects.iter().map(|subject| {
            let kind = subject.id.kind;
            let own = self.own(state, kind, now);
            let reached = match self.is_hostile_type(kind) {
                true => self.propagated(state, subjects, kind, (numbers, now)),
                false => 0.0,
            };
            let origin = match (&origin.rule, reached > own) {
                (_, true) => Arc::from("propagated from another subject of this transaction"),
                (Some(rule), false) => Arc::clone(rule),
                (None, false) => Arc::from("earlier evidence"),
            };
            let targeted = level(state, kind, TARGETED, now);
            Threat { entity: subject.id, level: own.max(reached).clamp(0.0, 100.0), targeted, origin }
        });
        threats.filter(|threat| threat.level >= 0.5 || threat.targeted >= 0.5).collect()
    }
}

/// Evidence of one match.
pub(crate) struct Given<'a> {
    pub amount: f64,
    pub numbers: &'a [f64],
    pub now: Timestamp,
}

/// What raised the levels last.
pub(crate) struct Origin {
    pub rule: Option<Arc<str>>,
    pub now: Timestamp,
}

/// The level that its own deeds gave an entity, and how much it is being attacked, both 0 to 100, by the slots of its state.
pub fn standing_levels(slots: impl Iterator<Item = (SlotTag, Slot)>, now: Timestamp) -> (f64, f64) {
    slots.fold((0.0, 0.0), |(hostile, targeted), (tag, slot)| match tag {
        HOSTILE => (slot.evidence(now).clamp(0.0, 100.0), targeted),
        TARGETED => (hostile, slot.evidence(now).clamp(0.0, 100.0)),
        _ => (hostile, targeted),
    })
}

fn level(state: &PolicyState, kind: EntityType, tag: SlotTag, now: Timestamp) -> f64 {
    state.get(kind, tag).map_or(0.0, |slot| slot.evidence(now)).clamp(0.0, 100.0)
}
