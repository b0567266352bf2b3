//! `telltale train`: a native model from a feature file, published and promoted.

use std::path::PathBuf;

use serde_json::json;
use telltale_training::forest::ForestOptions;
use telltale_training::{TrainOptions, train};

use super::Shape;
use crate::error::CommandError;

/// Arguments of `telltale train`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  telltale replay traffic.ndjson --features rows.parquet
  telltale train --features rows.parquet --repository models/mine --model forest")]
pub struct Args {
    /// Feature file of `telltale replay --features`.
    #[arg(long, value_name = "FILE")]
    features: PathBuf,
    /// Repository to publish into; made when absent.
    #[arg(long, value_name = "FOLDER")]
    repository: PathBuf,
    /// Name of the model.
    #[arg(long, default_value = "forest")]
    model: String,
    /// Trees, 1 to 4096.
    #[arg(long, default_value_t = ForestOptions::default().trees)]
    trees: usize,
    /// Rows a tree, 2 to 65,536.
    #[arg(long, default_value_t = ForestOptions::default().sample)]
    sample: usize,
    /// Seed of every random choice.
    #[arg(long, default_value_t = ForestOptions::default().seed)]
    seed: u64,
    /// Features that are never inputs: names, or patterns with `*` at either end, separated by commas.
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
    #[command(flatten)]
    shape: Shape,
}

/// Runs the command.
///
/// # Errors
/// When the features cannot be read or do not suffice, or the repository cannot be written.
pub fn run(args: Args) -> Result<(), CommandError> {
    let options = TrainOptions {
        features: args.features,
        repository: args.repository,
        model: args.model.clone(),
        exclude: args.exclude.into_iter().filter(|name| !name.is_empty()).collect(),
        forest: ForestOptions { trees: args.trees, sample: args.sample, seed: args.seed },
    };
    let trained = train(&options).map_err(CommandError::failed)?;
    let figures = trained
        .figures
        .map(|figures| json!({ "pr_auc": figures.pr_auc, "roc_auc": figures.roc_auc, "recall_at_fpr_0_001": figures.recall_at_fpr_0_001 }));
    let value =
        json!({ "model": args.model, "version": trained.version, "inputs": trained.inputs, "bytes": trained.bytes, "figures": figures });
    args.shape.print(&value, || {
        let figures = trained.figures.map_or("no labels, no figures".to_owned(), |figures| {
            format!(
                "PR-AUC {:.3}, ROC-AUC {:.3}, recall {:.3} at 1 in 1,000 wrongly flagged",
                figures.pr_auc, figures.roc_auc, figures.recall_at_fpr_0_001
            )
        });
        format!("{} version {}: {} inputs, {} bytes; {figures}", args.model, trained.version, trained.inputs, trained.bytes)
    })
}
