//! `telltale config`: is this configuration right?

use std::path::PathBuf;

use super::Shape;
use crate::config::Config;
use crate::error::CommandError;
use crate::geo::Geo;
use crate::setup;

/// Arguments of `telltale config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale config check telltale.toml
  telltale config check --output json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Checks every value and the databases of places, and shows what holds; exit code 64 when something is wrong.
    Check {
        /// The file; absent: the defaults.
        file: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
}

/// Runs the command.
///
/// # Errors
/// What is wrong: file, key, value, what is allowed.
pub fn run(args: Args) -> Result<(), CommandError> {
    let Command::Check { file, shape } = args.command;
    let config = Config::read(file.as_deref()).map_err(CommandError::usage)?;
    config.check(file.as_deref().unwrap_or(std::path::Path::new("defaults"))).map_err(CommandError::usage)?;
    if config.store.kind == "redis" {
        setup::names(&config).map_err(CommandError::usage)?;
    }
    Geo::open(&config.geo.databases).map_err(CommandError::usage)?;
    shape.print(&config, || toml::to_string(&config).unwrap_or_else(|error| error.to_string()))
}
