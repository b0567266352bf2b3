//! What a row costs: the shipped models in the scorer's process and in a worker, and an explanation of a row; then every kind of model, and
//! what a swap costs.

use std::path::Path;
use std::sync::Arc;

use telltale_features::schema::Schema;
use telltale_features::vector::FeatureVector;
use telltale_models::contain::{Containment, Deadlines};
use telltale_models::{Asked, Bundle, Lane, Repository, RuntimeOptions, Scores, Which};
use telltale_policy::{Ensemble, Policy};
use tokio::time::Instant;

use super::{Failure, Row, kinds, median, swap};
use crate::process::built;
use crate::stand::shipped_models;

/// Rows of one run.
const ROWS: u32 = 4_000;
const RUNS: usize = 5;

/// Measures.
///
/// # Errors
/// When the shipped models are absent or cannot be loaded.
pub fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let (schema, shipped) = (Schema::shipped(), shipped_models().ok_or("models/default is absent")?);
    let policy = Policy::shipped(&schema)?;
    let vector = FeatureVector { values: schema.features().iter().map(|_| 1.0).collect::<Arc<[f64]>>() };
    let mut rows = Vec::new();
    for model in ["unusual", "abuse"] {
        let root = folder.join(model);
        copy(&shipped.join(model), &root.join(model))?;
        let own = load(&root, &schema, Which::None, folder)?;
        let inside = per_row(&own, &vector);
        rows.push(Row::new(format!("{model}: a row in the scorer"), inside, "µs"));
        if model == "abuse" {
            let contained = load(&root, &schema, Which::All, folder)?;
            rows.push(Row::new(format!("{model}: a row in a worker"), per_row(&contained, &vector), "µs").beside("in the scorer", inside));
        }
        rows.push(Row::new(format!("{model}: reasons of a row"), per_reasons(&own, &vector, &policy), "µs").beside("a row", inside));
    }
    rows.extend(kinds::run(folder)?);
    rows.extend(swap::run(folder)?);
    Ok(rows)
}

/// How models are run here; what a worker needs lies in the folder.
pub(super) fn options(contained: Which, folder: &Path) -> Result<RuntimeOptions, Failure> {
    let program = built("telltale")?;
    let containment = Containment {
        program,
        folder: folder.to_path_buf(),
        memory_bytes: 1 << 30,
        deadlines: Deadlines::default(),
        locked: true,
        aside: false,
    };
    let mut options = RuntimeOptions { shipped_calibration: true, contained, containment: Some(containment), ..RuntimeOptions::default() };
    if let Some(library) = std::env::var_os("ORT_DYLIB_PATH") {
        options.library = library.into();
    }
    options.library = std::path::absolute(&options.library)?;
    Ok(options)
}

fn load(root: &Path, schema: &Schema, contained: Which, folder: &Path) -> Result<Bundle, Failure> {
    let bundle = Repository::open(root)?.load(schema, &options(contained, folder)?)?;
    match bundle.failures().first() {
        Some(failure) => Err(failure.reason.clone().into()),
        None => Ok(bundle),
    }
}

fn per_row(bundle: &Bundle, vector: &FeatureVector) -> f64 {
    timed(ROWS, || drop(std::hint::black_box(bundle.score(std::hint::black_box(vector), Lane(0)))))
}

fn per_reasons(bundle: &Bundle, vector: &FeatureVector, policy: &Policy) -> f64 {
    let scores = bundle.score(vector, Lane(0));
    let risk = |scores: &Scores| policy.combine(scores, Ensemble::default()).risk;
    timed(ROWS / 20, || drop(std::hint::black_box(bundle.explain(vector, &scores, &Asked::default(), &risk))))
}

/// Microseconds a call: the middle one of several runs.
fn timed(calls: u32, mut call: impl FnMut()) -> f64 {
    let run = |_| {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
    };
    median((0..RUNS).map(run).collect())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
