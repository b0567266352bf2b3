//! The core path in this process: one transaction the whole way, on one core, over a million entities with full windows.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;
use telltale_features::domain::Transaction;
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

use super::{Bar, Failure, Row, forest, rules, size};
use crate::traffic::Traffic;

/// Each client has an address, a session and a device of its own.
const ENTITIES_A_CLIENT: usize = 3;
const START: i64 = 1_790_000_000_000_000;
const SECOND: i64 = 1_000_000;
/// Transactions made before they are scored, so that making them is not measured.
const TOGETHER: usize = 500;

/// Measures and returns the rows.
///
/// # Errors
/// When the engine cannot be put together.
pub fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let entities = size("TELLTALE_BENCH_ENTITIES", 1_000_000);
    let measured = size("TELLTALE_BENCH_TRANSACTIONS", 200_000);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut bench = Bench::new(entities / ENTITIES_A_CLIENT)?;
    bench.fill()?;
    let rows: Vec<Vec<f32>> = runtime.block_on(bench.score(20_000))?.vectors;
    let bundle = forest::trained(&bench.engine.schema, &rows, &folder.join("bench-models"))?;
    let force = bench.engine.in_force().with_bundle(bundle);
    bench.engine.put_in_force(force);
    runtime.block_on(bench.score(measured / 10))?;
    let run = runtime.block_on(bench.score(measured))?;
    let stats = bench.engine.store.stats();
    let (held, bytes): (u64, u64) = (stats.entities.iter().sum(), stats.bytes.iter().sum());
    let features = bench.engine.schema.features().len() as f64;
    let reached = 100.0 * rules::UNGUARDED_OF_FIVE as f64 / 5.0;
    let mut figures = vec![
        Row::new("core path, p50", run.quantile_us(0.5), "µs").bar(Bar::AtMost(25.0)),
        Row::new("core path, p99", run.quantile_us(0.99), "µs"),
        Row::new("core path, one core, by its processor time", run.rate(), "tx/s").bar(Bar::AtLeast(40_000.0)),
        Row::new("core path: entities a transaction", run.entities as f64 / run.count.max(1) as f64, ""),
        Row::new("core path: features", features, ""),
        Row::new("core path: rules that reach their feature test", reached, "%").bar(Bar::AtLeast(30.0)),
        Row::new("core path: entities held", held as f64, ""),
        Row::new("state, bytes an entity", bytes as f64 / held.max(1) as f64, "B"),
    ];
    figures.extend(run.stages());
    Ok(figures)
}

struct Bench {
    engine: Engine<EmbeddedStore>,
    clock: Arc<ManualClock>,
    traffic: Traffic,
    clients: usize,
    now: i64,
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
    fn new(clients: usize) -> Result<Self, Failure> {
        let schema = Arc::new(Schema::shipped());
        let pack = vec![("bench.yaml".to_owned(), rules::pack(&schema))];
        let policy = Policy::from_sources(&pack, &schema)?;
        let source = PolicySource { mode: None, files: pack };
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(START)));
        let max_bytes = 12 << 30;
        let engine = Engine::new(Parts {
            store: EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes }),
            force: InForce::new(policy, source, Bundle::none(), &schema),
            schema,
            hasher: Keyring::new(1, [3; 32]).hasher(),
            clock: clock.clone(),
            calibration_rows: 20_000,
            journal: Journal::default(),
        });
        Ok(Self { engine, clock, traffic: Traffic::new(11, u32::try_from(clients.max(1))?), clients: clients.max(1), now: START })
    }

    /// Twenty transactions of every client over thirty days, so that rings are full and every window has tiles.
    fn fill(&mut self) -> Result<(), Failure> {
        const ROUNDS: usize = 20;
        let steps = self.clients * ROUNDS;
        let pause = 30 * 86_400 * SECOND / i64::try_from(steps)?;
        let mut sequence = 0;
        let mut batch = Vec::with_capacity(1_024);
        for round in 0..ROUNDS {
            for client in 0..self.clients {
                let tx = self.traffic.of_client(u32::try_from(client)?);
                sequence += 1;
                self.now += pause.max(1);
                let at = Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(self.now) };
                let mut admitted = self.engine.door.admit(self.domain(tx)?)?;
                admitted.tx.time = at.now;
                // Eviction runs where the sequence crosses an epoch: a batch never spans that.
                if sequence % EPOCH == 0 {
                    self.engine.store.replay(&batch, 2);
                    batch.clear();
                }
                batch.push(Step::Observe(self.engine.schema.events(&admitted), at));
            }
            eprintln!("  filling {} clients: {:3} %", self.clients, (round + 1) * 100 / ROUNDS);
        }
        self.engine.store.replay(&batch, 2);
        self.clock.advance_to(Timestamp::from_micros(self.now));
        // The next live moment goes on from the recorded ones.
        self.engine.store.moment(Order::Recorded(Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(self.now) }));
        Ok(())
    }

    fn domain(&self, wire: telltale_proto::v1::Transaction) -> Result<Transaction, Failure> {
        let (mut tx, _) = convert::transaction(wire, "transaction")?;
        tx.time = Timestamp::from_micros(self.now);
        Ok(tx)
    }

    /// Scores that many at 2,000 a second of event time; only scoring is measured, not the making of traffic.
    async fn score(&mut self, count: usize) -> Result<Run, Failure> {
        let mut run = Run::new()?;
        for _ in 0..count.div_ceil(TOGETHER) {
            let transactions = (0..TOGETHER).map(|_| {
                self.now += SECOND / 2_000;
                let wire = self.traffic.next_transaction();
                self.domain(wire)
            });
            let transactions: Vec<Transaction> = transactions.collect::<Result<_, _>>()?;
            let before = cpu_nanos()?;
            for tx in transactions {
                self.clock.advance_to(tx.time);
                run.one(&self.engine, tx).await?;
            }
            run.cpu_nanos += cpu_nanos()? - before;
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
    async fn one(&mut self, engine: &Engine<EmbeddedStore>, tx: Transaction) -> Result<(), Failure> {
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
        Ok(())
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Transactions a second of processor time: what one core does when nothing else wants it.
    fn rate(&self) -> f64 {
        self.count as f64 * 1e9 / self.cpu_nanos.max(1) as f64
    }

    fn stages(&self) -> impl Iterator<Item = Row> {
        let names = ["identify", "observe", "extract", "models", "decide"];
        let p50 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.5) as f64 / 1e3;
        names.into_iter().zip(&self.stages).map(move |(name, stage)| Row::new(format!("core path, p50 of {name}"), p50(stage), "µs"))
    }
}

/// Processor time of this thread so far, from the scheduler.
fn cpu_nanos() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no figure in /proc/thread-self/schedstat")?.parse()?)
}
