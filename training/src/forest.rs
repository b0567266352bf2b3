//! Fitting an isolation forest (Liu, Ting, Zhou, ICDM 2008): float32 rows and a seed enter, trees leave.
//!
//! Split points are drawn uniformly on the scale of asinh, not of the value itself: counts are heavy-tailed, and on their own scale nearly
//! every split would fall where no row is. A tree only compares, so serving is unchanged.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use telltale_models::ModelError;
use telltale_models::forest::{Branch, MAX_INPUTS, MAX_TREES, Trees};

/// How a forest is grown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForestOptions {
    /// Trees, 1 to 4096.
    pub trees: usize,
    /// Rows a tree, 2 to 65,536; 256 in the paper.
    pub sample: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for ForestOptions {
    fn default() -> Self {
        Self { trees: 200, sample: 256, seed: 20_260_102 }
    }
}

/// Grows a forest on rows of equal width.
///
/// # Errors
/// [`ModelError::Data`] for options or rows out of bounds.
pub fn fit(rows: &[Vec<f32>], options: &ForestOptions) -> Result<Trees, ModelError> {
    let inputs = rows.first().map_or(0, Vec::len);
    let refuse = |problem: String| Err(ModelError::Data(problem));
    if !(1..=MAX_TREES).contains(&options.trees) || !(2..=65_536).contains(&options.sample) {
        return refuse(format!("{} trees of {} rows, allowed are 1 to {MAX_TREES} of 2 to 65536", options.trees, options.sample));
    }
    if !(1..=MAX_INPUTS).contains(&inputs) || rows.len() < 2 {
        return refuse(format!("{} rows of {inputs} inputs, allowed are at least 2 of 1 to {MAX_INPUTS}", rows.len()));
    }
    if let Some(at) = rows.iter().position(|row| row.len() != inputs || row.iter().any(|value| !value.is_finite())) {
        return refuse(format!("row {at} has another width or a number that is not finite"));
    }
    let sample = options.sample.min(rows.len());
    let limit = sample.next_power_of_two().ilog2() as usize;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let trees = (0..options.trees).map(|_| {
        let mut chosen = draw(&mut rng, rows, sample);
        grow(&mut rng, &mut chosen, inputs, limit)
    });
    let trees = trees.collect();
    Ok(Trees { inputs, sample: u32::try_from(sample).unwrap_or(u32::MAX), trees })
}

/// Rows without replacement, by Floyd's method.
fn draw<'a>(rng: &mut ChaCha8Rng, rows: &'a [Vec<f32>], sample: usize) -> Vec<&'a [f32]> {
    let mut taken = std::collections::BTreeSet::new();
    for last in rows.len() - sample..rows.len() {
        let at = rng.random_range(0..=last);
        if !taken.insert(at) {
            taken.insert(last);
        }
    }
    taken.into_iter().filter_map(|at| rows.get(at).map(Vec::as_slice)).collect()
}

fn grow(rng: &mut ChaCha8Rng, rows: &mut [&[f32]], inputs: usize, depth: usize) -> Branch {
    let leaf = Branch::Leaf { rows: u32::try_from(rows.len()).unwrap_or(u32::MAX) };
    if rows.len() < 2 || depth == 0 {
        return leaf;
    }
    let Some((input, threshold)) = split(rng, rows, inputs) else { return leaf };
    let value = |row: &&[f32]| row.get(usize::from(input)).copied().unwrap_or(0.0);
    rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let few = rows.partition_point(|row| value(row) <= threshold);
    let (below, above) = rows.split_at_mut(few);
    let below = Box::new(grow(rng, below, inputs, depth - 1));
    let above = Box::new(grow(rng, above, inputs, depth - 1));
    Branch::Split { input, threshold, below, above }
}

/// A random input that varies among the rows, and a random point between its least and greatest value.
fn split(rng: &mut ChaCha8Rng, rows: &[&[f32]], inputs: usize) -> Option<(u8, f32)> {
    let range = |input: usize| {
        let values = rows.iter().filter_map(|row| row.get(input).copied());
        values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    // Most inputs vary: a few draws nearly always find one, and only then are all ranges worked out.
    let drawn = (0..8).map(|_| rng.random_range(0..inputs)).find(|input| {
        let (low, high) = range(*input);
        low < high
    });
    let input = match drawn {
        Some(input) => input,
        None => {
            let varied: Vec<usize> = (0..inputs)
                .filter(|input| {
                    let (low, high) = range(*input);
                    low < high
                })
                .collect();
            *varied.get(rng.random_range(0..varied.len().max(1)))?
        }
    };
    let (low, high) = range(input);
    let (from, to) = (f64::from(low).asinh(), f64::from(high).asinh());
    let point = (from + (to - from) * rng.random::<f64>()).sinh() as f32;
    // Below the greatest value, so that both sides have a row.
    let threshold = if point < high { point.max(low) } else { low };
    Some((u8::try_from(input).ok()?, threshold))
}

#[cfg(test)]
mod tests {
    use super::*;
    use telltale_models::forest::{Forest, Row};

    fn customers(seed: u64, count: usize) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut heavy = || (-(rng.random::<f64>() * 0.999_f64).ln_1p().abs().ln()).exp() as f32;
        (0..count).map(|_| (0..6).map(|_| heavy()).collect()).collect()
    }

    #[test]
    fn outliers_score_higher_and_the_seed_decides_everything() {
        let rows = customers(1, 5000);
        let options = ForestOptions::default();
        let trees = fit(&rows, &options).unwrap();
        assert_eq!(trees, fit(&rows, &options).unwrap());
        assert_ne!(trees, fit(&rows, &ForestOptions { seed: 1, ..options }).unwrap());
        let forest = Forest::new(&trees).unwrap();
        let ordinary = customers(2, 500).iter().map(|row| forest.score(&Row::new(row))).sum::<f64>() / 500.0;
        let odd = forest.score(&Row::new(&[900.0, 0.0, 700.0, -3.0, 900.0, 500.0]));
        assert!(ordinary < 0.5 && odd > 0.65, "{ordinary} {odd}");
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let message = |rows: &[Vec<f32>]| fit(rows, &ForestOptions::default()).unwrap_err().to_string();
        assert!(message(&[]).contains("0 rows of 0 inputs"));
        assert!(message(&[vec![1.0], vec![f32::NAN]]).contains("row 1"));
        assert!(message(&[vec![1.0; 300], vec![1.0; 300]]).contains("300 inputs"));
        let constant = fit(&vec![vec![1.0, 2.0]; 10], &ForestOptions::default()).unwrap();
        assert!(constant.trees.iter().all(|tree| *tree == Branch::Leaf { rows: 10 }));
    }
}
