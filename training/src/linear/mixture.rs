//! Fitting a Gaussian mixture within a basis: scaled rows and the basis enter, components leave.
//!
//! linfa's expectation step adds probabilities as they are, not their logarithms: a row that is far from every component underflows and
//! the fit ends without a result. So rows are whitened and winsorised for the fit, every component keeps a part of the whole's variance
//! (which also keeps one from shrinking onto rows that repeat), and a fit that fails is tried again with more of it, then with fewer
//! components.

use linfa::DatasetBase;
use linfa::prelude::Fit;
use linfa_clustering::GaussianMixtureModel;
use ndarray::{Array2, ArrayView2};
use telltale_models::ModelError;
use telltale_models::linear::{Basis, Component};

/// Parts of the whole's variance that a component keeps at least.
const KEPT: [f64; 4] = [0.01, 0.03, 0.1, 1.0];
/// How many standard deviations from the mean a row may be in the fit.
const LIMIT: f64 = 5.0;

/// Fits at most so many components.
pub fn fit(scaled: &Array2<f64>, (basis, deviations): (&Basis, &[f64]), clusters: usize) -> Result<Vec<Component>, ModelError> {
    let white = whitened(scaled, basis, deviations);
    let mut last = String::new();
    let mut wanted = clusters;
    while wanted > 0 {
        for kept in KEPT {
            let model = GaussianMixtureModel::params(wanted).reg_covariance(kept).tolerance(1e-3).max_n_iterations(200);
            let fitted = model.fit(&DatasetBase::from(white.view())).map_err(|error| error.to_string());
            match fitted.and_then(|fitted| components(&fitted, deviations)) {
                Ok(components) => return Ok(components),
                Err(error) => last = error,
            }
        }
        wanted /= 2;
    }
    Err(ModelError::Data(format!("the mixture cannot be fitted: {last}")))
}

/// The rows within the basis, in standard deviations.
fn whitened(scaled: &Array2<f64>, basis: &Basis, deviations: &[f64]) -> Array2<f64> {
    let mut white = Array2::zeros((scaled.nrows(), deviations.len()));
    for (row, mut out) in scaled.rows().into_iter().zip(white.rows_mut()) {
        for ((cell, direction), deviation) in out.iter_mut().zip(&basis.directions).zip(deviations) {
            let centred = row.iter().zip(&basis.mean).map(|(value, mean)| value - f64::from(*mean));
            let along: f64 = centred.zip(direction).map(|(value, step)| value * f64::from(*step)).sum();
            *cell = (along / deviation).clamp(-LIMIT, LIMIT);
        }
    }
    white
}

/// linfa's components in the basis's own unit.
fn components(fitted: &GaussianMixtureModel<f64>, deviations: &[f64]) -> Result<Vec<Component>, String> {
    let parts = fitted.means().rows().into_iter().zip(fitted.precisions().outer_iter()).zip(fitted.weights());
    let component = |((mean, precision), weight): ((ndarray::ArrayView1<'_, f64>, ArrayView2<'_, f64>), &f64)| {
        let lower = cholesky(precision)?;
        // The determinant is that of the whitened rows: the deviations would add the same to every component.
        let diagonal = lower.iter().filter_map(|row| row.last());
        let offset = -2.0 * diagonal.map(|value| value.ln()).sum::<f64>() - 2.0 * weight.ln();
        if !offset.is_finite() {
            return Err("a component has no weight".to_string());
        }
        let mean = mean.iter().zip(deviations).map(|(value, deviation)| (value * deviation) as f32).collect();
        let unwhitened = lower.iter().zip(deviations).flat_map(|(row, deviation)| row.iter().map(move |value| (value / deviation) as f32));
        Ok(Component { mean, precision: unwhitened.collect(), offset: offset as f32 })
    };
    parts.map(component).collect()
}

/// The rows of the lower triangle L of L·Lᵀ (Golub and Van Loan: Matrix Computations, 4.2).
fn cholesky(matrix: ArrayView2<'_, f64>) -> Result<Vec<Vec<f64>>, String> {
    let mut lower: Vec<Vec<f64>> = Vec::new();
    for (at, given) in matrix.rows().into_iter().enumerate() {
        let mut row: Vec<f64> = Vec::with_capacity(at + 1);
        for (column, given) in given.iter().take(at + 1).enumerate() {
            let above = lower.get(column).map_or(row.as_slice(), Vec::as_slice);
            let known: f64 = row.iter().zip(above).take(column).map(|(a, b)| a * b).sum();
            let left = given - known;
            let value = match lower.get(column).and_then(|above| above.get(column)) {
                Some(diagonal) => left / diagonal,
                None if left > 0.0 => left.sqrt(),
                None => return Err("a precision is not positive definite".to_string()),
            };
            row.push(value);
        }
        lower.push(row);
    }
    Ok(lower)
}
