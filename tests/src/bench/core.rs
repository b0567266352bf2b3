//! The core path in this process: one transaction the whole way, on one core, over a million entities with full windows.
//!
//! Twice: with the schema that the bar names (five entities, about sixty features) and with the shipped one, whole.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use hdrhistogram::Histogram;
use telltale_features::domain::{HttpResponse, Outcome, Transaction};
use telltale_features::door::Admitted;
use telltale_features::hash::Keyring;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::{EPOCH, EmbeddedOptions, EmbeddedStore, Step};
use telltale_features::store::{Moment, Order, Sequence, Store};
use telltale_features::time::{ManualClock, Timestamp};
use telltale_models::{Bundle, Lane};
use telltale_policy::Policy;
use telltale_service::convert;
use telltale_service::in_force::{InForce, PolicySource};
use telltale_service::journal::Journal;
use telltale_service::score::{Engine, Parts};

use super::{Bar, Failure, Row, forest, median, memory, rules, size};
use crate::traffic::Traffic;

/// The schema that the bar is about.
const SCHEMA: (&str, &str) = ("core.yaml", include_str!("core.yaml"));
/// Each client has an address, a session and a device of its own.
const ENTITIES_A_CLIENT: usize = 3;
const START: i64 = 1_790_000_000_000_000;
const SECOND: i64 = 1_000_000;
/// Transactions made before they are scored, so that making them is not measured.
const TOGETHER: usize = 500;
/// The median of so many runs decides.
const RUNS: usize = 5;
/// One login of so many fails, and one request of so many is answered "not found".
const FAILS: u64 = 10;
const STEPS: [&str; 5] = ["identify", "observe", "extract", "models", "decide"];

/// One schema to measure with, and the bars for it.
struct Case {
    name: &'static str,
    schema: Schema,
    p50_us: f64,
    rate: Option<f64>,
}

/// Measures and returns the rows.
///
/// # Errors
/// When the engine cannot be put together.
pub fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for case in cases()? {
        eprintln!("  {}", case.name);
        rows.extend(measure(case, &folder.join("bench-models"))?);
    }
    Ok(rows)
}

fn cases() -> Result<[Case; 2], Failure> {
    let (name, text) = SCHEMA;
    let small = Schema::from_sources(&[(name.to_owned(), text.to_owned())])?;
    Ok([
        Case { name: "core path", schema: small, p50_us: 25.0, rate: Some(40_000.0) },
        Case { name: "core path, whole http schema", schema: Schema::shipped(), p50_us: 40.0, rate: None },
    ])
}

fn measure(case: Case, models: &Path) -> Result<Vec<Row>, Failure> {
    let entities = size("TELLTALE_BENCH_ENTITIES", 1_000_000);
    let measured = size("TELLTALE_BENCH_TRANSACTIONS", 200_000);
    let Case { name, schema, p50_us, rate } = case;
    let models = models.join(schema.digest());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut bench = Bench::new(schema, entities / ENTITIES_A_CLIENT)?;
    let before = memory::resident()?;
    bench.fill()?;
    let memory = memory::rows(name, (&bench.engine.store, &bench.engine.schema), memory::resident()? - before);
    let vectors = runtime.block_on(bench.score(20_000))?.vectors;
    let bundle = forest::trained(&bench.engine.schema, &vectors, &models)?;
    let force = bench.engine.in_force().with_bundle(bundle);
    bench.engine.put_in_force(force);
    runtime.block_on(bench.score(measured / 10))?;
    let runs = (0..RUNS).map(|_| runtime.block_on(bench.score(measured / RUNS))).collect::<Result<Vec<Run>, _>>()?;
    let snapshot = Snapshot::begin(&bench.engine);
    let during = runtime.block_on(bench.score(measured / RUNS))?;
    let taken = snapshot.finish()?;
    let stats = bench.engine.store.stats();
    let (held, bytes): (u64, u64) = (stats.entities.iter().sum(), stats.bytes.iter().sum());
    let over = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let row = |what: &str, value: f64, unit: &'static str| Row::new(format!("{name}: {what}"), value, unit);
    let fast = row("one core, by its processor time", over(&Run::rate), "tx/s");
    let mut figures = vec![
        row("p50", over(&|run| quantile_us(&run.latency, 0.5)), "µs").goal(Bar::AtMost(p50_us)),
        row("p99", over(&|run| quantile_us(&run.latency, 0.99)), "µs"),
        match rate {
            Some(rate) => fast.goal(Bar::AtLeast(rate)),
            None => fast,
        },
        row("entities a transaction", over(&|run| run.entities as f64 / run.count.max(1) as f64), ""),
        row("features", bench.engine.schema.features().len() as f64, ""),
        row("rules that reach their feature test", rules::reached(), "%").bar(Bar::AtLeast(30.0)),
        row("entities held", held as f64, ""),
        row("state, bytes an entity", bytes as f64 / held.max(1) as f64, "B"),
    ];
    for (step, title) in STEPS.iter().enumerate() {
        let p50 = |run: &Run| run.stages.get(step).map_or(f64::NAN, |stage| quantile_us(stage, 0.5));
        figures.push(row(&format!("p50 of {title}"), over(&p50), "µs"));
    }
    figures.extend(snapshot_rows(name, taken, (&during, &runs)));
    figures.extend(memory);
    Ok(figures)
}

/// What a snapshot took, and what scoring took meanwhile beside the runs without one.
fn snapshot_rows(name: &str, (seconds, bytes): (f64, usize), (during, runs): (&Run, &[Run])) -> Vec<Row> {
    let row = |what: &str, value: f64, unit: &'static str| Row::new(format!("{name}: {what}"), value, unit);
    let latency = |what: &str, quantile: f64| {
        let without = median(runs.iter().map(|run| quantile_us(&run.latency, quantile)).collect());
        row(what, quantile_us(&during.latency, quantile), "µs").beside("without", without)
    };
    vec![
        row("a snapshot of all of it", seconds, "s"),
        row("its size before compression", bytes as f64 / 1e6, "MB"),
        latency("p50 while it is taken", 0.5),
        latency("p99 while it is taken", 0.99),
        latency("p99.9 while it is taken", 0.999).goal(Bar::AtMost(1_000.0)),
    ]
}

struct Bench {
    engine: Arc<Engine<EmbeddedStore>>,
    clock: Arc<ManualClock>,
    traffic: Traffic,
    clients: usize,
    now: i64,
    sequence: u64,
}

/// A snapshot that is taken in a thread of its own, and goes nowhere.
struct Snapshot(JoinHandle<Result<(f64, usize), &'static str>>);

impl Snapshot {
    #[expect(clippy::disallowed_methods, reason = "a bench measures its own time")]
    fn begin(engine: &Arc<Engine<EmbeddedStore>>) -> Self {
        let engine = Arc::clone(engine);
        Self(std::thread::spawn(move || {
            let (began, mut bytes) = (Instant::now(), 0);
            let cut = engine.store.cut().ok_or("transactions of an earlier cut are under way")?;
            engine.store.save::<&'static str>(&cut, |some| {
                bytes += some.len();
                Ok(())
            })?;
            Ok((began.elapsed().as_secs_f64(), bytes))
        }))
    }

    fn finish(self) -> Result<(f64, usize), Failure> {
        Ok(self.0.join().map_err(|_| "the snapshot's thread panicked")??)
    }
}

struct Run {
    latency: Histogram<u64>,
    stages: [Histogram<u64>; 5],
    count: usize,
    cpu_nanos: u64,
    entities: usize,
    vectors: Vec<Vec<f32>>,
}

impl Bench {
    fn new(schema: Schema, clients: usize) -> Result<Self, Failure> {
        let schema = Arc::new(schema);
        let pack = vec![("bench.yaml".to_owned(), rules::pack(&schema))];
        let policy = Policy::from_sources(&pack, &schema)?;
        let source = PolicySource { mode: None, files: pack };
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(START)));
        let max_bytes = 12 << 30;
        let engine = Arc::new(Engine::new(Parts {
            store: EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes }),
            force: InForce::new(policy, source, Bundle::none(), &schema),
            schema,
            hasher: Keyring::new(1, [3; 32]).hasher(),
            clock: clock.clone(),
            calibration_rows: 20_000,
            journal: Journal::default(),
        }));
        Ok(Self {
            engine,
            clock,
            traffic: Traffic::new(11, u32::try_from(clients.max(1))?),
            clients: clients.max(1),
            now: START,
            sequence: 0,
        })
    }

    /// Twenty transactions of every client over thirty days, each with its outcome, so that rings are full and every window that
    /// such a client has anything in has tiles.
    fn fill(&mut self) -> Result<(), Failure> {
        const ROUNDS: usize = 20;
        let steps = self.clients * ROUNDS;
        let pause = 30 * 86_400 * SECOND / i64::try_from(steps)?;
        let mut batch = Vec::with_capacity(1_024);
        for round in 0..ROUNDS {
            for client in 0..self.clients {
                let tx = self.traffic.of_client(u32::try_from(client)?);
                self.now += pause.max(1);
                let mut admitted = self.engine.door.admit(self.domain(tx)?)?;
                admitted.tx.time = Timestamp::from_micros(self.now);
                let moment = self.next(&mut batch);
                batch.push(Step::Observe(self.engine.schema.events(&admitted), moment));
                let context = self.engine.schema.context(&admitted, admitted.tx.time);
                let outcome = self.engine.door.admit_outcome(outcome(&admitted, self.sequence), &context)?;
                let moment = self.next(&mut batch);
                batch.push(Step::Apply(self.engine.schema.outcome_events(&context, &outcome), moment));
            }
            eprintln!("  filling {} clients: {:3} %", self.clients, (round + 1) * 100 / ROUNDS);
        }
        let last = self.next(&mut batch);
        self.engine.store.replay(&batch, 2);
        self.clock.advance_to(last.now);
        // The next live moment goes on from the recorded ones.
        self.engine.store.moment(Order::Recorded(last));
        Ok(())
    }

    /// The next recorded moment. Eviction runs where the sequence crosses an epoch: a batch never spans that.
    fn next(&mut self, batch: &mut Vec<Step>) -> Moment {
        self.sequence += 1;
        if self.sequence.is_multiple_of(EPOCH) {
            self.engine.store.replay(batch, 2);
            batch.clear();
        }
        Moment { sequence: Sequence(self.sequence), now: Timestamp::from_micros(self.now) }
    }

    fn domain(&self, wire: telltale_proto::v1::Transaction) -> Result<Transaction, Failure> {
        let (mut tx, _) = convert::transaction(wire, "transaction")?;
        tx.time = Timestamp::from_micros(self.now);
        Ok(tx)
    }

    /// Scores that many at 2,000 a second of event time, and applies their outcomes; only scoring is measured.
    async fn score(&mut self, count: usize) -> Result<Run, Failure> {
        let mut run = Run::new()?;
        for _ in 0..count.div_ceil(TOGETHER) {
            let transactions = (0..TOGETHER).map(|_| {
                self.now += SECOND / 2_000;
                let wire = self.traffic.next_transaction();
                self.domain(wire)
            });
            let transactions: Vec<Transaction> = transactions.collect::<Result<_, _>>()?;
            let mut scored = Vec::with_capacity(transactions.len());
            let before = cpu_nanos()?;
            for tx in transactions {
                self.clock.advance_to(tx.time);
                scored.push(run.one(&self.engine, tx).await?);
            }
            run.cpu_nanos += cpu_nanos()? - before;
            for (admitted, number) in scored.iter().zip(1..) {
                let context = self.engine.schema.context(admitted, admitted.tx.time);
                self.engine.apply_outcome(outcome(admitted, number), &context, self.engine.live()).await?;
            }
        }
        Ok(run)
    }
}

impl Run {
    fn new() -> Result<Self, Failure> {
        let histogram = || Histogram::new(3);
        let stages = [histogram()?, histogram()?, histogram()?, histogram()?, histogram()?];
        Ok(Self { latency: histogram()?, stages, count: 0, cpu_nanos: 0, entities: 0, vectors: Vec::new() })
    }

    #[expect(clippy::disallowed_methods, reason = "a bench measures its own time")]
    async fn one(&mut self, engine: &Engine<EmbeddedStore>, tx: Transaction) -> Result<Admitted, Failure> {
        let began = Instant::now();
        let (admitted, watch) = engine.admit(tx)?;
        let scored = engine.score(admitted, watch, Lane(0)).await;
        self.latency.record(u64::try_from(began.elapsed().as_nanos())?)?;
        let timings = &scored.timings;
        let stages = [timings.identify_us, timings.observe_us, timings.extract_us, timings.score_us, timings.decide_us];
        for (histogram, micros) in self.stages.iter_mut().zip(stages) {
            histogram.record((micros * 1e3) as u64)?;
        }
        self.count += 1;
        self.entities += scored.admitted.subjects.len();
        if self.count.is_multiple_of(4) && self.vectors.len() < 5_000 {
            let number = |value: &f64| if value.is_nan() { 0.0 } else { *value as f32 };
            self.vectors.push(scored.assessed.vector.values.iter().map(number).collect());
        }
        Ok(scored.admitted)
    }

    /// Transactions a second of processor time: what one core does when nothing else wants it.
    fn rate(&self) -> f64 {
        self.count as f64 * 1e9 / self.cpu_nanos.max(1) as f64
    }
}

fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

/// What the service answered: mostly a page of a few kilobytes.
fn outcome(admitted: &Admitted, number: u64) -> Outcome {
    let fails = number.is_multiple_of(FAILS);
    let status = match admitted.tx.http.as_ref().map(|http| http.method.as_str()) {
        Some("POST") if fails => 401,
        _ if fails => 404,
        _ => 200,
    };
    let response =
        HttpResponse { status, body_size: 900 + number % 7_000, duration_us: 3_000 + number % 50_000, ..HttpResponse::default() };
    Outcome { transaction_id: admitted.tx.id.clone(), time: admitted.tx.time, response: Some(response), ..Outcome::default() }
}

/// Processor time of this thread so far, from the scheduler.
fn cpu_nanos() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no figure in /proc/thread-self/schedstat")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_schema_is_a_part_of_the_shipped_one() {
        let [small, whole] = cases().unwrap();
        assert_eq!(small.schema.entity_types().len(), 5);
        assert!((55..=65).contains(&small.schema.features().len()), "{}", small.schema.features().len());
        for feature in small.schema.features() {
            let shipped = whole.schema.feature(&feature.name).and_then(|id| whole.schema.features().get(id.index()));
            assert_eq!(shipped.map(|shipped| shipped.hash), Some(feature.hash), "{}", feature.name);
        }
    }
}
