//! Reasons that are true: a scored row enters, the features that raised its score leave, each verified by scoring the row without it.
//!
//! A forest's candidates come from path attribution (how much each input shortened the path); every other model is asked once, in one
//! batch, about the row with each input at its usual value in turn. A logistic model is asked for its log-odds: where the probability is
//! 1 to the last digit, no single input changes it.

use telltale_features::vector::FeatureVector;

use crate::bundle::{Engine, Model, Values, narrow};
use crate::forest::{Forest, Row};
use crate::score::{Absent, Attribution, Lane};
use crate::slot::Loaded;

/// Most features named for one model.
const TOP: usize = 5;
/// Candidates of a path attribution that are verified.
const CANDIDATES: usize = 12;

/// An input and by how much the score falls with it at its usual value.
type Fall = (usize, f64);

/// # Errors
/// Why there are no reasons: a contained model may have been too slow or have lost its worker.
pub(crate) fn explain(loaded: &Loaded, vector: &FeatureVector, raw: f64, lane: Lane) -> Result<Vec<Attribution>, Absent> {
    let model = &*loaded.model;
    let row = model.row(vector);
    let unusual = unusual(model, &row);
    let mut falls = match &model.engine {
        Engine::Forest(forest) => forest_falls(forest, &row, &unusual, raw),
        Engine::Linear(linear) => {
            let (matrix, whole) = (replaced(&row, &unusual), linear.margin(&row));
            let margins = matrix.chunks(row.len().max(1)).map(|row| linear.margin(row));
            unusual.iter().zip(margins).map(|((input, _), margin)| (*input, whole - margin)).collect()
        }
        engine => match engine.raws(replaced(&row, &unusual), unusual.len(), lane) {
            Ok(scores) => unusual.iter().zip(scores).map(|((input, _), score)| (*input, raw - score)).collect(),
            Err(problem) => return Err(Absent { model: loaded.name.clone(), version: loaded.version, problem }),
        },
    };
    falls.retain(|(_, fall)| *fall > 0.0);
    // Stable: equal falls stay in the order of inputs.
    falls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    falls.truncate(TOP);
    let all: f64 = falls.iter().map(|(_, fall)| fall).sum();
    let name = |(input, fall): Fall| {
        let input = model.inputs.get(input)?;
        let value = vector.get(input.feature);
        Some(Attribution { model: loaded.name.clone(), feature: input.feature, value, usual: input.usual, share: fall / all })
    };
    Ok(falls.into_iter().filter_map(name).collect())
}

/// The inputs that are not at their usual value, with that value.
fn unusual(model: &Model, row: &Values) -> Vec<(usize, f32)> {
    let usual = model.inputs.iter().map(|input| narrow(input.usual));
    let pairs = row.iter().zip(usual).enumerate();
    pairs.filter(|(_, (value, usual))| *value != usual).map(|(at, (_, usual))| (at, usual)).collect()
}

/// The row with each of these inputs replaced in turn.
fn replaced(row: &[f32], replacements: &[(usize, f32)]) -> Vec<f32> {
    let mut matrix = Vec::with_capacity(replacements.len() * row.len());
    for (input, value) in replacements {
        matrix.extend(row.iter().enumerate().map(|(at, own)| if at == *input { *value } else { *own }));
    }
    matrix
}

fn forest_falls(forest: &Forest, row: &[f32], unusual: &[(usize, f32)], raw: f64) -> Vec<Fall> {
    let shortened = forest.attribution(&Row::new(row));
    let part = |input: usize| shortened.get(input).copied().unwrap_or(0.0);
    let mut candidates = unusual.to_vec();
    candidates.sort_by(|(a, _), (b, _)| part(*b).total_cmp(&part(*a)));
    let row = Row::new(row);
    let verify = |(input, usual): &(usize, f32)| (*input, raw - forest.score(&row.with(*input, *usual)));
    let mut falls: Vec<Fall> = candidates.iter().take(CANDIDATES).map(verify).collect();
    if falls.iter().all(|(_, fall)| *fall <= 0.0) {
        falls.extend(candidates.iter().skip(CANDIDATES).map(verify));
    }
    falls.sort_by_key(|(input, _)| *input);
    falls
}
