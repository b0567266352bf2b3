//! `telltale replay`: recorded or foreign input through the whole way, at event time.

use std::path::PathBuf;
use std::sync::Arc;

use telltale_features::time::{ManualClock, Timestamp};

use super::{ConfigArgs, Shape};
use crate::config::GeoSection;
use crate::error::CommandError;
use crate::journal::Journal;
use crate::replay::{Format, ReplayError, ReplayOptions, is_journal, replay};
use crate::{setup, token};

/// Arguments of `telltale replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale replay traffic.ndjson.gz --verdicts verdicts.ndjson
  telltale replay access.log --format combined --mode enforce
  telltale replay data/journal --output json
  zcat day.ndjson.gz | telltale replay - --features rows.parquet --threads 2")]
pub struct Args {
    /// A journal (folder or file), a file of lines (gzip or not), or `-` for standard input.
    input: PathBuf,
    /// What the lines are; a journal is recognised by itself.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Refuse unknown fields and stop at the first malformed line.
    #[arg(long)]
    strict: bool,
    /// Threads; 0: one a core. No number changes any result.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write verdicts here, one canonical JSON a line.
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// Write feature rows here, as Parquet.
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Of a journal: decide with what is in force now instead of what was then.
    #[arg(long)]
    current_policy: bool,
    /// Hash identifiers with the key of this data directory instead of the fixed key of replays.
    #[arg(long, value_name = "FOLDER")]
    key_from: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    shape: Shape,
}

/// Runs the command.
///
/// # Errors
/// When something cannot be read or written, or a line is malformed under `--strict`.
pub fn run(args: Args) -> Result<(), CommandError> {
    let mut config = args.config.read()?;
    if is_journal(&args.input) {
        // What was looked up stands in it.
        config.geo = GeoSection::default();
    }
    let threads = super::threads(args.threads);
    let keys = match &args.key_from {
        None => token::replay_keyring(),
        Some(folder) => token::keyring(folder).map_err(CommandError::failed)?,
    };
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let engine = setup::engine(&config, threads, keys.hasher(), clock, Journal::default()).map_err(CommandError::usage)?;
    let options = ReplayOptions {
        input: args.input,
        format: args.format,
        strict: args.strict,
        threads,
        verdicts: args.verdicts,
        features: args.features,
        progress: true,
        recorded_policy: !args.current_policy,
    };
    let mut summary = replay(&engine, &options).map_err(|error| match error {
        ReplayError::Read { .. } => CommandError::usage(error),
        ReplayError::Write { .. } | ReplayError::Line { .. } => CommandError::failed(error),
    })?;
    summary.degraded.extend(setup::degraded(&engine.in_force().bundle, config.models.path.is_some() || config.models.repository.is_some()));
    args.shape.print(&summary, || summary.table())
}
