//! The server's heart: what every RPC calls. Checked messages enter, verdicts and acknowledgements leave.
//!
//! Around the engine stand admission, memory of identifiers, the table of standing decisions, metrics and audit. Nothing here
//! decides anything about a transaction.

pub mod access;
mod admission;
mod api;
mod audit;
mod chores;
mod decisions;
mod entities;
mod errors;
mod forget;
mod http;
mod inference;
mod inputs;
mod listen;
mod memory;
mod metrics;
mod models;
mod names;
mod overrides;
mod reload;
mod repeats;
mod run;
mod sharing;
pub mod snapshots;
mod stream;
mod templates;
mod warm;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use telltale_features::domain::{Context, HttpResponse, Outcome};
use telltale_features::door::Admitted;
use telltale_features::store::{Claim, Durability, Store};
use telltale_models::Lane;
use telltale_proto::v1;
use tokio::sync::watch;
use tonic::Status;

use crate::convert::{self, Clamps};
use crate::idempotency::content_digest;
use crate::score::{Engine, Scored, Stopwatch};
use crate::warming::Warming;
use crate::{token, verdict};

pub use errors::CallError;
pub use run::{Running, ServeError, ServeOptions, serve};

use admission::Admission;
use api::present;
use audit::Audit;
use decisions::Decisions;
use forget::Forgetting;
use inference::Inference;
use memory::{Entered, Found, Memory, Turn};
use metrics::Metrics;
use models::Models;
use names::Names;
use snapshots::Snapshots;
use templates::Templates;
use wire::Sealed;

/// Everything that the RPCs share.
pub struct Service {
    engine: Arc<Engine>,
    memory: Arc<Memory>,
    admission: Arc<Admission>,
    decisions: Decisions,
    metrics: Metrics,
    models: Models,
    names: Names,
    forgetting: Forgetting,
    audit: Audit,
    snapshots: Snapshots,
    templates: Templates,
    warming: Warming,
    inputs: inputs::Inputs,
    inference: Inference,
    /// Longest time that a call may take, its own deadline or not.
    longest: Duration,
    lanes: usize,
    ready: AtomicBool,
    draining: watch::Sender<bool>,
}

impl Service {
    /// Scores a transaction that came over the wire.
    ///
    /// # Errors
    /// When it is out of bounds, shed, or too late.
    pub async fn score(self: &Arc<Self>, wire: v1::Transaction, deadline: Instant) -> Result<Sealed, CallError> {
        let arrived = present();
        let place = self.admission.enter(wire.http.as_ref().map_or("", |http| http.path.as_str()));
        let _place = place.inspect_err(|error| self.shed(error, &wire))?;
        if arrived >= deadline {
            return Err(CallError::Deadline);
        }
        let (mut tx, clamps) = convert::transaction(wire, "transaction")?;
        self.count(&clamps);
        let answer = tx.response.take();
        let (admitted, watch) = self.engine.admit(tx)?;
        let now = self.engine.clock().now();
        let verdict = match self.memory.enter(&admitted.tx.id, content_digest(&admitted), now) {
            Entered::Again(verdict) => {
                self.metrics.duplicates.inc();
                verdict
            }
            Entered::Soon(verdict) => {
                self.metrics.duplicates.inc();
                // The first may be refused while others wait: they may try again.
                let verdict = tokio::time::timeout_at(deadline.into(), verdict).await.map_err(|_| CallError::Deadline)?;
                verdict.map_err(|_| CallError::Draining)?
            }
            Entered::First { turn, conflict } => {
                self.metrics.id_conflicts.inc_by(u64::from(conflict));
                let first = Arc::clone(self).first((admitted, watch), (turn, answer), deadline);
                // A claim is made on the way: a caller who hangs up then must not leave it undecided for every scorer.
                let claims = self.engine.store.has_claims();
                if claims { ended(tokio::spawn(first).await)? } else { first.await }
            }
        };
        self.metrics.seconds.observe(arrived.elapsed().as_secs_f64());
        if present() > deadline { Err(CallError::Deadline) } else { Ok(verdict) }
    }

    /// A transaction that was not seen before, from the door to the verdict.
    async fn first(
        self: Arc<Self>,
        (admitted, watch): (Admitted, Stopwatch),
        (turn, answer): (Turn, Option<HttpResponse>),
        deadline: Instant,
    ) -> Sealed {
        // A snapshot waits until the verdict is remembered, not only decided.
        let _passage = self.engine.store.enter();
        let scored = self.engine.score(admitted, watch.until(deadline), Lane(lane() % self.lanes)).await;
        match &scored.history.claim {
            Claim::Lost(decision) => self.repeated(&scored, turn, decision).await,
            Claim::Unasked | Claim::Won => self.decided(&scored, turn, answer, deadline).await,
        }
    }

    /// Everything that follows a decision: verdict, journal, denials, memory, and outcomes that came before it.
    async fn decided(&self, scored: &Scored, turn: Turn, answer: Option<HttpResponse>, deadline: Instant) -> Sealed {
        let schema = &self.engine.schema;
        let mut verdict = verdict::verdict(scored, schema);
        self.engine.record_decision(scored, convert::decision_digest(&mut verdict));
        self.decisions.deny(&scored.decision.denials, schema, scored.decided.now);
        let context = schema.context(&scored.admitted, scored.history.event_time);
        verdict.context = token::seal(&self.engine.hasher, &context, schema).into();
        verdict.timings = Some(verdict::timings(&scored.timings));
        self.tell_warming(&scored.force, &mut verdict, scored.decided.now);
        self.conclude(scored, &verdict);
        verdict.durability = self.durability(scored, deadline).await.to_owned();
        self.metrics.decided.with_label_values(&[scored.decision.action.name()]).inc();
        self.metrics.would.with_label_values(&[scored.decision.would.name()]).inc();
        self.metrics.clamped_times.inc_by(u64::from(scored.history.clamped));
        self.metrics.degraded.inc_by(u64::from(!verdict.degraded.is_empty()));
        if !scored.assessed.scores.absent.is_empty() {
            self.metrics.model_absent.inc_by(scored.assessed.scores.absent.len() as u64);
        }
        self.models.shadows.watch(scored);
        self.names.learn(&scored.admitted.subjects);
        self.templates.lessons.asked(&scored.admitted, schema);
        let verdict = Sealed::new(&verdict);
        let mut early = turn.answer(&verdict);
        if let Some(response) = answer {
            let transaction_id = context.transaction_id.clone();
            early.insert(0, Outcome { transaction_id, time: context.event_time, response: Some(response), ..Outcome::default() });
        }
        for outcome in early {
            self.templates.lessons.answered(&outcome);
            if let Err(error) = self.engine.apply_outcome(outcome, &context, self.engine.live()).await {
                tracing::warn!(%error, "an outcome that came before its transaction was refused");
            }
        }
        verdict
    }

    /// Whether what was decided is stored, where a store is asked to say so; waits for it within the deadline.
    async fn durability(&self, scored: &Scored, deadline: Instant) -> &'static str {
        let Some(redis) = self.engine.store.redis() else { return "" };
        // A tenth is left for the way back.
        let patience = deadline.saturating_duration_since(present()).mul_f64(0.9);
        match redis.settle(&scored.admitted.subjects, patience).await {
            Durability::Asynchronous => "",
            Durability::Durable => "durable",
            Durability::Pending => "pending",
        }
    }

    /// Takes an outcome; true when it was taken before.
    ///
    /// # Errors
    /// When it is out of bounds or its token is not ours.
    pub async fn outcome(&self, wire: v1::Outcome) -> Result<bool, CallError> {
        let token = wire.context.clone();
        let (outcome, clamps) = convert::outcome(wire, "outcome")?;
        self.count(&clamps);
        let id = outcome.transaction_id.clone();
        if !self.memory.first_report("outcome", &id) {
            return Ok(true);
        }
        let context = self.context(&token, &id, Some(&outcome));
        let context = context.inspect_err(|_| self.memory.forget_report("outcome", &id))?;
        self.metrics.reports.with_label_values(&["outcome"]).inc();
        let Some(context) = context else { return Ok(false) };
        self.templates.lessons.answered(&outcome);
        let applied = self.engine.apply_outcome(outcome, &context, self.engine.live()).await;
        applied.inspect_err(|_| self.memory.forget_report("outcome", &id))?;
        Ok(false)
    }

    /// Takes a label; true when it was taken before.
    ///
    /// # Errors
    /// When it is out of bounds, its token is not ours, or its transaction is not known.
    pub async fn label(&self, wire: v1::Label) -> Result<bool, CallError> {
        let token = wire.context.clone();
        let label = convert::label(wire, "label")?;
        let kind = format!("label {:?}", label.kind);
        if !self.memory.first_report(&kind, &label.transaction_id) {
            return Ok(true);
        }
        let context = self.context(&token, &label.transaction_id, None);
        let context = context.inspect_err(|_| self.memory.forget_report(&kind, &label.transaction_id))?;
        self.metrics.reports.with_label_values(&["label"]).inc();
        self.models.shadows.labelled(&label.transaction_id, label.kind.name(), self.engine.clock().now());
        if let Some(context) = context {
            self.engine.apply_label(&label, &context, self.engine.live()).await;
        }
        Ok(false)
    }

    /// Takes an aggregate; true when it was taken before.
    ///
    /// # Errors
    /// When it is out of bounds.
    pub async fn aggregate(&self, wire: v1::Aggregate) -> Result<bool, CallError> {
        let (aggregate, clamps) = convert::aggregate(wire, "aggregate")?;
        self.count(&clamps);
        let id = aggregate.id.clone();
        if !self.memory.first_report("aggregate", &id) {
            return Ok(true);
        }
        self.metrics.reports.with_label_values(&["aggregate"]).inc();
        let applied = self.engine.apply_aggregate(aggregate, self.engine.live()).await;
        applied.inspect_err(|_| self.memory.forget_report("aggregate", &id))?;
        Ok(false)
    }

    /// The context of a report: from its token, else from memory. `None` when there is none, which is counted.
    fn context(&self, token: &[u8], id: &str, outcome: Option<&Outcome>) -> Result<Option<Context>, CallError> {
        let schema = &self.engine.schema;
        if !token.is_empty() {
            return Ok(Some(forget::remaining(self, token::open(&self.engine.hasher, token, id, schema)?)));
        }
        match self.memory.find(id, outcome) {
            Found::Verdict(verdict) => {
                let context = verdict.open().map(|verdict| verdict.context).unwrap_or_default();
                Ok(Some(forget::remaining(self, token::open(&self.engine.hasher, &context, id, schema)?)))
            }
            Found::Held { dropped } => {
                self.metrics.unmatched.inc_by(dropped as u64);
                Ok(None)
            }
            Found::Nowhere => {
                self.metrics.unmatched.inc();
                Ok(None)
            }
        }
    }

    /// The lane behind those that score: of calls that ask models directly, where they may.
    const fn inference_lane(&self) -> Lane {
        Lane(self.lanes)
    }

    /// The last lane: of what only watches.
    fn watching_lane(&self) -> Lane {
        Lane(self.lanes + usize::from(self.inference.is_enabled()))
    }

    /// The moment until which a call may take.
    fn deadline(&self, own: Option<Duration>) -> Instant {
        present() + own.unwrap_or(self.longest).min(self.longest)
    }

    /// Counts and words a refusal.
    fn refuse(&self, error: CallError) -> Status {
        self.metrics.refused.with_label_values(&[error.code().description()]).inc();
        error.into()
    }

    fn shed(&self, error: &CallError, wire: &v1::Transaction) {
        if matches!(error, CallError::Overloaded { .. }) {
            let last = wire.http.as_ref().is_some_and(|http| self.admission.is_shed_last(&http.path));
            self.metrics.shed.with_label_values(&[if last { "last" } else { "ordinary" }]).inc();
        }
    }

    fn count(&self, clamps: &Clamps) {
        self.metrics.cut.inc_by(u64::from(clamps.any()));
    }

    /// Remembers a verdict from before a restart, so that repeated calls and late outcomes still find it.
    fn remember(&self, scored: &Scored) {
        self.names.learn(&scored.admitted.subjects);
        let schema = &self.engine.schema;
        let mut verdict = verdict::verdict(scored, schema);
        let context = schema.context(&scored.admitted, scored.history.event_time);
        verdict.context = token::seal(&self.engine.hasher, &context, schema).into();
        self.memory.restore(&scored.admitted.tx.id, content_digest(&scored.admitted), Sealed::new(&verdict), scored.decided.now);
    }
}

/// What a task of its own came to: its panic is the caller's, and only a runtime that ends gives it up.
fn ended<T>(task: Result<T, tokio::task::JoinError>) -> Result<T, CallError> {
    task.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => CallError::Draining,
    })
}

/// This thread's number: each scoring thread has its own sessions of the models.
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    LANE.with(|lane| *lane)
}
