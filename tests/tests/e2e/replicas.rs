//! Several replicas over one Redis: whatever they do to the same keys at once, and whatever is lost on the way, every event counts once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_features::entity::{EntityId, EntityKey, EntityType};
use telltale_features::event::{EntityEvents, Event};
use telltale_features::kernel::plan::{Accumulator, AccumulatorKind, EntityPlan, Read};
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore};
use telltale_features::store::redis::{Acknowledge, RedisOptions, RedisStore, Topology};
use telltale_features::store::{Moment, Order, Sequence, Status, Store};
use telltale_features::time::{Clock, Timestamp};
use telltale_service::setup::SystemClock;
use telltale_tests::redis::{Cluster, MASTER, Redis, Sentinels, TcpProxy};
use tokio::task::JoinSet;

use crate::stores::patient;

const PATIENCE: Duration = Duration::from_secs(60);

fn plans() -> Arc<[EntityPlan]> {
    let window = Duration::from_secs(86_400);
    let short = Duration::from_secs(600);
    Arc::from([EntityPlan {
        name: "thing".into(),
        ttl: Duration::from_secs(100_000),
        max_bytes: 64 << 10,
        filters: vec![1, 2],
        values: vec![3],
        members: vec![4],
        accumulators: vec![
            Accumulator { tag: 11, kind: AccumulatorKind::Count { filter: 0, window } },
            Accumulator { tag: 12, kind: AccumulatorKind::Sum { filter: 0, value: 0, window } },
            Accumulator { tag: 13, kind: AccumulatorKind::Count { filter: 1, window: short } },
            Accumulator { tag: 14, kind: AccumulatorKind::Distinct { filter: 0, member: 0, horizon: window } },
        ],
        reads: vec![
            Read::Count(0),
            Read::Sum(1),
            Read::Count(2),
            Read::Mean { sum: 1, count: 0 },
            Read::Ratio { part: 2, whole: 0 },
            Read::Distinct { of: 3, window },
        ],
    }])
}

fn entity(number: u64) -> EntityId {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    EntityId { kind: EntityType(0), key: EntityKey(key) }
}

/// Events on five hot entities, each with a cold one beside it.
fn events(seed: u64, count: u64, start: i64) -> Vec<EntityEvents> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|step| {
            let event = Event {
                time: Timestamp::from_micros(start + i64::try_from(step).unwrap() * 500),
                weight: 1,
                sign: 1,
                filters: 1 + 2 * u64::from(rng.random_bool(0.3)),
                values: smallvec::smallvec![f64::from(rng.random_range(0..1000_u32))],
                members: smallvec::smallvec![Some(rng.random_range(0..50))],
                proves: false,
            };
            let mut both = [entity(rng.random_range(0..5)), entity(1_000 + rng.random_range(0..400_u64))];
            both.sort_unstable();
            EntityEvents { events: both.into_iter().map(|entity| (entity, event.clone())).collect() }
        })
        .collect()
}

/// An event that says nothing: a question.
fn nothing(time: Timestamp) -> Event {
    Event { time, weight: 0, sign: 1, filters: 0, values: Default::default(), members: Default::default(), proves: false }
}

/// The way that is tested, and a way to look at the outcome: the same.
fn straight(address: SocketAddr) -> (RedisOptions, RedisOptions) {
    (patient(address, 0), patient(address, 0))
}

struct Run {
    writers: u64,
    each: u64,
    acknowledge: Acknowledge,
}

/// Lets the writers work at once, each task of them in turn, then compares every entity with one process's.
async fn nothing_is_lost<T>((over, direct): (RedisOptions, RedisOptions), run: Run, meanwhile: impl Future<Output = T>) {
    let start = SystemClock.now().micros() - 600_000_000;
    let alone = EmbeddedStore::new(plans(), EmbeddedOptions { max_bytes: 1 << 30 });
    let mut stores = Vec::new();
    for writer in 0..run.writers {
        let flush_deadline = Duration::from_millis(500);
        let options = RedisOptions { acknowledge: run.acknowledge, flush_deadline, writer: 100 + writer, ..over.clone() };
        stores.push(Arc::new(RedisStore::start(options, plans(), Arc::new(SystemClock)).await.unwrap()));
    }
    let mut sequence = 0;
    let mut working = JoinSet::new();
    for (store, seed) in stores.iter().zip(0..) {
        let all = events(seed, run.each, start);
        for one in &all {
            sequence += 1;
            let moment = Moment { sequence: Sequence(sequence), now: SystemClock.now() };
            alone.observe_now(one.clone(), Order::Recorded(moment));
        }
        let store = Arc::clone(store);
        working.spawn(async move {
            for one in all {
                store.observe(one.into(), Order::Live(&SystemClock)).await;
            }
        });
    }
    let (_, _kept) = tokio::join!(working.join_all(), meanwhile);
    for store in &stores {
        assert!(store.flush(PATIENCE).await, "{:?}", store.stats());
    }
    let shared: Vec<_> = stores.iter().map(|store| store.stats().shared).collect();
    for stats in &shared {
        let of = |name: &str| stats.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!((of("flush_ambiguous"), of("unreadable"), of("backlog_lost"), of("backlog")), (0, 0, 0, 0), "{stats:?}");
    }
    // Somebody who begins now reads what the others left.
    let reader = RedisStore::start(RedisOptions { writer: 999, ..direct }, plans(), Arc::new(SystemClock)).await.unwrap();
    let now = SystemClock.now();
    for number in (0..5).chain(1_000..1_400) {
        let asked = EntityEvents { events: smallvec::smallvec![(entity(number), nothing(now))] };
        let moment = Moment { sequence: Sequence(sequence + 1), now };
        let found = reader.observe(asked.clone().into(), Order::Recorded(moment)).await;
        let wanted = alone.observe_now(asked, Order::Recorded(moment));
        assert_eq!(found.status, Status::Full);
        let bits = |reads: &[f64]| reads.iter().map(|read| read.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found.entities[0].reads), bits(&wanted.entities[0].reads), "entity {number}: {found:?} {wanted:?}\n{shared:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_writers_on_the_same_keys_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let run = Run { writers: 4, each: 5_000, acknowledge: Acknowledge::Asynchronous };
    nothing_is_lost(straight(redis.address), run, async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_counts_twice_when_answers_are_lost_after_execution() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let proxy = TcpProxy::start(redis.address).await.unwrap();
    proxy.lose_one_in(50);
    let run = Run { writers: 4, each: 4_000, acknowledge: Acknowledge::Asynchronous };
    nothing_is_lost((patient(proxy.address, 0), patient(redis.address, 0)), run, async {}).await;
    assert!(proxy.lost() > 2, "only {} answers were lost", proxy.lost());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_writers_fit_on_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let proxy = TcpProxy::start(redis.address).await.unwrap();
    proxy.lose_one_in(50);
    let run = Run { writers: 12, each: 800, acknowledge: Acknowledge::Asynchronous };
    nothing_is_lost((patient(proxy.address, 0), patient(redis.address, 0)), run, async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_persists_every_write_is_killed_and_comes_back_with_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path(), &["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let address = redis.address;
    let run = Run { writers: 4, each: 4_000, acknowledge: Acknowledge::Synchronous { replicas: 0 } };
    let kill = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        redis.kill().unwrap();
        redis.restart().unwrap()
    };
    nothing_is_lost(straight(address), run, kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_cluster_move_under_load_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::start(folder.path()).unwrap());
    let mut options = patient(cluster.nodes[0].address, 0);
    options.topology = Topology::Cluster;
    let run = Run { writers: 2, each: 4_000, acknowledge: Acknowledge::Asynchronous };
    let moving = {
        let cluster = Arc::clone(&cluster);
        async move { tokio::task::spawn_blocking(move || cluster.move_slots(600)).await.unwrap().unwrap() }
    };
    nothing_is_lost((options.clone(), options), run, moving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_make_another_master_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut sentinels = Sentinels::start(folder.path(), &[]).unwrap();
    let before = sentinels.master().unwrap();
    let mut options = patient(sentinels.addresses[0], 0);
    options.topology = Topology::Sentinel { master: MASTER.to_owned() };
    options.addresses = sentinels.addresses.iter().map(ToString::to_string).collect();
    // Acknowledged means that the replica has it. After the failover there is none left to wait for, so the run ends before.
    let store = RedisStore::start(
        RedisOptions { acknowledge: Acknowledge::Synchronous { replicas: 1 }, writer: 5, ..options.clone() },
        plans(),
        Arc::new(SystemClock),
    );
    let store = store.await.unwrap();
    let all = events(3, 2_000, SystemClock.now().micros() - 600_000_000);
    let alone = EmbeddedStore::new(plans(), EmbeddedOptions { max_bytes: 1 << 30 });
    for (one, sequence) in all.into_iter().zip(1..) {
        alone.observe_now(one.clone(), Order::Recorded(Moment { sequence: Sequence(sequence), now: SystemClock.now() }));
        store.observe(one.into(), Order::Live(&SystemClock)).await;
    }
    assert!(store.flush(PATIENCE).await, "{:?}", store.stats());
    sentinels.servers[0].kill().unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    while sentinels.master().unwrap() == before {
        assert!(tokio::time::Instant::now() < end, "no failover");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The same store finds the new master without a hand, and what it read before is there.
    let number = 3;
    loop {
        let asked = EntityEvents { events: smallvec::smallvec![(entity(number), nothing(SystemClock.now()))] };
        if store.observe(asked.into(), Order::Live(&SystemClock)).await.status == Status::Full && store.stats().shared[0] == ("up", 1) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{:?}", store.stats());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reader = RedisStore::start(RedisOptions { writer: 6, ..options }, plans(), Arc::new(SystemClock)).await.unwrap();
    let moment = Moment { sequence: Sequence(9_999), now: SystemClock.now() };
    for number in (0..5).chain(1_000..1_400) {
        let asked = EntityEvents { events: smallvec::smallvec![(entity(number), nothing(moment.now))] };
        let found = reader.observe(asked.clone().into(), Order::Recorded(moment)).await;
        let wanted = alone.observe_now(asked, Order::Recorded(moment));
        assert_eq!(found.entities[0].reads[..2], wanted.entities[0].reads[..2], "entity {number}");
    }
}

/// A clock that goes wrong by that many microseconds.
struct Off(i64);

impl Clock for Off {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().micros() + self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_ten_seconds_off_is_corrected_by_redis_s() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    for off in [-10_000_000, 10_000_000] {
        let store = RedisStore::start(patient(redis.address, 7), plans(), Arc::new(Off(off))).await.unwrap();
        let asked = EntityEvents { events: smallvec::smallvec![(entity(1), nothing(SystemClock.now()))] };
        let moment = store.observe(asked.into(), Order::Live(&Off(off))).await.moment;
        let error = moment.now.micros_since(SystemClock.now());
        assert!(error.abs() < 1_000_000, "{off} µs off, {error} µs after correction");
        let skew = store.stats().shared.iter().find(|(name, _)| *name == "clock_skew_us").unwrap().1;
        assert!((9_000_000..11_000_000).contains(&skew), "{skew}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_entity_is_not_brought_back_by_another_writer() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let start = SystemClock.now();
    let about = |micros: i64| {
        let time = Timestamp::from_micros(start.micros() - 60_000_000 + micros);
        let event = Event {
            weight: 1,
            filters: 1,
            values: smallvec::smallvec![1.0],
            members: smallvec::smallvec![Some(micros.unsigned_abs())],
            ..nothing(time)
        };
        EntityEvents { events: smallvec::smallvec![(entity(1), event)] }
    };
    // The second one flushes when it is told to, so that its delta is older than the forgetting and comes later.
    let slow = RedisOptions { flush_every: Duration::from_secs(3600), ..patient(redis.address, 2) };
    let first = RedisStore::start(patient(redis.address, 1), plans(), Arc::new(SystemClock)).await.unwrap();
    let second = RedisStore::start(slow, plans(), Arc::new(SystemClock)).await.unwrap();
    let count = async |store: &RedisStore| {
        let asked = EntityEvents { events: smallvec::smallvec![(entity(1), nothing(SystemClock.now()))] };
        store.observe(asked.into(), Order::Live(&SystemClock)).await.entities[0].reads[0]
    };
    first.observe(about(0).into(), Order::Live(&SystemClock)).await;
    assert!(first.flush(PATIENCE).await);
    second.observe(about(1).into(), Order::Live(&SystemClock)).await;
    assert_eq!(count(&second).await, 2.0);
    first.forget(entity(1), Timestamp::from_micros(start.micros() - 30_000_000));
    assert!(first.flush(PATIENCE).await && second.flush(PATIENCE).await);
    for store in [&first, &second] {
        assert_eq!(count(store).await, 0.0, "{:?}", store.stats());
    }
    first.observe(about(59_000_000).into(), Order::Live(&SystemClock)).await;
    assert!(first.flush(PATIENCE).await);
    assert_eq!(count(&second).await, 1.0, "what comes after counts");
}

/// Writes go out sixteen in a call: what is wrong with one key is none of the others' business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_something_else_took_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let store = RedisStore::start(patient(redis.address, 1), plans(), Arc::new(SystemClock)).await.unwrap();
    let see = async |store: &RedisStore, weight: u32| {
        let mut counts = Vec::new();
        for number in 0..40 {
            let event = Event { weight, filters: u64::from(weight > 0), ..nothing(SystemClock.now()) };
            let event = Event { values: smallvec::smallvec![1.0], members: smallvec::smallvec![Some(1)], ..event };
            let asked = EntityEvents { events: smallvec::smallvec![(entity(number), event)] };
            counts.push(store.observe(asked.into(), Order::Live(&SystemClock)).await.entities[0].reads[0]);
        }
        counts
    };
    let stored = async |writer: u64| {
        let reader = RedisStore::start(patient(redis.address, writer), plans(), Arc::new(SystemClock)).await.unwrap();
        see(&reader, 0).await
    };
    see(&store, 1).await;
    assert!(store.flush(PATIENCE).await);
    let keys = redis.command(&["--scan", "--pattern", "tt:*thing*"]).unwrap();
    let taken = keys.lines().next().unwrap().to_owned();
    redis.command(&["DEL", &taken]).unwrap();
    redis.command(&["LPUSH", &taken, "something else"]).unwrap();
    see(&store, 1).await;
    assert!(!store.flush(Duration::from_secs(1)).await, "a list was overwritten");
    let counts = stored(2).await;
    assert_eq!(counts.iter().filter(|count| **count == 2.0).count(), 39, "{counts:?} {:?}", store.stats());
    redis.command(&["DEL", &taken]).unwrap();
    assert!(store.flush(PATIENCE).await, "{:?}", store.stats());
    assert_eq!(stored(3).await, vec![2.0; 40]);
}
