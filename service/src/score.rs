//! The way of a transaction: one request, one read.
//!
//! A checked transaction enters, a scored one leaves. Live scoring goes the whole way in [`Engine::score`]; replay takes the same
//! steps over batches, with recorded moments. Nothing here speaks gRPC or decides anything itself.

mod hint;
mod reports;
mod stopwatch;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use telltale_features::domain::Transaction;
use telltale_features::door::{Admitted, Door, DoorError};
use telltale_features::hash::Hasher;
use telltale_features::kernel::slots::PolicyState;
use telltale_features::schema::{Fields, Schema};
use telltale_features::store::any::AnyStore;
use telltale_features::store::{Claim, Happening, History, Moment, Order, Sequence, Store};
use telltale_features::time::{Clock, Timestamp};
use telltale_features::vector::FeatureVector;
use telltale_models::half_space::Renewed;
use telltale_models::{Absent, Asked, Attribution, Calibrated, Calibrator, CalibratorOptions, Finished, Lane, Scores};
use telltale_policy::{Combined, Decision};
use telltale_proto::journal::v1::{self as journal, journal_record::Kind};

use crate::convert;
use crate::geo::Geo;
use crate::in_force::{self, InForce};
use crate::journal::Journal;
use crate::verdict::{self, Timings};

pub use hint::Hint;
pub use reports::weighted;
pub use stopwatch::Stopwatch;

/// Everything that scoring needs, shared by all workers.
pub struct Engine<S = AnyStore> {
    /// What is counted of whom.
    pub schema: Arc<Schema>,
    /// Identification and redaction.
    pub door: Arc<Door>,
    /// Entity state.
    pub store: S,
    /// Keys of tokens and entities.
    pub hasher: Hasher,
    clock: Arc<dyn Clock>,
    geo: Option<Arc<Geo>>,
    force: ArcSwap<InForce>,
    changing: Mutex<()>,
    calibrator: Mutex<Calibrator>,
    calibrator_options: CalibratorOptions,
    journal: Journal,
    /// Whether the smallest change is searched that would have been allowed.
    hints: bool,
}

/// What an engine is made of.
pub struct Parts<S> {
    /// What is counted of whom.
    pub schema: Arc<Schema>,
    /// Entity state, built with the schema's plans.
    pub store: S,
    /// Keys.
    pub hasher: Hasher,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The first snapshot.
    pub force: InForce,
    /// Transactions of this site's own that calibrate a model.
    pub calibration_rows: u64,
    /// Where everything that comes in is written.
    pub journal: Journal,
}

/// One transaction after the whole way.
pub struct Scored {
    /// Behind the door; its time is the event time.
    pub admitted: Admitted,
    /// What its entities' features read, and when it was applied.
    pub history: History,
    /// The row and what models said of it.
    pub assessed: Assessed,
    /// What to do.
    pub decision: Decision,
    /// The smallest change that would have been allowed.
    pub hint: Hint,
    /// When it was decided.
    pub decided: Moment,
    /// The snapshot it was decided with.
    pub force: Arc<InForce>,
    /// Where the time went.
    pub timings: Timings,
}

/// A row of numbers and what the models say of it.
#[derive(Clone)]
pub struct Assessed {
    /// The row.
    pub vector: FeatureVector,
    /// What each model says.
    pub scores: Scores,
    /// The models' word as risk.
    pub combined: Combined,
    /// Why; empty below the alert threshold.
    pub attributions: Vec<Attribution>,
    /// Versions that should have given reasons and did not: which they are depends on the moment, so replay repeats it from here.
    pub unexplained: Vec<Absent>,
}

/// A decision as it is made under the locks.
pub struct Ruled {
    /// What to do.
    pub decision: Decision,
    /// When it was decided.
    pub moment: Moment,
    /// The state that it was made with, where the smallest change is wanted that would have been allowed.
    pub before: Option<PolicyState>,
}

/// A transaction behind the door and its fields: read out once, for the filters, the features and the rules.
pub type Told<'a> = (&'a Admitted, &'a Fields<'a>);

impl<S: Store> Engine<S> {
    /// An engine with the same schema, door, keys and snapshot over another store, without a journal: what a shared store must not be
    /// told again is replayed into it.
    pub fn beside<T: Store>(&self, store: T) -> Engine<T> {
        Engine {
            schema: Arc::clone(&self.schema),
            door: Arc::clone(&self.door),
            store,
            hasher: self.hasher.clone(),
            clock: Arc::clone(&self.clock),
            geo: self.geo.clone(),
            force: ArcSwap::from(self.force.load_full()),
            changing: Mutex::new(()),
            calibrator: Mutex::new(Calibrator::new(&self.in_force().bundle, self.calibrator_options.clone())),
            calibrator_options: self.calibrator_options.clone(),
            journal: Journal::default(),
            hints: self.hints,
        }
    }

    /// Puts the parts together.
    pub fn new(parts: Parts<S>) -> Self {
        let calibrator_options = CalibratorOptions::of(&parts.schema, parts.calibration_rows);
        let calibrator = Calibrator::new(&parts.force.bundle, calibrator_options.clone());
        Self {
            door: Arc::new(Door::new(Arc::clone(&parts.schema), parts.hasher.clone())),
            schema: parts.schema,
            store: parts.store,
            hasher: parts.hasher,
            clock: parts.clock,
            geo: None,
            force: ArcSwap::from_pointee(parts.force),
            changing: Mutex::new(()),
            calibrator: Mutex::new(calibrator),
            calibrator_options,
            journal: parts.journal,
            hints: false,
        }
    }

    /// The same, with what tells where addresses are.
    #[must_use]
    pub fn with_geo(self, geo: Option<Arc<Geo>>) -> Self {
        Self { geo, ..self }
    }

    /// The same, searching the smallest change that would have been allowed.
    #[must_use]
    pub fn with_hints(self, hints: bool) -> Self {
        Self { hints, ..self }
    }

    /// Whether the smallest change is searched that would have been allowed.
    pub const fn has_hints(&self) -> bool {
        self.hints
    }

    /// What tells where addresses are, when anything does.
    pub fn geo(&self) -> Option<&Geo> {
        self.geo.as_deref()
    }

    /// Scores one transaction that stands behind the door.
    ///
    /// Whatever fails here is a degraded value in the result, never an error.
    pub async fn score(&self, mut admitted: Admitted, mut watch: Stopwatch, lane: Lane) -> Scored {
        let force = self.in_force(); // policy, models and overrides: one snapshot
        let passage = self.store.enter(); // a snapshot of the store must know who is under way
        let mut fields = self.schema.fields(&admitted); // what filters, features and rules may name
        let history = self.observe((&admitted, &fields), self.live()).await; // what everybody did before, and this
        watch.lap(|timings| &mut timings.observe_us);
        fields.move_to(history.event_time);
        let vector = self.schema.extract_of(&fields, &history); // one row of numbers
        watch.lap(|timings| &mut timings.extract_us);
        let asked = self.asked(&admitted, lane);
        let assessed = self.assess(&force, &fields, vector, &asked); // what the models say
        watch.lap(|timings| &mut timings.score_us);
        let ruled = match history.claim {
            Claim::Lost(_) => self.consider(&force, (&admitted, &fields), &assessed, history.moment).await, // another scorer's
            Claim::Unasked | Claim::Won => self.decide(&force, (&admitted, &fields), &assessed).await,      // what to do about it
        };
        passage.decided(&history, ruled.moment);
        drop(passage);
        let hint = self.hint(&force, (&admitted, &fields), &assessed, (&ruled, &asked)); // what would have been allowed
        watch.lap(|timings| &mut timings.decide_us);
        let Ruled { decision, moment: decided, .. } = ruled;
        admitted.tx.time = history.event_time;
        let scored = Scored { admitted, history, assessed, decision, hint, decided, force, timings: watch.finish() };
        for finished in self.learn(&scored) {
            self.calibrated(&finished, self.live()); // from now on its model's scores count
        }
        scored
    }

    /// Lets a transaction in: who is acting, what is in it; secrets become tokens.
    ///
    /// # Errors
    /// When the door refuses it.
    pub fn admit(&self, tx: Transaction) -> Result<(Admitted, Stopwatch), DoorError> {
        let mut watch = Stopwatch::start();
        let admitted = self.identify(tx)?;
        watch.lap(|timings| &mut timings.identify_us);
        Ok((admitted, watch))
    }

    /// Says where the client address is, where the transaction does not, and takes it through the door.
    ///
    /// # Errors
    /// When the door refuses it.
    pub fn identify(&self, mut tx: Transaction) -> Result<Admitted, DoorError> {
        if let Some(geo) = &self.geo {
            geo.locate(&mut tx);
        }
        self.door.admit(tx)
    }

    /// Applies the transaction in the order of everything and reads what its entities did before.
    pub async fn observe(&self, (admitted, fields): Told<'_>, order: Order<'_>) -> History {
        let retell = |time| self.schema.events_at(admitted, 1, time);
        let claim = self.claim(admitted);
        let happening = Happening::new(self.schema.events_of(admitted, fields, 1), &retell).claimed(claim.as_deref());
        let history = self.store.observe(happening, order).await;
        if !matches!(history.claim, Claim::Lost(_)) {
            self.record_observed(admitted, &history);
        }
        history
    }

    /// Journals an observed transaction, with its event time.
    pub fn record_observed(&self, admitted: &Admitted, history: &History) {
        let record = || Kind::Observed(convert::observed(admitted, history.event_time, &self.schema));
        self.journal.append(history.moment, record);
    }

    /// Scores a row, combines the scores, and explains them where the risk asks for it. Pure, apart from calibration progress.
    pub fn assess(&self, force: &InForce, fields: &Fields<'_>, vector: FeatureVector, asked: &Asked<'_>) -> Assessed {
        let mut scores = force.bundle.score_as(&vector, asked);
        if is_calibrating(&scores) {
            self.calibrator.lock().annotate(&mut scores);
        }
        let ensemble = force.policy.ensemble(fields);
        let combined = force.policy.combine(&scores, ensemble);
        let risk = |scores: &Scores| force.policy.combine(scores, ensemble).risk;
        let explain = || force.bundle.explain(&vector, &scores, asked, &risk);
        let (attributions, unexplained) = if combined.alert { explain() } else { Default::default() };
        let said = |one: &Absent| format!("model `{}` gave no reasons: {}", one.model, one.problem);
        scores.degraded.extend(unexplained.iter().map(said));
        Assessed { vector, scores, combined, attributions, unexplained }
    }

    /// How a transaction's row is to be scored: trials go by the first of its subjects that stands for one actor.
    pub fn asked(&self, admitted: &Admitted, lane: Lane) -> Asked<'static> {
        let actor = admitted.subjects.iter().find(|subject| self.calibrator_options.actors.contains(&subject.id.kind));
        Asked { actor: actor.map(|subject| subject.id.key.low64()), lane, ..Asked::default() }
    }

    /// Decides under the entities' locks; levels, buckets and marks change in the same section.
    pub async fn decide(&self, force: &InForce, told: Told<'_>, assessed: &Assessed) -> Ruled {
        self.store.decide(&told.0.subjects, self.live(), self.ruling(force, told, (assessed, self.hints))).await
    }

    /// What is asked under the locks: the policy's decision about this transaction, at that moment; with the state as it was before where
    /// a search after it wants that.
    pub fn ruling<'a>(
        &'a self,
        force: &'a InForce,
        told: Told<'a>,
        (assessed, hints): (&'a Assessed, bool),
    ) -> impl FnOnce(&mut PolicyState, Moment) -> Ruled + Send + use<'a, S> {
        move |state, moment| {
            let before = hints.then(|| telltale_policy::state_copy(state));
            let decision = force.policy.decide(&self.situation(force, told, assessed, moment), state);
            Ruled { decision, moment, before }
        }
    }

    /// Journals a decision, with the digest by which a replay is compared.
    pub fn record_decision(&self, scored: &Scored, digest: [u8; 16]) {
        self.journal.append(scored.decided, || {
            Kind::Decided(journal::Decided {
                observed: scored.history.moment.sequence.0,
                digest: digest.to_vec().into(),
                epoch: scored.force.epoch.0,
                vector: verdict::vector_digest(&scored.assessed.vector).to_vec().into(),
                absent: convert::absent_to_journal(&scored.assessed.scores.absent),
                unexplained: convert::absent_to_journal(&scored.assessed.unexplained),
                hinted: scored.hint.complete,
            })
        });
    }

    /// Offers the scores to on-site calibration; returns what this transaction completed.
    pub fn learn(&self, scored: &Scored) -> Vec<Finished> {
        let scores = &scored.assessed.scores;
        if scored.is_elsewhere() || !is_calibrating(scores) {
            return Vec::new();
        }
        let ruled = scored.decision.rules.iter().any(|rule| rule.score > 0.0);
        self.calibrator.lock().offer(scores, &scored.admitted.subjects, ruled)
    }

    /// The snapshot in force.
    pub fn in_force(&self) -> Arc<InForce> {
        self.force.load_full()
    }

    /// Makes a new snapshot from the one in force, journals why, and puts it in force. One at a time.
    pub fn change(&self, order: Order<'_>, change: impl FnOnce(&InForce, Timestamp) -> Option<(InForce, Kind)>) -> Option<Sequence> {
        self.change_all(order, |force, now| change(force, now).map(|(force, record)| (force, vec![record])))
    }

    /// As [`Engine::change`], for several reasons at once: each is journalled, all take effect together, under the number of the last.
    pub fn change_all(
        &self,
        order: Order<'_>,
        change: impl FnOnce(&InForce, Timestamp) -> Option<(InForce, Vec<Kind>)>,
    ) -> Option<Sequence> {
        let _one_at_a_time = self.changing.lock();
        let (mut force, records) = change(&self.in_force(), self.clock.now())?;
        for record in records {
            let moment = self.store.moment(order);
            force.epoch = moment.sequence;
            self.journal.append(moment, || record);
        }
        let epoch = force.epoch;
        self.put_in_force(force);
        Some(epoch)
    }

    /// Puts a snapshot in force as recorded, without journalling it: replay and warm-up.
    pub fn put_in_force(&self, force: InForce) {
        self.door.use_templates(Arc::clone(&force.templates));
        self.force.store(Arc::new(force));
    }

    /// The journal.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The scorer's clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Live order: the store takes number and time under its locks.
    pub fn live(&self) -> Order<'_> {
        Order::Live(&*self.clock)
    }

    /// A calibration has become complete: its model's scores count from now on.
    pub fn calibrated(&self, finished: &Finished, order: Order<'_>) {
        self.change(order, |force, _| {
            let (bundle, record) = calibration_change(force, finished)?;
            Some((force.with_bundle(bundle), record))
        });
    }

    /// A window of an online model is full: it scores by the new profile from now on.
    pub fn renewed(&self, renewed: &Renewed, order: Order<'_>) {
        let Renewed { model, version, profile } = renewed;
        self.change(order, |force, _| {
            let bundle = force.bundle.with_profile(model, *version, Arc::clone(profile));
            let bundle = bundle.inspect_err(|error| tracing::warn!(%model, %error, "profile dropped")).ok()?;
            tracing::info!(%model, version, bytes = profile.len(), "a new profile");
            Some((force.with_bundle(bundle), in_force::profile_record(model, *version, profile, "telltale")))
        });
    }

    /// Collects for the models of the bundle in force; what was collected of those that stay is kept.
    pub fn restart_calibration(&self) {
        self.calibrator.lock().follow(self.in_force().bundle.uncalibrated());
    }

    /// How far the calibration of a champion is: transactions collected, transactions needed.
    pub fn calibration_progress(&self, model: &str, version: u32) -> Option<(u64, u64)> {
        self.calibrator.lock().progress_of(model, version)
    }

    /// How this site's own transactions are collected.
    pub const fn calibrator_options(&self) -> &CalibratorOptions {
        &self.calibrator_options
    }
}

/// The bundle with a finished calibration, and the record of the change; `None` when its model is gone.
fn calibration_change(force: &InForce, finished: &Finished) -> Option<(telltale_models::Bundle, Kind)> {
    let Finished { model, version, table } = finished;
    let bundle = force.bundle.with_calibration(model, *version, table.clone());
    let bundle = bundle.inspect_err(|error| tracing::warn!(%model, %error, "calibration dropped")).ok()?;
    tracing::info!(%model, version, digest = %table.digest(), "calibrated");
    let record = in_force::calibration_record(model, *version, table, "telltale");
    Some((bundle, record))
}

/// Whether any model still collects this site's own scores.
fn is_calibrating(scores: &Scores) -> bool {
    scores.parts.iter().any(|part| matches!(part.calibrated, Calibrated::Calibrating { .. }))
}
