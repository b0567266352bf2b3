//! `telltale rules`: is the policy right, and does it do what its cases say?

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use telltale_policy::{CASES, Mode, run_cases};

use super::{ConfigArgs, Shape};
use crate::config::Config;
use crate::error::CommandError;
use crate::in_force::{PolicySource, yaml_files};
use crate::setup;

/// Arguments of `telltale rules`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale rules list
  telltale rules check --policy my-rules/
  telltale rules test
  telltale rules test --policy my-rules/ --cases my-cases/ --output json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All rules with action, score and mode.
    List {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        shape: Shape,
    },
    /// Compiles the policy; says what is wrong with file and line.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        shape: Shape,
    },
    /// Runs cases of raw transactions: each rule must fire where its case says so, and nowhere else.
    Test {
        /// File or folder of cases; absent: the built-in ones.
        #[arg(long, value_name = "PATH")]
        cases: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        shape: Shape,
    },
}

/// Runs the command.
///
/// # Errors
/// When the policy or a case is wrong, or a case fails.
pub fn run(args: Args) -> Result<(), CommandError> {
    match args.command {
        Command::List { config, shape } => list(&config.read()?, shape),
        Command::Check { config, shape } => check(&config.read()?, shape),
        Command::Test { cases, config, shape } => test(&config.read()?, cases, shape),
    }
}

fn compile(config: &Config) -> Result<(Arc<telltale_features::schema::Schema>, telltale_policy::Policy), CommandError> {
    let schema = Arc::new(setup::schema(config.schema.path.as_deref()).map_err(CommandError::usage)?);
    let source = PolicySource::read(config.policy.path.as_deref(), config.policy.mode.as_deref()).map_err(CommandError::usage)?;
    let policy = source.compile(&schema).map_err(CommandError::usage)?;
    Ok((schema, policy))
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Monitor => "monitor",
        Mode::Enforce => "enforce",
    }
}

fn list(config: &Config, shape: Shape) -> Result<(), CommandError> {
    let (_, policy) = compile(config)?;
    let rules: Vec<_> = policy.rules().collect();
    let value: Vec<_> = rules
        .iter()
        .map(|rule| {
            json!({ "id": rule.id, "name": rule.name, "action": rule.action.name(), "score": rule.score, "mode": mode_name(rule.mode), "tags": rule.tags })
        })
        .collect();
    shape.print(&value, || {
        let line = |rule: &telltale_policy::RuleSummary| {
            let (action, mode) = (rule.action.name(), mode_name(rule.mode));
            format!("{:<10}{action:<12}{:>6} {mode:<8} {}  [{}]", rule.id, rule.score, rule.name, rule.tags.join(", "))
        };
        let mut lines: Vec<String> = rules.iter().map(line).collect();
        lines.push(format!("{} rules, policy {}", rules.len(), policy.digest()));
        lines.join("\n")
    })
}

fn check(config: &Config, shape: Shape) -> Result<(), CommandError> {
    let (schema, policy) = compile(config)?;
    let rules = policy.rules().count();
    let value = json!({ "rules": rules, "policy": policy.digest(), "schema": schema.digest() });
    shape.print(&value, || format!("{rules} rules, policy {}, schema {}: usable", policy.digest(), schema.digest()))
}

fn test(config: &Config, cases: Option<PathBuf>, shape: Shape) -> Result<(), CommandError> {
    let (schema, policy) = compile(config)?;
    let files = match &cases {
        None => CASES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
        Some(path) => yaml_files(path).map_err(|error| CommandError::usage(format!("cannot read `{}`: {error}", path.display())))?,
    };
    let results = run_cases(&policy, &schema, &files).map_err(CommandError::usage)?;
    let failed = results.iter().filter(|result| !result.holds()).count();
    let value: Vec<_> = results
        .iter()
        .map(|result| {
            json!({ "rule": result.rule, "case": result.name, "expected": result.expected, "fired_at": result.fired, "transactions": result.transactions, "reason": result.reason, "holds": result.holds() })
        })
        .collect();
    shape.print(&value, || {
        let line = |result: &telltale_policy::CaseResult| {
            let holds = if result.holds() { "ok  " } else { "FAIL" };
            let fired = result.fired.map_or("did not fire".to_owned(), |at| format!("fired at transaction {at}: {}", result.reason));
            format!("{holds} {:<10} {}: {fired}", result.rule, result.name)
        };
        let mut lines: Vec<String> = results.iter().map(line).collect();
        lines.push(format!("{} cases, {failed} failed", results.len()));
        lines.join("\n")
    })?;
    if failed == 0 { Ok(()) } else { Err(CommandError::failed(format!("{failed} of {} cases failed", results.len()))) }
}
