//! Probation, and cuts while the store is in use: floods take what they may, a restored store is the one that was cut.

use std::sync::atomic::{AtomicBool, Ordering};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tests::{bits, entity, events, moment, plan, store, subjects};
use super::*;
use crate::entity::EntityType;
use crate::kernel::slots::SlotChange;
use crate::time::ManualClock;

const SECOND: i64 = 1_000_000;

#[test]
fn an_entity_is_established_by_its_third_transaction() {
    let store = store(86_400, 1 << 30);
    let who = entity(0, 1);
    let mut sequence = 0;
    let mut step = |observe: bool| {
        sequence += 1;
        let at = moment(sequence, 0);
        if observe {
            store.observe_now(events(at.now.micros(), 5, &[who]), Order::Recorded(at));
        } else {
            store.apply_now(events(at.now.micros(), 5, &[who]), Order::Recorded(at));
        }
        store.stats().probation
    };
    assert_eq!([step(true), step(false), step(true), step(false)], [1; 4], "two transactions with their outcomes");
    assert_eq!(step(true), 0);
    let aggregate = EntityEvents {
        events: events(0, 5, &[entity(0, 2)]).events.into_iter().map(|(id, event)| (id, Event { weight: 500, ..event })).collect(),
    };
    store.observe_now(aggregate, Order::Recorded(moment(9, 0)));
    assert_eq!(store.stats().probation, 0, "an aggregate stands for many");
    assert_eq!(store.stats().entities, [2, 0]);
}

#[test]
fn a_stub_reads_as_the_state_that_it_stands_for() {
    let store = store(86_400, 1 << 30);
    let layout = Layout::new(plan(86_400));
    let who = entity(0, 1);
    let mut state = EntityState::default();
    for sequence in 1..=6 {
        let at = moment(sequence, sequence.cast_signed() * 7);
        let told = events(at.now.micros(), sequence * 3, &[who]);
        let mut reads = Vec::new();
        state.observe(&layout, &told.events[0].1, &mut reads);
        let found = store.observe_now(told, Order::Recorded(at));
        let bits = |reads: &[f64]| reads.iter().map(|read| read.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found.entities[0].reads), bits(&reads), "transaction {sequence}");
        let change = SlotChange::Spend { at: at.now, increment_us: SECOND };
        store.decide_now(&subjects(&[who]), Order::Recorded(at), |policy, _| policy.change(EntityType(0), 7, change));
        state.change_slot(7, change, at.now);
        assert_eq!(store.state(who).as_ref(), Some(&state));
    }
}

#[test]
fn a_flood_takes_its_part_and_leaves_history_alone() {
    let bound = 64 << 20;
    let store = store(86_400, bound);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let real = 20_000_u64;
    let mut sequence = 0;
    let mut see = |number: u64| {
        sequence += 1;
        let at = moment(sequence, sequence.cast_signed() / 100_000);
        let history = store.observe_now(events(at.now.micros(), number % 7, &[entity(0, number)]), Order::Recorded(at));
        history.entities[0].reads[0]
    };
    for _ in 0..4 {
        (0..real).for_each(|number| assert!(see(number) > 0.0));
    }
    let before = store.stats();
    assert_eq!((before.probation, before.evicted), (0, 0), "{before:?}");
    // Ten times what fits, each once or twice.
    for number in 0..600_000 {
        see(1_000_000 + number);
        if rng.random_bool(0.5) {
            see(1_000_000 + number);
        }
    }
    let stats = store.stats();
    assert!(stats.evicted > 100_000 && stats.bytes.iter().sum::<u64>() < bound + (1 << 20), "{stats:?}");
    assert_eq!(stats.evicted_established, 0, "{stats:?}");
    assert_eq!((0..real).filter(|number| see(*number) == 5.0).count() as u64, real, "all of their history");
}

#[test]
fn established_entities_give_way_to_each_other_and_probation_keeps_its_part() {
    let store = store(86_400, 8 << 20);
    let mut sequence = 0;
    let mut see = |number: u64| {
        sequence += 1;
        store.observe_now(events(0, 5, &[entity(0, number)]), Order::Recorded(moment(sequence, 0)));
    };
    (0..40_000).for_each(|number| (0..4).for_each(|_| see(number)));
    assert!(store.stats().evicted_established > 10_000, "{:?}", store.stats());
    assert!(store.state(entity(0, 1)).is_none() && store.state(entity(0, 39_999)).is_some());
    (100_000..200_000).for_each(see);
    let stats = store.stats();
    assert!((1 << 20..3 << 20).contains(&stats.probation_bytes), "a quarter, more or less an eviction: {stats:?}");
    assert!(stats.entities[0] - stats.probation > 5_000, "{stats:?}");
}

/// Saves a cut of a store and restores it.
fn restored(cut: &Cut, saved: &[u8], marks: &[ShardMark], max_bytes: u64) -> EmbeddedStore {
    let again = store(1500, max_bytes);
    let mut rest = saved;
    while let Some(record) = Record::take(&mut rest) {
        again.restore(&record).unwrap();
    }
    assert!(rest.is_empty());
    again.resume(cut.moment, marks);
    again
}

#[test]
fn a_restored_store_goes_on_as_if_it_had_never_ended() {
    let bound = 1 << 20;
    let first = store(1500, bound);
    let steps = super::tests::steps(30_000, 9);
    let (before, after) = steps.split_at(17_400);
    before.chunks(100).for_each(|batch| drop(first.replay(batch, 2)));
    let cut = first.cut().unwrap();
    let mut saved = Vec::new();
    let marks = first.save::<()>(&cut, |some| {
        saved.extend_from_slice(some);
        Ok(())
    });
    let again = restored(&cut, &saved, &marks.unwrap(), bound);
    assert_eq!(first.digest(), again.digest());
    assert_eq!(first.straddling(&cut).map(|all| all.len()), Some(0));
    let sizes = |store: &EmbeddedStore| {
        let stats = store.stats();
        (stats.entities, stats.bytes, stats.probation, stats.probation_bytes)
    };
    assert_eq!(sizes(&first), sizes(&again));
    let evicted = first.stats().evicted;
    for batch in after.chunks(100) {
        first.replay(batch, 2);
        again.replay(batch, 1);
    }
    assert_eq!(first.digest(), again.digest());
    assert_eq!(sizes(&first), sizes(&again));
    assert!(evicted > 100 && first.stats().evicted > evicted + 100, "{:?}", first.stats());
    assert_eq!(first.stats().evicted - evicted, again.stats().evicted);
}

/// What a thread did: a transaction's events as applied and its history, or a decision.
#[expect(clippy::large_enum_variant, reason = "as many of the one as of the other")]
enum Done {
    Observed(EntityEvents, History),
    Decided([EntityId; 2], Moment),
}

impl Done {
    fn moment(&self) -> Moment {
        match self {
            Self::Observed(_, history) => history.moment,
            Self::Decided(_, moment) => *moment,
        }
    }

    fn again(&self, store: &EmbeddedStore) {
        match self {
            Self::Observed(events, history) => {
                let repeated = store.observe_now(events.clone(), Order::Recorded(history.moment));
                assert_eq!(bits(&[Some(repeated)]), bits(&[Some(history.clone())]));
            }
            Self::Decided(own, moment) => store.decide_now(&subjects(own), Order::Recorded(*moment), spend),
        }
    }
}

fn spend(policy: &mut PolicyState, moment: Moment) {
    policy.change(EntityType(0), 7, SlotChange::Spend { at: moment.now, increment_us: SECOND });
}

/// Transactions of two entities each until told to stop.
fn traffic(live: &EmbeddedStore, clock: &ManualClock, seed: u64, stop: &AtomicBool) -> Vec<Done> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut done = Vec::new();
    for step in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let at = moment(0, step / 100).now;
        clock.advance_to(at);
        let own = [entity(0, rng.random_range(0..300)), entity(1, rng.random_range(0..4_000))];
        let mut told = events(at.micros(), rng.random_range(0..99), &own);
        let passage = live.enter();
        let history = live.observe_now(told.clone(), Order::Live(clock));
        told.events.iter_mut().for_each(|(_, event)| event.time = history.event_time);
        let decided = live.decide_now(&subjects(&own), Order::Live(clock), |policy, moment| {
            spend(policy, moment);
            moment
        });
        passage.decided(&history, decided);
        drop(passage);
        done.extend([Done::Observed(told, history), Done::Decided(own, decided)]);
    }
    done
}

type Saved = (Cut, Vec<u8>, Vec<ShardMark>, Vec<History>);

fn save(live: &EmbeddedStore) -> Saved {
    let cut = live.cut().unwrap();
    let mut saved = Vec::new();
    let marks = live.save::<()>(&cut, |some| {
        saved.extend_from_slice(some);
        Ok(())
    });
    let straddling = loop {
        match live.straddling(&cut) {
            Some(straddling) => break straddling,
            None => std::thread::yield_now(),
        }
    };
    (cut, saved, marks.unwrap(), straddling)
}

#[test]
fn a_cut_under_traffic_is_exact() {
    let bound = 2 << 20;
    let live = store(1500, bound);
    let clock = ManualClock::at(moment(0, 0).now);
    let (stop, record) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let mut cuts = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (live, clock, stop, record) = (&live, &clock, &stop, &record);
            scope.spawn(move || record.lock().extend(traffic(live, clock, thread, stop)));
        }
        // Until eviction has begun, and then some.
        while live.stats().evicted == 0 {
            std::thread::yield_now();
        }
        cuts.extend((0..8).map(|_| save(&live)));
        stop.store(true, Ordering::Relaxed);
    });
    let mut record = record.into_inner();
    record.sort_by_key(|done| done.moment().sequence);
    let reference = store(1500, bound);
    let mut rest = record.as_slice();
    let mut straddled = 0;
    for (cut, saved, marks, straddling) in &cuts {
        let (before, after) = rest.split_at(rest.partition_point(|done| done.moment().sequence <= cut.moment.sequence));
        before.iter().for_each(|done| done.again(&reference));
        rest = after;
        let again = restored(cut, saved, marks, bound);
        assert_eq!(reference.digest(), again.digest(), "at {cut:?}");
        straddled += straddling.len();
        for history in straddling {
            let same = |done: &&Done| matches!(done, Done::Observed(_, known) if known.moment == history.moment);
            let known = record.iter().find(same);
            assert!(
                history.moment.sequence <= cut.moment.sequence
                    && matches!(known, Some(Done::Observed(_, known)) if bits(&[Some(known.clone())]) == bits(&[Some(history.clone())]))
            );
        }
        rest.iter().for_each(|done| done.again(&again));
        assert_eq!(again.digest(), live.digest(), "from {cut:?} on");
    }
    rest.iter().for_each(|done| done.again(&reference));
    assert_eq!(reference.digest(), live.digest());
    assert!(live.stats().evicted > 0 && cuts.iter().all(|(_, saved, ..)| !saved.is_empty()));
    println!("{} steps, {straddled} transactions across {} cuts, {:?}", record.len(), cuts.len(), live.stats());
}

#[test]
fn a_cut_waits_for_transactions_that_began_before_it_and_for_no_others() {
    let store = store(1500, 1 << 30);
    let clock = ManualClock::at(moment(0, 0).now);
    let passage = store.enter();
    let history = store.observe_now(events(0, 5, &[entity(0, 1)]), Order::Live(&clock));
    let cut = store.cut().unwrap();
    let later = store.enter();
    assert!(store.straddling(&cut).is_none());
    let decided = store.moment(Order::Live(&clock));
    passage.decided(&history, decided);
    drop(passage);
    assert_eq!(store.straddling(&cut).unwrap().len(), 1);
    // Given up while one is under way: the next but one would not know it from its own.
    let second = store.cut().unwrap();
    assert!(store.straddling(&second).is_none());
    store.forget_cut();
    assert!(store.cut().is_none());
    drop(later);
    assert!(store.cut().is_some());
}
