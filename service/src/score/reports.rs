//! What comes after a transaction or stands for many of them: outcomes, labels, aggregates. Each is applied in the order of everything, then
//! journalled as it was applied.

use telltale_features::domain::{Aggregate, Context, Label, Outcome};
use telltale_features::door::{Admitted, AdmittedOutcome, DoorError};
use telltale_features::event::EntityEvents;
use telltale_features::store::{Happening, Moment, Order, Store};
use telltale_features::time::Timestamp;
use telltale_proto::journal::v1::journal_record::Kind;

use super::Engine;
use crate::convert;

impl<S: Store> Engine<S> {
    /// Applies an outcome in the order of everything.
    ///
    /// # Errors
    /// When the door refuses it.
    pub async fn apply_outcome(&self, outcome: Outcome, context: &Context, order: Order<'_>) -> Result<Moment, DoorError> {
        let outcome = self.door.admit_outcome(outcome, context)?;
        Ok(self.apply_admitted_outcome(&outcome, context, order).await)
    }

    /// Applies an outcome that stands behind the door already.
    pub async fn apply_admitted_outcome(&self, outcome: &AdmittedOutcome, context: &Context, order: Order<'_>) -> Moment {
        let moment = self.store.apply(self.schema.outcome_events(context, outcome), order).await;
        self.record_outcome(outcome, context, moment);
        moment
    }

    /// Journals an applied outcome.
    pub fn record_outcome(&self, outcome: &AdmittedOutcome, context: &Context, moment: Moment) {
        self.journal.append(moment, || Kind::Outcome(convert::outcome_applied(context, outcome, &self.schema)));
    }

    /// Applies a label in the order of everything.
    pub async fn apply_label(&self, label: &Label, context: &Context, order: Order<'_>) -> Moment {
        let moment = self.store.apply(self.schema.label_events(context, label), order).await;
        self.record_label(label, context, moment);
        moment
    }

    /// Journals an applied label.
    pub fn record_label(&self, label: &Label, context: &Context, moment: Moment) {
        self.journal.append(moment, || Kind::Label(convert::label_applied(context, label, &self.schema)));
    }

    /// Applies an aggregate: one event of its weight.
    ///
    /// # Errors
    /// When the door refuses its sample.
    pub async fn apply_aggregate(&self, aggregate: Aggregate, order: Order<'_>) -> Result<Moment, DoorError> {
        let (count, first) = (aggregate.count, aggregate.first);
        let mut admitted = self.identify(aggregate.sample)?;
        let retell = |time| self.schema.events_at(&admitted, count, time);
        let happening = Happening::new(weighted(self.schema.events(&admitted), count), &retell);
        let history = self.store.observe(happening, order).await;
        admitted.tx.time = history.event_time;
        self.record_aggregate(&admitted, (count, first), history.moment);
        Ok(history.moment)
    }

    /// Journals an applied aggregate: its sample, its count and the time of its first.
    pub fn record_aggregate(&self, admitted: &Admitted, (count, first): (u32, Timestamp), moment: Moment) {
        self.journal.append(moment, || {
            let mut record = convert::observed(admitted, admitted.tx.time, &self.schema);
            record.count = count;
            record.first_us = first.micros();
            Kind::Aggregate(record)
        });
    }
}

/// The same events, each of that weight.
pub fn weighted(mut events: EntityEvents, weight: u32) -> EntityEvents {
    for (_, event) in &mut events.events {
        event.weight = weight;
    }
    events
}
