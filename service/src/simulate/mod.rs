//! The command `telltale simulate`.

use crate::error::CommandError;

/// Arguments of `telltale simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), CommandError> {
    Err(CommandError::usage("not built yet"))
}
