//! GCRA against its definition: bursts, refill, independence.

use super::*;

fn limit(rate: u32, period_ms: u32, burst: u32) -> Mitigation {
    Mitigation { rate, period_ms, burst, ..Mitigation::default() }
}

#[test]
fn a_bucket_refills_at_its_rate() {
    let (buckets, key, limit) = (Buckets::default(), Some(EntityKey([1; 16])), limit(2, 1_000, 3));
    let start = crate::clock::now();
    let at = |ms| buckets.take(key, &limit, start + Duration::from_millis(ms));
    assert_eq!([at(0), at(0), at(0)], [Ok(()); 3]);
    assert_eq!(at(0), Err(Duration::from_millis(500)));
    assert_eq!(at(499), Err(Duration::from_millis(1)));
    assert_eq!(at(500), Ok(()));
    assert!(at(500).is_err());
    assert_eq!([at(60_000), at(60_000), at(60_000)], [Ok(()); 3], "idle time fills it to its burst and no further");
    assert!(at(60_000).is_err());
}

#[test]
fn nothing_is_admitted_without_a_rate_and_held_limits_end() {
    let (buckets, key) = (Buckets::default(), EntityKey([1; 16]));
    let start = crate::clock::now();
    assert!(buckets.take(Some(key), &limit(0, 1_000, 1), start).is_err());
    assert!(buckets.take(Some(key), &limit(1, 0, 1), start).is_err());
    assert!(buckets.take(None, &limit(1, 1_000, 1), start).is_err());
    buckets.hold(key, &limit(1, 60_000, 1), start, Some(Duration::from_secs(10)));
    assert_eq!(buckets.take_held([key].into_iter(), start), Ok(()));
    assert!(buckets.take_held([key].into_iter(), start).is_err());
    assert_eq!(buckets.take_held([key].into_iter(), start + Duration::from_secs(10)), Ok(()));
    buckets.sweep(start + Duration::from_secs(100));
    assert!(!buckets.holds_any());
}
