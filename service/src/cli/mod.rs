//! The command line: one subcommand a file. What enters is arguments, what leaves is an exit code; no logic lives here.

pub mod config;
pub mod entities;
pub mod features;
pub mod model_worker;
pub mod models;
mod profile;
pub mod replay;
pub mod rules;
pub mod serve;
pub mod state;
pub mod templates;
pub mod train;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::config::Config;
use crate::error::{CommandError, EXIT_USAGE};
use crate::{demo, eval, simulate};

/// Scores the behaviour behind every API transaction, and says what to do about it.
#[derive(Debug, Parser)]
#[command(name = "telltale", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scores transactions over gRPC.
    Serve(serve::Args),
    /// Sends recorded or foreign input the whole way, at event time.
    Replay(replay::Args),
    /// What is counted of whom.
    Features(features::Args),
    /// Is the policy right, and does it do what its cases say?
    Rules(rules::Args),
    /// What stands in a model repository, and which version plays which part.
    Models(models::Args),
    /// Runs a foreign model for a scorer, contained; its standard input is a socket.
    #[command(hide = true)]
    ModelWorker(model_worker::Args),
    /// Trains a native model on a feature file.
    Train(train::Args),
    /// Is this configuration right?
    Config(config::Args),
    /// What a running scorer knows of entities, and what people decide about them.
    Entities(entities::Args),
    /// Endpoint templates beside the configured ones: learned from traffic, or added by operators.
    Templates(templates::Args),
    /// Moves entity state between data directories and Redis.
    State(state::Args),
    /// Writes or sends labelled, simulated traffic.
    Simulate(simulate::Args),
    /// Runs the demonstration: a small shop, customers, attackers, and what Telltale made of them.
    Demo(demo::Args),
    /// Measures detection on simulated traffic that tuned nothing.
    Eval(eval::Args),
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
        Command::Serve(args) => serve::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Features(args) => features::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Models(args) => models::run(args),
        Command::ModelWorker(args) => model_worker::run(&args),
        Command::Train(args) => train::run(args),
        Command::Config(args) => config::run(args),
        Command::Entities(args) => entities::run(args),
        Command::Templates(args) => templates::run(args),
        Command::State(args) => state::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Eval(args) => eval::run(args),
    }
}

/// Where the configuration comes from; every command that scores takes it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file; every key in it is optional.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Policy file or folder instead of the configured one.
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// Model repository instead of the configured one; `none` for rules alone. By default `models/default`, when it is there.
    #[arg(long, value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// Schema file or folder instead of the configured one.
    #[arg(long, value_name = "PATH")]
    pub schema: Option<PathBuf>,
    /// Switch every rule.
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// Trust the calibration that a model came with: only for traffic like the one it was made for.
    #[arg(long)]
    pub shipped_calibration: bool,
}

/// The switch of every rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// No rule is asked.
    Off,
    /// Rules watch and say what they would do.
    Monitor,
    /// Rules act.
    Enforce,
}

impl ConfigArgs {
    /// The configuration with what the command line changes.
    ///
    /// # Errors
    /// When the file is wrong.
    pub fn read(&self) -> Result<Config, CommandError> {
        let mut config = Config::read(self.config.as_deref()).map_err(CommandError::usage)?;
        if self.policy.is_some() {
            config.policy.path.clone_from(&self.policy);
        }
        // The shipped models stand beside where the program starts; whoever wants rules alone says so.
        match &self.models {
            Some(path) => {
                config.models.path = Some(path.clone()).filter(|path| path != Path::new("none"));
                config.models.repository = None;
            }
            None if config.models.path.is_none() && config.models.repository.is_none() => {
                config.models.path = Some(PathBuf::from("models/default")).filter(|path| path.is_dir());
            }
            None => {}
        }
        if self.schema.is_some() {
            config.schema.path.clone_from(&self.schema);
        }
        if let Some(mode) = self.mode {
            let mode = match mode {
                ModeArg::Off => "off",
                ModeArg::Monitor => "monitor",
                ModeArg::Enforce => "enforce",
            };
            config.policy.mode = Some(mode.to_owned());
        }
        config.models.shipped_calibration |= self.shipped_calibration;
        if config.models.runtime.is_none() {
            config.models.runtime = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
        }
        config.check(self.config.as_deref().unwrap_or(Path::new("command line"))).map_err(CommandError::usage)?;
        Ok(config)
    }
}

/// How a command answers.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Shape {
    /// A table for people or JSON for programs.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

impl Shape {
    /// Prints a value as asked.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print<T: Serialize>(self, value: &T, table: impl FnOnce() -> String) -> Result<(), CommandError> {
        use std::io::Write as _;
        let text = match self.output {
            Output::Table => table(),
            Output::Json => serde_json::to_string_pretty(value).map_err(CommandError::failed)?,
        };
        writeln!(std::io::stdout(), "{text}").map_err(CommandError::failed)
    }
}

/// A number of threads; 0: one a core.
pub fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its arguments, from the top.
    fn commands(of: clap::Command) -> Vec<clap::Command> {
        let below = of.get_subcommands().cloned().flat_map(commands).collect::<Vec<_>>();
        std::iter::once(of).chain(below).collect()
    }

    #[test]
    fn no_two_arguments_of_a_command_have_one_name_and_every_step_of_a_model_has_examples() {
        let mut cli = <Cli as clap::CommandFactory>::command();
        cli.clone().debug_assert();
        cli.build();
        let models = cli.find_subcommand("models").unwrap().clone();
        let bare: Vec<_> = commands(models).into_iter().filter(|command| command.get_after_help().is_none()).collect();
        let bare: Vec<&str> = bare.iter().map(clap::Command::get_name).filter(|name| *name != "help").collect();
        assert_eq!(bare, [""; 0]);
    }
}
