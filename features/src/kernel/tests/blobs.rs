//! Blobs: what is written is what is read, foreign bytes do no harm, what is unknown survives.

use super::*;
use crate::kernel::slots::{Slot, SlotChange};
use crate::kernel::{DecodeError, Flush};

fn any_change() -> impl Strategy<Value = (u64, SlotChange)> {
    let at = (0..86_400 * SECOND).prop_map(|time| Timestamp::from_micros(START + time));
    let change = prop_oneof![
        (at.clone(), 0..100 * SECOND).prop_map(|(at, increment_us)| SlotChange::Spend { at, increment_us }),
        (at.clone(), 0.0..100.0_f64).prop_map(|(at, amount)| SlotChange::Add { at, amount, half_life_us: SECOND }),
        at.prop_map(|until| SlotChange::Mark { until }),
    ];
    (0..100_u64, change)
}

fn any_state() -> impl Strategy<Value = EntityState> {
    let flushes = prop::collection::vec((0..5_u64, any::<u64>(), 0..1200 * SECOND), 0..4);
    (prop::collection::vec(any_event(), 0..150), prop::collection::vec(any_change(), 0..8), flushes, prop::option::of(0..SECOND)).prop_map(
        |(events, changes, flushes, tombstone)| {
            let layout = Layout::new(plan(&[10, 3600, 2_592_000]));
            let mut state = EntityState::default();
            if let Some(at) = tombstone {
                state.bury(Timestamp::from_micros(START + at));
            }
            for event in &events {
                state.apply(&layout, event);
            }
            for (tag, change) in changes {
                state.change_slot(tag, change, Timestamp::from_micros(START));
            }
            for (writer, sequence, at) in flushes {
                state.stamp(Flush { writer, sequence, at: Timestamp::from_micros(START + at) });
            }
            state
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read(state in any_state()) {
        let layout = Layout::new(plan(&[10, 3600, 2_592_000]));
        let blob = state.encode(&layout);
        let back = EntityState::decode(&layout, &blob).unwrap();
        prop_assert_eq!(&back, &state);
        prop_assert_eq!(back.encode(&layout), blob);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let layout = Layout::new(plan(&[10, 3600]));
        let _ = EntityState::decode(&layout, &bytes);
        let mut headed = vec![1, 0];
        headed.extend(&bytes);
        let _ = EntityState::decode(&layout, &headed);
    }

    /// A blob with some bytes changed is refused, or decodes into a state that works.
    #[test]
    fn damaged_blobs_never_panic(
        state in any_state(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        event in any_event(),
    ) {
        let layout = Layout::new(plan(&[10, 3600, 2_592_000]));
        let mut blob = state.encode(&layout);
        for (at, byte) in &damage {
            let at = at.index(blob.len());
            blob[at] = *byte;
        }
        if let Ok(mut back) = EntityState::decode(&layout, &blob) {
            let mut reads = Vec::new();
            back.observe(&layout, &event, &mut reads);
            back.merge(&layout, &state);
            prop_assert!(reads.iter().all(|read| !read.is_infinite()));
            let blob = back.encode(&layout);
            prop_assert!(EntityState::decode(&layout, &blob).is_ok());
        }
    }

    /// Another schema reads what it knows, carries the rest, and hands all of it back.
    #[test]
    fn an_older_plan_loses_nothing(events in prop::collection::vec(any_event(), 0..100)) {
        let new = Layout::new(plan(&[10, 3600, 86_400]));
        let mut less = plan(&[10, 3600, 86_400]);
        less.accumulators.remove(4);
        less.reads.clear();
        less.filters.truncate(1);
        let old = Layout::new(less);
        let state = applied(&new, &events);
        let through = EntityState::decode(&old, &state.encode(&new)).unwrap().encode(&old);
        let back = EntityState::decode(&new, &through).unwrap();
        let at = Timestamp::from_micros(START + 4 * 86_400 * SECOND);
        let (before, after) = (state.read(&new, None, at), back.read(&new, None, at));
        prop_assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()), "{before:?}\n{after:?}");
    }
}

#[test]
fn a_reordered_plan_finds_its_sections() {
    let plan = plan(&[60]);
    let layout = Layout::new(plan.clone());
    let state = applied(&layout, &steady(&mut seeded(1), 40, 1e6));
    let mut other = plan;
    other.filters.insert(1, 999);
    for accumulator in &mut other.accumulators {
        match &mut accumulator.kind {
            AccumulatorKind::Count { filter, .. } if *filter == 1 => *filter = 2,
            _ => {}
        }
    }
    let moved = Layout::new(other);
    let back = EntityState::decode(&moved, &state.encode(&layout)).unwrap();
    let at = state.high_water().unwrap();
    let (before, after) = (state.read(&layout, None, at), back.read(&moved, None, at));
    assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()), "{before:?}\n{after:?}");
}

#[test]
fn an_unknown_section_goes_when_its_ttl_has_passed() {
    let layout = Layout::new(plan(&[60]));
    let mut bare = plan(&[60]);
    bare.accumulators.truncate(1);
    bare.reads.clear();
    let bare = Layout::new(bare);
    let state = applied(&layout, &steady(&mut seeded(2), 60, 1e6));
    let mut carried = EntityState::decode(&bare, &state.encode(&layout)).unwrap();
    let full = carried.encode(&bare).len();
    carried.apply(&bare, &event(START + 39 * 86_400 * SECOND));
    let mut carried = EntityState::decode(&bare, &carried.encode(&bare)).unwrap();
    assert!(carried.encode(&bare).len() > full / 2, "still carried");
    carried.apply(&bare, &event(START + 41 * 86_400 * SECOND));
    let dropped = EntityState::decode(&bare, &carried.encode(&bare)).unwrap();
    assert!(dropped.rare.is_none_or(|rare| rare.opaque.is_empty()));
}

#[test]
fn errors_say_what_is_wrong() {
    let layout = Layout::new(plan(&[60]));
    assert_eq!(EntityState::decode(&layout, &[]), Err(DecodeError::Format { found: 0 }));
    assert_eq!(EntityState::decode(&layout, &[7, 0]).unwrap_err().to_string(), "blob has format `7`, this version reads `1`");
    assert_eq!(EntityState::decode(&layout, &[1, 0]), Err(DecodeError::Header));
    let mut blob = applied(&layout, &[event(START)]).encode(&layout);
    blob.pop();
    assert_eq!(EntityState::decode(&layout, &blob), Err(DecodeError::Header));
}

/// Policy slots are read under any plan, and never more than 64 are kept.
#[test]
fn slots_survive_any_plan_and_are_bounded() {
    let layout = Layout::new(plan(&[60]));
    let mut state = EntityState::default();
    for tag in 0..100 {
        let until = Timestamp::from_micros(START + i64::try_from(tag).unwrap() * SECOND);
        state.change_slot(tag, SlotChange::Mark { until }, Timestamp::from_micros(START - 1));
    }
    let bare = Layout::new(EntityPlan { accumulators: Vec::new(), reads: Vec::new(), ..plan(&[60]) });
    let back = EntityState::decode(&bare, &state.encode(&layout)).unwrap();
    assert_eq!(back.slots().count(), 64);
    assert_eq!(back.slot(99), Some(Slot::Mark { until: Timestamp::from_micros(START + 99 * SECOND) }));
    assert_eq!(back.slot(0), None);
}

/// The memory bars: a light entity to 700 B, in memory and as a blob; a busy one of 30 sections to 5 KB beside its page.
#[test]
fn states_are_small() {
    let layout = Layout::new(plan(&[60, 3600, 86_400]));
    let light = applied(&layout, &steady(&mut seeded(4), 6, 60e6));
    println!("light: {} B in memory, {} B blob", light.bytes(&layout), light.encode(&layout).len());
    assert!(light.bytes(&layout) <= 700 && light.encode(&layout).len() <= 700);
    let busy = applied(&layout, &steady(&mut seeded(4), 2000, 60e6));
    println!("busy, {} sections: {} B in memory, {} B blob", layout.sections.len(), busy.bytes(&layout), busy.encode(&layout).len());
    assert!(busy.bytes(&layout) <= 5 << 10 && busy.encode(&layout).len() <= 3 << 10);
}
