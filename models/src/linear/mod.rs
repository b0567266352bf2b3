//! Models of a few sums: PCA residual, Gaussian mixture, k-means distance, logistic regression. A float32 row enters, a score leaves.
//!
//! The trainer fits them, this evaluates: every input is scaled ([`mod@crate::scale`]), then follow additions and products in a fixed order
//! and at most one square root or one polynomial. Scores are bitwise equal on every machine and finite for every row.

pub mod file;

use smallvec::SmallVec;

use crate::ModelError;
use crate::forest::half_to_the;
use crate::scale::{MAX_INPUTS, MOST, Scale};

/// Most directions of a basis.
pub const MAX_RANK: usize = 64;
/// Most components of a mixture, and most centroids.
pub const MAX_CLUSTERS: usize = 256;
/// Most products that the centroids or the components of a model ask of one row: one is scored in well under a millisecond. A basis never
/// asks more: [`MAX_RANK`] directions of [`MAX_INPUTS`] inputs are as many.
pub const MOST_PRODUCTS: usize = 1 << 18;
/// Least variance of what a basis leaves out.
pub const LEAST_NOISE: f32 = 1e-6;

/// What a model is made of. All numbers are finite and at most [`MOST`] in magnitude.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// One scale an input, 1 to [`MAX_INPUTS`].
    pub scales: Vec<Scale>,
    /// What is made of the scaled row.
    pub head: Head,
}

/// What is made of a scaled row z.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// Mean squared reconstruction error: what the principal components do not explain (Jolliffe: Principal Component Analysis, 10.1).
    Pca(Basis),
    /// −2·log of the likeliest component's weighted density, but for a constant: the squared Mahalanobis distance within the basis plus
    /// what the component's size and weight add, and the squared distance from the basis over its noise (Moghaddam and Pentland:
    /// Probabilistic Visual Learning for Object Representation, IEEE PAMI 19, 1997).
    Gmm(Basis, Vec<Component>),
    /// Distance to the nearest centroid; each has one number an input, 1 to [`MAX_CLUSTERS`].
    KMeans(Vec<Vec<f32>>),
    /// Probability `1 / (1 + e^−(w·z + b))`.
    Logistic {
        /// One weight an input.
        weights: Vec<f32>,
        /// Added to the sum.
        bias: f32,
    },
}

/// A few directions through the mean of the scaled rows, as fitted: the trainer makes them orthogonal and of length 1, and a model whose
/// directions are not measures another distance.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    /// One number an input.
    pub mean: Vec<f32>,
    /// 1 to [`MAX_RANK`] directions, not more than inputs, each with one number an input.
    pub directions: Vec<Vec<f32>>,
    /// Variance of the training rows in each direction that is left out: at least [`LEAST_NOISE`].
    pub noise: f32,
}

/// A component of a mixture within a basis of rank m.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// m numbers.
    pub mean: Vec<f32>,
    /// The lower triangle L of the precision L·Lᵀ, row after row: m·(m+1)/2 numbers.
    pub precision: Vec<f32>,
    /// `ln det Σ − 2·ln weight`.
    pub offset: f32,
}

impl Head {
    /// As manifests name it; in the file the sixth byte says it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pca(_) => "pca",
            Self::Gmm(..) => "gmm",
            Self::KMeans(_) => "kmeans",
            Self::Logistic { .. } => "logistic",
        }
    }
}

/// A row or a projection of it.
type Values = SmallVec<[f64; 128]>;

/// A model ready to score.
// INVARIANT: `parts` passed `Parts::check`: every width fits the number of inputs and the rank.
pub struct Linear {
    parts: Parts,
}

impl Linear {
    /// Checks the parts.
    ///
    /// # Errors
    /// [`ModelError::Data`] that says what is wrong and what is allowed.
    pub fn new(parts: Parts) -> Result<Self, ModelError> {
        parts.check().map_err(ModelError::Data)?;
        Ok(Self { parts })
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.parts.scales.len()
    }

    /// As manifests name its kind.
    pub const fn name(&self) -> &'static str {
        self.parts.head.name()
    }

    /// The score: higher is more suspicious. A logistic model's is a probability in [0, 1], a k-means distance and a PCA residual are at
    /// least 0, a mixture's may be negative.
    pub fn score(&self, row: &[f32]) -> f64 {
        let margin = self.margin(row);
        if matches!(self.parts.head, Head::Logistic { .. }) { logistic(margin) } else { margin }
    }

    /// A logistic model's log-odds, which tell rows apart where the probability is the same to the last digit; else the score itself.
    pub fn margin(&self, row: &[f32]) -> f64 {
        let cells = row.iter().copied().chain(std::iter::repeat(0.0));
        let scaled: Values = self.parts.scales.iter().zip(cells).map(|(scale, value)| scale.apply(value)).collect();
        match &self.parts.head {
            Head::Pca(basis) => basis.split(&scaled).1 / scaled.len() as f64,
            Head::Gmm(basis, components) => {
                let (within, rest) = basis.split(&scaled);
                let best = components.iter().map(|component| component.distance(&within)).fold(f64::INFINITY, f64::min);
                best + rest / f64::from(basis.noise)
            }
            Head::KMeans(centroids) => centroids.iter().map(|centroid| apart(&scaled, centroid)).fold(f64::INFINITY, f64::min).sqrt(),
            Head::Logistic { weights, bias } => f64::from(*bias) + dot(&scaled, weights),
        }
    }
}

impl Basis {
    /// The scaled row within the basis, and its squared distance from it.
    fn split(&self, scaled: &[f64]) -> (Values, f64) {
        let mut rest: Values = scaled.iter().zip(&self.mean).map(|(value, mean)| value - f64::from(*mean)).collect();
        let within: Values = self.directions.iter().map(|direction| dot(&rest, direction)).collect();
        for (along, direction) in within.iter().zip(&self.directions) {
            rest.iter_mut().zip(direction).for_each(|(rest, step)| *rest -= along * f64::from(*step));
        }
        (within, rest.iter().map(|rest| rest * rest).sum())
    }
}

impl Component {
    /// Squared Mahalanobis distance `|Lᵀ(y − mean)|²` and the offset.
    fn distance(&self, within: &[f64]) -> f64 {
        let mut turned = Values::from_elem(0.0, within.len());
        let mut triangle = self.precision.iter();
        for (row, (value, mean)) in within.iter().zip(&self.mean).enumerate() {
            let away = value - f64::from(*mean);
            turned.iter_mut().zip(triangle.by_ref().take(row + 1)).for_each(|(sum, part)| *sum += f64::from(*part) * away);
        }
        turned.iter().map(|part| part * part).sum::<f64>() + f64::from(self.offset)
    }
}

fn dot(values: &[f64], weights: &[f32]) -> f64 {
    values.iter().zip(weights).map(|(value, weight)| value * f64::from(*weight)).sum()
}

/// Squared distance.
fn apart(values: &[f64], point: &[f32]) -> f64 {
    let squares = values.iter().zip(point).map(|(value, at)| (value - f64::from(*at)) * (value - f64::from(*at)));
    squares.sum()
}

/// `1 / (1 + e^−margin)`, the same bits everywhere; but for its last digits it never falls as the margin rises.
fn logistic(margin: f64) -> f64 {
    // 690·log₂e is below the 1000 halvings that the power has; beyond it the series would be asked for more than its range. There the
    // probability is 1, or as good as 0: 1e-300.
    let power = half_to_the(margin.abs().min(690.0) * std::f64::consts::LOG2_E);
    if margin < 0.0 { power / (1.0 + power) } else { 1.0 / (1.0 + power) }
}

impl Parts {
    fn check(&self) -> Result<(), String> {
        let inputs = self.scales.len();
        if !(1..=MAX_INPUTS).contains(&inputs) {
            return Err(format!("{inputs} inputs, allowed are 1 to {MAX_INPUTS}"));
        }
        self.scales.iter().enumerate().try_for_each(|(input, scale)| scale.check(input))?;
        match &self.head {
            Head::Pca(basis) => basis.check(inputs),
            Head::Gmm(basis, components) => {
                basis.check(inputs)?;
                counted("components", components.len(), MAX_CLUSTERS)?;
                let rank = basis.directions.len();
                bounded("components", components.len(), rank * (rank + 1) / 2)?;
                components.iter().enumerate().try_for_each(|(at, component)| {
                    sound(&format!("component {at}: mean"), &component.mean, rank)?;
                    sound(&format!("component {at}: precision"), &component.precision, rank * (rank + 1) / 2)?;
                    sound(&format!("component {at}: offset"), &[component.offset], 1)
                })
            }
            Head::KMeans(centroids) => {
                counted("centroids", centroids.len(), MAX_CLUSTERS)?;
                bounded("centroids", centroids.len(), inputs)?;
                centroids.iter().enumerate().try_for_each(|(at, centroid)| sound(&format!("centroid {at}"), centroid, inputs))
            }
            Head::Logistic { weights, bias } => sound("weights", weights, inputs).and_then(|()| sound("bias", &[*bias], 1)),
        }
    }
}

impl Basis {
    fn check(&self, inputs: usize) -> Result<(), String> {
        sound("mean", &self.mean, inputs)?;
        counted("directions", self.directions.len(), MAX_RANK.min(inputs))?;
        self.directions.iter().enumerate().try_for_each(|(at, direction)| sound(&format!("direction {at}"), direction, inputs))?;
        if !(LEAST_NOISE..=MOST).contains(&self.noise) {
            return Err(format!("the noise is {}, allowed are {LEAST_NOISE:e} to {MOST:e}", self.noise));
        }
        Ok(())
    }
}

fn counted(what: &str, count: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&count) { Ok(()) } else { Err(format!("{count} {what}, allowed are 1 to {most}")) }
}

/// That one row asks for no more products than are allowed.
fn bounded(what: &str, count: usize, each: usize) -> Result<(), String> {
    let most = MOST_PRODUCTS / each.max(1);
    if count <= most { Ok(()) } else { Err(format!("{count} {what} of {each} numbers each, allowed are {most}")) }
}

/// That so many numbers of moderate size are there.
fn sound(what: &str, numbers: &[f32], count: usize) -> Result<(), String> {
    if numbers.len() != count {
        return Err(format!("{what}: {} numbers, allowed are {count}", numbers.len()));
    }
    match numbers.iter().find(|number| !(-MOST..=MOST).contains(*number)) {
        Some(number) => Err(format!("{what}: {number} is not allowed, only -{MOST:e} to {MOST:e}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
