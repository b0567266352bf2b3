//! Rows on the scale of the native models: which rows a fit sees, and where their values lie.

use ndarray::Array2;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use telltale_models::scale::{LEAST, MOST, Scale, compress};

/// Most rows that one fit looks at; a covariance of a few hundred inputs needs no more, and they fit in memory.
pub const MOST_ROWS: usize = 40_000;
/// Least width of a scale, in powers of two of the value: an input that nearly never moves is not blown up beyond that.
const LEAST_WIDTH: f64 = 1.0 / 16.0;

/// At most [`MOST_ROWS`] of so many rows, in random order: what draws its first rows by their place then draws them by the seed.
pub fn drawn(rows: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..rows).collect();
    let (chosen, _) = order.partial_shuffle(&mut rng, most);
    chosen.to_vec()
}

/// Mean and standard deviation of each input's compressed values.
pub fn standard(rows: &[&[f32]]) -> Vec<Scale> {
    columns(rows)
        .map(|values| {
            let count = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
            scale(mean, variance.sqrt())
        })
        .collect()
}

/// The range of each input's compressed values without the outermost thousandths: a single odd row must not press all others together.
pub fn ranges(rows: &[&[f32]]) -> Vec<Scale> {
    columns(rows)
        .map(|mut values| {
            values.sort_by(f64::total_cmp);
            let place = |thousandths: usize| values.get(values.len().saturating_sub(1) * thousandths / 1000).copied().unwrap_or(0.0);
            scale(place(1), place(999) - place(1))
        })
        .collect()
}

fn columns<'a>(rows: &'a [&'a [f32]]) -> impl Iterator<Item = Vec<f64>> + 'a {
    let inputs = rows.first().map_or(0, |row| row.len());
    (0..inputs).map(|input| rows.iter().filter_map(|row| row.get(input)).map(|value| compress(f64::from(*value))).collect())
}

fn scale(centre: f64, width: f64) -> Scale {
    let most = f64::from(MOST);
    Scale { centre: centre.clamp(-most, most) as f32, width: width.clamp(LEAST_WIDTH.max(f64::from(LEAST)), most) as f32 }
}

/// The rows as the model will see them.
pub fn matrix(scales: &[Scale], rows: &[&[f32]]) -> Array2<f64> {
    Array2::from_shape_fn((rows.len(), scales.len()), |(row, input)| {
        let value = rows.get(row).and_then(|row| row.get(input)).copied().unwrap_or(0.0);
        scales.get(input).map_or(0.0, |scale| scale.apply(value))
    })
}
