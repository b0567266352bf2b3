//! What a row costs by kind of model and by rows a run: in this process, in a worker, and in Python's ONNX Runtime on the same rows; then
//! two threads with a session each beside two threads that share one behind its mutex.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use telltale_features::vector::{FeatureId, FeatureVector};
use telltale_models::intake::draft;
use telltale_models::repository::{Draft, FeatureIndex, GoldenRows, Input, Kind, Manifest, Missing, Origin, Output, Training};
use telltale_models::table::Table;
use telltale_models::{Bundle, Lane, Repository, RuntimeOptions, Served, Which};
use telltale_training::Recipe;
use telltale_training::forest::ForestOptions;
use telltale_training::half_space::HalfSpaceOptions;
use telltale_training::linear::{LinearKind, LinearOptions};
use tokio::time::Instant;

use super::models::options;
use super::{Failure, Row, median};

/// Rows of one run.
const BATCHES: [usize; 3] = [1, 16, 64];
const RUNS: usize = 5;
const THREADS: usize = 2;
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fixtures");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx_latency.py");
/// ONNX models as their libraries export them: those that Python is asked about too.
const EXPORTS: [(&str, &str); 3] =
    [("lightgbm", "exports/lightgbm.onnx"), ("random_forest", "exports/random_forest.onnx"), ("autoencoder", "torch/autoencoder.onnx")];

/// Microseconds a row by model and by rows of a run.
type PerRow = BTreeMap<String, BTreeMap<usize, f64>>;

/// The rows that all of them score, with missing values.
pub(super) struct Given {
    pub(super) index: FeatureIndex,
    names: Vec<String>,
    pub(super) rows: Vec<FeatureVector>,
}

impl Given {
    /// The rows of the committed exports.
    ///
    /// # Errors
    /// When their file cannot be read.
    pub(super) fn read() -> Result<Self, Failure> {
        let table = Table::open(rows_file())?;
        let names: Vec<String> = table.names().filter(|name| !name.starts_with("expected.")).map(String::from).collect();
        let columns = names.iter().map(|name| table.numbers(name)).collect::<Result<Vec<_>, _>>()?;
        let index = FeatureIndex::new(names.iter().zip(1..).map(|(name, hash)| (name.as_str(), hash)));
        let row = |at: usize| columns.iter().filter_map(|column| column.get(at).copied()).collect::<Arc<[f64]>>();
        let rows = (0..table.rows()).map(|at| FeatureVector { values: row(at) }).collect();
        Ok(Self { index, names, rows })
    }

    /// An export as a version.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn export(&self, name: &str, options: &RuntimeOptions) -> Result<Draft, Failure> {
        let (_, file) = EXPORTS.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("no export is named `{name}`"))?;
        let bytes = std::fs::read(Path::new(FIXTURES).join(file))?;
        Ok(draft(bytes, Origin::Published, &self.index, options).map_err(|refusal| refusal.reason)?)
    }

    /// The rows as a native model reads them; its manifest puts 0 for a missing value.
    fn filled(&self) -> Vec<Vec<f32>> {
        let fill = |value: &f64| if value.is_nan() { 0.0 } else { *value as f32 };
        self.rows.iter().map(|row| row.values.iter().map(fill).collect()).collect()
    }

    /// A native model as a version; `score` says what its golden rows get.
    fn native(&self, kind: Kind, model: Vec<u8>, score: impl Fn(&[f32]) -> f64) -> Result<Draft, Failure> {
        let inputs = self.names.iter().map(|name| {
            let hash = self.index.hash(name)?;
            Ok(Input { name: name.clone(), hash, usual: 0.0, spread: 1.0, missing: Missing::Value(0.0) })
        });
        let golden = self.rows.iter().take(8);
        let column = |at: usize| golden.clone().filter_map(|row| row.values.get(at).copied()).collect();
        Ok(Draft {
            profile: None,
            signature: None,
            manifest: Manifest {
                kind,
                description: format!("the bench's {}", kind.name()),
                licence: "Apache-2.0".to_owned(),
                origin: Origin::Own,
                output: Output::default(),
                training: Training::default(),
                files: BTreeMap::new(),
                metrics: BTreeMap::new(),
                inputs: inputs.collect::<Result<_, String>>()?,
            },
            model,
            calibration: None,
            golden: GoldenRows {
                inputs: (0..self.names.len()).map(column).collect(),
                raw: self.filled().iter().take(8).map(|row| score(row)).collect(),
            },
            report: "{}".to_owned(),
        })
    }

    /// What LightGBM takes for an attack: it stands for labels.
    fn abusive(&self) -> Result<Vec<bool>, Failure> {
        Ok(Table::open(rows_file())?.numbers("expected.lightgbm")?.into_iter().map(|probability| probability > 0.5).collect())
    }
}

/// A version of every native kind: another kind is one more line.
fn natives(given: &Given) -> Result<Vec<(&'static str, Draft)>, Failure> {
    let recipes = [
        Recipe::Forest(ForestOptions { trees: 100, sample: 256, seed: 1 }),
        Recipe::HalfSpace(HalfSpaceOptions::default()),
        Recipe::Linear(LinearKind::Pca, LinearOptions::default()),
        Recipe::Linear(LinearKind::Gmm, LinearOptions::default()),
        Recipe::Linear(LinearKind::KMeans, LinearOptions::default()),
        Recipe::Logistic(LinearOptions::default()),
    ];
    let (rows, abusive) = (given.filled(), given.abusive()?);
    let version = |recipe: &Recipe| {
        let fitted = recipe.fit(&rows, &abusive)?;
        Ok((recipe.kind().name(), given.native(recipe.kind(), fitted.bytes.clone(), |row| fitted.score(row))?))
    };
    recipes.iter().map(version).collect()
}

/// Measures.
///
/// # Errors
/// When a model is not taken, cannot be loaded, or Python cannot be asked.
pub fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let given = Given::read()?;
    let own = options(Which::None, folder)?;
    let (names, repository) = published(&given, folder, &own)?;
    let inside = loaded(&repository, &given, &RuntimeOptions { lanes: THREADS, ..own.clone() })?;
    let contained = loaded(&repository, &given, &options(Which::All, folder)?)?;
    let python = in_python()?;
    let mut rows = Vec::new();
    for name in &names {
        let served = |bundle: &Bundle| bundle.served(name, None).ok_or_else(|| format!("`{name}` is not loaded"));
        let onnx = python.get(*name);
        for batch in BATCHES {
            let here = per_row(&served(&inside)?, &given, batch)?;
            let row = Row::new(format!("{name}: a row of {batch}, in the scorer"), here, "µs");
            let beside = onnx.and_then(|by_batch| by_batch.get(&batch));
            rows.push(beside.map_or(row.clone(), |python| row.beside("Python's ONNX Runtime", *python)));
            if onnx.is_some() {
                let there = per_row(&served(&contained)?, &given, batch)?;
                rows.push(Row::new(format!("{name}: a row of {batch}, in a worker"), there, "µs").beside("in the scorer", here));
            }
        }
    }
    let shared = loaded(&repository, &given, &own)?;
    for (name, _) in EXPORTS {
        let rate = |bundle: &Bundle| together(bundle, name, &given);
        let row = Row::new(format!("{name}: rows a second, {THREADS} threads, a session each"), rate(&inside)?, "/s");
        rows.push(row.beside("one session, a mutex", rate(&shared)?));
    }
    Ok(rows)
}

/// Every kind published and promoted in a repository of its own.
fn published(given: &Given, folder: &Path, options: &RuntimeOptions) -> Result<(Vec<&'static str>, Repository), Failure> {
    let mut drafts = natives(given)?;
    for (name, _) in EXPORTS {
        drafts.push((name, given.export(name, options)?));
    }
    let repository = Repository::create(folder.join("kinds"))?;
    let mut names = Vec::new();
    for (name, draft) in drafts {
        let version = repository.publish(name, draft)?;
        repository.promote(name, version)?;
        names.push(name);
    }
    Ok((names, repository))
}

fn loaded(repository: &Repository, given: &Given, options: &RuntimeOptions) -> Result<Bundle, Failure> {
    let bundle = repository.load_with(&given.index, options)?;
    match bundle.failures().first() {
        Some(failure) => Err(failure.reason.clone().into()),
        None => Ok(bundle),
    }
}

/// The rows in the order of a model's inputs.
fn values(served: &Served, given: &Given) -> (Vec<f64>, usize) {
    let inputs: Vec<FeatureId> = served.inputs().collect();
    (given.rows.iter().flat_map(|row| inputs.iter().map(|input| row.get(*input))).collect(), inputs.len())
}

/// Scores all rows, so many a run.
fn pass(served: &Served, (values, width): (&[f64], usize), batch: usize, lane: Lane) -> Result<(), Failure> {
    for rows in values.chunks_exact(batch * width) {
        for raw in std::hint::black_box(served.raws(std::hint::black_box(rows), lane)) {
            raw?;
        }
    }
    Ok(())
}

/// Microseconds a row: the middle one of several runs, after one that warms.
fn per_row(served: &Served, given: &Given, batch: usize) -> Result<f64, Failure> {
    let (values, width) = values(served, given);
    let count = given.rows.len() / batch * batch;
    pass(served, (&values, width), batch, Lane(0))?;
    let run = |_| {
        let begun = Instant::now();
        pass(served, (&values, width), batch, Lane(0))?;
        Ok(begun.elapsed().as_secs_f64() * 1e6 / count as f64)
    };
    Ok(median((0..RUNS).map(run).collect::<Result<_, Failure>>()?))
}

/// Rows a second of all threads together, each with its own lane, one row a run.
fn together(bundle: &Bundle, name: &str, given: &Given) -> Result<f64, Failure> {
    let served = bundle.served(name, None).ok_or_else(|| format!("`{name}` is not loaded"))?;
    let (values, width) = values(&served, given);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let work = |lane: usize| (0..RUNS).try_for_each(|_| pass(&served, (&values, width), 1, Lane(lane)));
        let threads: Vec<_> = (0..THREADS).map(|lane| scope.spawn(move || work(lane))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a scoring thread panicked")?)
    })?;
    Ok((THREADS * RUNS * given.rows.len()) as f64 / begun.elapsed().as_secs_f64())
}

/// What the same models cost in Python on the same rows.
fn in_python() -> Result<PerRow, Failure> {
    let models = EXPORTS.iter().map(|(_, file)| Path::new(FIXTURES).join(file));
    let batches = BATCHES.map(|batch| batch.to_string()).join(",");
    let output = Command::new("python").arg(PYTHON).arg("--batches").arg(batches).arg(rows_file()).args(models).output()?;
    if !output.status.success() {
        return Err(format!("{PYTHON}: {}; `make setup-tests` installs what it needs", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn rows_file() -> PathBuf {
    Path::new(FIXTURES).join("exports/rows.parquet")
}
