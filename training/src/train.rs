//! One training run: options enter, a published and promoted version leaves. Rows are cut by time: 60 % to grow on, 20 % to calibrate on,
//! 20 % to report on. Only ordinary rows grow and calibrate the forest; labels serve the report.

use std::collections::BTreeMap;
use std::path::PathBuf;

use telltale_models::forest::{Forest, MAX_INPUTS, Row, file};
use telltale_models::profile::{Bins, Column, Profile};
use telltale_models::repository::{Draft, GoldenRows, Input, Kind, Manifest, Missing, Origin, Output, Training};
use telltale_models::{ModelError, Repository, calibration};

use crate::features::{Feature, Features};
use crate::forest::{ForestOptions, fit};
use crate::metrics::{Figures, figures};

const GOLDEN_ROWS: usize = 64;

/// What is trained, from what, and where it goes.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Feature file of `telltale replay --features`.
    pub features: PathBuf,
    /// Repository to publish into; made when absent.
    pub repository: PathBuf,
    /// Name of the model.
    pub model: String,
    /// Features that are never inputs: names, or patterns with `*` at either end.
    pub exclude: Vec<String>,
    /// How the forest is grown.
    pub forest: ForestOptions,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Version that was published and promoted.
    pub version: u32,
    /// Inputs of the model.
    pub inputs: usize,
    /// Bytes of the model file.
    pub bytes: usize,
    /// Figures on the last fifth of the rows; `None` without labels.
    pub figures: Option<Figures>,
}

/// Trains an isolation forest and publishes it as champion.
///
/// # Errors
/// [`ModelError`] when the features cannot be read, do not suffice, or the repository cannot be written.
pub fn train(options: &TrainOptions) -> Result<Trained, ModelError> {
    let features = Features::read(&options.features, &options.exclude)?;
    let rows = features.rows();
    let (first, second) = (rows * 6 / 10, rows * 8 / 10);
    let abusive: Vec<bool> = features.labels.iter().map(|label| label == "fraud" || label == "abuse").collect();
    let ordinary = |from: usize, to: usize| -> Vec<usize> { (from..to).filter(|row| abusive.get(*row) == Some(&false)).collect() };
    let (learn, hold) = (ordinary(0, first), ordinary(first, second));
    if learn.len() < 1000 || hold.len() < 200 {
        let problem =
            format!("{} ordinary rows to grow on and {} to calibrate on, at least 1000 and 200 are needed", learn.len(), hold.len());
        return Err(ModelError::invalid(&options.features, problem));
    }
    let inputs = inputs(&features.columns, &learn);
    if !(1..=MAX_INPUTS).contains(&inputs.len()) {
        let problem = format!("{} features vary among ordinary rows, allowed are 1 to {MAX_INPUTS}: exclude some", inputs.len());
        return Err(ModelError::invalid(&options.features, problem));
    }
    let grown: Vec<Vec<f32>> = learn.iter().map(|row| values(&inputs, *row)).collect();
    let trees = fit(&grown, &options.forest)?;
    let forest = Forest::new(&trees)?;
    let score = |row: usize| forest.score(&Row::new(&values(&inputs, row)));
    let held: Vec<f64> = hold.iter().map(|row| score(*row)).collect();
    let judged: Vec<(f64, bool)> = (second..rows).map(|row| (score(row), abusive.get(row) == Some(&true))).collect();
    let figures = figures(&judged);
    let golden: Vec<usize> = (0..GOLDEN_ROWS).map(|at| at * (rows - 1) / (GOLDEN_ROWS - 1)).collect();
    let model = file::encode(&trees).map_err(ModelError::Data)?;
    let bytes = model.len();
    let count = inputs.len();
    let draft = Draft {
        manifest: manifest(options, &features, &inputs, (learn.as_slice(), figures)),
        model,
        calibration: Some(calibration::conformal(&held)?),
        golden: GoldenRows {
            inputs: inputs.iter().map(|(feature, _)| golden.iter().map(|row| at(feature, *row)).collect()).collect(),
            raw: golden.iter().map(|row| score(*row)).collect(),
        },
        report: report((learn.len(), hold.len(), rows - second), figures),
        profile: Some(profile((first, second), &inputs, score)),
        signature: None,
    };
    let repository = Repository::create(&options.repository)?;
    let version = repository.publish(&options.model, draft)?;
    repository.promote(&options.model, version)?;
    Ok(Trained { version, inputs: count, bytes, figures })
}

/// What the training window looked like: all of its rows, because nobody takes the attacks out of what comes later. Scores are those of the
/// rows to calibrate on, which the model did not learn.
fn profile((first, second): (usize, usize), inputs: &[(&Feature, Input)], score: impl Fn(usize) -> f64) -> Profile {
    let columns = inputs.iter().map(|(feature, _)| Column::of(&feature.name, (0..first).map(|row| at(feature, row))));
    Profile { rows: first as u64, inputs: columns.collect(), score: Bins::of((first..second).map(score)) }
}

/// The features that vary among these rows, each with its manifest entry.
fn inputs<'a>(columns: &'a [Feature], rows: &[usize]) -> Vec<(&'a Feature, Input)> {
    let entry = |feature: &'a Feature| {
        let mut present: Vec<f64> = rows.iter().map(|row| at(feature, *row)).filter(|value| !value.is_nan()).collect();
        present.sort_by(f64::total_cmp);
        let quantile = |share: usize| present.get(present.len().saturating_sub(1) * share / 4).copied();
        let (low, middle, high) = (quantile(1)?, quantile(2)?, quantile(3)?);
        if present.first() == present.last() {
            return None;
        }
        let input = Input {
            name: feature.name.clone(),
            hash: feature.hash.clone(),
            usual: middle,
            spread: (high - low) / 2.0,
            missing: Missing::default(),
        };
        Some((feature, input))
    };
    columns.iter().filter_map(entry).collect()
}

/// The row as the scorer will see it: a missing value stands at its usual one.
fn values(inputs: &[(&Feature, Input)], row: usize) -> Vec<f32> {
    let value = |(feature, input): &(&Feature, Input)| {
        let value = at(feature, row);
        let value = if value.is_nan() { input.fill() } else { value };
        value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
    };
    inputs.iter().map(value).collect()
}

fn at(feature: &Feature, row: usize) -> f64 {
    feature.values.get(row).copied().unwrap_or(f64::NAN)
}

fn manifest(options: &TrainOptions, features: &Features, inputs: &[(&Feature, Input)], learned: (&[usize], Option<Figures>)) -> Manifest {
    let (learn, figures) = learned;
    let time = |row: Option<&usize>| row.and_then(|row| features.times.get(*row)).copied().unwrap_or(0);
    Manifest {
        kind: Kind::Forest,
        description: "How unusual a transaction is beside ordinary traffic; knows no labels".to_string(),
        licence: "Apache-2.0".to_string(),
        origin: Origin::Own,
        output: Output::default(),
        training: Training {
            from_us: time(learn.first()),
            to_us: time(learn.last()),
            rows: learn.len() as u64,
            schema: features.schema.clone(),
            seed: options.forest.seed,
        },
        files: BTreeMap::new(),
        metrics: named(figures),
        inputs: inputs.iter().map(|(_, input)| input.clone()).collect(),
    }
}

fn named(figures: Option<Figures>) -> BTreeMap<String, f64> {
    let pairs =
        figures.map(|found| [("pr_auc", found.pr_auc), ("roc_auc", found.roc_auc), ("recall_at_fpr_0_001", found.recall_at_fpr_0_001)]);
    pairs.into_iter().flatten().map(|(name, value)| (name.to_string(), value)).collect()
}

fn report((learn, hold, test): (usize, usize, usize), figures: Option<Figures>) -> String {
    let report = serde_json::json!({ "rows": { "train": learn, "calibrate": hold, "test": test }, "test": named(figures) });
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use telltale_features::vector::FeatureVector;
    use telltale_models::repository::FeatureIndex;
    use telltale_models::table::{self, Column};
    use telltale_models::{Calibrated, Lane, RuntimeOptions};

    const NAMES: [&str; 4] = ["address.label_rate_7d", "address.requests_1m", "session.paths_1h", "user.age"];

    /// A feature file of customers, with an attack in one row of thirty.
    fn write(path: &Path, rows: u32) {
        let noise = |n: u32, of: u32| f64::from(n.wrapping_mul(2_654_435_761).rotate_left(of) % 1000) / 100.0;
        let attack = |n: u32| n % 30 == 7;
        let columns: Vec<Vec<f64>> = (0..4)
            .map(|at| {
                (0..rows)
                    .map(|n| if n % 11 == 3 && at == 3 { f64::NAN } else { noise(n, at * 7) * if attack(n) { 40.0 } else { 1.0 } })
                    .collect()
            })
            .collect();
        let labels: Vec<String> = (0..rows).map(|n| if attack(n) { "abuse".into() } else { "benign".into() }).collect();
        let times: Vec<i64> = (0..rows).map(|n| i64::from(n) * 1000).collect();
        let mut all = vec![("time_us", Column::Integers(&times)), ("label", Column::Texts(&labels))];
        all.extend(NAMES.iter().zip(&columns).map(|(name, values)| (*name, Column::Numbers(values))));
        let hashes: BTreeMap<_, _> = NAMES.iter().enumerate().map(|(at, name)| (name, format!("{at:016x}"))).collect();
        let hashes = ("telltale.features".to_string(), serde_json::to_string(&hashes).unwrap());
        table::write(path, &all, &[hashes, ("telltale.schema".to_string(), "00ff".to_string())]).unwrap();
    }

    #[test]
    fn a_feature_file_becomes_a_model_that_finds_the_attack() {
        let folder = tempfile::tempdir().unwrap();
        let features = folder.path().join("features.parquet");
        write(&features, 6000);
        let options = |name: &str| TrainOptions {
            features: features.clone(),
            repository: folder.path().join(name),
            model: "unusual".into(),
            exclude: vec!["*label_rate*".into()],
            forest: ForestOptions { trees: 100, ..ForestOptions::default() },
        };
        let trained = train(&options("a")).unwrap();
        assert_eq!((trained.version, trained.inputs), (1, 3));
        assert!(trained.figures.unwrap().roc_auc > 0.9, "{:?}", trained.figures);
        train(&options("b")).unwrap();
        let manifest = |name: &str| Repository::open(folder.path().join(name)).unwrap().manifest("unusual", 1).unwrap();
        assert_eq!(manifest("a"), manifest("b"));
        let path = folder.path().join("a/unusual/versions/1/profile.json");
        let profile = Profile::parse(&std::fs::read(path).unwrap(), &manifest("a")).unwrap();
        assert_eq!((profile.rows, profile.score.counts().iter().sum::<u64>()), (3_600, 1_200));
        let age = profile.inputs.iter().find(|column| column.name == "user.age").unwrap();
        assert!(age.counts().sum::<u64>() == 3_600 && age.missing == 327, "{}", age.missing);

        let index = FeatureIndex::new(NAMES.iter().enumerate().map(|(at, name)| (*name, at as u64)));
        let runtime = RuntimeOptions { shipped_calibration: true, ..RuntimeOptions::default() };
        let bundle = Repository::open(folder.path().join("a")).unwrap().load_with(&index, &runtime).unwrap();
        assert_eq!(bundle.failures(), []);
        let part = |values: [f64; 4]| bundle.score(&FeatureVector { values: values.into() }, Lane(0)).parts.remove(0);
        let (calm, odd) = (part([0.0, 5.0, 5.0, 5.0]).calibrated, part([0.0, 300.0, 380.0, 290.0]).calibrated);
        let (Calibrated::PValue(calm), Calibrated::PValue(odd)) = (calm, odd) else { panic!() };
        assert!(calm > 0.3 && odd < 0.1, "{calm} {odd}");
    }

    #[test]
    fn too_few_rows_are_refused_with_how_many_are_needed() {
        let folder = tempfile::tempdir().unwrap();
        let features = folder.path().join("features.parquet");
        write(&features, 600);
        let options = TrainOptions {
            features,
            repository: folder.path().join("models"),
            model: "unusual".into(),
            exclude: vec![],
            forest: ForestOptions::default(),
        };
        assert!(train(&options).unwrap_err().to_string().contains("at least 1000 and 200 are needed"));
    }
}
