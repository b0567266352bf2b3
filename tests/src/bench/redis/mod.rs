//! What a transaction costs Redis: this design, coalesced and not, beside the same features kept by a Lua script and by HINCRBY and
//! PFADD; what an entity takes there; and Score over Redis beside the embedded store.
//!
//! Processor time is Redis's own (`INFO cpu`, user and system) under a scorer at half load, which is half of the rate at which one is
//! saturated in the same run, and under four of them that see the same clients. The other two designs are given the better of it: their
//! commands come pipelined by the thousand from `redis-cli --pipe` on keys that are new, ours come at the rate of transactions on keys
//! with history.

mod baseline;
mod score;
mod skew;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use telltale_features::domain::{HttpResponse, Outcome};
use telltale_features::door::{Admitted, Door};
use telltale_features::event::EntityEvents;
use telltale_features::hash::Keyring;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::Step;
use telltale_features::store::redis::{RedisOptions, RedisStore};
use telltale_features::store::{Moment, Order, Sequence, Store};
use telltale_features::time::{Clock, Timestamp};
use telltale_service::convert;
use telltale_service::setup::SystemClock;
use tokio::task::JoinSet;

use super::{Bar, Failure, Row, size};
use crate::redis::Redis;
use crate::traffic::Traffic;
use baseline::Design;

/// Five entities a transaction and about sixty features, as the bar says.
const SCHEMA: (&str, &str) = ("core.yaml", include_str!("../core.yaml"));
/// Each client has an address, a session and a device of its own.
const ENTITIES_A_CLIENT: usize = 3;
/// Transactions of each client before anything is measured, over thirty days.
const ROUNDS: usize = 20;
const DAY_US: i64 = 86_400 * 1_000_000;
/// Transactions come in groups of this interval, as from many callers at once.
const TOGETHER: Duration = Duration::from_millis(10);
/// Runs at a rate, the median of which counts.
const RUNS: usize = 5;
/// Seconds until a scorer relies on being alone again; what it does meanwhile is not counted.
const ALONE_AGAIN: usize = 2;
/// Scorers over one Redis.
const REPLICAS: usize = 4;
/// One answer of so many is a refusal.
const FAILS: u64 = 10;
/// Keys of each type that are asked for their size.
const SIZED: usize = 5_000;

/// Runs the bench below `folder`.
///
/// # Errors
/// When Redis is not installed or something does not answer.
pub async fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let full = std::env::var("TELLTALE_SIZE").is_ok_and(|size| size == "full");
    let entities = size("TELLTALE_BENCH_REDIS_ENTITIES", if full { 1_000_000 } else { 60_000 });
    let seconds = size("TELLTALE_BENCH_REDIS_SECONDS", 15);
    eprintln!("  Score");
    let (score, half) = score::run(folder).await?;
    let rate = size("TELLTALE_BENCH_REDIS_RATE", half as usize);
    let redis = Redis::start(folder, &["--maxmemory", "0"])?;
    let (name, text) = SCHEMA;
    let schema = Arc::new(Schema::from_sources(&[(name.to_owned(), text.to_owned())])?);
    let mut source = Source::new(&schema, entities / ENTITIES_A_CLIENT)?;

    let empty = redis.info("memory", "used_memory")?;
    let store = start(&redis, &schema, 1, Duration::from_millis(100)).await?;
    eprintln!("  filling");
    source.fill(&store).await?;
    let mut rows = memory(&redis, folder, &schema, empty)?;

    eprintln!("  this design");
    connected(&store).await?;
    let (alone, compared) = turn_about(&redis, &schema, &store, &mut source, (rate, seconds)).await?;
    let mut stores = vec![store];
    for writer in 3..=REPLICAS as u64 + 1 {
        stores.push(start(&redis, &schema, writer, Duration::from_millis(100)).await?);
    }
    // The others get to know what is hot.
    at_rate_once(&redis, &stores, &mut source, (rate * REPLICAS, 2)).await?;
    let together = at_rate(&redis, &stores, &mut source, (rate * REPLICAS, seconds)).await?;
    drop(stores);
    let store = start(&redis, &schema, 2, Duration::from_millis(5)).await?;
    // What the others held is freed on this thread, too: a million entities take their time.
    connected(&store).await?;
    let each = one_by_one(&redis, &store, &mut source, 1_000).await?;
    drop(store);

    eprintln!("  the other designs");
    let sample = source.sample(4_000)?;
    let plans = schema.plans();
    let lua = baseline::cost(&redis, folder, &plans, (&sample, Design::Script))?;
    let plain = baseline::cost(&redis, folder, &plans, (&sample, Design::Commands))?;
    let held = sample.iter().map(|events| events.events.len()).sum::<usize>() as f64 / sample.len() as f64;
    let cost = |what: &str, cost: f64| Row::new(format!("Redis CPU a transaction, {what}"), cost, "µs");
    rows.extend([
        Row::new("Redis, entities a transaction", held, ""),
        Row::new("Redis, transactions of a scorer at half load", rate as f64, "/s"),
        cost("coalesced", alone.cpu_us).bar(Bar::AtMost(40.0)),
        cost("coalesced, beside versions compared", alone.cpu_us).beside("by our script", compared.cpu_us),
        cost("coalesced, beside a script", alone.cpu_us).beside("Lua script", lua).bar(Bar::Ratio(1.0)),
        cost("coalesced, beside commands", alone.cpu_us).beside("HINCRBY + PFADD", plain).bar(Bar::Ratio(1.0)),
        cost("coalesced, four scorers", together.cpu_us).beside("HINCRBY + PFADD", plain),
        cost("each written by itself", each.cpu_us).beside("HINCRBY + PFADD", plain),
        Row::new("Redis, most round trips before an answer", each.round_trips.max(together.round_trips).max(alone.round_trips), "")
            .bar(Bar::AtMost(1.0)),
        Row::new("Redis, writes a transaction, coalesced", alone.writes, "").beside("each by itself", each.writes),
        Row::new("Redis, writes a transaction, without a look", alone.sole, "").beside("versions compared", compared.sole),
        Row::new("Redis, writes a transaction, four scorers", together.writes, "").beside("each by itself", each.writes),
        Row::new("Redis, conflicts a transaction, four scorers", together.conflicts, ""),
    ]);
    rows.extend(score);
    drop(redis);
    eprintln!("  three scorers beside a replay");
    rows.extend(skew::run(folder).await?);
    Ok(rows)
}

async fn start(redis: &Redis, schema: &Schema, writer: u64, flush_every: Duration) -> Result<Arc<RedisStore>, Failure> {
    let mut options = RedisOptions::single(&redis.address.to_string(), writer);
    options.read_deadline = Duration::from_millis(200);
    options.flush_every = flush_every;
    options.max_bytes = 12 << 30;
    Ok(Arc::new(RedisStore::start(options, schema.plans(), Arc::new(SystemClock)).await?))
}

async fn flushed(store: &RedisStore) -> Result<(), Failure> {
    let all = store.flush(Duration::from_secs(120)).await;
    all.then_some(()).ok_or_else(|| format!("not everything could be written: {:?}", store.stats()).into())
}

/// Waits for the connection, which may be lost when this thread did something else for longer than an answer may take.
async fn connected(store: &RedisStore) -> Result<(), Failure> {
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if store.stats().shared.contains(&("up", 1)) {
            return Ok(());
        }
    }
    Err("Redis is not reached again".into())
}

/// Bytes of a million such entities, and of one by type.
fn memory(redis: &Redis, folder: &Path, schema: &Schema, empty: f64) -> Result<Vec<Row>, Failure> {
    let stored: f64 = redis.command(&["DBSIZE"])?.trim().parse()?;
    let each = (redis.info("memory", "used_memory")? - empty) / stored;
    let mut rows = vec![
        Row::new("Redis, entities stored", stored, ""),
        Row::new("Redis, memory of a million typical entities", each * 1e6 / f64::from(1 << 30), "GiB").bar(Bar::AtMost(2.0)),
        Row::new("Redis, memory an entity", each, "B"),
    ];
    for kind in schema.entity_types() {
        let listed = redis.command(&["--scan", "--pattern", &format!("tt:{{{}:*", kind.name)])?;
        let asked = listed.lines().take(SIZED).fold(String::new(), |text, key| text + "MEMORY USAGE " + key + "\n");
        let mut bytes: Vec<u64> = answers(redis, folder, &asked)?.lines().filter_map(|line| line.trim().parse().ok()).collect();
        bytes.sort_unstable();
        let quantile = |part: usize| bytes.get(bytes.len().saturating_sub(1) * part / 100).copied().unwrap_or_default() as f64;
        for (what, part) in [("p50", 50), ("p99", 99)] {
            rows.push(Row::new(format!("Redis, bytes of one {}, {what}", kind.name), quantile(part), "B"));
        }
    }
    Ok(rows)
}

/// What `redis-cli` answers to those lines.
fn answers(redis: &Redis, folder: &Path, lines: &str) -> Result<String, Failure> {
    let path = folder.join("commands.txt");
    std::fs::File::create(&path)?.write_all(lines.as_bytes())?;
    let mut ask = Command::new("redis-cli");
    let output = ask.args(["-p", &redis.address.port().to_string()]).stdin(Stdio::from(std::fs::File::open(&path)?)).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a transaction cost.
struct Cost {
    cpu_us: f64,
    round_trips: f64,
    writes: f64,
    /// Those that did not compare versions.
    sole: f64,
    conflicts: f64,
}

/// Counts Redis's work from now on.
struct Meter<'a> {
    redis: &'a Redis,
    stores: &'a [Arc<RedisStore>],
    before: Work,
}

/// Redis's processor time, microseconds, and what the stores asked of it.
struct Work {
    cpu_us: f64,
    reads: u64,
    missed: u64,
    writes: u64,
    sole: u64,
    conflicts: u64,
}

impl<'a> Meter<'a> {
    fn begin(redis: &'a Redis, stores: &'a [Arc<RedisStore>]) -> Result<Self, Failure> {
        Ok(Self { redis, stores, before: Self::now(redis, stores)? })
    }

    fn now(redis: &Redis, stores: &[Arc<RedisStore>]) -> Result<Work, Failure> {
        let stats: Vec<_> = stores.iter().flat_map(|store| store.stats().shared).collect();
        let of = |name: &str| stats.iter().filter(|(known, _)| *known == name).map(|(_, value)| value).sum();
        let (reads, missed, writes) = (of("reads"), of("reads_missed"), of("writes"));
        Ok(Work { cpu_us: redis.cpu_us()?, reads, missed, writes, sole: of("writes_sole"), conflicts: of("write_conflicts") })
    }

    fn end(self, count: usize) -> Result<Cost, Failure> {
        let (before, after) = (self.before, Self::now(self.redis, self.stores)?);
        if after.missed > before.missed {
            return Err(
                format!("{} of {} reads were not answered in time", after.missed - before.missed, after.reads - before.reads).into()
            );
        }
        let a = |part: u64| part as f64 / count as f64;
        Ok(Cost {
            cpu_us: (after.cpu_us - before.cpu_us) / count as f64,
            round_trips: a(after.reads - before.reads),
            writes: a(after.writes - before.writes),
            sole: a(after.sole - before.sole),
            conflicts: a(after.conflicts - before.conflicts),
        })
    }
}

/// One scorer at a constant rate, alone and beside one that writes a transaction every few flushes, so that versions are compared: turn
/// about, the runs that cost the median.
async fn turn_about(
    redis: &Redis,
    schema: &Schema,
    store: &Arc<RedisStore>,
    source: &mut Source,
    (rate, seconds): (usize, usize),
) -> Result<(Cost, Cost), Failure> {
    let (mut alone, mut compared) = (Vec::new(), Vec::new());
    let other = start(redis, schema, 7, Duration::from_millis(100)).await?;
    let seconds = seconds.div_ceil(RUNS);
    for _ in 0..RUNS {
        at_rate_once(redis, std::slice::from_ref(store), source, (rate, ALONE_AGAIN)).await?;
        alone.push(at_rate_once(redis, std::slice::from_ref(store), source, (rate, seconds)).await?);
        let told = (0..seconds * 4).map(|_| source.next(SystemClock.now())).collect::<Result<Vec<_>, _>>()?;
        let beside = tokio::spawn({
            let other = Arc::clone(&other);
            async move {
                for one in told {
                    observe(&other, one).await;
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        compared.push(at_rate_once(redis, std::slice::from_ref(store), source, (rate, seconds)).await?);
        beside.await?;
        flushed(&other).await?;
    }
    Ok((the_median(alone)?, the_median(compared)?))
}

/// At a constant rate; of several runs the one that cost the median.
async fn at_rate(redis: &Redis, stores: &[Arc<RedisStore>], source: &mut Source, (rate, seconds): (usize, usize)) -> Result<Cost, Failure> {
    let mut costs = Vec::new();
    for _ in 0..RUNS {
        costs.push(at_rate_once(redis, stores, source, (rate, seconds.div_ceil(RUNS))).await?);
    }
    the_median(costs)
}

fn the_median(mut costs: Vec<Cost>) -> Result<Cost, Failure> {
    costs.sort_by(|one, other| one.cpu_us.total_cmp(&other.cpu_us));
    costs.into_iter().nth(RUNS / 2).ok_or_else(|| "no run".into())
}

/// At a constant rate, each transaction at the next scorer, written back every 100 ms.
async fn at_rate_once(
    redis: &Redis,
    stores: &[Arc<RedisStore>],
    source: &mut Source,
    (rate, seconds): (usize, usize),
) -> Result<Cost, Failure> {
    let groups = seconds * 1_000 / TOGETHER.as_millis() as usize;
    let count = (rate * TOGETHER.as_millis() as usize / 1_000).max(1);
    let meter = Meter::begin(redis, stores)?;
    let mut due = tokio::time::interval(TOGETHER);
    for _ in 0..groups {
        due.tick().await;
        let group = (0..count).map(|_| source.next(SystemClock.now())).collect::<Result<Vec<_>, _>>()?;
        let mut running = JoinSet::new();
        for (told, store) in group.into_iter().zip(stores.iter().cycle()) {
            let store = Arc::clone(store);
            running.spawn(async move { observe(&store, told).await });
        }
        running.join_all().await;
    }
    for store in stores {
        flushed(store).await?;
    }
    meter.end(groups * count)
}

/// One after the other, each written before the next.
async fn one_by_one(redis: &Redis, store: &Arc<RedisStore>, source: &mut Source, count: usize) -> Result<Cost, Failure> {
    let meter = Meter::begin(redis, std::slice::from_ref(store))?;
    for _ in 0..count {
        observe(store, source.next(SystemClock.now())?).await;
        flushed(store).await?;
    }
    meter.end(count)
}

/// What a scorer does to the store for one transaction and its outcome.
async fn observe(store: &RedisStore, told: Told) {
    store.observe(told.events.into(), Order::Live(&SystemClock)).await;
    store.decide(&told.admitted.subjects, Order::Live(&SystemClock), |_, _| ()).await;
    store.apply(told.outcome, Order::Live(&SystemClock)).await;
}

/// A transaction and its outcome as events.
struct Told {
    admitted: Admitted,
    events: EntityEvents,
    outcome: EntityEvents,
}

/// Transactions as events.
struct Source {
    schema: Arc<Schema>,
    door: Door,
    traffic: Traffic,
    clients: usize,
    made: u64,
}

impl Source {
    fn new(schema: &Arc<Schema>, clients: usize) -> Result<Self, Failure> {
        let door = Door::new(Arc::clone(schema), Keyring::new(1, [3; 32]).hasher());
        Ok(Self { schema: Arc::clone(schema), door, traffic: Traffic::new(11, u32::try_from(clients)?), clients, made: 0 })
    }

    fn told(&mut self, wire: telltale_proto::v1::Transaction, now: Timestamp) -> Result<Told, Failure> {
        let (mut tx, _) = convert::transaction(wire, "transaction")?;
        tx.time = now;
        let admitted = self.door.admit(tx)?;
        let events = self.schema.events(&admitted);
        self.made += 1;
        let status = if self.made.is_multiple_of(FAILS) { 404 } else { 200 };
        let response = Some(HttpResponse { status, body_size: 900 + self.made % 7_000, duration_us: 3_000, ..HttpResponse::default() });
        let context = self.schema.context(&admitted, now);
        let outcome = Outcome { transaction_id: admitted.tx.id.clone(), time: now, response, ..Outcome::default() };
        let outcome = self.schema.outcome_events(&context, &self.door.admit_outcome(outcome, &context)?);
        Ok(Told { admitted, events, outcome })
    }

    fn next(&mut self, now: Timestamp) -> Result<Told, Failure> {
        let wire = self.traffic.next_transaction();
        self.told(wire, now)
    }

    fn sample(&mut self, count: usize) -> Result<Vec<EntityEvents>, Failure> {
        (0..count).map(|_| Ok(self.next(SystemClock.now())?.events)).collect()
    }

    /// Transactions of every client over the last thirty days; written back as they pile up.
    async fn fill(&mut self, store: &RedisStore) -> Result<(), Failure> {
        let steps = self.clients * ROUNDS;
        let pause = 30 * DAY_US / i64::try_from(steps)?;
        let mut now = SystemClock.now().micros() - 30 * DAY_US;
        for step in 0..steps {
            now += pause;
            let wire = self.traffic.of_client(u32::try_from(step % self.clients)?);
            let time = Timestamp::from_micros(now);
            let told = self.told(wire, time)?;
            let moment = |number: usize| Moment { sequence: Sequence((step * 2 + number) as u64), now: time };
            store.replay_one(&Step::Observe(told.events, moment(1)));
            store.replay_one(&Step::Apply(told.outcome, moment(2)));
            if step % self.clients == 0 {
                flushed(store).await?;
            }
        }
        flushed(store).await
    }
}
