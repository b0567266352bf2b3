//! The embedded store: sequence, parity whatever the threads, bounds, clocks, policy slots.

use std::time::Duration;

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::entity::{EntityKey, EntityType, Subject};
use crate::kernel::plan::{Accumulator, AccumulatorKind, Read};
use crate::kernel::slots::{PROVED, Slot, SlotChange};
use crate::time::ManualClock;

const START: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;

pub(super) fn plan(ttl: u64) -> EntityPlan {
    let window = Duration::from_secs(600);
    EntityPlan {
        name: "thing".into(),
        ttl: Duration::from_secs(ttl),
        max_bytes: 64 << 10,
        filters: vec![1],
        values: vec![2],
        members: vec![3],
        accumulators: vec![
            Accumulator { tag: 11, kind: AccumulatorKind::Count { filter: 0, window } },
            Accumulator { tag: 12, kind: AccumulatorKind::Sum { filter: 0, value: 0, window } },
            Accumulator { tag: 13, kind: AccumulatorKind::Distinct { filter: 0, member: 0, horizon: window } },
            Accumulator { tag: 14, kind: AccumulatorKind::Interarrival { filter: 0, window } },
        ],
        reads: vec![Read::Count(0), Read::Sum(1), Read::Distinct { of: 2, window }, Read::Novelty(2)],
    }
}

pub(super) fn store(ttl: u64, max_bytes: u64) -> EmbeddedStore {
    EmbeddedStore::new(Arc::from([plan(ttl), plan(ttl)]), EmbeddedOptions { max_bytes })
}

pub(super) fn entity(kind: u8, number: u64) -> EntityId {
    let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread.to_le_bytes());
    EntityId { kind: EntityType(kind), key: EntityKey(key) }
}

pub(super) fn events(time: i64, member: u64, entities: &[EntityId]) -> EntityEvents {
    let event = Event {
        time: Timestamp::from_micros(time),
        weight: 1,
        sign: 1,
        filters: 1,
        values: smallvec::smallvec![member as f64],
        members: smallvec::smallvec![Some(member)],
        proves: member.is_multiple_of(11),
    };
    let mut all: EntityEvents = EntityEvents { events: entities.iter().map(|entity| (*entity, event.clone())).collect() };
    all.events.sort_by_key(|(entity, _)| *entity);
    all
}

pub(super) fn subjects(entities: &[EntityId]) -> Subjects {
    Subjects::new(entities.iter().map(|id| Subject { id: *id, verified: false, name: None }))
}

pub(super) fn moment(sequence: u64, seconds: i64) -> Moment {
    Moment { sequence: Sequence(sequence), now: Timestamp::from_micros(START + seconds * SECOND) }
}

/// A recorded stream over few shared entities of both types and ever new ones.
pub(super) fn steps(count: u64, seed: u64) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (1..=count)
        .map(|sequence| {
            let at = moment(sequence, i64::try_from(sequence).unwrap() / 10);
            let late = rng.random_range(0..100 * SECOND);
            let new = 1000 + sequence;
            let own = [entity(0, rng.random_range(0..20)), entity(1, if rng.random_bool(0.5) { new } else { rng.random_range(0..5) })];
            let events = events(at.now.micros() - late, rng.random_range(0..300), &own);
            if rng.random_bool(0.2) { Step::Apply(events, at) } else { Step::Observe(events, at) }
        })
        .collect()
}

pub(super) fn one_by_one(store: &EmbeddedStore, steps: &[Step]) -> Vec<Option<History>> {
    steps
        .iter()
        .map(|step| match step {
            Step::Observe(events, at) => Some(store.observe_now(events.clone(), Order::Recorded(*at))),
            Step::Apply(events, at) => {
                store.apply_now(events.clone(), Order::Recorded(*at));
                None
            }
        })
        .collect()
}

/// Bits, because NaN is not equal to itself.
pub(super) fn bits(histories: &[Option<History>]) -> Vec<Vec<(EntityId, Vec<u64>)>> {
    let of = |history: &History| {
        history.entities.iter().map(|reads| (reads.entity, reads.reads.iter().map(|read| read.to_bits()).collect())).collect()
    };
    histories.iter().map(|history| history.as_ref().map(of).unwrap_or_default()).collect()
}

#[test]
fn threads_in_replay_change_nothing_even_under_eviction() {
    let steps = steps(20_000, 1);
    // Room for a part of the new entities only, and a TTL that passes within the stream.
    let (single, many, plain) = (store(1500, 1 << 20), store(1500, 1 << 20), store(1500, 1 << 20));
    let (mut one, mut four) = (Vec::new(), Vec::new());
    for batch in steps.chunks(1000) {
        one.extend(single.replay(batch, 1));
        four.extend(many.replay(batch, 4));
    }
    let straight = one_by_one(&plain, &steps);
    assert_eq!(bits(&one), bits(&four));
    assert_eq!(bits(&one), bits(&straight));
    assert_eq!(single.digest(), many.digest());
    assert_eq!(single.digest(), plain.digest());
    assert_eq!(single.stats(), many.stats());
    assert!(single.stats().evicted > 0, "{:?}", single.stats());
}

#[test]
fn eight_threads_replayed_in_recorded_order_give_the_same_store() {
    let live = store(86_400, 1 << 30);
    let clock = ManualClock::at(Timestamp::from_micros(START));
    let record = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (live, clock, record) = (&live, &clock, &record);
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(thread);
                for step in 0..500_i64 {
                    clock.advance_to(Timestamp::from_micros(START + step * SECOND));
                    let own = [entity(0, rng.random_range(0..4)), entity(1, rng.random_range(0..4))];
                    let mut events = events(START + step * SECOND - rng.random_range(0..SECOND), rng.random_range(0..99), &own);
                    let history = live.observe_now(events.clone(), Order::Live(clock));
                    events.events.iter_mut().for_each(|(_, event)| event.time = history.event_time);
                    let decided = live.decide_now(&subjects(&own), Order::Live(clock), |policy, moment| {
                        policy.change(EntityType(0), 7, SlotChange::Spend { at: moment.now, increment_us: SECOND });
                        moment
                    });
                    record.lock().push((history.moment, Some(events), own, Some(history)));
                    record.lock().push((decided, None, own, None));
                }
            });
        }
    });
    let mut record = record.into_inner();
    record.sort_by_key(|(moment, ..)| moment.sequence);
    assert!(record.iter().zip(1..).all(|((moment, ..), sequence)| moment.sequence.0 == sequence), "every number once");
    assert!(record.is_sorted_by_key(|(moment, ..)| moment.now), "the clock never runs back");
    let again = store(86_400, 1 << 30);
    for (moment, events, own, history) in record {
        match (events, history) {
            (Some(events), Some(history)) => {
                let repeated = again.observe_now(events, Order::Recorded(moment));
                assert_eq!(bits(&[Some(repeated)]), bits(&[Some(history)]));
            }
            _ => again.decide_now(&subjects(&own), Order::Recorded(moment), |policy, moment| {
                policy.change(EntityType(0), 7, SlotChange::Spend { at: moment.now, increment_us: SECOND });
            }),
        }
    }
    assert_eq!(live.digest(), again.digest());
}

#[test]
fn bytes_stay_within_the_bound_and_the_oldest_go() {
    let bound = 4 << 20;
    let store = store(86_400, bound);
    let regular = entity(0, 1);
    for sequence in 1..=40_000 {
        let at = moment(sequence, 0);
        store.observe_now(events(START, 5, &[regular, entity(1, sequence)]), Order::Recorded(at));
        if sequence % (10 * EPOCH) == 0 {
            let bytes: u64 = store.stats().bytes.iter().sum();
            // Between two epochs a store grows by what an epoch brings, and a shard ticks at its next operation only.
            assert!(bytes < bound + 2 * EPOCH * 800, "{bytes} at {sequence}");
        }
    }
    let stats = store.stats();
    assert!(stats.evicted > 10_000 && stats.entities[0] == 1, "{stats:?}");
    assert!(store.state(regular).is_some(), "observed all the time: stays");
    assert!(store.state(entity(1, 40_000)).is_some() && store.state(entity(1, 1)).is_none());
    let mut held = 0;
    store.for_each_encoded(|_, blob| held += blob.len());
    assert!(held > 0);
    assert_eq!(stats.entities.iter().sum::<u64>() + stats.evicted, 40_001);
}

#[test]
fn what_is_not_touched_for_its_ttl_is_forgotten() {
    let store = store(100, 1 << 30);
    let who = entity(0, 1);
    let count = |sequence, seconds| {
        let history = store.observe_now(events(START + seconds * SECOND, 5, &[who]), Order::Recorded(moment(sequence, seconds)));
        history.entities[0].reads[0]
    };
    assert_eq!([count(1, 0), count(2, 100), count(3, 201)], [1.0, 2.0, 1.0]);
    // Swept without being touched, once enough epochs have passed on its shard.
    let other = (2..).map(|number| entity(0, number)).find(|other| shard_of(*other) == shard_of(who)).unwrap();
    for epoch in 1..=64 {
        let at = moment(epoch * EPOCH, 1000);
        store.observe_now(events(START, 5, &[other]), Order::Recorded(at));
    }
    assert!(store.state(who).is_none());
    assert_eq!(store.stats().entities, [1, 0]);
}

#[test]
fn live_times_are_clamped_and_the_clock_never_runs_back() {
    struct Backwards(Mutex<i64>);
    impl crate::time::Clock for Backwards {
        fn now(&self) -> Timestamp {
            let mut at = self.0.lock();
            *at -= SECOND;
            Timestamp::from_micros(*at)
        }
    }
    let store = store(86_400, 1 << 30);
    let clock = Backwards(Mutex::new(START));
    let first = store.observe_now(events(i64::MAX, 5, &[entity(0, 1)]), Order::Live(&clock));
    assert!(first.clamped && first.event_time == first.moment.now);
    let second = store.observe_now(events(0, 5, &[entity(0, 1)]), Order::Live(&clock));
    assert_eq!(second.moment, Moment { sequence: Sequence(2), now: first.moment.now });
    assert_eq!(second.event_time.micros(), first.moment.now.micros() - 3600 * SECOND);
    assert_eq!(second.entities[0].lateness, 3600.0);
    assert!(!store.observe_now(events(first.moment.now.micros(), 5, &[entity(0, 1)]), Order::Live(&clock)).clamped);
    let label = store.apply_now(events(START - 86_400 * SECOND, 5, &[entity(0, 2)]), Order::Live(&clock));
    assert_eq!(label.now, first.moment.now);
    let high_water = store.state(entity(0, 2)).unwrap().high_water().unwrap();
    assert_eq!(high_water.micros(), START - 86_400 * SECOND, "a label applies at its transaction's time");
    assert_eq!(store.moment(Order::Live(&clock)).sequence, Sequence(5));
}

#[test]
fn decisions_work_on_entities_that_are_not_held() {
    let store = store(86_400, 1 << 30);
    let own = subjects(&[entity(0, 1), entity(1, 1)]);
    let until = Timestamp::from_micros(START + 60 * SECOND);
    let seen = store.decide_now(&own, Order::Recorded(moment(1, 0)), |policy, _| {
        policy.change(EntityType(1), 9, SlotChange::Mark { until });
        policy.slots.len()
    });
    assert_eq!(seen, 1, "nothing was there but the own change");
    let holds = store.decide_now(&own, Order::Recorded(moment(2, 1)), |policy, moment| policy.holds(EntityType(1), 9, moment.now));
    assert!(holds);
    assert_eq!(store.stats().entities, [0, 1]);
    assert_eq!(store.state(entity(1, 1)).unwrap().slot(9), Some(Slot::Mark { until }));
    assert!(store.stats().bytes[1] < 400);
}

#[test]
fn a_decision_does_not_see_a_proof_of_later_sequence() {
    let store = store(86_400, 1 << 30);
    let who = entity(0, 1);
    let proved = |sequence| {
        store.decide_now(&subjects(&[who]), Order::Recorded(moment(sequence, 1)), |policy, moment| {
            policy.holds(EntityType(0), PROVED, moment.now)
        })
    };
    store.replay(&[Step::Observe(events(START, 5, &[who]), moment(1, 0)), Step::Apply(events(START, 11, &[who]), moment(3, 0))], 2);
    assert!(!proved(2), "decided before the outcome came, computed after");
    assert!(proved(4));
}
