//! The shipped models: `models/default` enters, that it serves with the shipped schema leaves.

use super::*;
use std::env;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What the committed repository may weigh.
const MOST_BYTES: u64 = 2 << 20;

fn shipped() -> Repository {
    Repository::open(Path::new(ROOT).join("models/default")).unwrap()
}

/// The bytes of all files below a folder.
fn weight(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { weight(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

#[test]
fn every_shipped_model_fits_the_schema_and_reproduces_its_golden_rows() {
    let library = env::var_os("ORT_DYLIB_PATH").map_or(Path::new(ROOT).join("target/onnxruntime/libonnxruntime.so"), PathBuf::from);
    let options = RuntimeOptions { library, shipped_calibration: true, ..RuntimeOptions::default() };
    // Loading checks digests, feature hashes and golden rows.
    let bundle = shipped().load(&Schema::shipped(), &options).unwrap();
    assert_eq!(bundle.failures(), []);
    assert_eq!(bundle.models().map(|(name, _)| name).collect::<Vec<_>>(), ["abuse", "unusual"]);
    assert_eq!(bundle.uncalibrated().count(), 0);
}

#[test]
fn without_the_onnx_runtime_the_forest_serves_alone() {
    let options = RuntimeOptions { library: "/nowhere/libonnxruntime.so".into(), ..RuntimeOptions::default() };
    let bundle = shipped().load(&Schema::shipped(), &options).unwrap();
    assert_eq!(bundle.models().map(|(name, _)| name).collect::<Vec<_>>(), ["unusual"]);
    assert!(bundle.failures()[0].reason.contains("/nowhere/libonnxruntime.so"), "{:?}", bundle.failures());
}

#[test]
fn the_shipped_models_are_small() {
    let bytes = weight(&shipped().root);
    assert!(bytes < MOST_BYTES, "{bytes} bytes");
}
