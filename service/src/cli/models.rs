//! `telltale models`: what stands in a repository, and whether it can be used with the schema.

use std::path::PathBuf;

use serde_json::{Value, json};
use telltale_models::Repository;

use super::{ConfigArgs, Shape};
use crate::error::CommandError;
use crate::setup;

/// Arguments of `telltale models`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale models list --models models/default
  telltale models verify --models models/default --output json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Models with their versions and the one in force.
    List {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        shape: Shape,
    },
    /// Loads every champion: digests, feature hashes, golden rows.
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        shape: Shape,
    },
}

/// Runs the command.
///
/// # Errors
/// When the repository cannot be read, or a model in it cannot be used.
pub fn run(args: Args) -> Result<(), CommandError> {
    match args.command {
        Command::List { config, shape } => list(&config, shape),
        Command::Verify { config, shape } => verify(&config, shape),
    }
}

fn repository(config: &ConfigArgs) -> Result<(crate::config::Config, PathBuf), CommandError> {
    let config = config.read()?;
    let Some(path) = config.models.path.clone() else {
        return Err(CommandError::usage("no model repository: give `--models FOLDER` or set `models.path`"));
    };
    Ok((config, path))
}

fn list(config: &ConfigArgs, shape: Shape) -> Result<(), CommandError> {
    let (_, path) = repository(config)?;
    let repository = Repository::open(&path).map_err(CommandError::usage)?;
    let mut rows: Vec<(String, Vec<u32>, Option<u32>, String)> = Vec::new();
    for model in repository.models().map_err(CommandError::failed)? {
        let versions = repository.versions(&model).map_err(CommandError::failed)?;
        let champion = repository.policy(&model).map_err(CommandError::failed)?.aliases.champion;
        let manifest = champion.map(|version| repository.manifest(&model, version)).transpose().map_err(CommandError::failed)?;
        rows.push((model, versions, champion, manifest.map(|manifest| manifest.description).unwrap_or_default()));
    }
    let value: Vec<Value> = rows
        .iter()
        .map(|(model, versions, champion, description)| {
            json!({ "model": model, "versions": versions, "champion": champion, "description": description })
        })
        .collect();
    shape.print(&value, || {
        let line = |(model, versions, champion, description): &(String, Vec<u32>, Option<u32>, String)| {
            let champion = champion.map_or("none".to_owned(), |version| version.to_string());
            format!("{model:<24} champion {champion:<6} of {versions:?}  {description}")
        };
        if rows.is_empty() { format!("no model in `{}`", path.display()) } else { rows.iter().map(line).collect::<Vec<_>>().join("\n") }
    })
}

fn verify(config: &ConfigArgs, shape: Shape) -> Result<(), CommandError> {
    let (config, path) = repository(config)?;
    let schema = setup::schema(config.schema.path.as_deref()).map_err(CommandError::usage)?;
    let bundle = setup::bundle(&config, &schema, 1).map_err(CommandError::usage)?;
    let loaded: Vec<String> = bundle.models().map(|(model, version)| format!("{model}:{version}")).collect();
    let failed: Vec<Value> =
        bundle.failures().iter().map(|failure| json!({ "model": &*failure.model, "reason": failure.reason })).collect();
    shape.print(&json!({ "usable": loaded, "failed": failed }), || {
        let mut lines: Vec<String> = loaded.iter().map(|model| format!("{model:<32} usable")).collect();
        lines.extend(bundle.failures().iter().map(|failure| format!("{:<32} {}", failure.model, failure.reason)));
        lines.join("\n")
    })?;
    match bundle.failures().len() {
        0 => Ok(()),
        count => Err(CommandError::failed(format!("{count} models of `{}` cannot be used", path.display()))),
    }
}
