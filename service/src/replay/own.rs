//! Replay of a journal: every step as it was recorded, decisions compared with what was decided then.
//!
//! Nothing is identified anew and nothing is looked up by name: what stood behind the door is in the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use telltale_features::door::Admitted;
use telltale_features::store::{Moment, Order, Sequence, Store};
use telltale_features::time::Timestamp;
use telltale_proto::journal::v1::{DecisionChanged, JournalRecord, Observed, TemplateChanged, journal_record::Kind};
use telltale_proto::v1;

use super::batch::{Batch, Decide, Op, Output, Wanted};
use super::{Progress, ReplayError, ReplayOptions, Resume, Summary};
use crate::convert::{self, ConvertError};
use crate::in_force::{self, InForce};
use crate::journal::{Entry, JournalReader};
use crate::score::{Engine, weighted};

/// Replays a journal.
pub fn replay_journal(
    engine: &Arc<Engine>,
    (options, resume): (&ReplayOptions, Option<Resume>),
    take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
) -> Result<Summary, ReplayError> {
    let resume = resume.unwrap_or_default();
    let mut reader = JournalReader::open_from(&options.input, resume.first_file).map_err(ReplayError::read(&options.input))?;
    let progress = Progress::new(Some(reader.total_bytes()), options.progress);
    let mut own = Own::new(engine, options, resume);
    while let Some(entry) = reader.next_entry().map_err(ReplayError::read(&options.input))? {
        own.entry(entry, take)?;
        if own.summary.read.is_multiple_of(4_096) {
            progress.at(reader.stats().bytes, own.summary.transactions);
        }
    }
    progress.finish();
    let stats = reader.stats().clone();
    let mut summary = own.finish(take)?;
    let compared = summary.compared.get_or_insert_default();
    compared.missing += stats.missing;
    compared.damaged = stats.damaged;
    Ok(summary)
}

struct Own<'o> {
    engine: Arc<Engine>,
    options: &'o ReplayOptions,
    batch: Batch,
    summary: Summary,
    /// Snapshots by epoch: a decision is made with the one that it names.
    epochs: BTreeMap<u64, Arc<InForce>>,
    latest: InForce,
    /// What the store holds already.
    resume: Resume,
    /// Whether a record was met.
    begun: bool,
}

impl<'o> Own<'o> {
    fn new(engine: &Arc<Engine>, options: &'o ReplayOptions, resume: Resume) -> Self {
        let wanted = Wanted { verdict: false, line: options.verdicts.is_some() };
        let latest = (*engine.in_force()).clone();
        Self {
            engine: Arc::clone(engine),
            options,
            batch: Batch::new(engine, options.threads, wanted, false),
            summary: Summary::begin(),
            epochs: BTreeMap::from([(0, Arc::new(latest.clone()))]),
            latest,
            resume,
            begun: false,
        }
    }

    /// The journal must begin where the snapshot ends, or before.
    fn first(&mut self, sequence: u64) {
        let known = self.resume.sequence;
        if known > 0 && sequence > known + 1 {
            let lost = sequence - known - 1;
            tracing::warn!(known, sequence, lost, "the journal begins after the snapshot: what lies between is lost");
            self.summary.compared.get_or_insert_default().missing += lost;
            self.summary.degraded.push(format!("{lost} numbers between the snapshot and the journal are lost"));
        }
    }

    fn entry(&mut self, entry: Entry, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
        self.summary.read += 1;
        let number = self.summary.read;
        let Entry::Record(record) = entry else { return Ok(()) };
        match self.record(*record) {
            Ok(Some(op)) => self.push(op, take),
            Ok(None) => Ok(()),
            Err(error) if self.options.strict => {
                Err(ReplayError::Line { path: self.options.input.clone(), line: number, message: error.to_string() })
            }
            Err(error) => {
                self.summary.malformed(number, error.to_string());
                Ok(())
            }
        }
    }

    fn record(&mut self, record: JournalRecord) -> Result<Option<Op>, ConvertError> {
        let now = Timestamp::from_micros(record.now_us);
        let moment = Moment { sequence: Sequence(record.sequence), now };
        let engine = Arc::clone(&self.engine);
        let schema = &engine.schema;
        if record.sequence > 0 && !std::mem::replace(&mut self.begun, true) {
            self.first(record.sequence);
        }
        if (1..=self.resume.sequence).contains(&record.sequence) {
            return self.known(record, moment).map(|()| None);
        }
        Ok(match record.kind {
            Some(Kind::Observed(observed)) => {
                let admitted = self.admitted(observed)?;
                engine.door.follow(&admitted);
                let events = schema.events(&admitted);
                Some(Op::Observe(Box::new(admitted), events, moment))
            }
            Some(Kind::Aggregate(observed)) => {
                self.summary.aggregates += 1;
                let count = observed.count;
                let admitted = self.admitted(observed)?;
                engine.door.follow(&admitted);
                Some(Op::Aggregate(weighted(schema.events(&admitted), count), moment))
            }
            Some(Kind::Decided(decided)) => {
                let force = self.force(decided.epoch);
                let recorded = self.options.recorded_policy.then_some(decided.clone());
                Some(Op::Decide(Decide { observed: decided.observed, moment, force, recorded }))
            }
            Some(Kind::Outcome(outcome)) => {
                let (context, outcome) = convert::outcome_from_journal(outcome, schema)?;
                engine.door.remember(&context, &outcome);
                self.summary.outcomes += 1;
                Some(Op::Apply(schema.outcome_events(&context, &outcome), moment))
            }
            Some(Kind::Label(label)) => {
                let (context, label) = convert::label_from_journal(label, schema)?;
                self.summary.labelled(&label);
                Some(Op::Apply(schema.label_events(&context, &label), moment))
            }
            Some(Kind::Decision(change)) => {
                self.overrule(&change, moment)?;
                None
            }
            Some(Kind::Changed(change)) => {
                self.change(&change, moment);
                None
            }
            Some(Kind::Template(change)) => {
                self.template(&change, moment)?;
                None
            }
            Some(Kind::Forgotten(forgotten)) => {
                let wire = v1::Entity { r#type: forgotten.r#type, key: forgotten.key, ..Default::default() };
                Some(Op::Forget(convert::entity_from_proto(&wire, "forgotten", schema)?, moment))
            }
            Some(Kind::Erased(_)) => {
                self.summary.compared.get_or_insert_default().erased += 1;
                engine.store.moment(Order::Recorded(moment));
                None
            }
            Some(Kind::Gap(_)) | None => None,
        })
    }

    /// A record of what the store holds already: what is in force changes, sessions were opened, and what is decided later waits.
    fn known(&mut self, record: JournalRecord, moment: Moment) -> Result<(), ConvertError> {
        match record.kind {
            Some(Kind::Observed(observed)) => {
                let history = self.resume.histories.remove(&record.sequence);
                if history.is_some() || self.engine.door.follows_routes() {
                    let admitted = self.admitted(observed)?;
                    self.engine.door.follow(&admitted);
                    if let Some(history) = history {
                        self.batch.carry(Box::new(admitted), history);
                    }
                }
            }
            Some(Kind::Outcome(outcome)) => {
                let (context, outcome) = convert::outcome_from_journal(outcome, &self.engine.schema)?;
                self.engine.door.remember(&context, &outcome);
            }
            Some(Kind::Decision(change)) => self.overrule(&change, moment)?,
            Some(Kind::Changed(change)) => self.change(&change, moment),
            Some(Kind::Template(change)) => self.template(&change, moment)?,
            Some(Kind::Aggregate(observed)) if self.engine.door.follows_routes() => {
                let admitted = self.admitted(observed)?;
                self.engine.door.follow(&admitted);
            }
            Some(Kind::Aggregate(_) | Kind::Decided(_) | Kind::Label(_) | Kind::Gap(_) | Kind::Forgotten(_) | Kind::Erased(_)) | None => {}
        }
        Ok(())
    }

    fn overrule(&mut self, change: &DecisionChanged, moment: Moment) -> Result<(), ConvertError> {
        let overrides = in_force::override_change(&self.latest.overrides, change, &self.engine.schema)?;
        self.changed(self.latest.with_overrides(overrides), moment);
        Ok(())
    }

    /// What was identified before and after has its route in the record: a template matters to what comes after the journal.
    fn template(&mut self, change: &TemplateChanged, moment: Moment) -> Result<(), ConvertError> {
        let templates = in_force::template_change(&self.latest.templates, change)?;
        self.changed(self.latest.with_templates(templates), moment);
        Ok(())
    }

    fn admitted(&self, observed: Observed) -> Result<Admitted, ConvertError> {
        convert::admitted(observed, &self.engine.schema)
    }

    /// The snapshot of an epoch; where its change fell into a gap or before the journal, the latest before it.
    fn force(&self, epoch: u64) -> Arc<InForce> {
        if !self.options.recorded_policy {
            return self.engine.in_force();
        }
        let known = self.epochs.range(..=epoch).next_back().or_else(|| self.epochs.first_key_value());
        known.map_or_else(|| self.engine.in_force(), |(_, force)| Arc::clone(force))
    }

    fn change(&mut self, change: &telltale_proto::journal::v1::Changed, moment: Moment) {
        if change.what == "epoch" {
            let epoch = change.name.parse().unwrap_or_default();
            self.latest.epoch = Sequence(epoch);
            self.epochs.insert(epoch, Arc::new(self.latest.clone()));
            return;
        }
        // What nothing is decided with is not loaded either.
        if change.what == "model" && !self.options.recorded_policy {
            return;
        }
        match in_force::apply_change(&self.latest, change, &self.engine.schema) {
            Ok(Some(force)) => self.changed(force, moment),
            Ok(None) => {}
            Err(problem) => {
                tracing::warn!(what = %change.what, name = %change.name, %problem, "a recorded change cannot be repeated");
                self.summary.degraded.push(format!("{} {}: {problem}", change.what, change.name));
            }
        }
    }

    /// A change takes effect for the decisions that name its epoch; those before keep theirs.
    fn changed(&mut self, mut force: InForce, moment: Moment) {
        self.engine.store.moment(Order::Recorded(moment));
        force.epoch = moment.sequence;
        self.latest = force.clone();
        self.epochs.insert(moment.sequence.0, Arc::new(force));
    }

    fn push(&mut self, op: Op, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
        let summary = &mut self.summary;
        self.batch.push(op, &mut |output| {
            summary.decided(&output);
            take(output)
        })
    }

    fn finish(mut self, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<Summary, ReplayError> {
        let summary = &mut self.summary;
        self.batch.finish(&mut |output| {
            summary.decided(&output);
            take(output)
        })?;
        self.summary.compared.get_or_insert_default().orphans = self.batch.orphans;
        if self.options.recorded_policy {
            self.engine.put_in_force(self.latest);
        }
        Ok(self.summary)
    }
}
