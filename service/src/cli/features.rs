//! `telltale features`: what is counted of whom.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use telltale_features::kernel::Exercise;
use telltale_features::kernel::plan::EntityPlan;
use telltale_features::schema::{EntityReport, Schema};
use telltale_features::time::{Clock, Timestamp};

use super::Shape;
use crate::error::CommandError;
use crate::in_force::yaml_files;
use crate::setup::{self, SystemClock};
use crate::warming::Warming;

/// Arguments of `telltale features`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale features list
  telltale features list --data data
  telltale features explain address.requests_1m
  telltale features check my-schema.yaml --output json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All features with their meaning.
    List {
        /// Schema file or folder; absent: the built-in one.
        #[arg(long, value_name = "PATH")]
        schema: Option<PathBuf>,
        /// Data directory of a scorer: which of them have no full window there yet.
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
    /// One feature: what it counts, when it is read, what it is without evidence.
    Explain {
        /// Its name.
        name: String,
        /// Schema file or folder; absent: the built-in one.
        #[arg(long, value_name = "PATH")]
        schema: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
    /// Compiles a schema and says what it costs: bytes and microseconds by entity type, or what is wrong with it.
    Check {
        /// Schema file or folder; absent: the built-in one.
        schema: Option<PathBuf>,
        #[command(flatten)]
        shape: Shape,
    },
}

/// Runs the command.
///
/// # Errors
/// When the schema cannot be used, or has no such feature.
pub fn run(args: Args) -> Result<(), CommandError> {
    match args.command {
        Command::List { schema, data, shape } => {
            list(&setup::schema(schema.as_deref()).map_err(CommandError::usage)?, data.as_deref(), shape)
        }
        Command::Explain { name, schema, shape } => explain(&setup::schema(schema.as_deref()).map_err(CommandError::usage)?, &name, shape),
        Command::Check { schema, shape } => check(schema, shape),
    }
}

fn list(schema: &Schema, data: Option<&Path>, shape: Shape) -> Result<(), CommandError> {
    let features = schema.list();
    let now = SystemClock.now();
    let warming = match data {
        Some(data) => Warming::read(data, schema, now).map_err(CommandError::failed)?.warming(now),
        None => Vec::new(),
    };
    let until = |name: &str| warming.iter().find(|warm| warm.name == name).map(|warm| warm.until);
    let value: Vec<Value> = features
        .iter()
        .map(|feature| {
            json!({
                "name": feature.name, "hash": feature.hash, "entity": feature.entity, "aggregation": feature.aggregation,
                "window_seconds": feature.window.map(|window| window.as_secs()), "meaning": feature.meaning, "warming_until_us": until(&feature.name).map(Timestamp::micros),
            })
        })
        .collect();
    shape.print(&value, || {
        let mut lines: Vec<String> = Vec::new();
        for feature in &features {
            let hours = until(&feature.name).map(|until| until.micros_since(now) as f64 / 3.6e9);
            let warming = hours.map(|hours| format!(" (warming, {hours:.1} h)")).unwrap_or_default();
            lines.push(format!("{:<44} {}  {}{warming}", feature.name, feature.hash, feature.meaning));
        }
        lines.push(format!("{} features, schema {}", features.len(), schema.digest()));
        lines.join("\n")
    })
}

fn explain(schema: &Schema, name: &str, shape: Shape) -> Result<(), CommandError> {
    let explained = schema.explain(name).map_err(CommandError::usage)?;
    let feature = &explained.feature;
    let read = if explained.includes_event { "after the event is counted" } else { "before the event is counted" };
    let value = json!({
        "name": feature.name, "hash": feature.hash, "entity": feature.entity, "aggregation": feature.aggregation, "of": explained.of,
        "filter": explained.filter, "window_seconds": feature.window.map(|window| window.as_secs()), "phase": explained.phase.name(),
        "includes_event": explained.includes_event, "without_evidence": explained.without_evidence,
        "definition": explained.definition, "error_bound": explained.error_bound,
        "warm_after_seconds": explained.warm_after.as_secs(), "meaning": feature.meaning,
    });
    shape.print(&value, || {
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
        [
            format!("{}: {}", feature.name, feature.meaning),
            format!("  entity            {}", or(&feature.entity, "the transaction itself")),
            format!("  aggregation       {} of {}", feature.aggregation, or(&explained.of, "events")),
            format!("  filter            {}", or(&explained.filter, "every event")),
            format!("  events            come with the {}", explained.phase.name()),
            format!("  says              {}", explained.definition),
            format!("  off by            {}", explained.error_bound),
            format!("  read              {read}"),
            format!("  without evidence  {}", explained.without_evidence),
            format!("  warm after        {} s", explained.warm_after.as_secs()),
            format!("  definition        {}", feature.hash),
        ]
        .join("\n")
    })
}

/// What an entity of a plan costs once it is busy.
struct Cost {
    memory: usize,
    blob: usize,
    microseconds: f64,
}

/// Events before the clock is looked at, and while it is.
const EXERCISE: (usize, usize) = (4_000, 4_000);

/// Applies and reads made-up events of one busy entity for some ten milliseconds. What a transaction costs is this once for each of its
/// entities, and finding them in memory.
#[expect(clippy::disallowed_methods, reason = "measures what this machine takes, and nothing rests on it")]
fn cost(plan: &EntityPlan) -> Cost {
    let mut exercise = Exercise::new(plan.clone());
    let events = |count: usize, exercise: &mut Exercise| (0..count).map(|_| exercise.event()).collect::<Vec<_>>();
    let (before, measured) = (events(EXERCISE.0, &mut exercise), events(EXERCISE.1, &mut exercise));
    let mut total: f64 = before.iter().map(|event| exercise.step(event)).sum();
    let began = Instant::now();
    total += measured.iter().map(|event| exercise.step(event)).sum::<f64>();
    let microseconds = began.elapsed().as_secs_f64() * 1e6 / measured.len() as f64;
    std::hint::black_box(total);
    let (memory, blob) = exercise.bytes();
    Cost { memory, blob, microseconds }
}

fn check(path: Option<PathBuf>, shape: Shape) -> Result<(), CommandError> {
    let schema = match &path {
        None => Schema::shipped(),
        Some(path) => {
            let files = yaml_files(path).map_err(|error| CommandError::usage(format!("cannot read `{}`: {error}", path.display())))?;
            Schema::from_sources(&files).map_err(|error| {
                let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
                CommandError::usage(problems.join("\n"))
            })?
        }
    };
    let sizes: Vec<(EntityReport, Cost)> = schema.sizes().into_iter().zip(schema.plans().iter().map(cost)).collect();
    let (features, digest) = (schema.features().len(), schema.digest());
    let value = json!({
        "digest": digest, "features": features,
        "entities": sizes.iter().map(|(entity, cost)| json!({
            "entity": entity.entity, "features": entity.features, "sections": entity.sections,
            "worst_bytes": entity.worst_bytes, "max_bytes": entity.max_bytes, "ttl_seconds": entity.ttl.as_secs(),
            "busy_bytes": cost.blob, "busy_memory_bytes": cost.memory, "event_microseconds": cost.microseconds,
        })).collect::<Vec<_>>(),
    });
    shape.print(&value, || {
        let mut lines = vec![format!(
            "{:<14}{:>10}{:>10}{:>12}{:>14}{:>12}{:>14}",
            "entity", "features", "sections", "busy bytes", "worst bytes", "allowed", "µs an event"
        )];
        lines.extend(sizes.iter().map(|(entity, cost)| {
            let (features, sections) = (entity.features, entity.sections);
            format!(
                "{:<14}{features:>10}{sections:>10}{:>12}{:>14}{:>12}{:>14.2}",
                entity.entity, cost.blob, entity.worst_bytes, entity.max_bytes, cost.microseconds
            )
        }));
        lines.push(format!("{features} features, schema {digest}: usable"));
        lines.join("\n")
    })
}
