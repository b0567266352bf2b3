//! Models as scikit-learn, LightGBM and XGBoost export them: each is taken as a bare file and scores 1,000 rows as its own library does.

use std::path::{Path, PathBuf};

use crate::bundle::Model;
use crate::intake::draft;
use crate::onnx::tests::options;
use crate::repository::{FeatureIndex, Origin, load};
use crate::score::Lane;
use crate::table::Table;
use crate::{RuntimeOptions, Which};

const AGREE: f64 = 1e-5;
/// Those of training/build_exports.py, in the order of their columns.
const NAMES: [&str; 8] = [
    "session.objects_10m",
    "address.requests_1m",
    "address.users_failed_10m",
    "user.requests_24h",
    "address.failed_logins_24h",
    "session.gap_mean_10m",
    "user.addresses_24h",
    "address.error_ratio_10m",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exports")
}

/// The largest difference from what the library said of the rows.
fn apart(name: &str, table: &Table, index: &FeatureIndex) -> f64 {
    let options = RuntimeOptions { lanes: 1, contained: Which::None, ..options() };
    let bytes = std::fs::read(folder().join(format!("{name}.onnx"))).unwrap();
    let draft = draft(bytes, Origin::Published, index, &options).unwrap_or_else(|refusal| panic!("{name}: {}", refusal.reason));
    let engine = load::onnx(&draft.manifest, &draft.model, &options).unwrap();
    let inputs = load::inputs(Path::new(""), &draft.manifest, index).unwrap();
    let model = Model { engine, inputs };
    let columns: Vec<_> = draft.manifest.inputs.iter().map(|input| table.numbers(&input.name).unwrap()).collect();
    let expected = table.numbers(&format!("expected.{name}")).unwrap();
    assert_eq!(expected.len(), 1_000, "{name}");
    let differences = expected.iter().enumerate().map(|(at, expected)| {
        let row = model.fill(columns.iter().map(|column| column[at]));
        (model.engine.raw(&row, Lane(0)).unwrap() - expected).abs()
    });
    differences.fold(0.0, f64::max)
}

#[test]
fn real_exports_score_as_their_libraries_do() {
    let table = Table::open(folder().join("rows.parquet")).unwrap();
    let index = FeatureIndex::new(NAMES.iter().enumerate().map(|(at, name)| (*name, 0xbeef_0000 + at as u64)));
    for name in ["isolation_forest", "random_forest", "hist_gradient_boosting", "scaled_network", "named_columns", "lightgbm", "xgboost"] {
        let apart = apart(name, &table, &index);
        println!("{name}: {apart:e}");
        assert!(apart <= AGREE, "{name} is {apart:e} away from what its library says of a row; allowed is {AGREE:e}");
    }
}
