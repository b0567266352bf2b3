//! Merge laws: the exact class as equality, the rest within its bound.

use super::*;
use crate::kernel::layout::Section;
use crate::kernel::slots::{Slot, SlotChange};

fn split(layout: &Layout, events: &[(Event, u8)], of: u8) -> EntityState {
    applied(layout, events.iter().filter(|(_, part)| *part == of).map(|(event, _)| event))
}

/// The sections that are exact under merge: everything but gaps and sets.
fn exact_class() -> Layout {
    let mut plan = plan(&[10, 3600, 86_400]);
    plan.accumulators.iter_mut().for_each(|accumulator| {
        if let AccumulatorKind::Interarrival { filter, window } = accumulator.kind {
            accumulator.kind = AccumulatorKind::Count { filter, window };
        }
    });
    Layout::new(plan)
}

fn promoted(layout: &Layout, mut state: EntityState) -> EntityState {
    state.settle(layout);
    let Some(Section::Distinct { sorting, .. }) = layout.section(1) else { panic!("the second section") };
    state.distinct_mut(layout, 0, |distinct| distinct.promote(sorting));
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever part three writers saw and in whatever order their states meet: equal to one that saw everything, to the last bit.
    #[test]
    fn merging_equals_seeing_everything(events in prop::collection::vec((any_event(), 0..3_u8), 0..120)) {
        let layout = exact_class();
        let whole = promoted(&layout, applied(&layout, events.iter().map(|(event, _)| event)));
        let [a, b, c] = [0, 1, 2].map(|of| promoted(&layout, split(&layout, &events, of)));
        let mut left = a.clone();
        left.merge(&layout, &b);
        left.merge(&layout, &c);
        prop_assert!(left == whole, "{:?}\n{:?}", left.encode(&layout), whole.encode(&layout));
        let mut right = c;
        let mut inner = b;
        inner.merge(&layout, &a);
        right.merge(&layout, &inner);
        prop_assert!(right.encode(&layout) == whole.encode(&layout));
    }

    /// The order in which events come does not matter to the exact class.
    #[test]
    fn order_does_not_matter(mut events in prop::collection::vec(any_event(), 0..80), seed in any::<u64>()) {
        let layout = exact_class();
        let one = promoted(&layout, applied(&layout, &events));
        let mut rng = seeded(seed);
        for at in (1..events.len()).rev() {
            events.swap(at, rng.random_range(0..=at));
        }
        prop_assert!(promoted(&layout, applied(&layout, &events)) == one);
    }

    /// Nothing merged into a state, or a state into nothing, changes nothing.
    #[test]
    fn nothing_is_neutral(events in prop::collection::vec(any_event(), 0..80)) {
        let layout = Layout::new(plan(&[60, 86_400]));
        let mut state = applied(&layout, &events);
        state.settle(&layout);
        let mut merged = state.clone();
        merged.merge(&layout, &EntityState::default());
        prop_assert_eq!(&merged, &state);
        let mut empty = EntityState::default();
        empty.merge(&layout, &state);
        prop_assert_eq!(empty.encode(&layout), state.encode(&layout));
    }

    /// Sets stay exact under merge up to 64 members.
    #[test]
    fn small_sets_merge_exactly(parts in prop::collection::vec((0..60_u64, any::<bool>()), 0..60)) {
        let layout = Layout::new(plan(&[86_400]));
        let events: Vec<(Event, u8)> = parts.iter().enumerate().map(|(step, (member, part))| {
            (Event { members: smallvec::smallvec![Some(*member)], ..event(START + step as i64 * SECOND) }, u8::from(*part))
        }).collect();
        let mut merged = split(&layout, &events, 0);
        merged.merge(&layout, &split(&layout, &events, 1));
        let whole = applied(&layout, events.iter().map(|(event, _)| event));
        prop_assert_eq!(merged.distinct, whole.distinct);
    }

    /// A delta that follows on a state gives the gaps that one writer would have.
    #[test]
    fn gaps_of_successive_deltas_are_exact(mut times in prop::collection::vec(0..80_000 * SECOND, 3..100), cut in 0..100_usize) {
        let layout = Layout::new(plan(&[86_400]));
        times.sort_unstable();
        let events: Vec<Event> = times.iter().map(|time| event(START + time)).collect();
        let (early, late) = events.split_at(cut.min(events.len()));
        let mut merged = applied(&layout, early);
        merged.merge(&layout, &applied(&layout, late));
        let whole = applied(&layout, &events);
        let at = whole.high_water().unwrap();
        let (merged, whole) = (merged.read(&layout, None, at), whole.read(&layout, None, at));
        prop_assert!(same(merged[HEAD_READS + 6], whole[HEAD_READS + 6]), "{} {}", merged[HEAD_READS + 6], whole[HEAD_READS + 6]);
        prop_assert!(same(merged[HEAD_READS + 7], whole[HEAD_READS + 7]));
    }
}

/// Two writers who take turns for long: each sees two gaps as one where it spills. Of Poisson arrivals the geometric mean comes out
/// e times too long (ψ(2) − ψ(1) = 1). Stated bound: never shorter, at most three times the true one. Deltas of one flush interval
/// follow on each other instead, and join exactly.
#[test]
fn gaps_of_interleaved_writers_are_within_a_factor_of_three() {
    let layout = Layout::new(plan(&[3600]));
    let events = steady(&mut seeded(8), 400, 8e6);
    let (mut a, mut b) = (EntityState::default(), EntityState::default());
    for (step, event) in events.iter().enumerate() {
        if step % 2 == 0 {
            a.apply(&layout, event)
        } else {
            b.apply(&layout, event)
        };
    }
    a.merge(&layout, &b);
    let at = a.high_water().unwrap();
    let truth = applied(&layout, &events).read(&layout, None, at)[HEAD_READS + 6];
    let merged = a.read(&layout, None, at)[HEAD_READS + 6];
    println!("true {truth:.2} s, merged {merged:.2} s");
    assert!(merged >= truth * 0.9 && merged <= truth * 3.0, "true {truth}, merged {merged}");
}

#[test]
fn slots_merge_by_their_laws() {
    let at = |seconds: i64| Timestamp::from_micros(START + seconds * SECOND);
    let mut base = EntityState::default();
    let mut delta = EntityState::default();
    base.change_slot(1, SlotChange::Mark { until: at(50) }, at(0));
    delta.change_slot(1, SlotChange::Mark { until: at(40) }, at(0));
    base.change_slot(2, SlotChange::Spend { at: at(0), increment_us: 10 * SECOND }, at(0));
    delta.change_slot(2, SlotChange::Spend { at: at(0), increment_us: 3 * SECOND }, at(0));
    delta.change_slot(2, SlotChange::Spend { at: at(1), increment_us: 3 * SECOND }, at(1));
    base.change_slot(3, SlotChange::Add { at: at(0), amount: 8.0, half_life_us: 10 * SECOND }, at(0));
    delta.change_slot(3, SlotChange::Add { at: at(10), amount: 1.0, half_life_us: 10 * SECOND }, at(10));
    let mut merged = base.clone();
    merged.merge(&Layout::new(plan(&[60])), &delta);
    assert_eq!(merged.slot(1), Some(Slot::Mark { until: at(50) }));
    assert_eq!(merged.slot(2), Some(Slot::Bucket { arrival: at(16) }), "both sides' spending counts");
    assert_eq!(merged.slot(3), Some(Slot::Evidence { amount: 5.0, at: at(10), half_life_us: 10 * SECOND }));
    let mut twice = base;
    twice.merge(&Layout::new(plan(&[60])), &EntityState::default());
    assert_eq!(twice.slot(1), Some(Slot::Mark { until: at(50) }));
}
