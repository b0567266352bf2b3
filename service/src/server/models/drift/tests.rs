use super::*;
use telltale_models::{Calibrated, ModelScore, Role};

const MINUTE_US: i64 = 60_000_000;

fn scores(version: u32, raw: f64) -> Scores {
    let calibrated = Calibrated::PValue(0.5);
    Scores { parts: vec![ModelScore { model: "odd".into(), version, raw, calibrated, role: Role::Champion }], ..Scores::default() }
}

fn row(values: [f64; 2]) -> FeatureVector {
    FeatureVector { values: values.to_vec().into() }
}

/// A row of an even distribution that is missing its second value once in ten.
fn usual(at: u32) -> FeatureVector {
    row([f64::from(at.wrapping_mul(7_919) % 1_000), if at.is_multiple_of(10) { f64::NAN } else { f64::from(at % 7) }])
}

/// Watches `odd` version 1 with two inputs and this reference.
fn watching(one_in: u64, reference: Option<Profile>) -> Drift {
    let drift = Drift::new(one_in, 60);
    drift.watches.store(true, Ordering::Relaxed);
    let names = vec!["a".to_owned(), "b".to_owned()];
    let reference = match reference {
        Some(profile) => Reference::Known { profile: Arc::new(profile), site: false },
        None => Reference::Collecting { names, numbers: Vec::new(), raws: Vec::new() },
    };
    let features = vec![FeatureId(0), FeatureId(1)];
    drift.tracked.lock().insert("odd".into(), Tracked { version: 1, features, reference, parts: VecDeque::new() });
    drift
}

fn trained() -> Profile {
    let numbers: Vec<f64> = (0..5_000).flat_map(|at| usual(at).values.to_vec()).collect();
    profile_of(&["a".to_owned(), "b".to_owned()], &numbers, &(0..5_000).map(|at| f64::from(at % 100)).collect::<Vec<_>>())
}

fn name(feature: FeatureId) -> String {
    ["a", "b"][feature.index()].to_owned()
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_micros(minute * MINUTE_US)
}

fn only(drift: &Drift, minute: i64) -> v1::ModelDrift {
    drift.report("", at(minute), name).remove(0)
}

#[test]
fn the_same_distribution_is_stable_and_another_is_named_first() {
    let drift = watching(1, Some(trained()));
    assert_eq!(only(&drift, 5).word, "too few rows");
    for row in 0..2_000 {
        drift.add(&usual(row * 3), &scores(1, f64::from(row % 100)), at(5));
    }
    let stable = only(&drift, 5);
    assert_eq!(
        (stable.reference.as_str(), stable.reference_rows, stable.rows, stable.word.as_str()),
        ("the training window", 5_000, 2_000, "stable")
    );
    assert!(stable.features.iter().all(|feature| feature.word == "stable" && feature.stability_index < 0.1), "{stable:?}");
    let b = stable.features.iter().find(|feature| feature.feature == "b").unwrap();
    assert!((b.missing_then - 0.1).abs() < 1e-9 && (b.missing_now - 0.1).abs() < 1e-9, "{b:?}");
    // The second feature goes missing, the score rises.
    for row in 0..4_000 {
        drift.add(&self::row([usual(row).get(FeatureId(0)), f64::NAN]), &scores(1, 200.0), at(20));
    }
    let shifted = only(&drift, 20);
    assert_eq!(
        (shifted.features[0].feature.as_str(), shifted.features[0].word.as_str(), shifted.word.as_str()),
        ("b", "shifted", "shifted")
    );
    assert!((shifted.features[0].missing_now - 4_200.0 / 6_000.0).abs() < 1e-9 && shifted.features[1].word == "stable", "{shifted:?}");
    // Whoever asks for another model gets nothing, an hour later all of it is gone.
    assert!(drift.report("even", at(20), name).is_empty());
    assert_eq!((only(&drift, 81).rows, only(&drift, 81).word.as_str()), (0, "too few rows"));
}

#[test]
fn a_score_is_judged_by_how_many_scores_there_are() {
    let few = Bins::of((0..400).map(|at| f64::from(at % 100)));
    let drift = watching(1, Some(Profile { score: few, ..trained() }));
    for row in 0..2_000 {
        drift.add(&usual(row * 3), &scores(1, f64::from(row % 100)), at(5));
    }
    let report = only(&drift, 5);
    assert_eq!(report.word, "too few rows");
    assert!(report.features.iter().all(|feature| feature.word == "stable"), "{report:?}");
    // Another instance kept its first rows before: they are the reference, and what was counted by other bins is gone.
    drift.refer("odd", 1, trained());
    let report = only(&drift, 5);
    assert_eq!((report.reference.as_str(), report.rows), ("the first rows of this site", 0));
}

#[test]
fn the_oldest_part_of_the_window_goes_as_time_passes() {
    let drift = watching(1, Some(trained()));
    for minute in 0..120 {
        drift.add(&usual(1), &scores(1, 1.0), at(minute));
        assert!(drift.tracked.lock().values().all(|tracked| tracked.parts.len() <= PARTS as usize));
    }
    assert_eq!(only(&drift, 119).rows, 60);
    // A row of another version is not this one's.
    drift.add(&usual(1), &scores(2, 1.0), at(119));
    assert_eq!(only(&drift, 119).rows, 60);
}

#[test]
fn without_a_profile_the_first_rows_of_the_site_are_the_reference() {
    let drift = watching(1, None);
    let mut kept = Vec::new();
    for at_row in 0..FIRST_ROWS as u32 {
        assert!(kept.is_empty());
        kept.extend(drift.add(&usual(at_row), &scores(1, f64::from(at_row % 100)), at(1)));
    }
    let first = kept.remove(0);
    assert_eq!((&*first.model, first.version, first.profile.rows), ("odd", 1, FIRST_ROWS as u64));
    for at_row in 0..1_000 {
        assert!(drift.add(&usual(at_row), &scores(1, f64::from(at_row % 100)), at(2)).is_empty());
    }
    let report = only(&drift, 2);
    assert_eq!((report.reference.as_str(), report.rows, report.word.as_str()), ("the first rows of this site", 1_000, "stable"));
}

#[test]
fn one_row_in_so_many_is_taken() {
    let drift = watching(10, Some(trained()));
    assert_eq!((0..1_000).filter(|_| drift.wants()).count(), 100);
}
