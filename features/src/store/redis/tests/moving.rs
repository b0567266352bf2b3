//! Replicas of one entity while the secret of names changes: some know that it will, some bring the entity over, all count.

use super::*;

/// What stands under the newest name and under the one of before.
type Found = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The name of before and the newest one, under the script's rules.
#[derive(Default)]
struct Both {
    before: Key,
    newest: Key,
}

impl Both {
    fn run(&mut self, write: &Write) -> Written {
        if write.standing == Standing::Settled { self.newest.run(write) } else { self.before.run(write) }
    }

    fn found(&self) -> Found {
        (self.newest.0.clone(), self.before.0.clone())
    }
}

fn replica(writer: u64, standing: Standing) -> Replica {
    Replica { entry: Entry::new(entity(), at(0), standing), ..Replica::new(writer) }
}

fn learn(replica: &mut Replica, (newest, before): &Found, now: i64) {
    let generation = replica.entry.generation;
    replica.entry.learn_either(&layout(), generation, (newest.as_deref(), before.as_deref()), at(now)).unwrap();
}

/// Everything that waits arrives; how many deltas were given up.
fn settle(both: &mut Both, replica: &mut Replica, now: i64) -> u64 {
    let (layout, mut ambiguous) = (layout(), 0);
    for _ in 0..100 {
        replica.flush(&layout, at(now));
        while let Some(write) = replica.on_the_way.pop_front() {
            let written = both.run(&write);
            replica.answers.push_back((write.flush, written));
        }
        while let Some((flush, written)) = replica.answers.pop_front() {
            match replica.entry.answered(&layout, flush, written, at(now)) {
                Outcome::Again(write) => replica.on_the_way.push_back(write),
                Outcome::Ambiguous => ambiguous += 1,
                _ => {}
            }
        }
    }
    ambiguous
}

/// Random steps while replica after replica restarts with the second step's configuration; what the newest name then reads, what one
/// process would have read, how many deltas were given up.
fn simulate(seed: u64, replicas: u64) -> (Vec<f64>, Vec<f64>, u64) {
    let layout = layout();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut both, mut alone) = (Both::default(), EntityState::default());
    let mut all: Vec<Replica> = (0..replicas).map(|writer| replica(700 + writer, Standing::Follows)).collect();
    let mut asked: Vec<Option<(u32, Found)>> = all.iter().map(|_| None).collect();
    let (mut now, mut ambiguous, mut second_step) = (0, 0, vec![false; all.len()]);
    for step in 0..900_u64 {
        now += i64::from(rng.random_bool(0.2));
        let which = rng.random_range(0..all.len());
        let one = &mut all[which];
        match rng.random_range(0..12) {
            0..=3 => {
                let event = event(now, step);
                alone.apply(&layout, &event);
                let mut reads: Vec<f64> = Vec::new();
                one.entry.observe(&layout, &event, at(now), &mut reads);
            }
            4 | 5 => one.flush(&layout, at(now)),
            6 | 7 => {
                if let Some(write) = one.on_the_way.pop_front() {
                    let lost = rng.random_range(0..10);
                    let written = if lost == 0 { Written::Unknown } else { both.run(&write) };
                    one.answers.push_back((write.flush, if lost == 1 { Written::Unknown } else { written }));
                }
            }
            8 => one.answer(&layout, at(now)),
            9 => asked[which] = Some((one.entry.generation, both.found())),
            10 => {
                if let Some((generation, (newest, before))) = asked[which].take() {
                    one.entry.learn_either(&layout, generation, (newest.as_deref(), before.as_deref()), at(now)).unwrap();
                }
            }
            _ if step > 300 && !second_step[which] => {
                // An orderly stop, and the start of the next step.
                ambiguous += settle(&mut both, one, now);
                assert!(!one.entry.is_dirty());
                *one = replica(one.writer + 100, Standing::Moves);
                (asked[which], second_step[which]) = (None, true);
            }
            _ => {}
        }
    }
    for _ in 0..3 {
        for one in &mut all {
            ambiguous += settle(&mut both, one, now);
        }
    }
    assert!(all.iter().all(|replica| !replica.entry.is_dirty()), "everything is stored in the end");
    assert!(second_step.iter().all(|done| *done));
    let (newest, before) = both.found();
    assert!(before.is_some_and(|found| value::is_closed(&found)), "nobody writes under the name of before any more");
    let stored = value::unpack(&layout, &newest.unwrap()).unwrap();
    (stored.read(&layout, None, at(now)), alone.read(&layout, None, at(now)), ambiguous)
}

#[test]
fn every_event_counts_once_while_replica_after_replica_changes_its_names() {
    for seed in 0..300 {
        let replicas = 1 + seed % 4;
        let (together, alone, ambiguous) = simulate(seed, replicas);
        assert_eq!((together, ambiguous), (alone, 0), "seed {seed}, {replicas} replicas");
    }
}

#[test]
fn a_scorer_that_is_killed_between_both_names_loses_nothing_of_what_was_stored() {
    let layout = layout();
    let mut both = Both::default();
    let mut first = replica(1, Standing::Follows);
    first.entry.apply(&layout, &event(1, 5), at(1));
    settle(&mut both, &mut first, 1);
    let mut killed = replica(2, Standing::Moves);
    learn(&mut killed, &both.found(), 2);
    killed.entry.apply(&layout, &event(2, 5), at(2));
    killed.flush(&layout, at(2));
    let closes = killed.on_the_way.pop_front().unwrap();
    assert!(matches!(both.run(&closes), Written::Stored));
    drop(killed);
    assert!(both.newest.0.is_none());
    for (writer, standing) in [(3, Standing::Moves), (4, Standing::Follows)] {
        let mut next = replica(writer, standing);
        learn(&mut next, &both.found(), 3);
        assert_eq!(next.entry.currency(at(3), SECOND, true), Currency::Current);
        next.entry.apply(&layout, &event(3, 5), at(3));
        settle(&mut both, &mut next, 3);
    }
    assert_eq!(value::unpack(&layout, both.newest.0.as_ref().unwrap()).unwrap().read(&layout, None, at(3))[0], 4.0);
    // The first one, whose copy is older than all of that, finds the way as well.
    first.entry.apply(&layout, &event(4, 5), at(4));
    settle(&mut both, &mut first, 4);
    assert_eq!(value::unpack(&layout, both.newest.0.as_ref().unwrap()).unwrap().read(&layout, None, at(4))[0], 5.0);
}

#[test]
fn what_is_forgotten_meanwhile_stands_under_neither_name() {
    let layout = layout();
    for standing in [Standing::Moves, Standing::Follows] {
        for read in [false, true] {
            let mut both = Both::default();
            let mut first = replica(1, Standing::Follows);
            first.entry.apply(&layout, &event(1, 5), at(1));
            settle(&mut both, &mut first, 1);
            let mut forgets = replica(2, standing);
            if read {
                learn(&mut forgets, &both.found(), 2);
            }
            forgets.entry.bury(at(2));
            settle(&mut both, &mut forgets, 2);
            first.entry.apply(&layout, &event(1, 5), at(3));
            settle(&mut both, &mut first, 3);
            let mut left = 0;
            for found in [both.newest.0, both.before.0].into_iter().flatten() {
                let state = value::unpack(&layout, &found).unwrap();
                assert_eq!(state.read(&layout, None, at(3))[0], 0.0, "{standing:?}, {read}");
                left += usize::from(!value::is_emptied(&found));
            }
            assert_eq!(left, 1, "the tombstone alone");
        }
    }
}
