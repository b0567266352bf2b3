//! An isolation forest of the size that the bar names, grown on the bench's own vectors and published to a repository.
//!
//! Liu, Ting, Zhou: Isolation Forest, ICDM 2008; the height limit is that of the sample.

use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_features::schema::Schema;
use telltale_models::calibration::conformal;
use telltale_models::forest::{Branch, Forest, Row, Trees, file};
use telltale_models::repository::{Draft, GoldenRows, Input, Kind, Manifest, Missing, Origin, Output, Training};
use telltale_models::{Bundle, Repository, RuntimeOptions};

use super::Failure;

const TREES: usize = 200;
const SAMPLE: usize = 1024;
const DEPTH: usize = 10;

/// Grows, publishes, promotes and loads the forest.
///
/// # Errors
/// When it cannot be published or loaded.
pub fn trained(schema: &Schema, rows: &[Vec<f32>], folder: &Path) -> Result<Bundle, Failure> {
    let inputs = schema.features().len();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let sample = SAMPLE.min(rows.len());
    let mut trees = Vec::with_capacity(TREES);
    for _ in 0..TREES {
        let chosen: Vec<&[f32]> = (0..sample).filter_map(|_| rows.get(rng.random_range(0..rows.len().max(1))).map(Vec::as_slice)).collect();
        trees.push(grow(&chosen, DEPTH, inputs, &mut rng));
    }
    let trees = Trees { inputs, sample: u32::try_from(sample)?, trees };
    let forest = Forest::new(&trees)?;
    let raws: Vec<f64> = rows.iter().map(|row| forest.score(&Row::new(row))).collect();
    let golden = GoldenRows {
        inputs: (0..inputs).map(|at| rows.iter().take(8).map(|row| row.get(at).copied().map_or(0.0, f64::from)).collect()).collect(),
        raw: raws.iter().take(8).copied().collect(),
    };
    let draft = Draft {
        manifest: manifest(schema),
        model: file::encode(&trees)?,
        calibration: Some(conformal(&raws)?),
        golden,
        report: "{}".to_owned(),
        profile: None,
        signature: None,
    };
    let repository = Repository::create(folder)?;
    let version = repository.publish("bench", draft)?;
    repository.promote("bench", version)?;
    let options = RuntimeOptions { shipped_calibration: true, ..RuntimeOptions::default() };
    let bundle = repository.load(schema, &options)?;
    match bundle.failures().first() {
        Some(failure) => Err(failure.reason.clone().into()),
        None => Ok(bundle),
    }
}

fn grow(rows: &[&[f32]], depth: usize, inputs: usize, rng: &mut impl Rng) -> Branch {
    let leaf = || Branch::Leaf { rows: u32::try_from(rows.len().max(1)).unwrap_or(1) };
    if rows.len() < 2 || depth == 0 {
        return leaf();
    }
    // A few attempts at an input that differs among these rows; many features of quiet traffic never do.
    for _ in 0..inputs {
        let input = rng.random_range(0..inputs);
        let value = |row: &[f32]| row.get(input).copied().unwrap_or_default();
        let (low, high) = rows.iter().fold((f32::MAX, f32::MIN), |(low, high), row| (low.min(value(row)), high.max(value(row))));
        if low >= high {
            continue;
        }
        let threshold = rng.random_range(low..high);
        let (below, above): (Vec<_>, Vec<_>) = rows.iter().copied().partition(|row| value(row) <= threshold);
        let input = u8::try_from(input).unwrap_or_default();
        let (below, above) = (grow(&below, depth - 1, inputs, rng), grow(&above, depth - 1, inputs, rng));
        return Branch::Split { input, threshold, below: Box::new(below), above: Box::new(above) };
    }
    leaf()
}

fn manifest(schema: &Schema) -> Manifest {
    let input = |feature: &telltale_features::schema::FeatureSpec| Input {
        name: feature.name.clone(),
        hash: format!("{:016x}", feature.hash),
        usual: 0.0,
        spread: 1.0,
        missing: Missing::Value(0.0),
    };
    Manifest {
        kind: Kind::Forest,
        description: "the bench's forest".to_owned(),
        licence: "Apache-2.0".to_owned(),
        origin: Origin::Own,
        output: Output::default(),
        training: Training { schema: schema.digest().to_owned(), seed: 1, ..Training::default() },
        files: Default::default(),
        metrics: Default::default(),
        inputs: schema.features().iter().map(input).collect(),
    }
}
