use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::bundle::Model;
use crate::onnx::Onnx;
use crate::onnx::tests::options;
use crate::repository::tests::{draft, index, vector};
use crate::repository::{Author, Output, Step, load};
use crate::table::Table;
use crate::{Loader, Repository, RuntimeOptions};

/// Three versions of a forest: the first before, the second in force, the third in shadow.
fn three(folder: &Path) -> Bundle {
    let repository = Repository::create(folder).unwrap();
    let author = Author { who: "a test".into(), why: String::new(), time_us: 7 };
    for seed in 1..=3 {
        repository.publish("odd", draft(seed)).unwrap();
    }
    for step in [Step::Promote(1), Step::Promote(2), Step::Shadow(3, true)] {
        repository.step("odd", step, &author).unwrap();
    }
    Loader::new(repository, index(), RuntimeOptions { shipped_calibration: true, ..RuntimeOptions::default() }).bundle().unwrap()
}

fn vectors(count: u32) -> Vec<FeatureVector> {
    let value = |row: u32, at: u32| if (row + at).is_multiple_of(7) { f64::NAN } else { f64::from((row * 31 + at * 17) % 101) / 101.0 };
    (0..count).map(|row| vector(std::array::from_fn(|at| value(row, u32::try_from(at).unwrap())))).collect()
}

#[test]
fn rows_together_are_rivals_as_rows_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = three(folder.path());
    let vectors = vectors(150);
    let all: Vec<&FeatureVector> = vectors.iter().collect();
    let on_probation = |row: usize| !(40..90).contains(&row);
    let together = bundle.rivals(&all, Lane(0), |row, model| model == "odd" && on_probation(row));
    assert_eq!(together.len(), 150);
    for (row, (rivals, vector)) in together.iter().zip(&all).enumerate() {
        let alone = bundle.rivals(&[vector], Lane(1), |_, _| on_probation(row)).remove(0);
        let text = |rivals: &[Rival]| format!("{rivals:?}");
        assert_eq!(text(rivals), text(&alone), "row {row}");
        let (champion, shadow) = (bundle.score(vector, Lane(0)).parts.remove(0), &rivals[0]);
        assert_eq!((shadow.version, shadow.role, shadow.baseline), (3, Role::Shadow, 2));
        assert!(shadow.score.as_ref().unwrap().role.counts(), "its score is compared as if it were in force");
        assert_eq!(shadow.beside.as_ref().unwrap().raw.to_bits(), champion.raw.to_bits(), "a forest gives the same bits");
        assert_eq!(rivals.get(1).map(|rival| (rival.version, rival.baseline)), on_probation(row).then_some((2, 1)), "row {row}");
    }
    assert_eq!(bundle.rivals(&[], Lane(0), |_, _| true).len(), 0);
}

#[test]
fn a_version_is_served_in_whatever_part_and_scores_as_for_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = three(folder.path());
    assert_eq!(bundle.loaded("odd"), [1, 2, 3]);
    assert_eq!(bundle.served("odd", None).unwrap().version(), 2);
    assert!(bundle.served("odd", Some(4)).is_none() && bundle.served("even", None).is_none() && bundle.loaded("even").is_empty());
    let served = bundle.served("odd", Some(2)).unwrap();
    assert_eq!((served.kind(), served.inputs().count(), served.meaning()), ("forest", 4, Some(Meaning::PValue)));
    let vectors = vectors(100);
    let values: Vec<f64> = vectors.iter().flat_map(|vector| vector.values.to_vec()).collect();
    let raws = served.raws(&values, Lane(0));
    assert_eq!(raws.len(), 100);
    for (raw, vector) in raws.into_iter().zip(&vectors) {
        let (raw, part) = (raw.unwrap(), bundle.score(vector, Lane(0)).parts.remove(0));
        assert_eq!(raw.to_bits(), part.raw.to_bits());
        assert_eq!(served.calibrated(raw).map(Calibrated::PValue), Some(part.calibrated));
    }
}

fn exports() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exports")
}

/// Real exports: with ONNX Runtime a batch may come out in other bits, but never beyond what golden rows may differ by.
#[test]
fn onnx_models_score_rows_together_as_rows_alone() {
    let table = Table::open(exports().join("rows.parquet")).unwrap();
    let names: Vec<&str> = vec![
        "session.objects_10m",
        "address.requests_1m",
        "address.users_failed_10m",
        "user.requests_24h",
        "address.failed_logins_24h",
        "session.gap_mean_10m",
        "user.addresses_24h",
        "address.error_ratio_10m",
    ];
    let index = crate::repository::FeatureIndex::new(names.iter().enumerate().map(|(at, name)| (*name, at as u64)));
    for name in ["isolation_forest", "random_forest", "hist_gradient_boosting", "scaled_network", "named_columns", "lightgbm", "xgboost"] {
        let options = RuntimeOptions { lanes: 1, contained: crate::Which::None, ..options() };
        let bytes = std::fs::read(exports().join(format!("{name}.onnx"))).unwrap();
        let draft = crate::intake::draft(bytes, crate::repository::Origin::Published, &index, &options).ok().unwrap();
        let engine = load::onnx(&draft.manifest, &draft.model, &options).unwrap();
        let model = Model { engine, inputs: load::inputs(Path::new(""), &draft.manifest, &index).unwrap() };
        let columns: Vec<_> = draft.manifest.inputs.iter().map(|input| table.numbers(&input.name).unwrap()).collect();
        let row = |at: usize| columns.iter().map(move |column| column[at]);
        let (called, standing) = (Arc::from(name), Standing::Calibrating { need: 1 });
        let loaded = Loaded { name: called, version: 1, model: Arc::new(model), standing, renewed: None };
        let together = loaded.raws((0..500).map(row), Lane(0));
        let (mut furthest, mut other_bits) = (0.0_f64, 0);
        for (at, raw) in together.iter().enumerate() {
            let (raw, alone) = (raw.clone().unwrap(), loaded.engine().raw(&loaded.model.fill(row(at)), Lane(0)).unwrap());
            other_bits += u32::from(raw.to_bits() != alone.to_bits());
            furthest = furthest.max((raw - alone).abs() / (1.0 + alone.abs()));
        }
        println!("{name}: {other_bits} of {} rows in other bits, the furthest {furthest:e}", together.len());
        assert!(together.len() == 500 && furthest <= 1e-5, "{name}: {furthest:e}");
    }
}

#[test]
fn a_row_without_a_score_costs_no_other_of_its_run() {
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/classifier.onnx")).unwrap();
    let names = ["x".to_string(), "y".to_string()];
    let engine = Engine::Onnx(Arc::new(Onnx::load(&bytes, &names, &Output::default(), &options()).unwrap()));
    // The model hands a NaN on.
    let raws = engine.one_run(&[0.3, -0.2, f32::NAN, 0.0, 0.3, -0.2], 3, Lane(0));
    assert_eq!(raws.len(), 3);
    assert_eq!(raws[1].as_ref().unwrap_err(), "the score is NaN");
    let (first, last) = (raws[0].as_ref().unwrap(), raws[2].as_ref().unwrap());
    assert!((first - last).abs() < 1e-6, "{raws:?}");
}

#[test]
fn a_worker_that_refuses_a_run_is_asked_row_by_row_and_a_lost_one_is_not() {
    let alone = || vec![Ok(0.5), Err("the score is NaN".to_owned())];
    assert_eq!(told(Err(Unanswered::Refused("no".to_owned())), 2, alone), alone());
    assert_eq!(told(Ok(vec![0.5]), 2, alone), alone(), "one score is missing");
    let lost = told(Err(Unanswered::Lost("gone".to_owned())), 2, || panic!("the next worker is risked"));
    assert_eq!(lost, [Err("gone".to_owned()), Err("gone".to_owned())]);
    assert_eq!(told(Ok(vec![0.5, f64::NAN]), 2, Vec::new), alone());
}
