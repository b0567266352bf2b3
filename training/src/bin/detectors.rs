//! The native detectors on a matrix of other origin: `detectors ROWS.parquet SCORES.parquet SEED…` fits each kind once a seed on all rows
//! and writes what it says of each row, one column `kind.seed`; higher is more unusual. `tests/adbench.py` sets it beside scikit-learn.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use telltale_models::table::{self, Column, Table};
use telltale_training::Recipe;
use telltale_training::forest::ForestOptions;
use telltale_training::half_space::HalfSpaceOptions;
use telltale_training::linear::{LinearKind, LinearOptions};

type Failure = Box<dyn Error>;

/// What the reference has by default: trees, and rows a tree.
const TREES: usize = 100;
const SAMPLE: usize = 256;

/// Every kind that knows no labels: another kind is one more line.
fn kinds(seed: u64) -> [Recipe; 5] {
    let linear = |kind| Recipe::Linear(kind, LinearOptions { seed, ..LinearOptions::default() });
    [
        Recipe::Forest(ForestOptions { trees: TREES, sample: SAMPLE, seed }),
        Recipe::HalfSpace(HalfSpaceOptions { seed, ..HalfSpaceOptions::default() }),
        linear(LinearKind::Pca),
        linear(LinearKind::Gmm),
        linear(LinearKind::KMeans),
    ]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seeds: Option<Vec<u64>> = arguments.iter().skip(2).map(|text| text.parse().ok()).collect();
    let (Some(rows), Some(scores), Some(seeds)) = (arguments.first(), arguments.get(1), seeds.filter(|seeds| !seeds.is_empty())) else {
        eprintln!("usage: detectors ROWS.parquet SCORES.parquet SEED…; seeds are whole numbers, at least one");
        return ExitCode::from(64);
    };
    match run(rows, scores, &seeds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("detectors: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(rows: &str, scores: &str, seeds: &[u64]) -> Result<(), Failure> {
    let rows = matrix(&Table::open(rows)?)?;
    let mut columns = Vec::new();
    for (seed, recipe) in seeds.iter().flat_map(|seed| kinds(*seed).map(|recipe| (seed, recipe))) {
        let kind = recipe.kind().name();
        let fitted = recipe.fit(&rows, &[]).map_err(|error| format!("{kind}, seed {seed}: {error}"))?;
        columns.push((format!("{kind}.{seed}"), rows.iter().map(|row| fitted.score(row)).collect::<Vec<f64>>()));
    }
    let columns: Vec<_> = columns.iter().map(|(name, values)| (name.as_str(), Column::Numbers(values))).collect();
    Ok(table::write(Path::new(scores), &columns, &[])?)
}

/// The rows of all columns, in order of name, as a model reads them.
fn matrix(table: &Table) -> Result<Vec<Vec<f32>>, Failure> {
    let mut rows = vec![Vec::new(); table.rows()];
    for name in table.names() {
        for (row, value) in rows.iter_mut().zip(table.numbers(name)?) {
            row.push(value as f32);
        }
    }
    Ok(rows)
}
