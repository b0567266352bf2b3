//! Three scorers over one Redis, live, beside a replay of all that they did in one order: how much of what they read and decided differs.
//!
//! Each scorer knows what the others did only after their flush, and applies in its own order; a replay merges the three by time. The
//! difference is the price of answering without waiting for each other. It is measured, never claimed to be nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use telltale_features::domain::{HttpResponse, Outcome};
use telltale_features::door::Admitted;
use telltale_features::hash::Keyring;
use telltale_features::store::{Moment, Order, Sequence};
use telltale_features::time::ManualClock;
use telltale_models::Lane;
use telltale_service::config::Config;
use telltale_service::convert;
use telltale_service::journal::Journal;
use telltale_service::score::Engine;
use telltale_service::setup::{self, SystemClock};
use tokio::task::JoinSet;

use crate::bench::{Failure, Row, size};
use crate::redis::Redis;
use crate::traffic::Traffic;

const SCORERS: usize = 3;
const CLIENTS: u32 = 400;
const RATE: usize = 600;
/// One answer of so many is a refusal.
const FAILS: usize = 7;

/// What a scorer did with a transaction, as its journal has it, and what it said.
struct Live {
    scorer: usize,
    admitted: Admitted,
    observed: Moment,
    vector: Vec<f64>,
    action: &'static str,
    /// The outcome, and when it was applied.
    outcome: Outcome,
    applied: Moment,
}

/// Measures and returns the rows.
///
/// # Errors
/// When an engine cannot be put together.
pub async fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let count = size("TELLTALE_BENCH_REDIS_SKEW", 6_000);
    let redis = Redis::start(folder, &[])?;
    let text = format!(
        "[policy]\nmode = \"enforce\"\n[store]\nkind = \"redis\"\n[store.redis]\naddresses = [\"{}\"]\nread_deadline_us = 200000\n",
        redis.address
    );
    let config = Config::parse(&text, Path::new("bench"))?;
    let hasher = Keyring::new(1, [3; 32]).hasher();
    let mut working = JoinSet::new();
    for scorer in 0..SCORERS {
        let engine = setup::serving_engine(&config, 1, hasher.clone(), Arc::new(SystemClock), Journal::default()).await?;
        working.spawn(live(engine, scorer, count / SCORERS));
    }
    let mut all = Vec::new();
    while let Some(done) = working.join_next().await {
        all.extend(done?.map_err(|error| error.to_string())?);
    }
    let clock = Arc::new(ManualClock::at(all.iter().map(|one| one.observed.now).min().unwrap_or_default()));
    let embedded = Config::parse("[policy]\nmode = \"enforce\"\n", Path::new("bench"))?;
    let engine = setup::engine(&embedded, 1, hasher, clock.clone(), Journal::default())?;
    let share = |part: usize, of: usize| part as f64 * 100.0 / of.max(1) as f64;
    let (vectors, readings, actions, width) = merged(&engine, &clock, &all).await?;
    Ok(vec![
        Row::new("three scorers, rows that a merged replay gives otherwise", share(vectors, all.len()), "%"),
        Row::new("three scorers, readings that a merged replay gives otherwise", share(readings, all.len() * width), "%"),
        Row::new("three scorers, actions that a merged replay gives otherwise", share(actions, all.len()), "%"),
    ])
}

/// One scorer's part, at its part of the rate, each transaction with its outcome.
async fn live(engine: Arc<Engine>, scorer: usize, count: usize) -> Result<Vec<Live>, Failure> {
    let mut traffic = Traffic::new(40 + scorer as u64, CLIENTS);
    let mut due = tokio::time::interval(Duration::from_secs_f64(SCORERS as f64 / RATE as f64));
    let mut all = Vec::with_capacity(count);
    for number in 0..count {
        due.tick().await;
        let (tx, _) = convert::transaction(traffic.next_transaction(), "transaction")?;
        let (admitted, watch) = engine.admit(tx)?;
        let scored = engine.score(admitted, watch, Lane(0)).await;
        let context = engine.schema.context(&scored.admitted, scored.history.event_time);
        let status = if number.is_multiple_of(FAILS) { 404 } else { 200 };
        let response = HttpResponse { status, body_size: 900 + (number % 7_000) as u64, ..HttpResponse::default() };
        let outcome = Outcome {
            transaction_id: context.transaction_id.clone(),
            time: context.event_time,
            response: Some(response),
            ..Outcome::default()
        };
        let applied = engine.apply_outcome(outcome.clone(), &context, engine.live()).await?;
        all.push(Live {
            scorer,
            vector: scored.assessed.vector.values.to_vec(),
            action: scored.decision.action.name(),
            observed: scored.history.moment,
            admitted: scored.admitted,
            outcome,
            applied,
        });
    }
    Ok(all)
}

/// Everything in one order: rows, readings and actions that differ, and how many readings a row has.
async fn merged(engine: &Engine, clock: &ManualClock, all: &[Live]) -> Result<(usize, usize, usize, usize), Failure> {
    let observed = all.iter().map(|one| (one.observed, one.scorer, one, true));
    let mut order: Vec<_> = observed.chain(all.iter().map(|one| (one.applied, one.scorer, one, false))).collect();
    order.sort_by_key(|(at, scorer, ..)| (at.now, *scorer, at.sequence));
    let (mut rows, mut readings, mut actions, mut width) = (0, 0, 0, 0);
    for ((at, _, one, is_transaction), number) in order.into_iter().zip(1..) {
        clock.advance_to(at.now);
        // Decisions take numbers of their own, so every step of the merged order is given two.
        let moment = Moment { sequence: Sequence(number * 2), now: at.now };
        if !is_transaction {
            let context = engine.schema.context(&one.admitted, one.admitted.tx.time);
            engine.apply_outcome(one.outcome.clone(), &context, Order::Recorded(moment)).await?;
            continue;
        }
        let (vector, action) = again(engine, &one.admitted, moment).await;
        let differ = vector.iter().zip(&one.vector).filter(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan())).count();
        width = vector.len();
        readings += differ;
        rows += usize::from(differ > 0);
        actions += usize::from(action != one.action);
    }
    Ok((rows, readings, actions, width))
}

/// One transaction as a replay scores it.
async fn again(engine: &Engine, admitted: &Admitted, moment: Moment) -> (Vec<f64>, &'static str) {
    let mut fields = engine.schema.fields(admitted);
    let history = engine.observe((admitted, &fields), Order::Recorded(moment)).await;
    fields.move_to(history.event_time);
    let vector = engine.schema.extract_of(&fields, &history);
    let force = engine.in_force();
    let assessed = engine.assess(&force, &fields, vector, &engine.asked(admitted, Lane(0)));
    let decision = engine.decide(&force, (admitted, &fields), &assessed).await.decision;
    (assessed.vector.values.to_vec(), decision.action.name())
}
