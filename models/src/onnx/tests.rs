use super::*;
use crate::repository::{FeatureIndex, Repository};
use crate::table::Table;
use crate::what_if::tests::alarm;
use crate::{Asked, Bundle, Calibrated, Lane};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use telltale_features::vector::FeatureVector;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Fails with the install line when ONNX Runtime is absent: never skips.
pub(crate) fn options() -> RuntimeOptions {
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or(Path::new(ROOT).join("target/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(library.is_file(), "{} is absent: run training/setup_ort.sh", library.display());
    RuntimeOptions { library, lanes: 2, shipped_calibration: true, ..RuntimeOptions::default() }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Names of the fixture's features, as training/telltale_training/generated.py gives them.
const NAMES: [&str; 8] = [
    "address.requests_1m",
    "address.failed_logins_10m",
    "address.users_1h",
    "address.interarrival_cv",
    "user.age_days",
    "session.paths_10m",
    "endpoint.failure_ratio_1h",
    "request.body_size",
];

fn index() -> FeatureIndex {
    FeatureIndex::new(NAMES.iter().enumerate().map(|(at, name)| (*name, 0xf00d_0000 + at as u64)))
}

fn boosted() -> Bundle {
    let bundle = Repository::open(fixture("repository")).unwrap().load_with(&index(), &options()).unwrap();
    assert_eq!(bundle.failures(), []);
    bundle
}

fn rows() -> (Vec<FeatureVector>, Vec<f64>) {
    let table = Table::open(fixture("parity.parquet")).unwrap();
    let columns: Vec<_> = NAMES.iter().map(|name| table.numbers(name).unwrap()).collect();
    let row = |at: usize| FeatureVector { values: columns.iter().map(|column| column[at]).collect::<Arc<[f64]>>() };
    ((0..table.rows()).map(row).collect(), table.numbers("raw").unwrap())
}

#[test]
fn a_model_trained_in_python_scores_the_same_here() {
    let (bundle, (rows, expected)) = (boosted(), rows());
    assert_eq!(rows.len(), 400);
    for (row, expected) in rows.iter().zip(expected) {
        let part = bundle.score(row, Lane(0)).parts.remove(0);
        assert!((part.raw - expected).abs() <= 1e-5, "{} against {expected}", part.raw);
        assert!(matches!(part.calibrated, Calibrated::Probability(p) if (0.0..=1.0).contains(&p)));
        assert_eq!(part.raw.to_bits(), bundle.score(row, Lane(1)).parts[0].raw.to_bits());
    }
}

#[test]
fn reasons_of_an_onnx_model_are_true() {
    let (bundle, (rows, _)) = (boosted(), rows());
    let (mut alerts, mut lowered) = (0, 0);
    for row in rows {
        let scores = bundle.score(&row, Lane(0));
        if !matches!(scores.parts[0].calibrated, Calibrated::Probability(p) if p >= 0.3) {
            continue;
        }
        alerts += 1;
        let reasons = bundle.explain(&row, &scores, &Asked::default(), &alarm).0;
        let Some(top) = reasons.first() else { continue };
        let mut values = row.values.to_vec();
        values[top.feature.index()] = top.usual;
        lowered += u32::from(alarm(&bundle.score(&FeatureVector { values: values.into() }, Lane(0))) < alarm(&scores));
    }
    assert!(alerts >= 15 && f64::from(lowered) >= 0.9 * f64::from(alerts), "{lowered} of {alerts}");
}

fn plain() -> Output {
    Output::default()
}

fn two() -> Vec<String> {
    vec!["x".to_string(), "y".to_string()]
}

#[test]
fn label_and_probability_outputs_give_the_probability() {
    let bytes = std::fs::read(fixture("classifier.onnx")).unwrap();
    let onnx = Onnx::load(&bytes, &two(), &Output::default(), &options()).unwrap();
    // Two logits, −x − 2y + 0.5 and x + 2y − 0.5, through softmax.
    let expected = |x: f64, y: f64| 1.0 / (1.0 + (-2.0 * (x + 2.0 * y - 0.5)).exp());
    assert!((onnx.score(&[0.3, -0.2], Lane(0)).unwrap() - expected(0.3, -0.2)).abs() < 1e-6);
    let changed = onnx.scores(&[0.0, -0.2, 0.3, 0.5], 2, Lane(7)).unwrap();
    assert!((changed[0] - expected(0.0, -0.2)).abs() < 1e-6 && (changed[1] - expected(0.3, 0.5)).abs() < 1e-6);
    assert!(onnx.scores(&[], 0, Lane(0)).unwrap().is_empty());
    assert!(onnx.scores(&[0.1], 1, Lane(0)).unwrap_err().contains("no 1 rows of 2"));
    let first = Onnx::load(&bytes, &two(), &Output { column: Some(0), ..plain() }, &options()).unwrap();
    assert!((first.score(&[0.3, -0.2], Lane(0)).unwrap() - 1.0 + expected(0.3, -0.2)).abs() < 1e-6);
}

#[test]
fn broken_models_are_refused_with_the_reason() {
    let bytes = std::fs::read(fixture("classifier.onnx")).unwrap();
    let load = |bytes: &[u8], width: usize, output: &Output| {
        Onnx::load(bytes, &vec!["x".to_string(); width], output, &options()).err().unwrap().to_string()
    };

    assert!(load(&bytes[..bytes.len() / 2], 2, &plain()).contains("ONNX Runtime refuses the model"));
    assert!(load(b"", 2, &plain()).contains("ONNX Runtime refuses the model"));
    assert!(load(&bytes, 3, &plain()).contains("allowed is [rows, 3]"));
    let named = Output { name: Some("score".into()), ..plain() };
    let message = load(&bytes, 2, &named);
    assert!(message.contains("`score`") && message.contains("`probabilities`"), "{message}");
    let far = Onnx::load(&bytes, &two(), &Output { column: Some(5), ..plain() }, &options()).unwrap();
    assert!(far.score(&[0.0, 0.0], Lane(0)).unwrap_err().contains("2 columns, not column 5"));
}

#[test]
fn without_onnx_runtime_the_message_says_how_to_install_it() {
    let message = |path: &Path| runtime::library(path).unwrap_err().to_string();
    let absent = message(Path::new("/nowhere/libonnxruntime.so"));
    assert!(absent.contains("`/nowhere/libonnxruntime.so`: there is no such file; run `make setup`"), "{absent}");
    assert!(runtime::library(&options().library).unwrap().is_absolute());
}
