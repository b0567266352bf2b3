//! One training run: options enter, a published and promoted version leaves. Rows are cut by time: 60 % to grow on, 20 % to calibrate on,
//! 20 % to report on. Only ordinary rows fit and calibrate a model that knows no labels, and labels serve the report; a supervised one is
//! fitted and calibrated on the labelled rows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use telltale_models::profile::{Bins, Column, Profile};
use telltale_models::repository::{Draft, GoldenRows, Input, Manifest, Missing, Origin, Output, Training};
use telltale_models::{CalibrationTable, ModelError, Repository, calibration};

use crate::features::{Feature, Features};
use crate::metrics::{Figures, figures};
use crate::recipe::Recipe;

const GOLDEN_ROWS: usize = 64;
/// Held-out rows of either kind that a probability is made from.
const CALIBRATION_LABELS: usize = 20;

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
    /// What is fitted, and how.
    pub recipe: Recipe,
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

/// Trains a native model and publishes it as champion.
///
/// # Errors
/// [`ModelError`] when the features cannot be read, do not suffice, or the repository cannot be written.
pub fn train(options: &TrainOptions) -> Result<Trained, ModelError> {
    let features = Features::read(&options.features, &options.exclude)?;
    let rows = features.rows();
    let (first, second) = (rows * 6 / 10, rows * 8 / 10);
    let abusive: Vec<bool> = features.labels.iter().map(|label| label == "fraud" || label == "abuse").collect();
    let ordinary = |from: usize, to: usize| -> Vec<usize> { (from..to).filter(|row| abusive.get(*row) == Some(&false)).collect() };
    let (usual, hold) = (ordinary(0, first), ordinary(first, second));
    if usual.len() < 1000 || hold.len() < 200 {
        let problem =
            format!("{} ordinary rows to grow on and {} to calibrate on, at least 1000 and 200 are needed", usual.len(), hold.len());
        return Err(ModelError::invalid(&options.features, problem));
    }
    let supervised = options.recipe.is_supervised();
    let is_labelled = |row: &usize| features.labels.get(*row).is_some_and(|label| !label.is_empty());
    let learn = if supervised { (0..first).filter(is_labelled).collect() } else { usual.clone() };
    let (inputs, most) = (inputs(&features.columns, &usual, &learn), options.recipe.max_inputs());
    if !learn.is_empty() && !(1..=most).contains(&inputs.len()) {
        let problem = format!("{} features vary among ordinary rows, allowed are 1 to {most}: exclude some", inputs.len());
        return Err(ModelError::invalid(&options.features, problem));
    }
    let fitted: Vec<Vec<f32>> = learn.iter().map(|row| values(&inputs, *row)).collect();
    let truths: Vec<bool> = learn.iter().map(|row| abusive.get(*row) == Some(&true)).collect();
    let model = options.recipe.fit(&fitted, &truths).map_err(|error| ModelError::invalid(&options.features, error.to_string()))?;
    let score = |row: usize| model.score(&values(&inputs, row));
    let labelled: Vec<usize> = if supervised { (first..second).filter(is_labelled).collect() } else { Vec::new() };
    let labelled: Vec<(f64, bool, f64)> = labelled.into_iter().map(|row| (score(row), abusive.get(row) == Some(&true), 1.0)).collect();
    let held: Vec<f64> = hold.iter().map(|row| score(*row)).collect();
    let judged: Vec<(f64, bool)> = (second..rows).map(|row| (score(row), abusive.get(row) == Some(&true))).collect();
    let figures = figures(&judged);
    let golden: Vec<usize> = (0..GOLDEN_ROWS).map(|at| at * (rows - 1) / (GOLDEN_ROWS - 1)).collect();
    let bytes = model.bytes.len();
    let count = inputs.len();
    let draft = Draft {
        manifest: manifest(options, &features, &inputs, (learn.as_slice(), figures)),
        calibration: Some(calibrated(&held, &labelled)?),
        golden: GoldenRows {
            inputs: inputs.iter().map(|(feature, _)| golden.iter().map(|row| at(feature, *row)).collect()).collect(),
            raw: golden.iter().map(|row| score(*row)).collect(),
        },
        report: report((learn.len(), hold.len(), rows - second), figures),
        profile: Some(profile((first, second), &inputs, score)),
        signature: None,
        model: model.bytes,
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

/// A probability where held-out rows of both kinds are labelled; else a p-value, by which no labels are needed.
fn calibrated(held: &[f64], labelled: &[(f64, bool, f64)]) -> Result<CalibrationTable, ModelError> {
    let bad = labelled.iter().filter(|(_, abusive, _)| *abusive).count();
    if bad.min(labelled.len() - bad) < CALIBRATION_LABELS { calibration::conformal(held) } else { calibration::isotonic(labelled) }
}

/// The features that vary among the rows to learn from, each with its manifest entry; what is usual is what ordinary rows have.
fn inputs<'a>(columns: &'a [Feature], ordinary: &[usize], learn: &[usize]) -> Vec<(&'a Feature, Input)> {
    let entry = |feature: &'a Feature| {
        let mut present: Vec<f64> = ordinary.iter().map(|row| at(feature, *row)).filter(|value| !value.is_nan()).collect();
        present.sort_by(f64::total_cmp);
        let quantile = |share: usize| present.get(present.len().saturating_sub(1) * share / 4).copied();
        let (low, middle, high) = (quantile(1)?, quantile(2)?, quantile(3)?);
        let mut among = learn.iter().map(|row| at(feature, *row)).filter(|value| !value.is_nan());
        let first = among.next()?;
        if among.all(|value| value == first) {
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
        kind: options.recipe.kind(),
        description: options.recipe.description().to_string(),
        licence: "Apache-2.0".to_string(),
        origin: Origin::Own,
        output: Output::default(),
        training: Training {
            from_us: time(learn.first()),
            to_us: time(learn.last()),
            rows: learn.len() as u64,
            schema: features.schema.clone(),
            seed: options.recipe.seed(),
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
    use telltale_models::{Asked, Calibrated, Lane, RuntimeOptions, Scores};

    use crate::forest::ForestOptions;
    use crate::half_space::HalfSpaceOptions;
    use crate::linear::{LinearKind, LinearOptions};

    const NAMES: [&str; 4] = ["address.label_rate_7d", "address.requests_1m", "session.paths_1h", "user.age"];

    /// A feature file of customers, with an attack in one row of thirty.
    fn write(path: &Path, rows: u32, labelled: bool) {
        let noise = |n: u32, of: u32| f64::from(n.wrapping_mul(2_654_435_761).rotate_left(of) % 1000) / 100.0;
        let attack = |n: u32| n % 30 == 7;
        let columns: Vec<Vec<f64>> = (0..4)
            .map(|at| {
                (0..rows)
                    .map(|n| if n % 11 == 3 && at == 3 { f64::NAN } else { noise(n, at * 7) * if attack(n) { 40.0 } else { 1.0 } })
                    .collect()
            })
            .collect();
        let label = |n: u32| match (labelled, attack(n)) {
            (false, _) => "",
            (true, true) => "abuse",
            (true, false) => "benign",
        };
        let labels: Vec<String> = (0..rows).map(|n| label(n).to_string()).collect();
        let times: Vec<i64> = (0..rows).map(|n| i64::from(n) * 1000).collect();
        let mut all = vec![("time_us", Column::Integers(&times)), ("label", Column::Texts(&labels))];
        all.extend(NAMES.iter().zip(&columns).map(|(name, values)| (*name, Column::Numbers(values))));
        let hashes: BTreeMap<_, _> = NAMES.iter().enumerate().map(|(at, name)| (name, format!("{at:016x}"))).collect();
        let hashes = ("telltale.features".to_string(), serde_json::to_string(&hashes).unwrap());
        table::write(path, &all, &[hashes, ("telltale.schema".to_string(), "00ff".to_string())]).unwrap();
    }

    fn recipes() -> Vec<Recipe> {
        let linear = |kind, directions| Recipe::Linear(kind, LinearOptions { directions, clusters: 4, ..LinearOptions::default() });
        vec![
            Recipe::Forest(ForestOptions { trees: 100, ..ForestOptions::default() }),
            linear(LinearKind::Pca, Some(1)),
            linear(LinearKind::Gmm, None),
            linear(LinearKind::KMeans, None),
            Recipe::Logistic(LinearOptions::default()),
            Recipe::HalfSpace(HalfSpaceOptions { window: 1024, ..HalfSpaceOptions::default() }),
        ]
    }

    #[test]
    fn a_feature_file_becomes_a_model_of_each_kind_that_finds_the_attack() {
        let folder = tempfile::tempdir().unwrap();
        let features = folder.path().join("features.parquet");
        write(&features, 6000, true);
        for recipe in recipes() {
            let kind = recipe.kind().name();
            let options = |name: &str| TrainOptions {
                features: features.clone(),
                repository: folder.path().join(kind).join(name),
                model: "unusual".into(),
                exclude: vec!["*label_rate*".into()],
                recipe: recipe.clone(),
            };
            let trained = train(&options("a")).unwrap();
            assert_eq!((trained.version, trained.inputs), (1, 3), "{kind}");
            // Features that are independent leave principal components little to find: what lies along the kept one is not seen.
            let least = if kind == "pca" { 0.85 } else { 0.9 };
            assert!(trained.figures.unwrap().roc_auc > least, "{kind}: {:?}", trained.figures);
            train(&options("b")).unwrap();
            let manifest = |name: &str| Repository::open(options(name).repository).unwrap().manifest("unusual", 1).unwrap();
            assert_eq!(manifest("a"), manifest("b"));
            assert_eq!(manifest("a").kind.name(), kind);
            profiled(&options("a").repository, &manifest("a"));
            serves(&options("a").repository, kind);
        }
    }

    /// The version's profile holds its training window.
    fn profiled(repository: &Path, manifest: &Manifest) {
        let path = repository.join("unusual/versions/1/profile.json");
        let profile = Profile::parse(&std::fs::read(path).unwrap(), manifest).unwrap();
        assert_eq!((profile.rows, profile.score.counts().iter().sum::<u64>()), (3_600, 1_200));
        let age = profile.inputs.iter().find(|column| column.name == "user.age").unwrap();
        assert!(age.counts().sum::<u64>() == 3_600 && age.missing == 327, "{}", age.missing);
    }

    /// Loads the version, scores a calm and an odd row, and has the odd one explained.
    fn serves(repository: &Path, kind: &str) {
        let index = FeatureIndex::new(NAMES.iter().enumerate().map(|(at, name)| (*name, at as u64)));
        let runtime = RuntimeOptions { shipped_calibration: true, ..RuntimeOptions::default() };
        let bundle = Repository::open(repository).unwrap().load_with(&index, &runtime).unwrap();
        assert_eq!(bundle.failures(), [], "{kind}");
        let row = |values: [f64; 4]| FeatureVector { values: values.into() };
        let odd = row([0.0, 300.0, 380.0, 290.0]);
        let scores = bundle.score(&odd, Lane(0));
        let calm = bundle.score(&row([0.0, 5.0, 5.0, 5.0]), Lane(0)).parts.remove(0);
        match (calm.calibrated, scores.parts[0].calibrated) {
            (Calibrated::PValue(calm), Calibrated::PValue(odd)) if kind != "logistic" => {
                assert!(calm > 0.2 && odd < 0.1, "{kind}: {calm} {odd}")
            }
            (Calibrated::Probability(calm), Calibrated::Probability(odd)) => assert!(calm < 0.1 && odd > 0.9, "{kind}: {calm} {odd}"),
            other => panic!("{kind}: {other:?}"),
        }
        let risk = |scores: &Scores| match scores.parts[0].calibrated {
            Calibrated::Probability(value) => value,
            Calibrated::PValue(value) => 1.0 - value,
            Calibrated::Calibrating { .. } => 0.0,
        };
        // One behaviour alone is odd: at its usual value the row is calm, so it is the reason.
        let mut named = 0;
        for at in 1..4 {
            let mut values = [0.0, 5.0, 5.0, 5.0];
            values[at] = 380.0;
            let vector = row(values);
            let scores = bundle.score(&vector, Lane(0));
            let (reasons, absent) = bundle.explain(&vector, &scores, &Asked::default(), &risk);
            assert!(absent.is_empty(), "{kind}");
            for reason in reasons {
                let mut values = vector.values.to_vec();
                values[usize::from(reason.feature.0)] = reason.usual;
                let without = bundle.score(&FeatureVector { values: values.into() }, Lane(0)).parts[0].raw;
                assert!(without < scores.parts[0].raw, "{kind}: {reason:?}");
                named += usize::from(usize::from(reason.feature.0) == at);
            }
        }
        assert!(named > 0, "{kind}: no odd behaviour is named");
    }

    #[test]
    fn what_cannot_be_trained_is_refused_with_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let features = folder.path().join("features.parquet");
        let message = |recipe: Recipe| {
            let repository = folder.path().join("models");
            let options = TrainOptions { features: features.clone(), repository, model: "unusual".into(), exclude: vec![], recipe };
            train(&options).unwrap_err().to_string()
        };
        write(&features, 600, true);
        assert!(message(Recipe::Forest(ForestOptions::default())).contains("at least 1000 and 200 are needed"));
        write(&features, 6000, false);
        let problem = message(Recipe::Logistic(LinearOptions::default()));
        assert!(problem.contains("0 rows to fit on are labelled `benign` and 0 `fraud` or `abuse`, at least 50 of each"), "{problem}");
        let many = LinearOptions { directions: Some(9), ..LinearOptions::default() };
        assert!(message(Recipe::Linear(LinearKind::Pca, many)).contains("9 directions of 4 inputs: allowed are 1 to 3"));
        let many = LinearOptions { clusters: 300, ..LinearOptions::default() };
        assert!(message(Recipe::Linear(LinearKind::KMeans, many)).contains("300 clusters, allowed are 1 to 256"));
        let deep = HalfSpaceOptions { depth: 40, ..HalfSpaceOptions::default() };
        assert!(message(Recipe::HalfSpace(deep)).contains("of depth 40, allowed are"));
    }
}
