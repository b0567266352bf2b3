//! Replicas of one entity over a pretended store: whatever the interleaving, every event counts once.
//!
//! The pretended store runs the script's rules on one key; answers are lost, calls are lost, writers take turns at random, seeded.

mod moving;
mod sole;

use std::collections::VecDeque;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::entry::{Currency, Entry, Outcome};
use super::names::Standing;
use super::value::{self, Version, Write, Written};
use super::{Status, status};
use crate::entity::{EntityId, EntityKey, EntityType};
use crate::event::Event;
use crate::kernel::plan::{Accumulator, AccumulatorKind, EntityPlan, Read};
use crate::kernel::slots::{Slot, SlotChange};
use crate::kernel::{EntityState, Flush, Layout};
use crate::time::Timestamp;

const START: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;

fn layout() -> Layout {
    let window = Duration::from_secs(86_400);
    Layout::new(EntityPlan {
        name: "thing".into(),
        ttl: Duration::from_secs(100_000),
        max_bytes: 64 << 10,
        filters: vec![1],
        values: vec![2],
        members: vec![3],
        accumulators: vec![
            Accumulator { tag: 11, kind: AccumulatorKind::Count { filter: 0, window } },
            Accumulator { tag: 12, kind: AccumulatorKind::Sum { filter: 0, value: 0, window } },
            Accumulator { tag: 13, kind: AccumulatorKind::Distinct { filter: 0, member: 0, horizon: window } },
        ],
        reads: vec![Read::Count(0), Read::Sum(1), Read::Distinct { of: 2, window }],
    })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START + seconds * SECOND)
}

fn event(seconds: i64, value: u64) -> Event {
    Event {
        time: at(seconds),
        weight: 1,
        sign: 1,
        filters: 1,
        values: smallvec::smallvec![value as f64],
        members: smallvec::smallvec![Some(value % 40)],
        proves: false,
    }
}

fn entity() -> EntityId {
    EntityId { kind: EntityType(0), key: EntityKey([7; 16]) }
}

/// One key of a store, under the script's rules.
#[derive(Default)]
struct Key(Option<Vec<u8>>);

impl Key {
    fn run(&mut self, write: &Write) -> Written {
        let found = self.0.as_deref().and_then(value::version);
        if found == write.expected {
            self.0 = Some(write.value.to_vec());
            return Written::Stored;
        }
        match &self.0 {
            None => Written::Missing,
            Some(_) if found == Some(Version::of(write.flush)) => Written::Stored,
            Some(value) => Written::Other(value.clone()),
        }
    }
}

struct Replica {
    writer: u64,
    sequence: u64,
    entry: Entry,
    on_the_way: VecDeque<Write>,
    answers: VecDeque<(Flush, Written)>,
}

impl Replica {
    fn new(writer: u64) -> Self {
        Self {
            writer,
            sequence: 0,
            entry: Entry::new(entity(), at(0), Standing::Settled),
            on_the_way: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    fn flush(&mut self, layout: &Layout, now: Timestamp) {
        self.sequence += 1;
        let flush = Flush { writer: self.writer, sequence: self.sequence, at: now };
        self.on_the_way.extend(self.entry.next_write(layout, flush));
    }

    fn answer(&mut self, layout: &Layout, now: Timestamp) {
        let Some((flush, written)) = self.answers.pop_front() else { return };
        if let Outcome::Again(write) = self.entry.answered(layout, flush, written, now) {
            self.on_the_way.push_back(write);
        }
    }
}

#[test]
fn a_key_never_goes_before_its_time_to_live_and_is_seldom_given_another() {
    for (ttl, slack) in [(100_000, 600 * SECOND), (100, SECOND * 100 / 64)] {
        let layout = Layout::new(EntityPlan { ttl: Duration::from_secs(ttl), ..layout().plan().clone() });
        let ttl = i64::try_from(ttl).unwrap() * SECOND;
        let (mut key, mut replica, mut other) = (Key::default(), Replica::new(1), Replica::new(2));
        let (mut ends, mut set, mut kept) = (0, 0, 0);
        for step in 0..400_i64 {
            // Nearly the slack: every second write sets it anew.
            let now = step * slack * 24 / 25;
            let time = Timestamp::from_micros(START + now);
            // Half of the way the store loses the key; now and then another writer is faster.
            if step == 200 {
                key = Key::default();
            }
            for writer in if step % 21 == 0 { vec![&mut other, &mut replica] } else { vec![&mut replica] } {
                writer.entry.observe(&layout, &Event { time, ..event(0, 1) }, time, &mut Vec::<f64>::new());
                writer.flush(&layout, time);
                while let Some(write) = writer.on_the_way.pop_front() {
                    let was_there = key.0.is_some();
                    let written = key.run(&write);
                    if matches!(written, Written::Stored) {
                        assert!(write.lives.is_some() || was_there, "a new key is given a time to live");
                        (ends, set, kept) = match write.lives {
                            Some(seconds) => (now + i64::try_from(seconds).unwrap() * SECOND, set + 1, kept),
                            None => (ends, set, kept + 1),
                        };
                        assert!((ttl..=ttl + slack + SECOND).contains(&(ends - now)), "step {step}: {} µs of {ttl}", ends - now);
                    }
                    writer.answers.push_back((write.flush, written));
                    writer.answer(&layout, time);
                }
            }
        }
        assert!(set > 150 && kept > 150, "every second one sets it anew: {set} {kept}");
    }
}

#[test]
fn a_version_that_was_not_known_here_is_given_a_time_to_live() {
    let layout = layout();
    let (mut key, mut ours) = (Key::default(), Replica::new(1));
    let mut store = |key: &mut Key, seconds| {
        ours.entry.observe(&layout, &event(seconds, 1), at(seconds), &mut Vec::<f64>::new());
        ours.flush(&layout, at(seconds));
        let mut lives = Vec::new();
        while let Some(write) = ours.on_the_way.pop_front() {
            lives.push(write.lives.is_some());
            let written = key.run(&write);
            ours.answers.push_back((write.flush, written));
            ours.answer(&layout, at(seconds));
        }
        lives
    };
    assert_eq!(store(&mut key, 0), [true]);
    let before = key.0.clone();
    assert_eq!(store(&mut key, 1), [false], "it was set a second ago");
    // A failover brings the version of before back.
    key.0 = before;
    assert_eq!(store(&mut key, 2), [false, true]);
}

/// Runs random steps, then lets everything arrive; returns what the key then reads, and what one process would have read.
fn simulate(seed: u64, replicas: u64) -> (Vec<f64>, Vec<f64>, u64) {
    let layout = layout();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut key, mut alone) = (Key::default(), EntityState::default());
    let mut all: Vec<Replica> = (0..replicas).map(|writer| Replica::new(900 + writer)).collect();
    let (mut now, mut ambiguous) = (0, 0);
    let mut asked: Vec<Option<(u32, Option<Vec<u8>>)>> = all.iter().map(|_| None).collect();
    for step in 0..600_u64 {
        now += i64::from(rng.random_bool(0.2));
        let which = rng.random_range(0..all.len());
        let replica = &mut all[which];
        match rng.random_range(0..12) {
            0..=3 => {
                let event = event(now, step);
                alone.apply(&layout, &event);
                let mut reads: Vec<f64> = Vec::new();
                replica.entry.observe(&layout, &event, at(now), &mut reads);
            }
            4 | 5 => replica.flush(&layout, at(now)),
            6 | 7 => {
                if let Some(write) = replica.on_the_way.pop_front() {
                    let lost = rng.random_range(0..10);
                    // The call is lost before it is executed, or its answer after.
                    let written = if lost == 0 { Written::Unknown } else { key.run(&write) };
                    replica.answers.push_back((write.flush, if lost == 1 { Written::Unknown } else { written }));
                }
            }
            8 => replica.answer(&layout, at(now)),
            9 => asked[which] = Some((replica.entry.generation, key.0.clone())),
            10 => {
                // The answer may come much later than the question.
                if let Some((generation, found)) = asked[which].take() {
                    replica.entry.learn(&layout, generation, found.as_deref(), at(now)).unwrap();
                }
            }
            _ => {
                let answered = replica.entry.answered(&layout, Flush { writer: 1, sequence: 1, at: at(now) }, Written::Stored, at(now));
                assert!(matches!(answered, Outcome::Stale));
            }
        }
    }
    for _ in 0..100 {
        for replica in &mut all {
            replica.flush(&layout, at(now));
            while let Some(write) = replica.on_the_way.pop_front() {
                let written = key.run(&write);
                replica.answers.push_back((write.flush, written));
            }
            while !replica.answers.is_empty() {
                let flush = replica.answers.front().map(|(flush, _)| *flush).unwrap();
                let written = replica.answers.pop_front().unwrap().1;
                match replica.entry.answered(&layout, flush, written, at(now)) {
                    Outcome::Again(write) => replica.on_the_way.push_back(write),
                    Outcome::Ambiguous => ambiguous += 1,
                    _ => {}
                }
            }
        }
    }
    assert!(all.iter().all(|replica| !replica.entry.is_dirty()), "everything is stored in the end");
    let stored = value::unpack(&layout, &key.0.unwrap()).unwrap();
    (stored.read(&layout, None, at(now)), alone.read(&layout, None, at(now)), ambiguous)
}

#[test]
fn every_event_counts_once_whatever_is_lost_and_whoever_is_faster() {
    for seed in 0..400 {
        let replicas = 1 + seed % 5;
        let (together, alone, ambiguous) = simulate(seed, replicas);
        assert_eq!((together, ambiguous), (alone, 0), "seed {seed}, {replicas} replicas");
    }
}

#[test]
fn what_is_read_holds_own_events_before_and_after_they_are_stored() {
    let layout = layout();
    let mut key = Key::default();
    let (mut ours, mut theirs) = (Replica::new(1), Replica::new(2));
    for step in 0..30_u64 {
        let seconds = i64::try_from(step).unwrap();
        for (replica, other) in [(&mut ours, 0), (&mut theirs, 1)] {
            // Each asks before it applies, as `observe` does: then it holds whatever was stored.
            replica.entry.learn(&layout, replica.entry.generation, key.0.as_deref(), at(seconds)).unwrap();
            let mut reads: Vec<f64> = Vec::new();
            replica.entry.observe(&layout, &event(seconds, step), at(seconds), &mut reads);
            assert_eq!(reads[0], (2 * step + 1 + other) as f64, "step {step}");
            replica.flush(&layout, at(seconds));
            let write = replica.on_the_way.pop_front().unwrap();
            let written = key.run(&write);
            assert!(matches!(replica.entry.answered(&layout, write.flush, written, at(seconds)), Outcome::Done));
        }
    }
}

#[test]
fn a_lost_key_is_created_again_and_reads_are_partial_until_windows_refill() {
    let layout = layout();
    let mut key = Key::default();
    let (mut first, mut second) = (Replica::new(1), Replica::new(2));
    let store = |replica: &mut Replica, key: &mut Key, seconds| {
        replica.flush(&layout, at(seconds));
        while let Some(write) = replica.on_the_way.pop_front() {
            let written = key.run(&write);
            if let Outcome::Again(write) = replica.entry.answered(&layout, write.flush, written, at(seconds)) {
                replica.on_the_way.push_back(write);
            }
        }
    };
    for seconds in 1..=3 {
        let replica = if seconds == 2 { &mut second } else { &mut first };
        replica.entry.learn(&layout, replica.entry.generation, key.0.as_deref(), at(seconds)).unwrap();
        replica.entry.apply(&layout, &event(seconds, 5), at(seconds));
        store(replica, &mut key, seconds);
    }
    key.0 = None;
    first.entry.learn(&layout, first.entry.generation, None, at(4)).unwrap();
    assert_eq!(first.entry.currency(at(4), SECOND, true), Currency::Part);
    assert_eq!(first.entry.currency(at(4 + 86_401), SECOND, true), Currency::Current);
    first.entry.apply(&layout, &event(5, 5), at(5));
    store(&mut first, &mut key, 5);
    // The second one does not know yet; its delta goes into what the first one brought back.
    second.entry.apply(&layout, &event(6, 5), at(6));
    store(&mut second, &mut key, 6);
    let stored = value::unpack(&layout, key.0.as_ref().unwrap()).unwrap();
    assert_eq!(stored.read(&layout, None, at(6))[0], 5.0, "three of before, two of after");
}

#[test]
fn a_writer_that_may_have_been_forgotten_drops_what_it_cannot_know() {
    let layout = layout();
    let mut key = Key::default();
    let mut ours = Replica::new(1);
    ours.entry.apply(&layout, &event(0, 5), at(0));
    ours.flush(&layout, at(0));
    let write = ours.on_the_way.pop_front().unwrap();
    key.run(&write);
    // The answer is lost, and 64 others write before the next try.
    assert!(matches!(ours.entry.answered(&layout, write.flush, Written::Unknown, at(1)), Outcome::Later));
    for writer in 100..164 {
        let mut other = Replica::new(writer);
        other.entry.learn(&layout, 0, key.0.as_deref(), at(2)).unwrap();
        other.entry.apply(&layout, &event(2, 5), at(2));
        other.flush(&layout, at(2));
        key.run(&other.on_the_way.pop_front().unwrap());
    }
    ours.flush(&layout, at(3));
    let write = ours.on_the_way.pop_front().unwrap();
    let written = key.run(&write);
    assert!(matches!(ours.entry.answered(&layout, write.flush, written, at(3)), Outcome::Ambiguous));
    assert!(!ours.entry.is_dirty());
    assert_eq!(ours.entry.view.read(&layout, None, at(3))[0], 65.0, "counted once, as it was stored after all");
}

#[test]
fn more_than_three_merges_wait_for_the_next_interval() {
    let layout = layout();
    let mut key = Key::default();
    let (mut ours, mut theirs) = (Replica::new(1), Replica::new(2));
    let mut other = |key: &mut Key, seconds| {
        theirs.entry.learn(&layout, theirs.entry.generation, key.0.as_deref(), at(seconds)).unwrap();
        theirs.entry.apply(&layout, &event(seconds, 5), at(seconds));
        theirs.flush(&layout, at(seconds));
        let write = theirs.on_the_way.pop_front().unwrap();
        let written = key.run(&write);
        theirs.entry.answered(&layout, write.flush, written, at(seconds));
    };
    ours.entry.apply(&layout, &event(0, 5), at(0));
    ours.flush(&layout, at(0));
    let mut write = ours.on_the_way.pop_front().unwrap();
    for round in 0..4 {
        other(&mut key, round);
        let written = key.run(&write);
        match ours.entry.answered(&layout, write.flush, written, at(round)) {
            Outcome::Again(again) if round < 3 => write = again,
            Outcome::Later if round == 3 => {}
            outcome => panic!("round {round}: {outcome:?}"),
        }
    }
    ours.flush(&layout, at(5));
    let write = ours.on_the_way.pop_front().unwrap();
    let written = key.run(&write);
    assert!(matches!(ours.entry.answered(&layout, write.flush, written, at(5)), Outcome::Done));
    assert_eq!(value::unpack(&layout, &key.0.unwrap()).unwrap().read(&layout, None, at(5))[0], 5.0);
}

#[test]
fn a_forgotten_entity_is_not_brought_back_by_late_deltas() {
    let layout = layout();
    let mut key = Key::default();
    let (mut ours, mut theirs) = (Replica::new(1), Replica::new(2));
    let store = |replica: &mut Replica, key: &mut Key| {
        replica.flush(&layout, at(9));
        while let Some(write) = replica.on_the_way.pop_front() {
            let written = key.run(&write);
            if let Outcome::Again(write) = replica.entry.answered(&layout, write.flush, written, at(9)) {
                replica.on_the_way.push_back(write);
            }
        }
    };
    theirs.entry.apply(&layout, &event(1, 5), at(1));
    store(&mut theirs, &mut key);
    theirs.entry.apply(&layout, &event(2, 5), at(2));
    theirs.entry.apply(&layout, &event(8, 5), at(8));
    ours.entry.bury(at(5));
    store(&mut ours, &mut key);
    store(&mut theirs, &mut key);
    let stored = value::unpack(&layout, key.0.as_ref().unwrap()).unwrap();
    assert_eq!(stored.read(&layout, None, at(9))[0], 0.0, "a delta that began before is dropped whole");
    theirs.entry.apply(&layout, &event(9, 5), at(9));
    store(&mut theirs, &mut key);
    assert_eq!(value::unpack(&layout, &key.0.unwrap()).unwrap().read(&layout, None, at(9))[0], 1.0);
}

#[test]
fn policy_slots_add_up_over_replicas() {
    let layout = layout();
    let mut key = Key::default();
    let mut all = [Replica::new(1), Replica::new(2)];
    for round in 0..10 {
        for replica in &mut all {
            replica.entry.learn(&layout, replica.entry.generation, key.0.as_deref(), at(round)).unwrap();
            replica.entry.change_slot(7, SlotChange::Spend { at: at(0), increment_us: SECOND }, at(round));
            replica.flush(&layout, at(round));
        }
        for replica in &mut all {
            while let Some(write) = replica.on_the_way.pop_front() {
                let written = key.run(&write);
                if let Outcome::Again(write) = replica.entry.answered(&layout, write.flush, written, at(round)) {
                    replica.on_the_way.push_back(write);
                }
            }
        }
    }
    let stored = value::unpack(&layout, &key.0.unwrap()).unwrap();
    assert_eq!(stored.slot(7), Some(Slot::Bucket { arrival: at(20) }), "twenty seconds were spent");
}

#[test]
fn a_hot_entity_is_read_from_here_while_its_copy_is_young() {
    let layout = layout();
    let mut entry = Entry::new(entity(), at(0), Standing::Settled);
    entry.learn(&layout, 0, None, at(0)).unwrap();
    let mut reads: Vec<f64> = Vec::new();
    for _ in 0..19 {
        entry.observe(&layout, &event(0, 5), at(0), &mut reads);
    }
    assert!(entry.wants_reading(at(0), SECOND), "not hot yet");
    entry.observe(&layout, &event(0, 5), at(0), &mut reads);
    assert!(!entry.wants_reading(at(0), SECOND));
    assert!(entry.wants_reading(at(2), SECOND), "its copy is too old, and so is its rate");
    assert_eq!(entry.currency(at(2), SECOND, false), Currency::Old);
    assert_eq!(entry.currency(at(2), SECOND, true), Currency::Current);
}

#[test]
fn a_status_is_the_least_of_its_entities() {
    use Currency::{Current, Old, Part, Unknown};
    for (currencies, expected) in [
        (&[][..], Status::Full),
        (&[Current, Current], Status::Full),
        (&[Current, Old], Status::Stale),
        (&[Old, Part], Status::Partial),
        (&[Old, Unknown], Status::Partial),
        (&[Unknown, Unknown], Status::None),
    ] {
        assert_eq!(status(currencies), expected, "{currencies:?}");
    }
}

#[test]
fn what_cannot_be_read_is_never_overwritten() {
    let layout = layout();
    let mut key = Key(Some(vec![9; 40]));
    let before = key.0.clone();
    let mut ours = Replica::new(1);
    assert!(ours.entry.learn(&layout, 0, key.0.as_deref(), at(0)).is_err());
    assert_eq!(ours.entry.currency(at(0), SECOND, false), Currency::Unknown);
    ours.entry.apply(&layout, &event(0, 5), at(0));
    ours.flush(&layout, at(0));
    let write = ours.on_the_way.pop_front().unwrap();
    let written = key.run(&write);
    assert!(matches!(ours.entry.answered(&layout, write.flush, written, at(0)), Outcome::Unreadable));
    assert_eq!(key.0, before);
}
