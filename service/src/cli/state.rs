//! `telltale state`: moves entity state between data directories and Redis, as Parquet.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{ConfigArgs, Shape};
use crate::error::CommandError;
use crate::token;
use crate::transfer::{self, MoveError, Moved};

/// Arguments of `telltale state`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale state export state.parquet --data data
  telltale state import state.parquet --config redis.toml
  telltale state export state.parquet --config redis.toml --output json
  telltale state new-names-key names-2.key --after names-1.key

The store is the one of the configuration: the snapshots and the journal of the data directory, which is read as it stands, or Redis. Both
need the `telltale.key` of the installation in the data directory, because entities are hashed with it. A data directory takes an import
when it has the key alone; Redis takes what it does not have yet.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Writes the state of the store to a Parquet file.
    Export(Ways),
    /// Puts the state of a Parquet file into the store.
    Import(Ways),
    /// Makes a secret for the names that entities have in Redis (`store.redis.names_key`).
    NewNamesKey {
        /// The new file; its copies go to all scorers.
        file: PathBuf,
        /// The secret that it comes after, when there is one.
        #[arg(long, value_name = "FILE")]
        after: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(Debug, clap::Args)]
struct Ways {
    /// The Parquet file.
    file: PathBuf,
    /// Data directory instead of the configured one.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    shape: Shape,
}

/// Runs the command.
///
/// # Errors
/// When the store or the file cannot be read or written, or they are of different keys.
pub fn run(args: Args) -> Result<(), CommandError> {
    let (ways, is_export) = match args.command {
        Command::Export(ways) => (ways, true),
        Command::Import(ways) => (ways, false),
        Command::NewNamesKey { file, after, shape } => return new_names_key(&file, after.as_deref(), shape),
    };
    let mut config = ways.config.read()?;
    if let Some(data) = ways.data {
        config.data = data;
    }
    let moved = if is_export { transfer::export(&config, &ways.file, true) } else { transfer::import(&config, &ways.file, true) };
    let moved = moved.map_err(|error| match error {
        MoveError::OtherKey { .. } | MoveError::Data { .. } | MoveError::Setup(_) => CommandError::usage(error),
        _ => CommandError::failed(error),
    })?;
    ways.shape.print(&moved, || table(&moved))
}

fn new_names_key(file: &Path, after: Option<&Path>, shape: Shape) -> Result<(), CommandError> {
    let id = token::make_names_key(file, after).map_err(CommandError::usage)?;
    let made = serde_json::json!({ "file": file, "id": id });
    shape.print(&made, || format!("{}: secret {id}; every scorer needs a copy that it alone can read", file.display()))
}

fn table(moved: &Moved) -> String {
    let mut text = format!("{:<16}{:>12}{:>16}{:>10}{:>10}", "entity type", "entities", "bytes", "p50", "p99");
    for (name, sizes) in &moved.types {
        let written = write!(text, "\n{name:<16}{:>12}{:>16}{:>10}{:>10}", sizes.entities, sizes.bytes, sizes.p50, sizes.p99);
        debug_assert!(written.is_ok());
    }
    for (count, what) in [
        (moved.present, "there already, left as they were"),
        (moved.expired, "left out: their time to live had passed"),
        (moved.unknown, "left out: no entities of this schema"),
    ] {
        if count > 0 {
            let written = write!(text, "\n{count} {what}");
            debug_assert!(written.is_ok());
        }
    }
    text
}
