use super::*;
use crate::score::{ModelScore, Role, Scores};
use crate::{Bundle, Lane};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use telltale_features::entity::{EntityId, EntityKey, EntityType, Subject, Subjects};

fn monotone(table: &CalibrationTable, low: f64, high: f64) {
    let rises = table.meaning() == Meaning::Probability;
    let mut last = table.value(low);
    for step in 0..=2000 {
        let value = table.value(low + (high - low) * f64::from(step) / 2000.0);
        assert!((0.0..=1.0).contains(&value));
        assert!(if rises { value >= last } else { value <= last }, "{value} after {last}");
        last = value;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn tables_are_monotone_and_within_bounds(
        raws in prop::collection::vec(prop_oneof![-5.0..5.0_f64, Just(0.0), Just(1.0), Just(1e-300)], 2..600),
        labels in prop::collection::vec(any::<bool>(), 600),
    ) {
        let table = conformal(&raws).unwrap();
        prop_assert!(table.knots.len() <= MAX_KNOTS);
        monotone(&table, -8.0, 8.0);
        let rows: Vec<_> = raws.iter().zip(&labels).map(|(raw, label)| (*raw, *label, 1.0)).collect();
        if let Ok(table) = isotonic(&rows) {
            prop_assert!(table.knots.len() <= MAX_KNOTS);
            monotone(&table, -8.0, 8.0);
        }
        prop_assert_eq!(CalibrationTable::from_json(&table.to_json()).unwrap(), table);
    }
}

#[test]
fn p_values_of_fresh_traffic_are_uniform_and_the_tail_is_right() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut exponential = || -(1.0 - rng.random::<f64>()).ln();
    let table = conformal(&(0..20_000).map(|_| exponential()).collect::<Vec<_>>()).unwrap();
    let fresh: Vec<f64> = (0..200_000).map(|_| table.value(exponential())).collect();
    for level in [0.5, 0.1, 0.01, 0.001] {
        let share = fresh.iter().filter(|p| **p <= level).count() as f64 / fresh.len() as f64;
        assert!((share / level - 1.0).abs() < 0.25, "{level}: {share}");
    }
    // Beyond everything seen: the true share at 14 is 8.3e-7.
    let p = table.value(14.0);
    assert!((5e-8..5e-6).contains(&p), "{p}");
}

/// Scores that cannot exceed 1, as a forest's: what lies above all of the sample has no smaller p-value than it should, and the value falls on.
#[test]
fn a_bounded_sample_tells_scores_beyond_it_apart() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let mut bounded = || 0.3 + 0.35 * (1.0 - rng.random::<f64>().sqrt());
    let table = conformal(&(0..11_000).map(|_| bounded()).collect::<Vec<_>>()).unwrap();
    let beyond: Vec<f64> = (0..=15).map(|step| table.value(0.65 + 0.01 * f64::from(step))).collect();
    assert!(beyond.windows(2).all(|pair| pair[1] < 0.9 * pair[0]), "{beyond:?}");
    // Nothing of 11,000 is beyond; an exponential tail is careful, here by a factor of twelve.
    assert!((1e-5..1e-2).contains(&beyond[0]), "{beyond:?}");
}

#[test]
fn probabilities_are_the_share_of_abuse() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
    let rows: Vec<_> = (0..50_000)
        .map(|_| {
            let raw: f64 = rng.random();
            (raw, rng.random::<f64>() < raw * raw, 1.0)
        })
        .collect();
    let table = isotonic(&rows).unwrap();
    for raw in [0.1, 0.3, 0.5, 0.8, 0.95_f64] {
        assert!((table.value(raw) - raw * raw).abs() < 0.04, "{raw}: {}", table.value(raw));
    }
    assert!(isotonic(&[(0.1, true, 1.0), (0.2, true, 1.0)]).unwrap_err().to_string().contains("needs both kinds"));
}

#[test]
fn broken_tables_are_refused() {
    let parse = |text: &str| CalibrationTable::from_json(text).unwrap_err().to_string();
    assert!(parse(r#"{"meaning":"p_value","rows":3,"knots":[[0.1,0.5],[0.2,0.6]]}"#).contains("knot 1"));
    assert!(parse(r#"{"meaning":"probability","rows":3,"knots":[[0.1,0.5],[0.2,1.6]]}"#).contains("value in [0, 1]"));
    assert!(parse(r#"{"meaning":"probability","rows":3,"knots":[]}"#).contains("0 knots"));
    assert!(parse(r#"{"meaning":"likelihood","rows":3,"knots":[]}"#).contains("line 1"));
}

const ADDRESS: EntityType = EntityType(0);
const ENDPOINT: EntityType = EntityType(7);

fn from(address: u8, endpoint: u8) -> Subjects {
    let one = |kind, byte| Subject { id: EntityId { kind, key: EntityKey([byte; 16]) }, verified: false, name: None };
    Subjects::new([one(ADDRESS, address), one(ENDPOINT, endpoint)])
}

fn scored(raw: f64) -> Scores {
    let part = ModelScore {
        model: "odd".into(),
        version: 1,
        raw,
        calibrated: Calibrated::Calibrating { have: 0, need: 1000 },
        role: Role::Shadow,
    };
    Scores { parts: vec![part], ..Scores::default() }
}

#[test]
fn an_attacker_cannot_teach_the_calibrator() {
    let bundle = Bundle::of_forest("odd", 1, 1000);
    let mut calibrator = Calibrator::new(&bundle, CalibratorOptions { need: 1000, actors: vec![ADDRESS] });
    // One address sends high scores: ten of a thousand are taken.
    for _ in 0..5000 {
        assert!(calibrator.offer(&scored(0.9), &from(1, 1), false).is_empty());
    }
    assert_eq!(calibrator.progress().collect::<Vec<_>>(), [("odd", 10, 1000)]);
    // What a rule scored, and what nobody can be held to, is left out.
    assert!(calibrator.offer(&scored(0.9), &from(2, 1), true).is_empty());
    assert!(calibrator.offer(&scored(0.9), &Subjects::default(), false).is_empty());
    let mut row = bundle.score(&telltale_features::vector::FeatureVector { values: Arc::new([0.0; 4]) }, Lane(0));
    calibrator.annotate(&mut row);
    assert_eq!(row.parts[0].calibrated, Calibrated::Calibrating { have: 10, need: 1000 });
    let mut finished = Vec::new();
    for turn in 0..990_u32 {
        assert!(finished.is_empty());
        finished = calibrator.offer(&scored(f64::from(turn) / 2000.0), &from(2 + u8::try_from(turn % 99).unwrap(), 1), false);
    }
    let [done] = finished.as_slice() else { panic!("not finished") };
    assert_eq!((done.table.meaning(), done.table.rows()), (Meaning::PValue, 1000));
    assert!(done.table.value(0.95) < 0.02 && calibrator.progress().next().is_none());
    let after = bundle.with_calibration("odd", 1, done.table.clone()).unwrap();
    assert_eq!(after.uncalibrated().count(), 0);
}
