//! `telltale model-worker`: started by a scorer for a foreign model, never by hand.

use std::path::PathBuf;

use telltale_models::contain::worker;

use crate::error::CommandError;

/// Arguments of `telltale model-worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// ONNX Runtime library.
    #[arg(long, value_name = "FILE")]
    runtime: PathBuf,
    /// Address space, MiB.
    #[arg(long, value_name = "MIB")]
    memory_mb: u64,
    /// Without limits and filter: for the test that shows what they prevent.
    #[arg(long)]
    unlocked: bool,
    /// Take the least part of a processor: for a look at a model.
    #[arg(long)]
    aside: bool,
    /// Try something forbidden instead of serving: for the same test.
    #[arg(long, value_name = "WHAT")]
    probe: Option<String>,
}

/// Runs the command until the scorer closes the socket.
///
/// # Errors
/// When the worker cannot be contained.
pub fn run(args: &Args) -> Result<(), CommandError> {
    if args.aside {
        worker::stand_aside();
    }
    worker::run(&args.runtime, args.memory_mb << 20, !args.unlocked, args.probe.as_deref()).map_err(CommandError::failed)
}
