//! What is fitted: one recipe for each kind of native model. Ordinary rows, or labelled ones, enter; the model's file and its score leave.

use std::sync::Arc;

use telltale_models::ModelError;
use telltale_models::forest::{self, Forest, Row};
use telltale_models::half_space::{self, HalfSpace};
use telltale_models::linear::{self, Linear, Parts};
use telltale_models::repository::Kind;
use telltale_models::scale;

use crate::forest::ForestOptions;
use crate::half_space::HalfSpaceOptions;
use crate::linear::{LinearKind, LinearOptions};

/// Which kind of model is fitted, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Isolation forest.
    Forest(ForestOptions),
    /// Principal components, a Gaussian mixture or k-means.
    Linear(LinearKind, LinearOptions),
    /// Logistic regression; it alone learns from labels.
    Logistic(LinearOptions),
    /// Half-space trees.
    HalfSpace(HalfSpaceOptions),
}

/// What a model makes of a row.
type Score = Box<dyn Fn(&[f32]) -> f64>;

/// A fitted model.
pub struct Fitted {
    /// Its file.
    pub bytes: Vec<u8>,
    score: Score,
}

impl Fitted {
    /// The score of a row, as the scorer will give it.
    pub fn score(&self, row: &[f32]) -> f64 {
        (self.score)(row)
    }
}

impl Recipe {
    /// The kind of model.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Forest(_) => Kind::Forest,
            Self::Linear(LinearKind::Pca, _) => Kind::Pca,
            Self::Linear(LinearKind::Gmm, _) => Kind::Gmm,
            Self::Linear(LinearKind::KMeans, _) => Kind::Kmeans,
            Self::Logistic(_) => Kind::Logistic,
            Self::HalfSpace(_) => Kind::HalfSpace,
        }
    }

    /// Seed of every random choice.
    pub const fn seed(&self) -> u64 {
        match self {
            Self::Forest(options) => options.seed,
            Self::Linear(_, options) | Self::Logistic(options) => options.seed,
            Self::HalfSpace(options) => options.seed,
        }
    }

    /// Whether it learns from labels.
    pub const fn is_supervised(&self) -> bool {
        matches!(self, Self::Logistic(_))
    }

    /// Most inputs.
    pub const fn max_inputs(&self) -> usize {
        match self {
            Self::Forest(_) => forest::MAX_INPUTS,
            _ => scale::MAX_INPUTS,
        }
    }

    /// One line in plain words.
    pub const fn description(&self) -> &'static str {
        match self {
            Self::Forest(_) => "How unusual a transaction is beside ordinary traffic; knows no labels",
            Self::Linear(LinearKind::Pca, _) => "How badly the usual ties between features hold; knows no labels",
            Self::Linear(LinearKind::Gmm, _) => "How far from every usual kind of transaction, by its own spread; knows no labels",
            Self::Linear(LinearKind::KMeans, _) => "How far from the nearest usual kind of transaction; knows no labels",
            Self::Logistic(_) => "Probability that a transaction is what was labelled fraud or abuse",
            Self::HalfSpace(_) => "How thinly a transaction's place is filled by recent ordinary traffic; knows no labels",
        }
    }

    /// Fits rows of equal width; `abusive` says of each whether it is, and only a supervised recipe looks at it.
    ///
    /// # Errors
    /// [`ModelError::Data`] for options out of bounds or rows that cannot be fitted.
    pub fn fit(&self, rows: &[Vec<f32>], abusive: &[bool]) -> Result<Fitted, ModelError> {
        match self {
            Self::Forest(options) => {
                let trees = crate::forest::fit(rows, options)?;
                let forest = Forest::new(&trees)?;
                let bytes = forest::file::encode(&trees).map_err(ModelError::Data)?;
                Ok(Fitted { bytes, score: Box::new(move |row| forest.score(&Row::new(row))) })
            }
            Self::Linear(kind, options) => of_parts(crate::linear::fit(*kind, rows, options)?),
            Self::Logistic(options) => of_parts(crate::linear::fit_logistic(rows, abusive, options)?),
            Self::HalfSpace(options) => {
                let (shape, profile) = crate::half_space::fit(rows, options)?;
                let bytes = half_space::file::encode(&shape, &profile).map_err(ModelError::Data)?;
                let trees = HalfSpace::new(Arc::new(shape), &profile)?;
                Ok(Fitted { bytes, score: Box::new(move |row| trees.score(row)) })
            }
        }
    }
}

fn of_parts(parts: Parts) -> Result<Fitted, ModelError> {
    let bytes = linear::file::encode(&parts).map_err(ModelError::Data)?;
    let model = Linear::new(parts)?;
    Ok(Fitted { bytes, score: Box::new(move |row| model.score(row)) })
}
