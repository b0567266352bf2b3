//! Executes recorded operations in batches: entity shards in parallel, vectors and models in parallel, decisions in order.
//!
//! Operations enter in sequence order, decided transactions leave in decide order. What a batch does is what doing its operations
//! one by one would do; it is cut where that would not hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use telltale_features::door::Admitted;
use telltale_features::entity::EntityId;
use telltale_features::event::EntityEvents;
use telltale_features::store::embedded::{EPOCH, Step};
use telltale_features::store::{History, Moment, Order};
use telltale_models::{Asked, Finished, Lane};
use telltale_proto::journal::v1 as journal;
use telltale_proto::{json, v1};

use super::ReplayError;
use crate::convert;
use crate::in_force::InForce;
use crate::score::{Assessed, Engine, Ruled, Scored};
use crate::verdict::{self, Timings};

/// Most operations in one batch.
const BATCH: usize = 1_024;
/// Fewer items than this are not worth another thread.
const WORTH_A_THREAD: usize = 32;

/// One step of the order.
pub enum Op {
    /// A transaction is applied.
    Observe(Box<Admitted>, EntityEvents, Moment),
    /// A transaction is decided.
    Decide(Decide),
    /// An aggregate is applied: nothing is decided about it.
    Aggregate(EntityEvents, Moment),
    /// An outcome or a label is applied.
    Apply(EntityEvents, Moment),
    /// An entity is forgotten.
    Forget(EntityId, Moment),
}

/// A decision to be made.
pub struct Decide {
    /// Sequence of its observation.
    pub observed: u64,
    /// When.
    pub moment: Moment,
    /// The snapshot it is made with.
    pub force: Arc<InForce>,
    /// What the journal says of it.
    pub recorded: Option<journal::Decided>,
}

/// A decided transaction.
pub struct Output {
    /// All of it.
    pub scored: Scored,
    /// Its verdict, where somebody wants it.
    pub verdict: Option<v1::Verdict>,
    /// Its verdict as a line of JSON, where a file wants it.
    pub line: Option<String>,
    /// What the journal says of it.
    pub recorded: Option<journal::Decided>,
}

/// What is wanted of each decided transaction.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    /// The verdict.
    pub verdict: bool,
    /// The verdict as JSON.
    pub line: bool,
}

/// Takes what was decided.
pub type Take<'t> = dyn FnMut(Output) -> Result<(), ReplayError> + 't;

/// Gathers operations and executes them.
pub struct Batch {
    engine: Arc<Engine>,
    threads: usize,
    wanted: Wanted,
    ops: Vec<Op>,
    undecided: HashSet<EntityId>,
    pending: HashMap<u64, (Box<Admitted>, History)>,
    /// Whether on-site calibration learns from this replay; a journal brings its own results.
    learns: bool,
    /// Decisions whose transaction is missing: it fell into a gap.
    pub orphans: u64,
    /// Calibrations that became complete; whoever keeps the order gives them their place in it.
    pub finished: Vec<Finished>,
}

impl Batch {
    /// An empty batch.
    pub fn new(engine: &Arc<Engine>, threads: usize, wanted: Wanted, learns: bool) -> Self {
        Self {
            engine: Arc::clone(engine),
            threads: threads.max(1),
            wanted,
            ops: Vec::with_capacity(BATCH),
            undecided: HashSet::new(),
            pending: HashMap::new(),
            learns,
            orphans: 0,
            finished: Vec::new(),
        }
    }

    /// Takes a transaction whose history is known already: it waits for its decision as if it had been applied here.
    pub fn carry(&mut self, mut admitted: Box<Admitted>, history: History) {
        admitted.tx.time = history.event_time;
        self.pending.insert(history.moment.sequence.0, (admitted, history));
    }

    /// Adds one operation; executes the batch first where it must be cut.
    ///
    /// # Errors
    /// Whatever `take` answers.
    pub fn push(&mut self, op: Op, take: &mut Take<'_>) -> Result<(), ReplayError> {
        if self.must_cut(&op) {
            self.execute(take)?;
        }
        if let Op::Forget(entity, moment) = op {
            self.engine.store.forget(entity, Order::Recorded(moment));
            return Ok(());
        }
        if let Op::Decide(decide) = &op
            && let Some(subjects) = self.subjects_of(decide.observed)
        {
            self.undecided.extend(subjects);
        }
        self.ops.push(op);
        Ok(())
    }

    /// Executes what is left.
    ///
    /// # Errors
    /// Whatever `take` answers.
    pub fn finish(&mut self, take: &mut Take<'_>) -> Result<(), ReplayError> {
        self.execute(take)
    }

    /// The order of everything up to the sequence numbers of one epoch may be batched: nothing is evicted within.
    fn must_cut(&self, op: &Op) -> bool {
        if matches!(op, Op::Forget(..)) {
            return true;
        }
        let Some(last) = self.ops.last() else { return false };
        // Decisions read whether an identity is proved; what proves it must not overtake an earlier decision.
        let proves = |events: &EntityEvents| events.events.iter().any(|(entity, event)| event.proves && self.undecided.contains(entity));
        self.ops.len() >= BATCH
            || last.moment().sequence.0 / EPOCH != op.moment().sequence.0 / EPOCH
            || match op {
                Op::Observe(_, events, _) | Op::Aggregate(events, _) | Op::Apply(events, _) => proves(events),
                Op::Decide(_) | Op::Forget(..) => false,
            }
    }

    fn subjects_of(&self, observed: u64) -> Option<Vec<EntityId>> {
        let in_batch = self.ops.iter().rev().find_map(|op| match op {
            Op::Observe(admitted, _, moment) if moment.sequence.0 == observed => Some(&**admitted),
            _ => None,
        });
        let admitted = in_batch.or_else(|| self.pending.get(&observed).map(|(admitted, _)| &**admitted))?;
        Some(admitted.subjects.iter().map(|subject| subject.id).collect())
    }

    fn execute(&mut self, take: &mut Take<'_>) -> Result<(), ReplayError> {
        self.undecided.clear();
        let decides = self.apply();
        let assessed = self.assess(decides);
        let decided = self.decide(assessed);
        let engine = &self.engine;
        let wanted = self.wanted;
        let outputs = in_parallel(decided, self.threads, |_, (scored, recorded)| render(engine, wanted, scored, recorded));
        outputs.into_iter().try_for_each(take)
    }

    /// Applies everything that changes history; what was observed waits for its decision.
    fn apply(&mut self) -> Vec<Decide> {
        let mut steps = Vec::with_capacity(self.ops.len());
        let mut observed = Vec::new();
        let mut decides = Vec::new();
        for op in self.ops.drain(..) {
            match op {
                Op::Observe(admitted, events, moment) => {
                    observed.push(Some(admitted));
                    steps.push(Step::Observe(events, moment));
                }
                Op::Aggregate(events, moment) => {
                    observed.push(None);
                    steps.push(Step::Observe(events, moment));
                }
                Op::Apply(events, moment) => steps.push(Step::Apply(events, moment)),
                Op::Decide(decide) => decides.push(decide),
                // Never gathered: it cuts the batch and happens at once.
                Op::Forget(..) => {}
            }
        }
        let histories = self.engine.store.replay(&steps, self.threads).into_iter().flatten();
        for (admitted, history) in observed.into_iter().zip(histories) {
            let Some(mut admitted) = admitted else { continue };
            self.engine.record_observed(&admitted, &history);
            admitted.tx.time = history.event_time;
            self.pending.insert(history.moment.sequence.0, (admitted, history));
        }
        decides
    }

    fn assess(&mut self, decides: Vec<Decide>) -> Vec<(Decide, Box<Admitted>, History, Assessed)> {
        let mut work = Vec::with_capacity(decides.len());
        for decide in decides {
            match self.pending.remove(&decide.observed) {
                Some((admitted, history)) => work.push((decide, admitted, history)),
                None => self.orphans += 1,
            }
        }
        let engine = &self.engine;
        in_parallel(work, self.threads, |lane, (decide, admitted, history)| {
            let fields = engine.schema.fields(&admitted);
            let vector = engine.schema.extract_of(&fields, &history);
            let then = |list: fn(&journal::Decided) -> &[journal::ModelAbsent]| {
                decide.recorded.as_ref().map(|recorded| convert::absent_from_journal(list(recorded))).unwrap_or_default()
            };
            let (absent, unexplained) = (then(|recorded| &recorded.absent), then(|recorded| &recorded.unexplained));
            let asked = Asked { absent: &absent, unexplained: &unexplained, ..engine.asked(&admitted, lane) };
            let assessed = engine.assess(&decide.force, &fields, vector, &asked);
            (decide, admitted, history, assessed)
        })
    }

    fn decide(&mut self, work: Vec<(Decide, Box<Admitted>, History, Assessed)>) -> Vec<(Scored, Option<journal::Decided>)> {
        let mut decided = Vec::with_capacity(work.len());
        for (decide, admitted, history, assessed) in work {
            let order = Order::Recorded(decide.moment);
            let fields = self.engine.schema.fields(&admitted);
            let hints = decide.recorded.as_ref().map_or(self.engine.has_hints(), |recorded| recorded.hinted);
            let ruling = self.engine.ruling(&decide.force, (&admitted, &fields), (&assessed, hints));
            let ruled = self.engine.store.decide_now(&admitted.subjects, order, ruling);
            let asked = self.engine.asked(&admitted, Lane::default());
            let hint = self.engine.hint(&decide.force, (&admitted, &fields), &assessed, (&ruled, &asked, &|| true));
            let Ruled { decision, moment, .. } = ruled;
            let scored = Scored {
                admitted: *admitted,
                history,
                assessed,
                decision,
                hint,
                decided: moment,
                force: decide.force,
                timings: Timings::default(),
            };
            if self.learns {
                self.finished.extend(self.engine.learn(&scored));
            }
            decided.push((scored, decide.recorded));
        }
        decided
    }
}

impl Op {
    /// When it happens.
    pub const fn moment(&self) -> Moment {
        match self {
            Self::Observe(_, _, moment) | Self::Aggregate(_, moment) | Self::Apply(_, moment) | Self::Forget(_, moment) => *moment,
            Self::Decide(decide) => decide.moment,
        }
    }
}

fn render(engine: &Engine, wanted: Wanted, scored: Scored, recorded: Option<journal::Decided>) -> Output {
    let journalled = engine.journal().stats().is_some();
    let mut verdict =
        (wanted.verdict || wanted.line || journalled || recorded.is_some()).then(|| verdict::verdict(&scored, &engine.schema));
    if let Some(verdict) = verdict.as_mut().filter(|_| journalled) {
        engine.record_decision(&scored, convert::decision_digest(verdict));
    }
    let line = verdict.as_ref().filter(|_| wanted.line).and_then(|verdict| {
        let mut line = json::write(verdict).ok()?;
        line.push('\n');
        Some(line)
    });
    Output { scored, verdict, line, recorded }
}

/// Maps items on several threads, each with a lane of its own; results keep their order.
pub fn in_parallel<T: Send, R: Send>(items: Vec<T>, threads: usize, map: impl Fn(Lane, T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len() / WORTH_A_THREAD + 1);
    if threads <= 1 {
        return items.into_iter().map(|item| map(Lane(0), item)).collect();
    }
    let share = items.len().div_ceil(threads);
    let mut chunks: BTreeMap<usize, Vec<T>> = BTreeMap::new();
    for (at, item) in items.into_iter().enumerate() {
        chunks.entry(at / share).or_insert_with(|| Vec::with_capacity(share)).push(item);
    }
    std::thread::scope(|scope| {
        let map = &map;
        let work = |(lane, chunk): (usize, Vec<T>)| move || chunk.into_iter().map(|item| map(Lane(lane), item)).collect::<Vec<R>>();
        let running: Vec<_> = chunks.into_iter().map(|chunk| scope.spawn(work(chunk))).collect();
        let results = running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.flatten().collect()
    })
}
