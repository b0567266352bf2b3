//! Extremes, deviations, latest values, histograms and matured counts beside their definitions.

use super::*;
use crate::kernel::plan::Scale;

const DAY: i64 = 86_400;
/// Reads of [`wide`] in order.
const MIN: usize = 0;
const MAX: usize = 1;
const STDDEV: usize = 2;
const LAST: usize = 3;
const SPEED: usize = 4;
const ENTROPY: usize = 5;
const TOP: usize = 6;
const OWN: usize = 7;
const RANK: usize = 8;
const Z: usize = 9;
const STEP: usize = 10;
const RATE: usize = 11;

/// One of each over that window; rates of labels matured by twice the window. Values: number, cell, latitude, longitude.
fn wide(seconds: u64) -> EntityPlan {
    let window = Duration::from_secs(seconds);
    let kinds = [
        AccumulatorKind::Extreme { filter: ANY, value: 0, window, greatest: false },
        AccumulatorKind::Extreme { filter: ANY, value: 0, window, greatest: true },
        AccumulatorKind::Moments { filter: ANY, value: 0, window },
        AccumulatorKind::Latest { filter: ANY, value: 0 },
        AccumulatorKind::Position { filter: ANY, latitude: 2, longitude: 3 },
        AccumulatorKind::Histogram { filter: ANY, value: 1, window, scale: Scale::Cells },
        AccumulatorKind::Histogram { filter: ANY, value: 0, window, scale: Scale::Magnitudes },
        AccumulatorKind::Histogram { filter: ANY, value: 1, window, scale: Scale::Successions },
        AccumulatorKind::Matured { filter: FAILED, window, delay: window * 2 },
        AccumulatorKind::Matured { filter: ANY, window, delay: window * 2 },
    ];
    EntityPlan {
        values: vec![201, 202, 203, 204],
        members: Vec::new(),
        accumulators: kinds.into_iter().zip(2000..).map(|(kind, tag)| Accumulator { tag, kind }).collect(),
        reads: vec![
            Read::Extreme(0),
            Read::Extreme(1),
            Read::Stddev(2),
            Read::Last(3),
            Read::Speed(4),
            Read::Entropy(5),
            Read::TopShare(5),
            Read::OwnShare(5),
            Read::QuantileRank(6),
            Read::Zscore(6),
            Read::TransitionRarity(7),
            Read::LabelRate { part: 8, whole: 9 },
        ],
        ..plan(&[seconds])
    }
}

/// A plan without successions, whose merge is exact only for parts that follow on each other.
fn exact_class() -> Layout {
    let mut plan = wide(3600);
    plan.accumulators.remove(7);
    plan.reads.clear();
    Layout::new(plan)
}

fn valued(time: i64, value: f64, cell: u8) -> Event {
    Event { values: smallvec::smallvec![value, f64::from(cell), 50.0, 8.0], members: smallvec::smallvec![], ..event(time) }
}

fn any_valued() -> impl Strategy<Value = Event> {
    (any_event(), 0..64_u8, prop::option::of((-90.0..90.0_f64, -180.0..180.0_f64))).prop_map(|(event, cell, place)| {
        let (latitude, longitude) = place.unwrap_or((f64::NAN, 0.0));
        Event { values: smallvec::smallvec![event.values[0], f64::from(cell), latitude, longitude], ..event }
    })
}

fn observe(state: &mut EntityState, layout: &Layout, event: &Event) -> Vec<f64> {
    let mut reads = Vec::new();
    state.observe(layout, event, &mut reads);
    reads
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever part three writers saw and in whatever order their states meet: equal to one that saw everything, to the last bit.
    #[test]
    fn merging_equals_seeing_everything(events in prop::collection::vec((any_valued(), 0..3_u8), 0..120)) {
        let layout = exact_class();
        let part = |of| applied(&layout, events.iter().filter(|(_, part)| *part == of).map(|(event, _)| event));
        let whole = applied(&layout, events.iter().map(|(event, _)| event));
        let [a, b, c] = [0, 1, 2].map(part);
        let mut left = a.clone();
        left.merge(&layout, &b);
        left.merge(&layout, &c);
        prop_assert!(left == whole, "{left:?}\n{whole:?}");
        let (mut right, mut inner) = (c, b);
        inner.merge(&layout, &a);
        right.merge(&layout, &inner);
        prop_assert!(right.encode(&layout) == whole.encode(&layout));
    }

    /// Steps of parts that follow on each other join exactly.
    #[test]
    fn steps_of_successive_deltas_are_exact(mut events in prop::collection::vec(any_valued(), 3..100), cut in 0..100_usize) {
        let layout = Layout::new(wide(86_400));
        events.retain(|event| event.weight == 1 && event.sign > 0 && event.filters & 1 != 0);
        // Of events at one moment the order is by their content: it cannot be cut anywhere.
        events.sort_by_key(|event| event.time);
        events.dedup_by_key(|event| event.time);
        let (early, late) = events.split_at(cut.min(events.len()));
        let mut merged = applied(&layout, early);
        merged.merge(&layout, &applied(&layout, late));
        let whole = applied(&layout, &events);
        prop_assert!(merged == whole, "{merged:?}\n{whole:?}");
    }

    #[test]
    fn what_is_written_is_read(
        events in prop::collection::vec(any_valued(), 0..150),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        last in any_valued(),
    ) {
        let layout = Layout::new(wide(600));
        let state = applied(&layout, &events);
        let mut blob = state.encode(&layout);
        let back = EntityState::decode(&layout, &blob).unwrap();
        prop_assert_eq!(&back, &state);
        prop_assert_eq!(&back.encode(&layout), &blob);
        for (at, byte) in &damage {
            let at = at.index(blob.len());
            blob[at] = *byte;
        }
        if let Ok(mut back) = EntityState::decode(&layout, &blob) {
            let reads = observe(&mut back, &layout, &last);
            back.merge(&layout, &state);
            prop_assert!(reads.iter().all(|read| !read.is_infinite()), "{reads:?}");
            prop_assert!(EntityState::decode(&layout, &back.encode(&layout)).is_ok());
        }
    }

    /// Up to 16 events in the window, in any order, whatever came before it: by definition.
    #[test]
    fn sparse_windows_are_exact(
        early in prop::collection::vec(0..DAY * SECOND, 0..60),
        mut recent in prop::collection::vec((0..59 * SECOND, 0..1000_u16, 0..64_u8), 1..15),
        own in (0..1000_u16, 0..64_u8),
    ) {
        let layout = Layout::new(wide(60));
        let end = START + (DAY + 60) * SECOND;
        recent.retain(|(back, _, _)| *back > 0);
        let mut events: Vec<Event> = early.iter().map(|time| valued(START + time, 1e6, 3)).collect();
        events.sort_by_key(|event| event.time);
        let value = |word: u16| f64::from(word) / 8.0;
        events.extend(recent.iter().map(|(back, word, cell)| valued(end - back, value(*word), *cell)));
        let mut state = applied(&layout, &events);
        let reads = observe(&mut state, &layout, &valued(end, value(own.0), own.1));
        let before: Vec<f64> = recent.iter().map(|(_, word, _)| value(*word)).collect();
        let after: Vec<f64> = before.iter().copied().chain([value(own.0)]).collect();
        let count = after.len() as f64;
        let mean = after.iter().sum::<f64>() / count;
        let spread = (after.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        prop_assert_eq!(reads[MIN], after.iter().copied().fold(f64::INFINITY, f64::min));
        prop_assert_eq!(reads[MAX], after.iter().copied().fold(0.0, f64::max));
        let spread = if after.len() < 2 { f64::NAN } else { spread };
        prop_assert!(near(reads[STDDEV], spread));
        let mut cells = [0.0_f64; 64];
        recent.iter().for_each(|(_, _, cell)| cells[usize::from(*cell)] += 1.0);
        prop_assert!(near(reads[OWN], cells[usize::from(own.1)] / before.len() as f64));
        cells[usize::from(own.1)] += 1.0;
        let entropy: f64 = cells.iter().filter(|cell| **cell > 0.0).map(|cell| -cell / count * (cell / count).log2()).sum();
        prop_assert!((reads[ENTROPY] - entropy).abs() < 1e-9);
        prop_assert_eq!(reads[TOP], cells.iter().copied().fold(0.0, f64::max) / count);
        let below: f64 = before.iter().map(|value| if *value < after[after.len() - 1] { 1.0 } else if *value == after[after.len() - 1] { 0.5 } else { 0.0 }).sum();
        prop_assert!(near(reads[RANK], below / before.len() as f64));
    }
}

/// Equal but for rounding, or both missing.
fn near(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9
}

/// Mean and greatest of some errors.
fn errors(errors: &[f64]) -> (f64, f64) {
    (errors.iter().sum::<f64>() / errors.len() as f64, errors.iter().copied().fold(0.0, f64::max))
}

#[test]
fn long_windows_are_within_their_bounds() {
    let (hour, tile) = (3600 * SECOND, 300 * SECOND);
    let layout = Layout::new(wide(3600));
    let (mut spreads, mut ranks, mut entropies, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for seed in 0..20 {
        let mut rng = seeded(seed);
        // Log-normal amounts of nine members, of which an eighth fails, 200 an hour.
        let mut events = steady(&mut rng, 1200, 18e6);
        for event in &mut events {
            let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            event.filters = 1 | u64::from(rng.random_bool(0.125)) << 1;
            event.values = smallvec::smallvec![(3.5 + 0.8 * normal).exp(), f64::from(rng.random_range(0..9_u8) * 7), f64::NAN, f64::NAN];
        }
        let mut state = EntityState::default();
        for (step, event) in events.iter().enumerate() {
            let reads = observe(&mut state, &layout, event);
            if step < 900 || step % 7 != 0 {
                continue;
            }
            let at = event.time.micros();
            let within = |from: i64, until: i64| {
                let inside = move |event: &&Event| event.time.micros() > from && event.time.micros() <= until;
                events[..=step].iter().filter(inside)
            };
            let values: Vec<f64> = within(at - hour, at).map(|event| event.values[0]).collect();
            let reached: Vec<f64> = within(at - hour - tile, at).map(|event| event.values[0]).collect();
            let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
            // At most one tile off.
            assert!(reads[MIN] <= least(&values) + 1e-4 && reads[MIN] >= least(&reached) - 1e-4);
            assert!(reads[MAX] >= greatest(&values) - 1e-4 && reads[MAX] <= greatest(&reached) + 1e-4);
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let spread = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
            spreads.push((reads[STDDEV] - spread).abs() / spread);
            let earlier = &values[..values.len() - 1];
            let below = earlier.iter().filter(|value| **value < event.values[0]).count() as f64;
            ranks.push((reads[RANK] - below / earlier.len() as f64).abs());
            let mut cells = [0.0_f64; 64];
            within(at - hour, at).for_each(|event| cells[event.values[1] as usize] += 1.0);
            let entropy: f64 = cells.iter().filter(|cell| **cell > 0.0).map(|cell| -cell / count * (cell / count).log2()).sum();
            entropies.push((reads[ENTROPY] - entropy).abs());
            let matured: Vec<&Event> = within(at - 3 * hour - 1, at - 2 * hour - 1).collect();
            let failed = matured.iter().filter(|event| event.filters & 2 != 0).count() as f64;
            rates.push((reads[RATE] - failed / matured.len() as f64).abs());
            assert!(reads[Z].abs() < 60.0 && reads[STEP] > 0.0 && reads[STEP] < 6.0, "{} {}", reads[Z], reads[STEP]);
            assert_eq!(reads[LAST], (events[step - 1].values[0] * 65_536.0).round() / 65_536.0);
        }
    }
    for (name, errors_of, mean_bound, bound) in [
        ("stddev, relative", &spreads, 0.02, 0.25),
        ("rank", &ranks, 0.01, 0.03),
        ("entropy, bits", &entropies, 0.01, 0.08),
        ("label rate", &rates, 0.01, 0.03),
    ] {
        let (mean, greatest) = errors(errors_of);
        println!("{name}: mean {mean:.4}, greatest {greatest:.4}");
        assert!(mean <= mean_bound && greatest <= bound, "{name}: mean {mean}, greatest {greatest}");
    }
}

#[test]
fn what_is_far_from_the_middle_has_a_great_z_and_outliers_do_not_move_it() {
    let layout = Layout::new(wide(86_400));
    let mut rng = seeded(4);
    let mut state = EntityState::default();
    for step in 0..300 {
        // One in five is a thousand times too great.
        let value = if step % 5 == 0 { 50_000.0 } else { 50.0 + 10.0 * (rng.random::<f64>() - 0.5) };
        observe(&mut state, &layout, &valued(START + step * 200 * SECOND, value, 1));
    }
    let time = START + 300 * 200 * SECOND;
    let z = |value: f64| observe(&mut state.clone(), &layout, &valued(time, value, 1))[Z];
    assert!(z(50.0).abs() < 1.0, "{}", z(50.0));
    assert!(z(100.0) > 5.0 && z(5.0) < -5.0, "{} {}", z(100.0), z(5.0));
}

#[test]
fn a_baseline_follows_what_is_recent() {
    let layout = Layout::new(wide(86_400));
    let mut state = EntityState::default();
    for step in 0..200 {
        let value = if step < 100 { 10.0 } else { 40.0 };
        observe(&mut state, &layout, &valued(START + step * 400 * SECOND, value, 1));
    }
    let reads = observe(&mut state, &layout, &valued(START + 200 * 400 * SECOND, 40.0, 1));
    assert!(reads[Z].abs() < 1.5, "{}", reads[Z]);
}

#[test]
fn a_step_never_seen_is_rarer_than_a_usual_one() {
    let layout = Layout::new(wide(86_400));
    let mut state = EntityState::default();
    for step in 0..60 {
        observe(&mut state, &layout, &valued(START + step * 60 * SECOND, 1.0, [1, 2, 3][step as usize % 3]));
    }
    // The latest was in cell 3, on which 1 follows.
    let time = START + 60 * 60 * SECOND;
    let rarity = |cell| observe(&mut state.clone(), &layout, &valued(time, 1.0, cell))[STEP];
    assert!(rarity(1) < 0.1, "{}", rarity(1));
    assert!(rarity(2) > 3.0, "{}", rarity(2));
    let first = observe(&mut EntityState::default(), &layout, &valued(START, 1.0, 1));
    assert!(first[STEP].is_nan());
}

#[test]
fn a_journey_has_its_speed() {
    let layout = Layout::new(wide(60));
    let place = |time: i64, latitude: f64, longitude: f64| Event {
        values: smallvec::smallvec![1.0, 0.0, latitude, longitude],
        ..valued(time, 1.0, 0)
    };
    let mut state = EntityState::default();
    assert!(observe(&mut state, &layout, &place(START, 52.52, 13.405))[SPEED].is_nan());
    // Berlin to Paris, 878 km, in an hour; an event without a place does not move anybody.
    observe(&mut state, &layout, &place(START + SECOND, f64::NAN, 0.0));
    let paris = observe(&mut state, &layout, &place(START + 3600 * SECOND, 48.8566, 2.3522))[SPEED];
    assert!((paris - 878.0).abs() < 6.0, "{paris}");
    // Beyond the ring the latest place is still known.
    for step in 0..30 {
        observe(&mut state, &layout, &place(START + (3601 + step) * SECOND, f64::NAN, 0.0));
    }
    let back = observe(&mut state, &layout, &place(START + 7200 * SECOND, 52.52, 13.405))[SPEED];
    assert!((back - 878.0).abs() < 6.0, "{back}");
    assert!(observe(&mut state, &layout, &place(START + 7201 * SECOND, 91.0, 0.0))[SPEED].is_nan(), "no such place");
}

#[test]
fn a_label_counts_with_its_transaction_and_only_once_it_can_have_come() {
    let layout = Layout::new(wide(60));
    let mut state = EntityState::default();
    // Ten payments, one a minute; labels come two hours later and apply at the payment's time.
    (0..10).for_each(|step| drop(observe(&mut state, &layout, &valued(START + step * 60 * SECOND, 1.0, 1))));
    let rate = |state: &EntityState, minutes: i64| state.read(&layout, None, Timestamp::from_micros(START + minutes * 60 * SECOND))[RATE];
    // At minute 9 the window is minutes 6 to 7: one payment, no label yet.
    assert_eq!(rate(&state, 9), 0.0);
    let label = |sign: i8| Event { filters: 2, sign, ..valued(START + 9 * 60 * SECOND, f64::NAN, 1) };
    state.apply(&layout, &label(1));
    assert_eq!(rate(&state, 9), 0.0, "the payment has not matured");
    assert_eq!(rate(&state, 12), 1.0);
    assert!(rate(&state, 13).is_nan(), "nothing has matured");
    state.apply(&layout, &label(-1));
    assert_eq!(rate(&state, 12), 0.0, "a label taken back");
}

#[test]
fn windows_exclude_their_beginning_and_late_events_count_at_their_time() {
    let layout = Layout::new(wide(60));
    let mut state = applied(&layout, &[valued(START, 900.0, 1), valued(START + 1, 5.0, 2)]);
    let reads = observe(&mut state, &layout, &valued(START + 60 * SECOND, 7.0, 3));
    assert_eq!((reads[MAX], reads[MIN], reads[LAST]), (7.0, 5.0, 5.0));
    // Late by 30 s: it enters the window, but is not the latest.
    let reads = observe(&mut state, &layout, &valued(START + 30 * SECOND, 80.0, 3));
    assert_eq!((reads[MAX], reads[LAST]), (80.0, 7.0));
    assert_eq!(observe(&mut state, &layout, &valued(START + 61 * SECOND, 1.0, 3))[LAST], 7.0);
}

#[test]
fn aggregates_and_huge_values_do_no_harm() {
    let layout = Layout::new(wide(60));
    let mut state = EntityState::default();
    state.apply(&layout, &Event { weight: 500, ..valued(START, 1e30, 1) });
    let reads = observe(&mut state, &layout, &valued(START, 2.0, 1));
    assert_eq!((reads[MIN], reads[MAX]), (2.0, 2.0), "an aggregate is no value");
    for step in 0..100 {
        let value = if step % 2 == 0 { f64::INFINITY } else { f64::NEG_INFINITY };
        observe(&mut state, &layout, &valued(i64::MAX, value, 1));
    }
    let reads = observe(&mut state, &layout, &valued(i64::MIN, 1.0, 1));
    assert!((reads[STDDEV] / 4_294_967_296.0 - 1.0).abs() < 0.1, "{}", reads[STDDEV]);
    assert_eq!((reads[MIN], reads[MAX]), (-4_294_967_296.0, 4_294_967_296.0));
    assert!(reads.iter().all(|read| !read.is_infinite()), "{reads:?}");
}

#[test]
fn a_small_spread_beside_a_great_mean_is_told() {
    let layout = Layout::new(wide(3600));
    let mut state = EntityState::default();
    for step in 0..400 {
        let reads = observe(&mut state, &layout, &valued(START + step * SECOND, 1e9 + (step % 2) as f64, 1));
        assert!(step < 3 || (reads[STDDEV] - 0.5).abs() < 0.1, "{step}: {}", reads[STDDEV]);
    }
}
