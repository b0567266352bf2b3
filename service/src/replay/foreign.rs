//! Replay of foreign input: records or log lines that never went through a scorer.
//!
//! There is no recorded order: the order of the input is taken, `now` is the greatest event time so far, and every line gets the
//! next numbers. Parsing is parallel; identification is in order, because it learns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use telltale_features::domain::{Aggregate, Context, Label, Outcome, Transaction};
use telltale_features::door::Admitted;
use telltale_features::event::EntityEvents;
use telltale_features::store::{Moment, Order, Sequence, Store};
use telltale_features::time::{ManualClock, Timestamp};

use super::batch::{Batch, Decide, Op, Output, Wanted, in_parallel};
use super::lines::{self, Item, Parsed};
use super::{Input, Progress, ReplayError, ReplayOptions, Summary};
use crate::idempotency::content_digest;
use crate::score::{Engine, weighted};

/// Transactions that later outcomes and labels can still find.
const REMEMBERED: usize = 1 << 19;
/// Outcomes that may wait for their transaction.
const HELD: usize = 10_000;
/// An event older than this, seen from the newest one, is moved forward, as it is when scored live.
const HOUR_US: i64 = 3_600_000_000;

/// Replays lines.
pub fn replay_lines(
    engine: &Arc<Engine>,
    options: &ReplayOptions,
    take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
) -> Result<Summary, ReplayError> {
    let mut input = Input::open(&options.input).map_err(ReplayError::read(&options.input))?;
    let progress = Progress::new(input.total(), options.progress);
    let mut foreign = Foreign::new(engine, options);
    loop {
        let chunk = input.chunk().map_err(ReplayError::read(&options.input))?;
        if chunk.is_empty() {
            break;
        }
        let parsed = in_parallel(chunk, options.threads, |_, (number, line)| {
            (number, line.and_then(|line| lines::parse(options.format, options.strict, number, &line)))
        });
        for (number, parsed) in parsed {
            foreign.line(number, parsed, take)?;
        }
        progress.at(input.position(), foreign.summary.transactions);
    }
    progress.finish();
    foreign.finish(take)
}

struct Foreign<'o> {
    engine: Arc<Engine>,
    options: &'o ReplayOptions,
    batch: Batch,
    summary: Summary,
    now: Timestamp,
    sequence: u64,
    known: HashMap<String, Known>,
    oldest: VecDeque<String>,
    held: HashMap<String, Vec<Outcome>>,
    held_count: usize,
    labelled: HashSet<(u64, u8)>,
}

struct Known {
    digest: u64,
    context: Arc<Context>,
    reported: bool,
}

impl<'o> Foreign<'o> {
    fn new(engine: &Arc<Engine>, options: &'o ReplayOptions) -> Self {
        let wanted = Wanted { verdict: false, line: options.verdicts.is_some() };
        // A store that already holds something goes on from there.
        let head = engine.store.moment(Order::Recorded(Moment::default()));
        let start = engine.store.moment(Order::Live(&ManualClock::at(head.now)));
        Self {
            engine: Arc::clone(engine),
            options,
            batch: Batch::new(engine, options.threads, wanted, true),
            summary: Summary::begin(),
            now: start.now,
            sequence: start.sequence.0.saturating_sub(1),
            known: HashMap::new(),
            oldest: VecDeque::new(),
            held: HashMap::new(),
            held_count: 0,
            labelled: HashSet::new(),
        }
    }

    fn line(
        &mut self,
        number: u64,
        parsed: Result<Parsed, String>,
        take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        self.summary.read += 1;
        let taken = match parsed {
            Ok(parsed) => {
                self.summary.clamped(&parsed.clamps);
                self.summary.unknown_fields += parsed.unknown as u64;
                self.item(parsed.item, take)?
            }
            Err(message) => Err(message),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(message) if self.options.strict => Err(ReplayError::Line { path: self.options.input.clone(), line: number, message }),
            Err(message) => {
                self.summary.malformed(number, message);
                Ok(())
            }
        }
    }

    /// The inner result is the line's fault, the outer one is ours.
    fn item(&mut self, item: Item, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<Result<(), String>, ReplayError> {
        match item {
            Item::Transaction(tx) => self.transaction(*tx, take),
            Item::Outcome(outcome) => self.outcome(*outcome, take).map(Ok),
            Item::Label(label) => self.label(&label, take).map(Ok),
            Item::Aggregate(aggregate) => self.aggregate(*aggregate, take),
        }
    }

    fn transaction(
        &mut self,
        mut tx: Transaction,
        take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
    ) -> Result<Result<(), String>, ReplayError> {
        self.advance(tx.time);
        tx.time = self.clamp(tx.time);
        let answer = tx.response.take();
        let admitted = match self.engine.identify(tx) {
            Ok(admitted) => admitted,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let digest = content_digest(&admitted);
        match self.known.get(&admitted.tx.id) {
            Some(known) if known.digest == digest => {
                self.summary.duplicates += 1;
                return Ok(Ok(()));
            }
            Some(_) => self.summary.id_conflicts += 1,
            None => {}
        }
        let context = Arc::new(self.engine.schema.context(&admitted, admitted.tx.time));
        self.remember(&admitted, digest, Arc::clone(&context));
        let (id, time) = (admitted.tx.id.clone(), admitted.tx.time);
        let events = self.engine.schema.events(&admitted);
        let observed = self.moment();
        self.push(Op::Observe(Box::new(admitted), events, observed), take)?;
        let force = self.engine.in_force();
        let moment = self.moment();
        self.push(Op::Decide(Decide { observed: observed.sequence.0, moment, force, recorded: None }), take)?;
        if let Some(answer) = answer {
            let later = i64::try_from(answer.duration_us).unwrap_or_default();
            let time = Timestamp::from_micros(time.micros().saturating_add(later));
            self.outcome(Outcome { transaction_id: id.clone(), time, response: Some(answer), ..Outcome::default() }, take)?;
        }
        for early in self.held.remove(&id).unwrap_or_default() {
            self.held_count -= 1;
            self.outcome(early, take)?;
        }
        Ok(Ok(()))
    }

    fn outcome(&mut self, outcome: Outcome, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
        let Some(known) = self.known.get_mut(&outcome.transaction_id) else {
            if self.held_count >= HELD {
                self.summary.unmatched += 1;
            } else {
                self.held_count += 1;
                self.held.entry(outcome.transaction_id.clone()).or_default().push(outcome);
            }
            return Ok(());
        };
        if std::mem::replace(&mut known.reported, true) {
            self.summary.duplicates += 1;
            return Ok(());
        }
        let context = Arc::clone(&known.context);
        self.advance(outcome.time);
        let Ok(outcome) = self.engine.door.admit_outcome(outcome, &context) else {
            self.summary.unmatched += 1;
            return Ok(());
        };
        let moment = self.moment();
        self.summary.outcomes += 1;
        self.engine.record_outcome(&outcome, &context, moment);
        let events = self.engine.schema.outcome_events(&context, &outcome);
        self.push(Op::Apply(events, moment), take)
    }

    fn label(&mut self, label: &Label, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
        let key = (telltale_features::hash::member(&label.transaction_id), label.kind as u8);
        if !self.labelled.insert(key) {
            self.summary.duplicates += 1;
            return Ok(());
        }
        self.summary.labelled(label);
        self.advance(label.time);
        let Some(known) = self.known.get(&label.transaction_id) else {
            self.summary.unmatched += 1;
            return Ok(());
        };
        let context = Arc::clone(&known.context);
        let moment = self.moment();
        self.engine.record_label(label, &context, moment);
        let events = self.engine.schema.label_events(&context, label);
        self.push(Op::Apply(events, moment), take)
    }

    fn aggregate(
        &mut self,
        mut aggregate: Aggregate,
        take: &mut dyn FnMut(Output) -> Result<(), ReplayError>,
    ) -> Result<Result<(), String>, ReplayError> {
        self.advance(aggregate.sample.time);
        aggregate.sample.time = self.clamp(aggregate.sample.time);
        let admitted = match self.engine.identify(aggregate.sample) {
            Ok(admitted) => admitted,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let moment = self.moment();
        self.summary.aggregates += 1;
        self.engine.record_aggregate(&admitted, (aggregate.count, aggregate.first), moment);
        let events: EntityEvents = weighted(self.engine.schema.events(&admitted), aggregate.count);
        self.push(Op::Aggregate(events, moment), take)?;
        Ok(Ok(()))
    }

    fn finish(mut self, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<Summary, ReplayError> {
        let summary = &mut self.summary;
        self.batch.finish(&mut |output| {
            summary.decided(&output);
            take(output)
        })?;
        self.summary.unmatched += self.held_count as u64;
        Ok(self.summary)
    }

    fn push(&mut self, op: Op, take: &mut dyn FnMut(Output) -> Result<(), ReplayError>) -> Result<(), ReplayError> {
        let summary = &mut self.summary;
        self.batch.push(op, &mut |output| {
            summary.decided(&output);
            take(output)
        })?;
        for finished in std::mem::take(&mut self.batch.finished) {
            let moment = self.moment();
            self.engine.calibrated(&finished, Order::Recorded(moment));
        }
        Ok(())
    }

    fn remember(&mut self, admitted: &Admitted, digest: u64, context: Arc<Context>) {
        let id = admitted.tx.id.clone();
        if self.known.insert(id.clone(), Known { digest, context, reported: false }).is_none() {
            self.oldest.push_back(id);
        }
        if self.oldest.len() > REMEMBERED
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn moment(&mut self) -> Moment {
        self.sequence += 1;
        Moment { sequence: Sequence(self.sequence), now: self.now }
    }

    fn advance(&mut self, to: Timestamp) {
        self.now = self.now.max(to);
    }

    fn clamp(&mut self, time: Timestamp) -> Timestamp {
        let earliest = Timestamp::from_micros(self.now.micros().saturating_sub(HOUR_US));
        self.summary.clamped_times += u64::from(time < earliest);
        time.max(earliest)
    }
}
