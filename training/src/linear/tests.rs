use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_models::linear::Linear;

/// Rows of two kinds of customers: six features that hang together, two that do not.
fn customers(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut row = || {
        let busy: f64 = rng.random_range(0.0..1.0);
        let kind = if rng.random::<f64>() < 0.5 { 1.0 } else { 20.0 };
        let mut noise = || 0.9 + 0.2 * rng.random::<f64>();
        let tied = [1.0, 2.0, 5.0, 10.0, 0.5, 3.0].map(|factor: f64| kind * factor * (1.0 + busy) * noise());
        let free = [rng.random_range(0.0..4.0), rng.random_range(0.0..30.0)];
        tied.into_iter().chain(free).map(|value| value as f32).collect()
    };
    (0..count).map(|_| row()).collect()
}

/// Customers one of whose ties is broken.
fn planted(seed: u64) -> Vec<Vec<f32>> {
    let mut rows = customers(seed, 40);
    for (at, row) in rows.iter_mut().enumerate() {
        row[at % 6] = if row[at % 6] > 30.0 { 0.0 } else { 900.0 };
    }
    rows
}

#[test]
fn planted_anomalies_rank_first_and_the_seed_decides_everything() {
    let rows = customers(1, 3000);
    for kind in [LinearKind::Pca, LinearKind::Gmm, LinearKind::KMeans] {
        let options = LinearOptions::default();
        let parts = fit(kind, &rows, &options).unwrap();
        assert_eq!(parts, fit(kind, &rows, &options).unwrap(), "{kind:?}");
        let other = fit(kind, &rows, &LinearOptions { seed: 1, ..options }).unwrap();
        assert!(kind == LinearKind::Pca || parts != other, "{kind:?}");
        let model = Linear::new(parts).unwrap();
        let mut ordinary: Vec<f64> = customers(2, 1000).iter().map(|row| model.score(row)).collect();
        ordinary.sort_by(f64::total_cmp);
        let odd = planted(3).iter().filter(|row| model.score(row) > ordinary[989]).count();
        assert!(odd >= 38, "{kind:?}: {odd} of 40 above all but ten of a thousand");
    }
}

#[test]
fn the_components_are_those_of_the_covariance() {
    let rows = customers(4, 2000);
    let chosen: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let scaled = matrix(&standard(&chosen), &chosen);
    let (basis, deviations) = basis(&scaled, Some(3)).unwrap();
    // An eigenvector keeps its direction: C·v = λ·v.
    let centred = &scaled - &scaled.mean_axis(ndarray::Axis(0)).unwrap();
    let covariance = centred.t().dot(&centred) / 1999.0;
    for (direction, deviation) in basis.directions.iter().zip(&deviations) {
        let direction: Array1<f64> = direction.iter().map(|step| f64::from(*step)).collect();
        assert!((direction.dot(&direction) - 1.0).abs() < 1e-5);
        let away = covariance.dot(&direction) - &direction * (deviation * deviation);
        assert!(away.iter().all(|part| part.abs() < 1e-3), "{away}");
    }
}

#[test]
fn a_mixture_is_the_density_that_linfa_fitted() {
    // With one component the score is that of a normal distribution: distance by the covariance, which is written out here.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let rows: Vec<Vec<f32>> = (0..4000)
        .map(|_| {
            let (a, b): (f32, f32) = (rng.random(), rng.random());
            vec![a, a + b, b - a]
        })
        .collect();
    let options = LinearOptions { directions: Some(2), clusters: 1, ..LinearOptions::default() };
    let parts = fit(LinearKind::Gmm, &rows, &options).unwrap();
    let Head::Gmm(basis, components) = &parts.head else { panic!() };
    assert_eq!((components.len(), basis.directions.len()), (1, 2));
    let model = Linear::new(parts.clone()).unwrap();
    let mean = rows.iter().map(|row| model.score(row)).sum::<f64>() / rows.len() as f64 - f64::from(components[0].offset);
    // The mean squared Mahalanobis distance in two dimensions is 2, a little less by what the component keeps of the whole's variance;
    // nothing is left out of the basis, since the third feature is made of the other two.
    assert!((1.9..2.1).contains(&mean), "{mean}");
}

#[test]
fn a_logistic_regression_finds_the_weights_that_made_the_labels() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let rows: Vec<Vec<f32>> = (0..20_000).map(|_| (0..3).map(|_| rng.random_range(-1.0..1.0)).collect()).collect();
    let odds = |row: &[f32]| 4.0 * compressed(row[0]) - 2.0 * compressed(row[1]) - 1.0;
    let labels: Vec<bool> = rows.iter().map(|row| rng.random::<f64>() < 1.0 / (1.0 + (-odds(row)).exp())).collect();
    let model = Linear::new(fit_logistic(&rows, &labels, &LinearOptions::default()).unwrap()).unwrap();
    let away = rows.iter().take(500).map(|row| (model.margin(row) - odds(row)).abs()).fold(0.0, f64::max);
    assert!(away < 0.35, "{away}");
    let turned: Vec<bool> = labels.iter().map(|label| !label).collect();
    let turned = Linear::new(fit_logistic(&rows, &turned, &LinearOptions::default()).unwrap()).unwrap();
    assert!((turned.score(&rows[0]) + model.score(&rows[0]) - 1.0).abs() < 1e-3);
}

fn compressed(value: f32) -> f64 {
    telltale_models::scale::compress(f64::from(value))
}

#[test]
fn rows_that_hardly_differ_are_fitted_or_refused_in_words() {
    let same = vec![vec![1.0, 2.0, 3.0]; 2000];
    let message = |kind| fit(kind, &same, &LinearOptions::default()).unwrap_err().to_string();
    assert!(message(LinearKind::KMeans).contains("8 clusters of 1 different rows"));
    let mut two = same.clone();
    two.iter_mut().step_by(7).for_each(|row| row[1] = 50.0);
    let model = Linear::new(fit(LinearKind::Gmm, &two, &LinearOptions::default()).unwrap()).unwrap();
    assert!(model.score(&[1.0, 2.0, 900.0]) > model.score(&[1.0, 50.0, 3.0]));
}
