//! `telltale models`: what stands in a repository, whether it can be used, and which version plays which part.
//!
//! With `--models FOLDER` a command works on the folder itself, and a running scorer follows within a second; without it, it asks the
//! running scorer over its admin listener.

mod folder;
mod keys;
mod live;

use std::path::PathBuf;

use telltale_models::repository::Step;

use super::{ConfigArgs, Shape};
use crate::error::CommandError;
use crate::mirror::{self, MirrorError, Pulled};

/// Arguments of `telltale models`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale models list --models models/default
  telltale models verify --models models/default --output json
  telltale models show abuse
  telltale models publish mine model.onnx --reason 'trained on October'
  telltale models shadow abuse 2 --reason 'trained on October'
  telltale models compare abuse
  telltale models canary abuse 2 --percent 5
  telltale models promote abuse 2
  telltale models rollback abuse --reason 'more false alarms'
  telltale models drift
  telltale models keygen --out release.key
  telltale models sign abuse 2 --key release.key --models models/default")]
pub struct Args {
    /// Admin listener of a running scorer.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7411", global = true)]
    admin: String,
    /// File that holds a bearer token.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Models with their versions and the one in force.
    #[command(after_help = "Examples:
  telltale models list --models models/default
  telltale models list --live --output json")]
    List {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        shape: Shape,
    },
    /// One model: every version with its state, and why it failed.
    #[command(after_help = "Examples:
  telltale models show abuse
  telltale models show abuse --models models/default")]
    Show {
        /// Name of the model.
        model: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        shape: Shape,
    },
    /// Loads every champion, or one version: digests, feature hashes, golden rows.
    #[command(after_help = "Examples:
  telltale models verify --models models/default
  telltale models verify abuse 2
  telltale models verify abuse 2 --models models/default --output json")]
    Verify {
        /// Name of the model; absent: every champion of a folder.
        model: Option<String>,
        /// Which version.
        #[arg(id = "which", value_name = "VERSION", requires = "model")]
        version: Option<u32>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        shape: Shape,
    },
    /// Judges and probes a bare ONNX file and adds it as a new version; a running scorer also puts it in shadow.
    #[command(after_help = "Examples:
  telltale models publish mine model.onnx --reason 'trained on October'
  telltale models publish mine model.onnx --sign release.key
  telltale models publish mine model.onnx --models models/default --schema my-schema.yaml")]
    Publish {
        /// Name of the model.
        model: String,
        /// The ONNX file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Schema file or folder, where the repository's folder is given.
        #[arg(long, value_name = "PATH", requires = "models")]
        schema: Option<PathBuf>,
        /// Sign it with this private key; absent: the signature in FILE.sig, if there is one, goes with it.
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
        #[command(flatten)]
        change: Change,
    },
    /// Makes a key that models are signed with: the private half in a file, the public half for `models.trusted_keys`.
    #[command(after_help = "Examples:
  telltale models keygen --out release.key
  telltale models keygen --out ci.key --name build-server --output json")]
    Keygen {
        /// The new file; one that is there is never overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// What the configuration calls the key; absent: the file's name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        shape: Shape,
    },
    /// Signs a version of a repository's folder, or a bare file before it is published.
    #[command(after_help = "Examples:
  telltale models sign abuse 2 --key release.key --models models/default
  telltale models sign mine --key release.key --file mine.onnx && cp mine.onnx.sig mine.onnx models/default/inbox/")]
    Sign {
        /// Name of the model.
        model: String,
        /// Which version.
        #[arg(id = "which", value_name = "VERSION", required_unless_present = "file", requires = "models")]
        version: Option<u32>,
        /// The private key, as `telltale models keygen` writes it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Sign this file; the signature is written to FILE.sig.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["which", "models"])]
        file: Option<PathBuf>,
        #[command(flatten)]
        change: Change,
    },
    /// How a version in shadow or on trial differs from the champion; asks a running scorer.
    #[command(after_help = "Examples:
  telltale models compare abuse
  telltale models compare abuse 2 --output json
  telltale models compare abuse --wait 3600 && telltale models canary abuse 2")]
    Compare {
        /// Name of the model.
        model: String,
        /// Which version; absent: the challenger.
        #[arg(id = "which", value_name = "VERSION", default_value_t)]
        version: u32,
        /// Wait so many seconds until it is calibrated on this site; later the command fails.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u32>,
        #[command(flatten)]
        shape: Shape,
    },
    /// How far the transactions of this site have moved from those that the models in force learnt; asks a running scorer.
    #[command(after_help = "Examples:
  telltale models drift
  telltale models drift abuse --most 10
  telltale models drift abuse --output json")]
    Drift {
        /// Name of the model; absent: every one.
        model: Option<String>,
        /// Features that are shown of each model, the most shifted first; JSON has them all.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        most: usize,
        #[command(flatten)]
        shape: Shape,
    },
    /// Puts a version in force; the champion becomes `previous` and stays warm.
    #[command(after_help = "Examples:
  telltale models promote abuse 2 --reason 'nothing bad on trial'
  telltale models promote abuse 2 --models models/default")]
    Promote {
        /// Name of the model.
        model: String,
        /// Which version.
        #[arg(id = "which", value_name = "VERSION")]
        version: u32,
        /// Although it is not calibrated on this site yet: until it is, its score counts for nothing.
        #[arg(long)]
        uncalibrated: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Takes the last step back: ends the canary, puts the previous version in force.
    #[command(after_help = "Examples:
  telltale models rollback abuse --reason 'more false alarms'
  telltale models rollback abuse --models models/default")]
    Rollback {
        /// Name of the model.
        model: String,
        #[command(flatten)]
        change: Change,
    },
    /// Lets a version count for a share of the entities.
    #[command(after_help = "Examples:
  telltale models canary abuse 2 --percent 5 --reason 'agrees in shadow'
  telltale models canary abuse 2 --percent 0 --reason 'enough seen'")]
    Canary {
        /// Name of the model.
        model: String,
        /// Which version.
        #[arg(id = "which", value_name = "VERSION")]
        version: u32,
        /// Share of the entities, percent; 0 ends the trial.
        #[arg(long, default_value_t = 5.0)]
        percent: f64,
        #[command(flatten)]
        change: Change,
    },
    /// Lets a version score beside the champion and count for nothing.
    #[command(after_help = "Examples:
  telltale models shadow abuse 2 --reason 'trained on October'
  telltale models shadow abuse 2 --remove")]
    Shadow {
        /// Name of the model.
        model: String,
        /// Which version.
        #[arg(id = "which", value_name = "VERSION")]
        version: u32,
        /// Take it out of shadow instead.
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Brings a version of a folder, and the model's policy, into an object store that scorers follow.
    #[command(after_help = "Examples:
  telltale models push abuse 2 --models models/default --to s3://bucket/models --options store.options
  telltale models push abuse --models models/default --to file:///srv/models --output json")]
    Push {
        /// Name of the model.
        model: String,
        /// Which version; absent: only the policy.
        #[arg(id = "which", value_name = "VERSION")]
        version: Option<u32>,
        /// The repository.
        #[arg(long, value_name = "FOLDER")]
        models: PathBuf,
        /// The store.
        #[arg(long, value_name = "URL")]
        to: String,
        /// File with the store's options, `KEY=VALUE` a line.
        #[arg(long, value_name = "FILE")]
        options: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
    /// Brings what is new in an object store into a folder, once.
    #[command(after_help = "Examples:
  telltale models pull --from s3://bucket/models --models models/mine --options store.options
  telltale models pull --from file:///srv/models --models models/mine --output json")]
    Pull {
        /// The store.
        #[arg(long, value_name = "URL")]
        from: String,
        /// The folder; made when absent.
        #[arg(long, value_name = "FOLDER")]
        models: PathBuf,
        /// File with the store's options, `KEY=VALUE` a line.
        #[arg(long, value_name = "FILE")]
        options: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
    /// Deletes a version that plays no part.
    #[command(after_help = "Examples:
  telltale models remove abuse 1 --reason 'no longer needed'
  telltale models remove abuse 1 --models models/default")]
    Remove {
        /// Name of the model.
        model: String,
        /// Which version.
        #[arg(id = "which", value_name = "VERSION")]
        version: u32,
        #[command(flatten)]
        change: Change,
    },
}

/// Where the repository is.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// Ask the running scorer, not a folder.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What every change takes.
#[derive(Debug, Clone, clap::Args)]
struct Change {
    /// Work on this repository, not on a running scorer.
    #[arg(long, value_name = "FOLDER")]
    models: Option<PathBuf>,
    /// Why; for the audit.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    shape: Shape,
}

/// Runs the command.
///
/// # Errors
/// When the repository cannot be read, a model in it cannot be used, or the scorer refuses.
pub fn run(args: Args) -> Result<(), CommandError> {
    let live = live::Live { admin: args.admin, token_file: args.token_file };
    match args.command {
        Command::List { place, shape } if place.live => live.list(shape),
        Command::List { place, shape } => folder::list(&place.config, shape),
        Command::Show { model, place, shape } if place.config.models.is_none() => live.show(&model, shape),
        Command::Show { model, place, shape } => folder::show(&place.config, &model, shape),
        Command::Verify { model: Some(model), version, place, shape } if place.config.models.is_none() => {
            live.verify(&model, version, shape)
        }
        Command::Verify { model, version, place, shape } => folder::verify(&place.config, (model, version), shape),
        Command::Publish { model, file, schema, sign, change } => match &change.models {
            Some(folder) => folder::publish(folder, (&model, &file, schema), sign.as_deref(), &change),
            None => live.publish(&model, (&file, sign.as_deref()), &change),
        },
        Command::Keygen { out, name, shape } => keys::keygen(&out, name, shape),
        Command::Sign { model, key, file: Some(file), change, .. } => keys::file(&key, (&model, &file), change.shape),
        Command::Sign { model, version, key, file: None, change } => {
            // The parser has seen that both are there.
            let (folder, version) = (change.models.clone().unwrap_or_default(), version.unwrap_or_default());
            keys::version(&key, (&model, version), &folder, &change)
        }
        Command::Compare { model, version, wait, shape } => live.compare(&model, version, wait, shape),
        Command::Drift { model, most, shape } => live.drift(model, most, shape),
        Command::Promote { model, version, uncalibrated, change } => step(&live, &model, Step::Promote(version), uncalibrated, &change),
        Command::Rollback { model, change } => step(&live, &model, Step::Rollback, false, &change),
        Command::Canary { model, version, percent, change } => step(&live, &model, Step::Canary(version, percent), false, &change),
        Command::Shadow { model, version, remove, change } => step(&live, &model, Step::Shadow(version, !remove), false, &change),
        Command::Push { model, version, models, to, options, shape } => {
            let brought = mirror::push(&to, options.as_deref(), &models, (&model, version)).map_err(not_brought)?;
            pulled(&Pulled { brought, ..Pulled::default() }, shape)
        }
        Command::Pull { from, models, options, shape } => {
            pulled(&mirror::pull(&from, options.as_deref(), &models).map_err(not_brought)?, shape)
        }
        Command::Remove { model, version, change } => match &change.models {
            Some(folder) => folder::remove(folder, &model, version, &change),
            None => live.remove(&model, version, &change),
        },
    }
}

/// What was brought from one place to the other, and what was not; fails when something is wrong there.
fn pulled(pulled: &Pulled, shape: Shape) -> Result<(), CommandError> {
    shape.print(pulled, || {
        let waiting = pulled.waiting.iter().map(|what| format!("waits: {what}"));
        let lines: Vec<String> = pulled.brought.iter().cloned().chain(waiting).collect();
        if lines.is_empty() { "nothing new".to_owned() } else { lines.join("\n") }
    })?;
    if pulled.refused.is_empty() { Ok(()) } else { Err(CommandError::failed(pulled.refused.join("\n"))) }
}

fn not_brought(error: MirrorError) -> CommandError {
    match error {
        MirrorError::NotBuilt(_) | MirrorError::Address { .. } => CommandError::usage(error),
        MirrorError::Store { .. } | MirrorError::Busy { .. } | MirrorError::Model(_) => CommandError::failed(error),
    }
}

fn step(live: &live::Live, model: &str, step: Step, uncalibrated: bool, change: &Change) -> Result<(), CommandError> {
    match &change.models {
        Some(folder) => folder::step(folder, model, step, change),
        None => live.step(model, step, uncalibrated, change),
    }
}
