//! What a transaction, an outcome or a label means to each of its entities.
//!
//! Filters are evaluated and members hashed once for all entities; each entity's event then takes what its plan asks for.

use smallvec::{SmallVec, smallvec};

use super::Schema;
use super::compile::phase_of;
use super::fields::Fields;
use super::layout::Source;
use super::places::vouched;
use super::spec::Phase;
use super::views::Value;
use crate::domain::{Context, Label, LabelKind};
use crate::door::{Admitted, AdmittedOutcome};
use crate::entity::{EntityId, Subject, Subjects};
use crate::event::{EntityEvents, Event};
use crate::hash::member;
use crate::time::Timestamp;

/// One happening, seen by every entity alike.
struct Happening<'a> {
    phase: Phase,
    time: Timestamp,
    fields: &'a Fields<'a>,
    subjects: &'a Subjects,
    revealed: Option<&'a Subjects>,
    target: Option<(&'a str, &'a str)>,
    weight: u32,
    sign: i8,
}

/// Filters and members of a happening.
struct Evaluated {
    holds: SmallVec<[bool; 128]>,
    members: SmallVec<[Option<u64>; 32]>,
}

impl Schema {
    /// The events of a transaction, one an entity.
    pub fn events(&self, admitted: &Admitted) -> EntityEvents {
        self.events_of(admitted, &self.fields(admitted), 1)
    }

    /// The events of `weight` like transactions as they are at another time, at which they are applied.
    pub fn events_at(&self, admitted: &Admitted, weight: u32, time: Timestamp) -> EntityEvents {
        let mut fields = self.fields(admitted);
        fields.move_to(time);
        let mut events = self.events_of(admitted, &fields, weight);
        events.events.iter_mut().for_each(|(_, event)| event.time = time);
        events
    }

    /// The same with fields that are at hand, for `weight` like transactions.
    pub fn events_of(&self, admitted: &Admitted, fields: &Fields<'_>, weight: u32) -> EntityEvents {
        let http = admitted.tx.http.as_ref();
        let happening = Happening {
            phase: Phase::Request,
            time: admitted.tx.time,
            fields,
            subjects: &admitted.subjects,
            revealed: None,
            target: http.map(|http| (http.path.as_str(), http.query.as_str())),
            weight: weight.max(1),
            sign: 1,
        };
        let evaluated = self.evaluate(&happening);
        let events =
            admitted.subjects.iter().map(|subject| (subject.id, self.event(subject.id, self.proves(subject), &happening, &evaluated)));
        EntityEvents { events: events.collect() }
    }

    /// The events of an outcome, one an entity of its transaction or of what it revealed. They apply at the transaction's time.
    pub fn outcome_events(&self, context: &Context, outcome: &AdmittedOutcome) -> EntityEvents {
        let fields = Fields::of_outcome(context, outcome, &self.declared, &self.routes);
        let happening = Happening {
            phase: Phase::Outcome,
            time: context.event_time,
            fields: &fields,
            subjects: &context.subjects,
            revealed: Some(&outcome.revealed),
            target: None,
            weight: 1,
            sign: 1,
        };
        let evaluated = self.evaluate(&happening);
        let mut ids: SmallVec<[(EntityId, bool); 8]> = SmallVec::new();
        for subject in context.subjects.iter().chain(outcome.revealed.iter()) {
            let proof = self.proofs.get(subject.id.kind.index()).copied().flatten();
            let proved = proof.and_then(|filter| evaluated.holds.get(filter).copied()).unwrap_or(false);
            ids.push((subject.id, proved || self.proves(subject)));
        }
        ids.sort_by_key(|(id, _)| *id);
        ids.dedup_by_key(|(id, _)| *id);
        let events = ids.into_iter().map(|(id, proves)| (id, self.event(id, proves, &happening, &evaluated)));
        EntityEvents { events: events.filter(|(_, event)| event.filters != 0 || event.proves).collect() }
    }

    /// The events of a label, one an entity of its transaction.
    pub fn label_events(&self, context: &Context, label: &Label) -> EntityEvents {
        self.labelled(context, label.kind, 1)
    }

    /// The events that take an earlier label back, when this one replaces it. They are applied before the label's own.
    pub fn retraction_events(&self, context: &Context, label: &Label) -> Option<EntityEvents> {
        label.replaces.map(|kind| self.labelled(context, kind, -1))
    }

    fn labelled(&self, context: &Context, kind: LabelKind, sign: i8) -> EntityEvents {
        let fields = Fields::of_label(context, kind, &self.declared, &self.routes);
        let happening = Happening {
            phase: Phase::Label,
            time: context.event_time,
            fields: &fields,
            subjects: &context.subjects,
            revealed: None,
            target: None,
            weight: 1,
            sign,
        };
        let evaluated = self.evaluate(&happening);
        let events = context.subjects.iter().map(|subject| (subject.id, self.event(subject.id, false, &happening, &evaluated)));
        EntityEvents { events: events.filter(|(_, event)| event.filters != 0).collect() }
    }

    /// Whether an outcome proves the identity of a subject of that type.
    pub(crate) fn proved_by(&self, kind: crate::entity::EntityType, context: &Context, outcome: &AdmittedOutcome) -> bool {
        let Some(filter) = self.proofs.get(kind.index()).copied().flatten().and_then(|filter| self.filters.get(filter)) else {
            return false;
        };
        let fields = Fields::of_outcome(context, outcome, &self.declared, &self.routes);
        filter.predicate.as_ref().is_none_or(|predicate| predicate.holds(&fields.row()))
    }

    /// A vouched-for identity that a client could also merely claim.
    fn proves(&self, subject: &Subject) -> bool {
        let places = self.entities.get(subject.id.kind.index()).map(|spec| spec.places.as_slice()).unwrap_or_default();
        subject.verified && !places.iter().any(vouched)
    }

    fn evaluate(&self, happening: &Happening<'_>) -> Evaluated {
        let row = happening.fields.row();
        let holds = self
            .filters
            .iter()
            .map(|filter| filter.phase == happening.phase && filter.predicate.as_ref().is_none_or(|predicate| predicate.holds(&row)));
        let members =
            self.members.iter().map(|member| phase_of(&member.sources, happening.phase).and_then(|source| happening.member(source)));
        Evaluated { holds: holds.collect(), members: members.collect() }
    }

    fn event(&self, id: EntityId, proves: bool, happening: &Happening<'_>, evaluated: &Evaluated) -> Event {
        let mut event = Event {
            time: happening.time,
            weight: happening.weight,
            sign: happening.sign,
            filters: 0,
            values: smallvec![],
            members: smallvec![],
            proves,
        };
        let Some(inputs) = self.inputs.get(id.kind.index()) else { return event };
        for (bit, filter) in inputs.filters.iter().enumerate() {
            event.filters |= u64::from(evaluated.holds.get(*filter).copied().unwrap_or(false)) << bit;
        }
        let numbers = &happening.fields.numbers;
        let members = &evaluated.members;
        let value = |value: &Value| match value {
            Value::Number(places) => phase_of(places, happening.phase).and_then(|place: usize| numbers.get(place).copied()),
            Value::Cell(member) => members.get(*member).copied().flatten().map(cell),
            Value::Step(from, to) => {
                let of = |member: &usize| members.get(*member).copied().flatten().map(cell);
                of(from).zip(of(to)).map(|(from, to)| crate::kernel::step(from, to))
            }
        };
        let value = |of| value(of).unwrap_or(f64::NAN);
        event.values = inputs.values.iter().map(value).collect();
        event.members = inputs.members.iter().map(|member| evaluated.members.get(*member).copied().flatten()).collect();
        event
    }
}

impl Happening<'_> {
    fn member(&self, source: Source) -> Option<u64> {
        match source {
            Source::Subject(kind) => {
                let subject = self.subjects.of(kind).or_else(|| self.revealed.and_then(|revealed| revealed.of(kind)));
                subject.map(|subject| subject.id.key.low64())
            }
            Source::Text(place) => self.fields.texts.get(place).filter(|text| !text.is_empty()).map(|text| member(text)),
            Source::Number(place) => self.fields.numbers.get(place).filter(|number| !number.is_nan()).map(|number| scattered(*number)),
            Source::Target => {
                self.target.map(|(path, query)| if query.is_empty() { member(path) } else { member(&format!("{path}?{query}")) })
            }
        }
    }
}

/// The cell of a member, 0 to 63: Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
fn cell(member: u64) -> f64 {
    (member.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as f64
}

/// A number as a member: SplitMix64's finaliser (Steele, Lea, Flood 2014) over its bits; −0 is 0.
fn scattered(number: f64) -> u64 {
    let mut bits = (number + 0.0).to_bits().wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
