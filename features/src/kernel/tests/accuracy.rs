//! Error bounds of windows and of distinct counts.

use super::*;

/// Relative errors of the counts of one window: mean and 99th percentile.
fn errors(window: u64, expected: f64, seed: u64) -> (f64, f64) {
    let layout = Layout::new(plan(&[window]));
    let mut errors = Vec::new();
    for round in 0..20 {
        let mut rng = seeded(seed + round);
        let events = steady(&mut rng, (expected * 4.0) as usize, window as f64 * 1e6 / expected);
        let mut state = EntityState::default();
        for (step, event) in events.iter().enumerate() {
            state.apply(&layout, event);
            // Once the window is full, ask now and then, at odd moments.
            if step as f64 > expected * 1.5 && step % 3 == 0 {
                let at = event.time.micros() + rng.random_range(0..(window as f64 * 1e6 / expected) as i64);
                let truth = events[..=step].iter().filter(|event| event.time.micros() > at - window as i64 * SECOND).count();
                let read = state.read(&layout, None, Timestamp::from_micros(at))[HEAD_READS];
                errors.push((read - truth as f64).abs() / (truth as f64).max(1.0));
            }
        }
    }
    errors.sort_by(f64::total_cmp);
    (errors.iter().sum::<f64>() / errors.len() as f64, errors[errors.len() * 99 / 100])
}

#[test]
fn steady_windows_of_a_hundred_events_are_within_one_percent() {
    for window in WINDOWS {
        for expected in [115.0, 400.0] {
            let (mean, p99) = errors(window, expected, window);
            println!("window {window} s, {expected} events: mean {:.2} %, p99 {:.2} %", mean * 100.0, p99 * 100.0);
            assert!(mean <= 0.01, "window {window} s, {expected} events: mean {mean}");
            assert!(p99 <= 0.04, "window {window} s, {expected} events: p99 {p99}");
        }
    }
}

#[test]
fn middling_windows_are_within_one_event() {
    for window in WINDOWS {
        for expected in [20.0, 50.0, 90.0] {
            let (mean, p99) = errors(window, expected, window + 7);
            println!("window {window} s, {expected} events: mean {:.2} events, p99 {:.2}", mean * expected, p99 * expected);
            assert!(mean * expected <= 1.0 && p99 * expected <= 4.0, "window {window} s, {expected}: {mean} {p99}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Up to 16 events of any kind in the window: exact, whatever came before it and however late it came.
    #[test]
    fn sparse_windows_are_exact(
        early in prop::collection::vec(0..86_400 * SECOND, 0..60),
        recent in prop::collection::vec((0..59 * SECOND, any::<bool>(), 0..20_u64), 0..16),
        order in any::<u64>(),
    ) {
        let layout = Layout::new(plan(&[60]));
        let end = START + 86_460 * SECOND;
        let mut events: Vec<Event> = early.iter().map(|time| event(START + time)).collect();
        events.extend(recent.iter().map(|(back, failed, member)| Event {
            filters: 1 | u64::from(*failed) << 1,
            members: smallvec::smallvec![Some(*member)],
            values: smallvec::smallvec![*member as f64 / 2.0],
            ..event(end - back)
        }));
        // Early events come in order, so that gaps between spilled ones are known; the recent ones in any order.
        let split = early.len();
        events[..split].sort_by_key(|event| event.time);
        let mut rng = seeded(order);
        for at in (split + 1..events.len()).rev() {
            events.swap(at, rng.random_range(split..=at));
        }
        let state = applied(&layout, &events);
        let read = state.read(&layout, None, Timestamp::from_micros(end));
        let truth = exact(&[60], &events, end);
        for (at, (read, truth)) in read.iter().zip(&truth).enumerate().skip(HEAD_READS) {
            prop_assert!(same(*read, *truth), "read {at}: {read}, exact {truth}");
        }
    }
}

#[test]
fn distinct_is_exact_to_64_and_within_5_percent_to_a_thousand_and_8_beyond() {
    let layout = Layout::new(plan(&[86_400]));
    for count in [1, 16, 64, 100, 300, 600, 1000, 1200, 1500, 3000, 10_000, 30_000] {
        let mut squares = 0.0;
        let rounds = if count > 1000 { 60 } else { 100 };
        for round in 0..rounds {
            let mut rng = seeded(1000 * count + round);
            let mut state = EntityState::default();
            for step in 0..count {
                let mut event = event(START + i64::try_from(step).unwrap() * SECOND / 10);
                event.members[0] = Some(rng.random());
                state.apply(&layout, &event);
            }
            let at = state.high_water().unwrap();
            let read = state.read(&layout, None, at)[HEAD_READS + 5];
            squares += ((read - count as f64) / count as f64).powi(2);
        }
        let rmse = (squares / rounds as f64).sqrt();
        println!("{count} members: {:.2} % RMSE", rmse * 100.0);
        if count <= 64 {
            assert_eq!(rmse, 0.0, "{count} members");
        } else if count <= 1000 {
            assert!(rmse <= 0.05, "{count} members: {rmse}");
        } else {
            assert!(rmse <= 0.08, "{count} members: {rmse}");
        }
    }
}

#[test]
fn a_sliding_page_follows_its_window() {
    let layout = Layout::new(plan(&[600, 3600]));
    let mut rng = seeded(3);
    let mut state = EntityState::default();
    // One new member a second for two hours: 600 in the short window, 3,600 in the long one, beyond what a page alone can tell.
    for step in 0..7200 {
        let mut event = event(START + step * SECOND);
        event.members[0] = Some(rng.random());
        state.apply(&layout, &event);
    }
    let read = state.read(&layout, None, state.high_water().unwrap());
    let (short, long) = (read[HEAD_READS + 5], read[HEAD_READS + WINDOW_READS + 5]);
    assert!((short - 600.0).abs() < 90.0, "{short}");
    assert!((long - 3600.0).abs() < 720.0, "{long}");
}
