//! `telltale train`: a native model of any kind from a feature file, published and promoted.

use std::path::PathBuf;

use serde_json::json;
use telltale_training::forest::ForestOptions;
use telltale_training::half_space::HalfSpaceOptions;
use telltale_training::linear::{LinearKind, LinearOptions};
use telltale_training::{Recipe, TrainOptions, train};

use super::Shape;
use crate::error::CommandError;

/// Arguments of `telltale train`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  telltale replay traffic.ndjson --features rows.parquet
  telltale train --features rows.parquet --repository models/mine --kind forest
  telltale train --features rows.parquet --repository models/mine --model usual --kind gmm --clusters 12")]
pub struct Args {
    /// Feature file of `telltale replay --features`.
    #[arg(long, value_name = "FILE")]
    features: PathBuf,
    /// Repository to publish into; made when absent.
    #[arg(long, value_name = "FOLDER")]
    repository: PathBuf,
    /// Name of the model; the kind's, when it is not given.
    #[arg(long)]
    model: Option<String>,
    /// What is fitted.
    #[arg(long, value_enum, default_value_t = Kind::Forest)]
    kind: Kind,
    /// Trees: of `forest` 1 to 4096 (200), of `half-space` 1 to 1024 (50).
    #[arg(long)]
    trees: Option<u16>,
    /// Rows a tree of `forest`, 2 to 65,536.
    #[arg(long, default_value_t = ForestOptions::default().sample)]
    sample: usize,
    /// Principal components of `pca` and `gmm`, 1 to 64 and fewer than inputs; as few as hold 90 % of the variance, when not given.
    #[arg(long)]
    components: Option<usize>,
    /// Components of a `gmm`'s mixture, centroids of `kmeans`, 1 to 256.
    #[arg(long, default_value_t = LinearOptions::default().clusters)]
    clusters: usize,
    /// Depth of `half-space` trees, 1 to 32.
    #[arg(long, default_value_t = HalfSpaceOptions::default().depth)]
    depth: u8,
    /// Rows of a window of `half-space` trees, 16 to 65,536.
    #[arg(long, default_value_t = HalfSpaceOptions::default().window)]
    window: u32,
    /// Seed of every random choice.
    #[arg(long, default_value_t = ForestOptions::default().seed)]
    seed: u64,
    /// Features that are never inputs: names, or patterns with `*` at either end, separated by commas.
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
    #[command(flatten)]
    shape: Shape,
}

/// Kinds of native models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Isolation forest.
    Forest,
    /// Streaming half-space trees.
    HalfSpace,
    /// Reconstruction error of principal components.
    Pca,
    /// Distance to the nearest component of a Gaussian mixture.
    Gmm,
    /// Distance to the nearest centroid.
    Kmeans,
    /// Probability by a logistic regression: needs labels.
    Logistic,
}

impl Args {
    fn recipe(&self) -> Recipe {
        let (seed, trees) = (self.seed, self.trees);
        let linear = LinearOptions { directions: self.components, clusters: self.clusters, seed };
        match self.kind {
            Kind::Forest => {
                let trees = trees.map_or(ForestOptions::default().trees, usize::from);
                Recipe::Forest(ForestOptions { trees, sample: self.sample, seed })
            }
            Kind::HalfSpace => {
                let trees = trees.unwrap_or(HalfSpaceOptions::default().trees);
                Recipe::HalfSpace(HalfSpaceOptions { trees, depth: self.depth, window: self.window, seed })
            }
            Kind::Pca => Recipe::Linear(LinearKind::Pca, linear),
            Kind::Gmm => Recipe::Linear(LinearKind::Gmm, linear),
            Kind::Kmeans => Recipe::Linear(LinearKind::KMeans, linear),
            Kind::Logistic => Recipe::Logistic(linear),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the features cannot be read or do not suffice, or the repository cannot be written.
pub fn run(args: Args) -> Result<(), CommandError> {
    let recipe = args.recipe();
    let model = args.model.unwrap_or_else(|| recipe.kind().name().to_owned());
    let options = TrainOptions {
        features: args.features,
        repository: args.repository,
        model: model.clone(),
        exclude: args.exclude.into_iter().filter(|name| !name.is_empty()).collect(),
        recipe,
    };
    let trained = train(&options).map_err(CommandError::failed)?;
    let figures = trained
        .figures
        .map(|figures| json!({ "pr_auc": figures.pr_auc, "roc_auc": figures.roc_auc, "recall_at_fpr_0_001": figures.recall_at_fpr_0_001 }));
    let value = json!({ "model": model, "version": trained.version, "inputs": trained.inputs, "bytes": trained.bytes, "figures": figures });
    args.shape.print(&value, || {
        let figures = trained.figures.map_or("no labels, no figures".to_owned(), |figures| {
            format!(
                "PR-AUC {:.3}, ROC-AUC {:.3}, recall {:.3} at 1 in 1,000 wrongly flagged",
                figures.pr_auc, figures.roc_auc, figures.recall_at_fpr_0_001
            )
        });
        format!("{} version {}: {} inputs, {} bytes; {figures}", model, trained.version, trained.inputs, trained.bytes)
    })
}
