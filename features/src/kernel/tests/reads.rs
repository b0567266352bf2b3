//! What each read says, on histories short enough to check by hand.

use super::*;

fn observe(state: &mut EntityState, layout: &Layout, event: &Event) -> Vec<f64> {
    let mut reads = Vec::new();
    state.observe(layout, event, &mut reads);
    reads
}

#[test]
fn a_first_event_is_counted_and_has_no_past() {
    let layout = Layout::new(plan(&[60]));
    let reads = observe(&mut EntityState::default(), &layout, &event(START));
    let [age, since, novelty, count, failed, sum, mean, ratio, distinct, gap, spread] = reads[..] else { panic!("{reads:?}") };
    assert!(age.is_nan() && since.is_nan() && gap.is_nan() && spread.is_nan());
    assert_eq!([novelty, count, failed, sum, mean, ratio, distinct], [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
}

#[test]
fn what_goes_before_excludes_the_event_and_what_goes_after_includes_it() {
    let layout = Layout::new(plan(&[60]));
    let mut state = applied(&layout, &[event(START), event(START + 4 * SECOND)]);
    let reads = observe(&mut state, &layout, &Event { filters: 3, ..event(START + 10 * SECOND) });
    assert_eq!(reads[..3], [10.0, 6.0, 0.0], "age, since last, novelty");
    assert_eq!(reads[3..9], [3.0, 1.0, 3.0, 1.0, 1.0 / 3.0, 1.0]);
    assert!(reads[9].is_nan(), "one gap before the event is not enough");
    let reads = observe(&mut state, &layout, &event(START + 11 * SECOND));
    assert!(same(reads[9], (4.0_f64 * 6.0).sqrt()), "{}", reads[9]);
}

#[test]
fn a_late_event_enters_its_own_time_and_is_read_at_the_high_water_mark() {
    let layout = Layout::new(plan(&[10, 60]));
    let mut state = applied(&layout, &[event(START + 100 * SECOND)]);
    let late = Event { values: smallvec::smallvec![5.0], ..event(START + 70 * SECOND) };
    let mut reads = Vec::new();
    assert_eq!(state.observe(&layout, &late, &mut reads), 30.0);
    assert_eq!(reads[1], 0.0, "the latest event is at the high-water mark");
    assert_eq!(reads[HEAD_READS], 1.0, "outside of 10 s");
    assert_eq!(reads[HEAD_READS + WINDOW_READS], 2.0, "inside of 60 s");
    assert_eq!(reads[HEAD_READS + WINDOW_READS + 2], 6.0);
    assert_eq!(state.high_water(), Some(Timestamp::from_micros(START + 100 * SECOND)));
}

#[test]
fn a_window_excludes_its_very_beginning() {
    let layout = Layout::new(plan(&[10]));
    let mut state = applied(&layout, &[event(START), event(START + 1)]);
    assert_eq!(observe(&mut state, &layout, &event(START + 10 * SECOND))[HEAD_READS], 2.0);
}

#[test]
fn an_aggregate_enters_counts_and_sums_only() {
    let layout = Layout::new(plan(&[60]));
    let mut state = EntityState::default();
    let aggregate = Event { weight: 500, filters: 3, members: smallvec::smallvec![Some(9)], ..event(START) };
    assert!(state.apply(&layout, &aggregate));
    let reads = observe(&mut state, &layout, &event(START + SECOND));
    assert!(reads[0].is_nan(), "no first event: {reads:?}");
    assert_eq!(reads[3..8], [501.0, 500.0, 501.0, 1.0, 500.0 / 501.0]);
    assert_eq!(reads[8], 1.0, "its member is not counted");
}

#[test]
fn a_label_taken_back_leaves_nothing() {
    let layout = Layout::new(plan(&[60]));
    let mut state = EntityState::default();
    state.apply(&layout, &Event { filters: 2, ..event(START) });
    state.apply(&layout, &Event { filters: 2, sign: -1, ..event(START) });
    assert_eq!(state.read(&layout, None, Timestamp::from_micros(START))[HEAD_READS + 1], 0.0);
    for step in 0..20 {
        state.apply(&layout, &event(START + step * SECOND));
    }
    assert_eq!(state.read(&layout, None, Timestamp::from_micros(START))[HEAD_READS + 1], 0.0);
}

#[test]
fn nothing_without_a_bit_a_weight_or_above_a_tombstone_is_applied() {
    let layout = Layout::new(plan(&[60]));
    let mut state = EntityState::default();
    assert!(!state.apply(&layout, &Event { filters: 1 << 40, ..event(START) }));
    assert!(!state.apply(&layout, &Event { weight: 0, ..event(START) }));
    assert!(state.is_empty());
    state.bury(Timestamp::from_micros(START));
    assert!(!state.apply(&layout, &event(START)));
    assert!(state.apply(&layout, &event(START + 1)));
}

#[test]
fn sums_and_weights_saturate() {
    let layout = Layout::new(plan(&[60]));
    let mut state = EntityState::default();
    let huge = Event { weight: u32::MAX, values: smallvec::smallvec![f64::INFINITY], ..event(i64::MAX) };
    for _ in 0..3 {
        state.apply(&layout, &huge);
    }
    state.apply(&layout, &event(i64::MIN));
    let reads = state.read(&layout, None, Timestamp::from_micros(i64::MAX));
    assert_eq!(reads[HEAD_READS], 3.0 * f64::from(u32::MAX));
    assert_eq!(reads[HEAD_READS + 2], i64::MAX as f64 / 65_536.0);
}

#[test]
fn novelty_asks_whatever_filter_the_event_passes() {
    let layout = Layout::new(plan(&[60]));
    let mut state = applied(&layout, &[Event { members: smallvec::smallvec![Some(5)], ..event(START) }]);
    let other = Event { filters: 2, members: smallvec::smallvec![Some(5)], ..event(START + SECOND) };
    assert_eq!(observe(&mut state, &layout, &other)[2], 0.0);
    let forgotten = Event { members: smallvec::smallvec![Some(5)], ..event(START + 61 * SECOND) };
    assert_eq!(observe(&mut state, &layout, &forgotten)[2], 1.0);
    let without = Event { members: smallvec::smallvec![None], ..event(START + 62 * SECOND) };
    assert!(observe(&mut state, &layout, &without)[2].is_nan());
}

#[test]
fn a_page_knows_what_is_new_but_not_what_is_known() {
    let layout = Layout::new(plan(&[3600]));
    let mut rng = seeded(5);
    let mut state = EntityState::default();
    let (mut told, mut untold) = (0, 0);
    for step in 0..300 {
        let member = rng.random::<u64>();
        let reads = observe(&mut state, &layout, &Event { members: smallvec::smallvec![Some(member)], ..event(START + step) });
        if step >= 100 {
            if reads[2].is_nan() { untold += 1 } else { told += 1 }
        }
    }
    let known = observe(&mut state, &layout, &Event { members: smallvec::smallvec![Some(rng.random())], ..event(START + 300) });
    assert!(known[2].is_nan() || known[2] == 1.0);
    assert!(told > 2 * untold / 2 && untold > 0, "{told} told, {untold} not");
}
