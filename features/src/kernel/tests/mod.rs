//! Properties of the kernel, each beside an exact reference that keeps every event.

mod accuracy;
mod blobs;
mod laws;
mod population;
mod reads;
mod spreads;

use std::time::Duration;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::plan::{Accumulator, AccumulatorKind, EntityPlan, GapStat, Read};
use super::{EntityState, Layout};
use crate::event::Event;
use crate::time::Timestamp;

/// 2026-01-01, microseconds.
pub(super) const START: i64 = 1_767_225_600_000_000;
pub(super) const SECOND: i64 = 1_000_000;
/// The windows of the default schema, seconds.
pub(super) const WINDOWS: [u64; 7] = [10, 60, 600, 3_600, 86_400, 604_800, 2_592_000];

const ANY: u8 = 0;
const FAILED: u8 = 1;

/// A plan with each kind of accumulator and of read; windows as given.
pub(super) fn plan(windows: &[u64]) -> EntityPlan {
    let mut plan = EntityPlan {
        name: "address".into(),
        ttl: Duration::from_secs(40 * 86_400),
        max_bytes: 64 << 10,
        filters: vec![101, 102],
        values: vec![201],
        members: vec![301],
        accumulators: Vec::new(),
        reads: Vec::new(),
    };
    let horizon = Duration::from_secs(*windows.iter().max().unwrap());
    let add = |plan: &mut EntityPlan, kind| {
        let id = u16::try_from(plan.accumulators.len()).unwrap();
        plan.accumulators.push(Accumulator { tag: 1000 + u64::from(id), kind });
        id
    };
    let seen = add(&mut plan, AccumulatorKind::Seen { filter: ANY });
    let paths = add(&mut plan, AccumulatorKind::Distinct { filter: ANY, member: 0, horizon });
    plan.reads.extend([Read::Age(seen), Read::SinceLast(seen), Read::Novelty(paths)]);
    for window in windows.iter().copied().map(Duration::from_secs) {
        let all = add(&mut plan, AccumulatorKind::Count { filter: ANY, window });
        let failed = add(&mut plan, AccumulatorKind::Count { filter: FAILED, window });
        let sum = add(&mut plan, AccumulatorKind::Sum { filter: ANY, value: 0, window });
        let gaps = add(&mut plan, AccumulatorKind::Interarrival { filter: ANY, window });
        plan.reads.extend([
            Read::Count(all),
            Read::Count(failed),
            Read::Sum(sum),
            Read::Mean { sum, count: all },
            Read::Ratio { part: failed, whole: all },
            Read::Distinct { of: paths, window },
            Read::Interarrival { of: gaps, stat: GapStat::GeometricMean },
            Read::Interarrival { of: gaps, stat: GapStat::LogStddev },
        ]);
    }
    plan
}

/// Reads before those of the windows, and reads a window.
pub(super) const HEAD_READS: usize = 3;
pub(super) const WINDOW_READS: usize = 8;

pub(super) fn event(time: i64) -> Event {
    Event {
        time: Timestamp::from_micros(time),
        weight: 1,
        sign: 1,
        filters: 1,
        values: smallvec::smallvec![1.0],
        members: smallvec::smallvec![Some(1)],
        proves: false,
    }
}

pub(super) fn seeded(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Poisson arrivals with that mean gap, from `START`.
pub(super) fn steady(rng: &mut ChaCha8Rng, count: usize, gap: f64) -> Vec<Event> {
    let mut time = START as f64;
    (0..count)
        .map(|_| {
            time += -gap * (1.0 - rng.random::<f64>()).ln();
            let mut event = event(time as i64);
            event.filters |= u64::from(rng.random_bool(0.3)) << 1;
            event.values[0] = f64::from(rng.random_range(0..1000_u32)) / 4.0;
            event.members[0] = Some(u64::from(rng.random_range(0..50_u32)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            event
        })
        .collect()
}

pub(super) fn applied<'a>(layout: &Layout, events: impl IntoIterator<Item = &'a Event>) -> EntityState {
    let mut state = EntityState::default();
    events.into_iter().for_each(|event| {
        state.apply(layout, event);
    });
    state
}

/// What the reads of `plan(windows)` are, by definition, after all events: no tiles, no ring. `event` is the last one.
pub(super) fn exact(windows: &[u64], events: &[Event], at: i64) -> Vec<f64> {
    let mut out = vec![f64::NAN; HEAD_READS];
    for window in windows.iter().map(|seconds| i64::try_from(*seconds).unwrap() * SECOND) {
        let inside = |event: &&Event| event.time.micros() > at - window;
        let weight = |event: &Event| f64::from(event.weight) * f64::from(event.sign);
        let count: f64 = events.iter().filter(inside).map(weight).sum();
        let failed: f64 = events.iter().filter(inside).filter(|event| event.filters & 2 != 0).map(weight).sum();
        let sum: f64 = events.iter().filter(inside).map(|event| weight(event) * event.values[0]).sum();
        let single = |event: &&Event| event.weight == 1 && event.sign > 0;
        let members: std::collections::BTreeSet<_> =
            events.iter().filter(inside).filter(single).filter_map(|event| event.members[0]).collect();
        let mut times: Vec<i64> = events.iter().filter(single).map(|event| event.time.micros()).collect();
        times.sort_unstable();
        let gaps: Vec<f64> =
            times.windows(2).filter(|pair| pair[1] > at - window).map(|pair| ((pair[1] - pair[0]) as f64 / 1e6).max(1e-3).ln()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let known = |value: f64| if gaps.len() < 2 { f64::NAN } else { value };
        out.extend([
            count,
            failed,
            sum,
            if count > 0.0 { sum / count } else { f64::NAN },
            if count > 0.0 { failed / count } else { f64::NAN },
            members.len() as f64,
            known(mean.exp()),
            known(squares.sqrt()),
        ]);
    }
    out
}

/// Equal, or both missing, up to the fixed point of logarithms.
pub(super) fn same(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-3 * (1.0 + a.abs().max(b.abs()))
}

/// Events of all sorts within a few days.
pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let sort = prop_oneof![8 => Just((1_u32, 1_i8)), 1 => (2..50_u32).prop_map(|weight| (weight, 1)), 1 => Just((1, -1))];
    let time = prop_oneof![0..60 * SECOND, 0..4 * 86_400 * SECOND];
    (time, sort, 1..4_u64, prop_oneof![4 => (-1e6..1e6_f64).prop_map(|v| (v * 8.0).round() / 8.0), 1 => Just(f64::NAN)], 0..200_u64)
        .prop_map(|(time, (weight, sign), filters, value, member)| Event {
            time: Timestamp::from_micros(START + time),
            weight,
            sign,
            filters,
            values: smallvec::smallvec![value],
            members: smallvec::smallvec![(member % 7 != 0).then_some(member.wrapping_mul(0x9e37_79b9_7f4a_7c15))],
            proves: false,
        })
}
