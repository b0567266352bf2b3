//! `observe` and `decide` of one transaction with five entities of about twelve sections, on entities with full windows.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark, not product code")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smallvec::smallvec;
use telltale_features::entity::{EntityId, EntityKey, EntityType, Subject, Subjects};
use telltale_features::event::{EntityEvents, Event};
use telltale_features::kernel::plan::{Accumulator, AccumulatorKind, EntityPlan, GapStat, Read};
use telltale_features::kernel::slots::SlotChange;
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore};
use telltale_features::store::{Moment, Order, Sequence, Store};
use telltale_features::time::Timestamp;

const START: i64 = 1_767_225_600_000_000;
const KINDS: u8 = 5;
const ENTITIES: u64 = 20_000;

/// Twelve sections and fourteen reads, as an address of the default schema has.
fn plan() -> EntityPlan {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut kinds = vec![AccumulatorKind::Seen { filter: 0 }];
    for window in [minutes(1), minutes(10), minutes(60), minutes(1440)] {
        kinds.extend([AccumulatorKind::Count { filter: 0, window }, AccumulatorKind::Count { filter: 1, window }]);
    }
    kinds.push(AccumulatorKind::Sum { filter: 0, value: 0, window: minutes(60) });
    kinds.push(AccumulatorKind::Distinct { filter: 0, member: 0, horizon: minutes(1440) });
    kinds.push(AccumulatorKind::Interarrival { filter: 0, window: minutes(60) });
    let accumulators = kinds.into_iter().zip(0..).map(|(kind, tag)| Accumulator { tag, kind }).collect();
    let mut reads: Vec<Read> = (1..9).map(Read::Count).collect();
    reads.extend([
        Read::Ratio { part: 4, whole: 3 },
        Read::Sum(9),
        Read::Distinct { of: 10, window: minutes(60) },
        Read::Novelty(10),
        Read::Interarrival { of: 11, stat: GapStat::LogStddev },
        Read::Age(0),
    ]);
    EntityPlan {
        name: "address".into(),
        ttl: Duration::from_secs(40 * 86_400),
        max_bytes: 64 << 10,
        filters: vec![1, 2],
        values: vec![3],
        members: vec![4],
        accumulators,
        reads,
    }
}

fn key(number: u64) -> EntityKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    EntityKey(key)
}

fn transaction(rng: &mut ChaCha8Rng, time: i64) -> EntityEvents {
    let events = (0..KINDS).map(|kind| {
        // Zipf-like: a few entities take part in most transactions.
        let number = (ENTITIES as f64).powf(rng.random::<f64>()) as u64;
        let event = Event {
            time: Timestamp::from_micros(time),
            weight: 1,
            sign: 1,
            filters: 1 | u64::from(rng.random_bool(0.2)) << 1,
            values: smallvec![rng.random_range(0.0..100.0)],
            members: smallvec![Some(rng.random_range(0..40_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))],
            proves: false,
        };
        (EntityId { kind: EntityType(kind), key: key(number) }, event)
    });
    EntityEvents { events: events.collect() }
}

fn benchmark(criterion: &mut Criterion) {
    let plans: Arc<[EntityPlan]> = (0..KINDS).map(|_| plan()).collect();
    let store = EmbeddedStore::new(plans, EmbeddedOptions::default());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut sequence, mut time) = (0, START);
    let mut next = || {
        sequence += 1;
        time += 50_000;
        Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(time) }
    };
    for _ in 0..400_000 {
        let moment = next();
        store.observe_now(transaction(&mut rng, moment.now.micros()), Order::Recorded(moment));
    }
    let stats = store.stats();
    let (entities, bytes): (u64, u64) = (stats.entities.iter().sum(), stats.bytes.iter().sum());
    println!("{entities} entities, {} bytes each", bytes / entities);
    let made: Vec<EntityEvents> = (0..4096).map(|_| transaction(&mut rng, START)).collect();
    let mut at = 0;
    criterion.bench_function("observe/5 entities x 12 sections", |bencher| {
        bencher.iter_batched_ref(
            || {
                at += 1;
                let moment = next();
                let mut events = made[at % made.len()].clone();
                events.events.iter_mut().for_each(|(_, event)| event.time = moment.now);
                Some((events, moment))
            },
            |prepared| {
                let (events, moment) = prepared.take().expect("prepared");
                black_box(store.observe_now(events, Order::Recorded(moment)))
            },
            criterion::BatchSize::SmallInput,
        );
    });
    let subjects: Vec<Subjects> =
        made.iter().map(|events| Subjects::new(events.entities().map(|id| Subject { id, verified: false, name: None }))).collect();
    criterion.bench_function("decide/5 entities, one bucket spent", |bencher| {
        bencher.iter(|| {
            at += 1;
            let moment = next();
            store.decide_now(&subjects[at % subjects.len()], Order::Recorded(moment), |policy, moment| {
                policy.change(EntityType(0), 7, SlotChange::Spend { at: moment.now, increment_us: 1000 });
            });
        });
    });
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
