//! `telltale serve`: the scorer, until SIGTERM or Ctrl-C.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::ConfigArgs;
use crate::config::{Config, Log};
use crate::error::CommandError;
use crate::replay::Format;
use crate::server::{Running, ServeError, ServeOptions, serve};

/// Arguments of `telltale serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  telltale serve
  telltale serve --config telltale.toml --models models/default --mode monitor
  telltale serve --warm last-fortnight.ndjson.gz
  telltale serve --listen unix:/run/telltale.sock")]
pub struct Args {
    /// Replay this into the store before listening; not needed once there is an own journal.
    #[arg(long, value_name = "INPUT")]
    warm: Option<PathBuf>,
    /// What the lines of `--warm` are.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Data directory instead of the configured one.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Scoring listener instead of the configured one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Admin listener instead of the configured one.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Metrics listener instead of the configured one.
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
///
/// # Errors
/// When the server cannot start, or a listener fails.
pub fn run(args: Args) -> Result<(), CommandError> {
    let mut config = args.config.read()?;
    if let Some(data) = args.data {
        config.data = data;
    }
    for (to, from) in [
        (&mut config.scoring.listen, args.listen),
        (&mut config.admin.listen, args.admin_listen),
        (&mut config.metrics.listen, args.metrics_listen),
    ] {
        if let Some(from) = from {
            *to = from;
        }
    }
    config.check(args.config.config.as_deref().unwrap_or(std::path::Path::new("command line"))).map_err(CommandError::usage)?;
    log(&config.log)?;
    let threads = super::threads(config.scoring.threads);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let options = ServeOptions { warm: args.warm, format: args.format, progress: true };
    runtime.map_err(CommandError::failed)?.block_on(until_signal(config, options))
}

async fn until_signal(config: Config, options: ServeOptions) -> Result<(), CommandError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::failed)?;
    let running = tokio::select! {
        started = serve(config, options) => started.map_err(|error| match error {
            ServeError::Setup(_) | ServeError::Access(_) => CommandError::usage(error),
            _ => CommandError::failed(error),
        })?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    announce(&running);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: no new calls, those accepted are finished");
    running.stop().await.map_err(CommandError::failed)
}

fn announce(running: &Running) {
    let shown = |address: Option<std::net::SocketAddr>| address.map_or("unix socket".to_owned(), |address| address.to_string());
    let (scoring, admin, metrics) = (shown(running.scoring), shown(running.admin), shown(running.metrics));
    tracing::info!(%scoring, %admin, %metrics, "ready");
    for missing in running.degraded() {
        tracing::warn!(%missing, "degraded");
    }
}

fn log(log: &Log) -> Result<(), CommandError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| {
        CommandError::usage(format!("`log.level` is `{}`: {error}; allowed: error, warn, info, debug, trace", log.level))
    })?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt().with_ansi(terminal).with_env_filter(filter).with_writer(std::io::stderr);
    let set = if log.json { lines.json().try_init() } else { lines.try_init() };
    set.map_err(CommandError::failed)
}
