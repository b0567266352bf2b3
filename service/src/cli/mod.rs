//! The command line: one subcommand a file. What enters is arguments, what leaves is an exit code; no logic lives here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{CommandError, EXIT_USAGE};
use crate::{demo, simulate};

/// Scores the behaviour behind every API transaction, and says what to do about it.
#[derive(Debug, Parser)]
#[command(name = "telltale", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes or sends labelled, simulated traffic.
    Simulate(simulate::Args),
    /// Runs the demonstration: a small shop, customers, attackers, and what Telltale made of them.
    Demo(demo::Args),
}

/// Parses the arguments of the process and runs the command. Bad usage and configuration exit with 64.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("telltale: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Simulate(args) => simulate::run(args),
        Command::Demo(args) => demo::run(args),
    }
}
