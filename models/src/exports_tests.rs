//! Models as scikit-learn, LightGBM, XGBoost and PyTorch export them: each is taken as a bare file and scores 1,000 rows as its own library
//! does. The figures go to `target/check/exports.json`.

use std::collections::BTreeMap;
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

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder)
}

/// The largest difference from what the library said of the rows.
fn apart(path: &Path, name: &str, table: &Table) -> f64 {
    let index = FeatureIndex::new(NAMES.iter().enumerate().map(|(at, name)| (*name, 0xbeef_0000 + at as u64)));
    let options = RuntimeOptions { lanes: 1, contained: Which::None, ..options() };
    let bytes = std::fs::read(path).unwrap();
    let draft = draft(bytes, Origin::Published, &index, &options).unwrap_or_else(|refusal| panic!("{name}: {}", refusal.reason));
    let engine = load::onnx(&draft.manifest, &draft.model, &options).unwrap();
    let inputs = load::inputs(Path::new(""), &draft.manifest, &index).unwrap();
    let model = Model { engine, inputs };
    let columns: Vec<_> = draft.manifest.inputs.iter().map(|input| table.numbers(&input.name).unwrap()).collect();
    let expected = table.numbers(&format!("expected.{name}")).unwrap();
    assert_eq!(expected.len(), 1_000, "{name}");
    let differences = expected.iter().enumerate().map(|(at, expected)| {
        let row = model.fill(columns.iter().map(|column| column[at]));
        (model.engine.raw(&row, Lane(0)).unwrap() - expected).abs()
    });
    differences.fold(0.0, |most, apart| if apart > most || apart.is_nan() { apart } else { most })
}

#[test]
fn real_exports_score_as_their_libraries_do() {
    let folder = fixtures("exports");
    let table = Table::open(folder.join("rows.parquet")).unwrap();
    // Where float32 may take the other branch than the library's float64 does; counted when the models were built.
    let near: BTreeMap<String, u64> = serde_json::from_slice(&std::fs::read(folder.join("near_a_split.json")).unwrap()).unwrap();
    let kinds = ["isolation_forest", "random_forest", "hist_gradient_boosting", "scaled_network", "named_columns", "lightgbm", "xgboost"];
    assert!(kinds.iter().all(|kind| near.contains_key(*kind)) && near.len() == kinds.len(), "{near:?}");
    let mut found: BTreeMap<&str, (f64, u64)> =
        kinds.iter().map(|kind| (*kind, (apart(&folder.join(format!("{kind}.onnx")), kind, &table), near[*kind]))).collect();
    let torch = fixtures("torch");
    let table = Table::open(torch.join("autoencoder.parquet")).unwrap();
    // It has no trees, hence no splits.
    found.insert("autoencoder", (apart(&torch.join("autoencoder.onnx"), "autoencoder", &table), 0));
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/check");
    std::fs::create_dir_all(&out).unwrap();
    let figures: serde_json::Map<_, _> = found
        .iter()
        .map(|(kind, (apart, near))| {
            println!("{kind}: {apart:e}, {near} rows within 1 ulp of a split");
            (kind.to_string(), serde_json::json!({ "difference": apart, "near_a_split": near }))
        })
        .collect();
    std::fs::write(out.join("exports.json"), format!("{:#}\n", serde_json::Value::Object(figures))).unwrap();
    for (kind, (apart, _)) in found {
        assert!(apart <= AGREE, "{kind} is {apart:e} away from what its library says of a row; allowed is {AGREE:e}");
    }
}
