//! Fitting the linear kinds with linfa: float32 rows, options and a seed enter, parts of a model leave.
//!
//! Rows are scaled as the model will scale them, so that what linfa fits is what is evaluated. linfa's own random choices have a fixed
//! seed and go by the order of the rows, which ours shuffles.

mod mixture;

use linfa::DatasetBase;
use linfa::prelude::Fit;
use linfa_clustering::KMeans;
use linfa_logistic::LogisticRegression;
use linfa_reduction::Pca;
use ndarray::{Array1, Array2};
use telltale_models::ModelError;
use telltale_models::linear::{Basis, Head, LEAST_NOISE, MAX_CLUSTERS, MAX_RANK, Parts};

use crate::scaled::{MOST_ROWS, drawn, matrix, standard};

/// Share of the variance that the kept directions hold, when their number is not given.
const SHARE: f64 = 0.9;
/// Most directions that are chosen by that share.
const MOST_BY_SHARE: usize = 32;
/// Least noise: that of scaled values which agree to about three in a hundred.
const NOISE: f64 = 1e-3;
/// Rows of either kind that a logistic regression needs.
pub const LABELS: usize = 50;

/// How a linear model is fitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearOptions {
    /// Kept directions of `pca` and `gmm`, 1 to 64 and fewer than inputs; `None`: as few as hold 90 % of the variance, at most 32.
    pub directions: Option<usize>,
    /// Components of `gmm` and centroids of `kmeans`, 1 to 256.
    pub clusters: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for LinearOptions {
    fn default() -> Self {
        Self { directions: None, clusters: 8, seed: 20_260_102 }
    }
}

/// Which linear model is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearKind {
    /// Reconstruction error of principal components.
    Pca,
    /// Gaussian mixture.
    Gmm,
    /// k-means.
    KMeans,
}

/// Fits one of the kinds that know no labels on ordinary rows of equal width.
///
/// # Errors
/// [`ModelError::Data`] for options out of bounds or rows that cannot be fitted.
pub fn fit(kind: LinearKind, rows: &[Vec<f32>], options: &LinearOptions) -> Result<Parts, ModelError> {
    let inputs = rows.first().map_or(0, Vec::len);
    if !(1..=MAX_CLUSTERS).contains(&options.clusters) {
        return Err(ModelError::Data(format!("{} clusters, allowed are 1 to {MAX_CLUSTERS}", options.clusters)));
    }
    let most = MAX_RANK.min(inputs.saturating_sub(1));
    if options.directions.is_some_and(|count| !(1..=most).contains(&count)) || most == 0 && kind != LinearKind::KMeans {
        let asked = options.directions.map_or("no number of".to_string(), |count| count.to_string());
        return Err(ModelError::Data(format!("{asked} directions of {inputs} inputs: allowed are 1 to {most}, fewer than inputs")));
    }
    let chosen = drawn(rows.len(), MOST_ROWS, options.seed);
    let chosen: Vec<&[f32]> = chosen.iter().filter_map(|row| rows.get(*row).map(Vec::as_slice)).collect();
    let scales = standard(&chosen);
    let scaled = matrix(&scales, &chosen);
    let head = match kind {
        LinearKind::Pca => Head::Pca(basis(&scaled, options.directions)?.0),
        LinearKind::Gmm => {
            let (basis, deviations) = basis(&scaled, options.directions)?;
            let components = mixture::fit(&scaled, (&basis, &deviations), options.clusters)?;
            Head::Gmm(basis, components)
        }
        LinearKind::KMeans => Head::KMeans(centroids(scaled, options.clusters)?),
    };
    Ok(Parts { scales, head })
}

/// Directions of most variance, and the standard deviation of the rows along each.
fn basis(scaled: &Array2<f64>, directions: Option<usize>) -> Result<(Basis, Vec<f64>), ModelError> {
    let (rows, inputs) = scaled.dim();
    let asked = directions.unwrap_or_else(|| MOST_BY_SHARE.min(inputs.saturating_sub(1)));
    let fitted = Pca::params(asked).fit(&DatasetBase::from(scaled.view()));
    let fitted = fitted.map_err(|error| ModelError::Data(format!("the principal components cannot be computed: {error}")))?;
    let count = rows.saturating_sub(1).max(1) as f64;
    let mut found: Vec<(f64, Vec<f64>)> = fitted
        .singular_values()
        .iter()
        .map(|value| value * value / count)
        .zip(fitted.components().rows().into_iter().map(|row| row.to_vec()))
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let all: f64 = scaled.columns().into_iter().map(|column| column.var(1.0)).sum();
    let (mut kept, mut held) = (Vec::new(), 0.0);
    for (variance, direction) in found {
        if directions.is_none() && held >= SHARE * all && !kept.is_empty() {
            break;
        }
        held += variance;
        kept.push((variance, direction));
    }
    let noise = (all - held) / (inputs - kept.len()).max(1) as f64;
    let basis = Basis {
        mean: narrow(fitted.mean().iter()),
        directions: kept.iter().map(|(_, direction)| narrow(direction.iter())).collect(),
        noise: noise.clamp(NOISE.max(f64::from(LEAST_NOISE)), 1e6) as f32,
    };
    Ok((basis, kept.iter().map(|(variance, _)| variance.sqrt().max(NOISE.sqrt())).collect()))
}

fn centroids(scaled: Array2<f64>, clusters: usize) -> Result<Vec<Vec<f32>>, ModelError> {
    // k-means++ draws its centroids among rows that differ: it must not run out of them.
    let distinct: std::collections::BTreeSet<Vec<u64>> =
        scaled.rows().into_iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect();
    if distinct.len() <= clusters {
        return Err(ModelError::Data(format!("{clusters} clusters of {} different rows: ask for fewer", distinct.len())));
    }
    let fitted = KMeans::params(clusters).n_runs(3).fit(&DatasetBase::from(scaled));
    let fitted = fitted.map_err(|error| ModelError::Data(format!("k-means cannot be fitted: {error}")))?;
    Ok(fitted.centroids().rows().into_iter().map(|row| narrow(row.iter())).collect())
}

/// Fits a logistic regression on rows of equal width and whether each is abusive.
///
/// # Errors
/// [`ModelError::Data`] when labels are missing or the fit fails.
pub fn fit_logistic(rows: &[Vec<f32>], abusive: &[bool], options: &LinearOptions) -> Result<Parts, ModelError> {
    let bad = abusive.iter().filter(|abusive| **abusive).count();
    let good = abusive.len() - bad;
    if bad < LABELS || good < LABELS {
        return Err(ModelError::Data(format!(
            "a logistic regression learns from labels: {good} rows to fit on are labelled `benign` and {bad} `fraud` or `abuse`, at least {LABELS} \
             of each are needed; the other kinds need none"
        )));
    }
    let chosen = drawn(rows.len(), MOST_ROWS, options.seed);
    let targets: Array1<bool> = chosen.iter().filter_map(|row| abusive.get(*row).copied()).collect();
    let chosen: Vec<&[f32]> = chosen.iter().filter_map(|row| rows.get(*row).map(Vec::as_slice)).collect();
    let scales = standard(&chosen);
    let dataset = DatasetBase::new(matrix(&scales, &chosen), targets);
    let fitted = LogisticRegression::default().alpha(1.0).max_iterations(200).fit(&dataset);
    let fitted = fitted.map_err(|error| ModelError::Data(format!("the logistic regression cannot be fitted: {error}")))?;
    // linfa makes the more frequent class the positive one.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let weights: Vec<f64> = fitted.params().iter().map(|weight| sign * weight).collect();
    Ok(Parts { scales, head: Head::Logistic { weights: narrow(weights.iter()), bias: (sign * fitted.intercept()) as f32 } })
}

/// To the float32 of a model's file.
fn narrow<'a>(numbers: impl Iterator<Item = &'a f64>) -> Vec<f32> {
    numbers.map(|number| *number as f32).collect()
}

#[cfg(test)]
mod tests;
