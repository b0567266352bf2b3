//! One contract for every store: embedded, a real Redis, Sentinels, a real Cluster of six. The same stream gives the same vectors to
//! the last bit on all of them, whether the state was in memory or had to come back from Redis.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use telltale_features::domain::Outcome;
use telltale_features::door::Door;
use telltale_features::entity::Subjects;
use telltale_features::hash::Keyring;
use telltale_features::kernel::slots::{Slot, SlotChange};
use telltale_features::schema::Schema;
use telltale_features::store::any::AnyStore;
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore};
use telltale_features::store::redis::{RedisOptions, RedisStore, Topology};
use telltale_features::store::{Moment, Order, Sequence, Status, Store};
use telltale_features::time::{Clock, Timestamp};
use telltale_service::convert;
use telltale_service::setup::SystemClock;
use telltale_tests::redis::{Cluster, MASTER, Redis, Sentinels};
use telltale_tests::traffic::Traffic;

const START: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;
/// Longest wait for the last write.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a store of the suite lives.
#[expect(clippy::large_enum_variant, reason = "a handful of them in a test")]
enum Place {
    Embedded,
    Redis(RedisOptions),
}

/// Options that a busy test machine does not make fail: reads may take their time.
pub fn patient(address: SocketAddr, writer: u64) -> RedisOptions {
    let mut options = RedisOptions::single(&address.to_string(), writer);
    options.read_deadline = Duration::from_secs(2);
    options.flush_every = Duration::from_millis(20);
    options.max_bytes = 256 << 20;
    options
}

impl Place {
    async fn store(&self, schema: &Schema, writer: u64) -> AnyStore {
        match self {
            Self::Embedded => EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes: 1 << 30 }).into(),
            Self::Redis(options) => {
                let options = RedisOptions { writer, ..options.clone() };
                RedisStore::start(options, schema.plans(), Arc::new(SystemClock)).await.unwrap().into()
            }
        }
    }
}

fn at(sequence: u64, now: i64) -> Moment {
    Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(now) }
}

/// Runs the stream; every `reload` transactions the store is flushed and begun anew. Returns the bits of every vector.
async fn vectors(place: &Place, schema: &Arc<Schema>, reload: usize) -> Vec<Vec<u64>> {
    let door = Door::new(Arc::clone(schema), Keyring::new(1, [3; 32]).hasher());
    let mut traffic = Traffic::new(77, 40);
    let mut all = Vec::new();
    let (mut sequence, mut now, mut writer) = (0, START, 1);
    let mut store = place.store(schema, writer).await;
    for number in 0..600 {
        if number > 0 && number % reload == 0 && !matches!(place, Place::Embedded) {
            assert!(store.redis().unwrap().flush(PATIENCE).await, "{:?}", store.stats());
            writer += 1;
            store = place.store(schema, writer).await;
        }
        now += 20 * SECOND;
        let (mut tx, _) = convert::transaction(traffic.next_transaction(), "transaction").unwrap();
        tx.time = Timestamp::from_micros(now - (number % 7) as i64 * 3 * SECOND);
        let admitted = door.admit(tx).unwrap();
        sequence += 1;
        let history = store.observe(schema.events(&admitted).into(), Order::Recorded(at(sequence, now))).await;
        assert_eq!(history.status, Status::Full, "transaction {number}: {:?}", store.stats());
        all.push(schema.extract(&admitted, &history).values.iter().map(|value| value.to_bits()).collect());
        let context = schema.context(&admitted, history.event_time);
        let outcome = Outcome { transaction_id: context.transaction_id.clone(), time: context.event_time, ..Outcome::default() };
        let outcome = door.admit_outcome(outcome, &context).unwrap();
        sequence += 1;
        store.apply(schema.outcome_events(&context, &outcome), Order::Recorded(at(sequence, now))).await;
        sequence += 1;
        let slots = store.decide(&admitted.subjects, Order::Recorded(at(sequence, now)), |policy, moment| {
            let kind = admitted.subjects.iter().next().map(|subject| subject.id.kind).unwrap();
            policy.change(kind, 7, SlotChange::Spend { at: moment.now, increment_us: SECOND });
            match policy.get(kind, 7) {
                Some(Slot::Bucket { arrival }) => arrival.micros().cast_unsigned(),
                other => panic!("{other:?}"),
            }
        });
        all.push(vec![slots.await]);
    }
    if let Some(redis) = store.redis() {
        assert!(redis.flush(PATIENCE).await, "{:?}", store.stats());
    }
    all
}

/// Live order: every number once, under however many tasks; the clock never runs back; times are clamped.
async fn order(place: &Place, schema: &Arc<Schema>) {
    let store = Arc::new(place.store(schema, 1_000).await);
    let door = Arc::new(Door::new(Arc::clone(schema), Keyring::new(1, [4; 32]).hasher()));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (store, door, schema) = (Arc::clone(&store), Arc::clone(&door), Arc::clone(schema));
        tasks.spawn(async move {
            let mut traffic = Traffic::new(task, 5);
            let mut moments = Vec::new();
            for _ in 0..40 {
                let (mut tx, _) = convert::transaction(traffic.next_transaction(), "transaction").unwrap();
                tx.time = Timestamp::from_micros(i64::MAX);
                let admitted = door.admit(tx).unwrap();
                let history = store.observe(schema.events(&admitted).into(), Order::Live(&SystemClock)).await;
                assert!(history.clamped && history.event_time == history.moment.now);
                moments.push(history.moment);
                moments.push(store.decide(&admitted.subjects, Order::Live(&SystemClock), |_, moment| moment).await);
            }
            moments
        });
    }
    let mut moments: Vec<Moment> = tasks.join_all().await.into_iter().flatten().collect();
    moments.sort_by_key(|moment| moment.sequence);
    let numbers: HashSet<u64> = moments.iter().map(|moment| moment.sequence.0).collect();
    assert_eq!((numbers.len(), *numbers.iter().max().unwrap()), (640, 640));
    assert!(moments.is_sorted_by_key(|moment| moment.now));
    assert_eq!(store.moment(Order::Live(&SystemClock)).sequence, Sequence(641));
    let nobody = Subjects::default();
    assert_eq!(
        store.decide(&nobody, Order::Recorded(at(9, START)), |policy, moment| (policy.slots.len(), moment)).await,
        (0, at(9, START))
    );
    assert!(SystemClock.now() > Timestamp::from_micros(START));
}

async fn contract(place: Place, reference: &[Vec<u64>], reload: usize) {
    let schema = Arc::new(Schema::shipped());
    let found = vectors(&place, &schema, reload).await;
    for (number, (found, wanted)) in found.iter().zip(reference).enumerate() {
        assert_eq!(found, wanted, "step {number}");
    }
    assert_eq!(found.len(), reference.len());
    order(&place, &schema).await;
}

async fn reference() -> Vec<Vec<u64>> {
    let schema = Arc::new(Schema::shipped());
    order(&Place::Embedded, &schema).await;
    vectors(&Place::Embedded, &schema, usize::MAX).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_redis_gives_the_embedded_store_s_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path(), &[]).unwrap();
    let reference = reference().await;
    for (prefix, reload) in [("warm", usize::MAX), ("cold", 60)] {
        let options = RedisOptions { prefix: prefix.to_owned(), ..patient(redis.address, 0) };
        contract(Place::Redis(options), &reference, reload).await;
    }
    let key = redis.command(&["RANDOMKEY"]).unwrap();
    assert!(key.contains(":{") && key.trim_end().ends_with('}'), "{key}");
    let lives: i64 = redis.command(&["TTL", key.trim()]).unwrap().trim().parse().unwrap();
    assert!(lives > 0, "every key has a TTL, {key} has {lives}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_gives_the_embedded_store_s_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path()).unwrap();
    let mut options = patient(cluster.nodes[0].address, 0);
    options.topology = Topology::Cluster;
    options.addresses = cluster.nodes.iter().take(2).map(|node| node.address.to_string()).collect();
    contract(Place::Redis(options), &reference().await, 60).await;
    let sizes: Vec<String> = cluster.nodes.iter().map(|node| node.command(&["DBSIZE"]).unwrap()).collect();
    // A replica may not have caught up yet.
    assert!(sizes.iter().filter(|size| size.trim() != "0").count() >= 3, "keys on every master: {sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_behind_sentinels_gives_the_embedded_store_s_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let sentinels = Sentinels::start(folder.path(), &[]).unwrap();
    let mut options = patient(sentinels.addresses[0], 0);
    options.topology = Topology::Sentinel { master: MASTER.to_owned() };
    options.addresses = sentinels.addresses.iter().map(ToString::to_string).collect();
    contract(Place::Redis(options), &reference().await, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_found_behind_two_nodes_that_swallow_everything() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path()).unwrap();
    // The kernel takes their connections; nobody ever answers.
    let holes = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let mut options = patient(cluster.nodes[0].address, 5);
    options.topology = Topology::Cluster;
    options.addresses = holes.iter().map(|hole| hole.local_addr().unwrap().to_string()).collect();
    options.addresses.push(cluster.nodes[0].address.to_string());
    // The first attempt, which is all that a start waits for, must do.
    let store = RedisStore::start(options, Schema::shipped().plans(), Arc::new(SystemClock)).await.unwrap();
    assert_eq!(store.stats().shared[0], ("up", 1));
}
