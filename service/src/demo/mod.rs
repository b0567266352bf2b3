//! The command `telltale demo`: a shop, a proxy before it, the scorer, fourteen simulated days, then a live minute.
//!
//! Starts everything, drives customers and attackers through the proxy, says what fell and why, and ends what it started.

mod child;
mod plain_http;
mod prepare;
mod summary;
pub mod tally;
mod watch;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep};

use crate::error::CommandError;
use crate::simulate::actor::Nature;
use crate::simulate::attack::{Attack, Intensity, Variants};
use crate::simulate::live::{self, Exchange, LiveOptions, Source};
use crate::simulate::network::Addresses;
use crate::simulate::serve::{Serving, serve};
use crate::simulate::stream::{Stream, StreamOptions, harms};
use crate::simulate::wall::{Stopwatch, WallClock, now_micros};
use crate::simulate::world::World;
use crate::simulate::{engine::Engine, named, output};
use child::Child;
use prepare::Ports;
use summary::{Latency, Report};
use tally::{Judged, Tally};
use watch::Watch;

/// A process gets so long to begin to serve, the replay of the past not counted.
const START: Duration = Duration::from_secs(20);
/// The replay of the past gets so long.
const WARM: Duration = Duration::from_secs(900);

/// Arguments of `telltale demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  telltale demo\n  telltale demo --seed 7 --seconds 30 --output json\n  telltale demo --stay")]
pub struct Args {
    /// Seed of the world.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Length of the live part, seconds.
    #[arg(long, default_value_t = 60.0)]
    pub seconds: f64,
    /// Simulated days replayed before it.
    #[arg(long, default_value_t = 14.0)]
    pub days: f64,
    /// Customers with accounts.
    #[arg(long, default_value_t = 600)]
    pub customers: usize,
    /// Customer sessions that begin in the live part.
    #[arg(long, default_value_t = 200)]
    pub sessions: usize,
    /// Attacks: `all`, `none`, or a list of names separated by commas.
    #[arg(long = "attacks", default_value = "all", value_delimiter = ',')]
    names: Vec<String>,
    #[arg(skip)]
    attacks: Vec<Attack>,
    /// Their intensity.
    #[arg(long, value_enum, default_value = "medium")]
    pub intensity: Intensity,
    /// Their variants.
    #[arg(long, value_enum, default_value = "eval")]
    pub variants: Variants,
    /// Model repository; `none` for rules alone. By default `models/default`, when it is there.
    #[arg(long)]
    pub models: Option<PathBuf>,
    /// What the summary looks like.
    #[arg(long, value_enum, default_value_t)]
    pub output: Shape,
    /// Goes on serving after the summary, until Ctrl-C.
    #[arg(long)]
    pub stay: bool,
}

/// What the summary looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// For people.
    #[default]
    Table,
    /// For programs; nothing else is written to standard output.
    Json,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), CommandError> {
    if !(args.seconds >= 5.0 && args.seconds <= 3_600.0) {
        return Err(CommandError::usage(format!("--seconds is `{}`; allowed is 5 to 3600", args.seconds)));
    }
    if !(args.days > 0.0 && args.days <= 60.0 && (10..=100_000).contains(&args.customers)) {
        return Err(CommandError::usage("allowed are --days up to 60 and --customers 10 to 100,000"));
    }
    let args = Args { attacks: named("--attacks", &args.names, &Attack::ALL)?, ..args };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::failed)?;
    runtime.block_on(async {
        let mut children = Vec::new();
        let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::failed)?;
        let result = tokio::select! {
            result = show(&args, &mut children) => result,
            _ = tokio::signal::ctrl_c() => Err(CommandError::failed("stopped by Ctrl-C")),
            _ = terminate.recv() => Err(CommandError::failed("stopped by SIGTERM")),
        };
        // The proxy first: it reports its last outcomes to the scorer.
        while let Some(child) = children.pop() {
            child.stop().await;
        }
        result
    })
}

async fn show(args: &Args, children: &mut Vec<Child>) -> Result<(), CommandError> {
    let say = |text: &str| eprintln!("{text}");
    let programs = programs()?;
    let folder = tempfile::Builder::new().prefix("demo-").tempdir_in(&programs.target).map_err(CommandError::failed)?;
    let ports = Ports::free()?;
    let (lines, mut logged) = unbounded_channel();
    let (past_ends, warm) = (now_micros(), folder.path().join("warm.ndjson"));

    say(&format!("{} simulated days of a shop with {} customers", args.days, args.customers));
    let (mut world, transactions) = replayed_days(args, past_ends, &warm)?;
    let models = models(args);
    let config = prepare::scorer_config(folder.path(), &ports, models.as_deref())?;
    let mut arguments = vec!["serve".into(), "--config".into(), path(&config), "--warm".into(), path(&warm)];
    if models.is_none() {
        arguments.extend(["--models".into(), "none".into()]);
    }
    let watch = Stopwatch::start();
    children.push(Child::start("the scorer", &programs.telltale, &arguments, &lines)?);
    until_ready(children, ports.metrics, "/readyz", (WARM, &format!("the scorer replays {transactions} transactions"))).await?;
    say(&format!("the scorer has replayed {transactions} transactions in {:.1} s", watch.seconds()));

    prepare::gather(&mut world.engine, args, past_ends);
    let shop: Serving = serve(world.shop, 0, Arc::new(WallClock)).await.map_err(CommandError::failed)?;
    let config = prepare::proxy_config(folder.path(), &ports, shop.address)?;
    children.push(Child::start("the proxy", &programs.proxy, &["--config".into(), path(&config)], &lines)?);
    until_ready(children, ports.proxy_metrics, "/healthz", (START, "the proxy starts")).await?;

    say(&format!("the proxy waits at most {} ms for a verdict here, because all processes share this machine", prepare::DEADLINE_MS));
    say(&format!("live for {} s through the proxy on http://{}: customers and {} attacks", args.seconds, ports.proxy, args.attacks.len()));
    let (tally, watch) = live_part(args, &mut world.engine, (ports.proxy, past_ends), &mut logged).await;
    for child in children.iter_mut() {
        child.check()?;
    }
    let latency = Latency::read(ports.proxy_metrics).await;
    let report = Report {
        seed: args.seed,
        seconds: args.seconds,
        replayed: transactions,
        tally,
        latency,
        held: watch.held(),
        wrongly_stopped_by: watch.wrongly().clone(),
    };
    report.print(args.output)?;
    if args.stay {
        say(&format!("the proxy serves on http://{}, metrics on http://{}/metrics; Ctrl-C ends it", ports.proxy, ports.metrics));
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Writes the past to a file; the world comes back as it stands at its end.
fn replayed_days(args: &Args, until: i64, file: &Path) -> Result<(World, u64), CommandError> {
    let options = StreamOptions { seed: args.seed, until, addresses: Addresses::Loopback, labels: false };
    let mut stream = Stream::new(prepare::world(args, until), options);
    let bar = spinner("simulating the past");
    let written = output::write_stream(&mut stream, file, None, &|_| bar.tick())?;
    bar.finish_and_clear();
    Ok((stream.into_world(), written.transactions))
}

/// Drives the live part; what the proxy logs meanwhile is shown as it comes.
async fn live_part(
    args: &Args,
    engine: &mut Engine,
    (target, from): (std::net::SocketAddr, i64),
    logged: &mut UnboundedReceiver<String>,
) -> (Tally, Watch) {
    let options = LiveOptions {
        target,
        source: Source::Bound,
        from,
        lasts: Duration::from_secs_f64(args.seconds),
        speed: Some(1.0),
        requests: 2_000_000,
        in_flight: 512,
    };
    let mut watch = Watch::new(args.output == Shape::Json);
    let mut tally = Tally::default();
    while logged.try_recv().is_ok() {}
    live::drive(engine, &options, &mut |engine, exchange| {
        while let Ok(line) = logged.try_recv() {
            watch.log(&line);
        }
        hear(engine, exchange, (&mut watch, &mut tally));
    })
    .await;
    (tally, watch)
}

fn hear(engine: &Engine, exchange: &Exchange, (watch, tally): (&mut Watch, &mut Tally)) {
    // A connection that failed says nothing about anybody.
    let Some(response) = &exchange.response else { return };
    let (nature, who) = match engine.nature(exchange.actor) {
        Nature::Customer => ("customer", "customer".to_owned()),
        Nature::Machine => ("machine", "crawler or partner".to_owned()),
        Nature::Attacker(origin) => ("attack", format!("{}/{}", origin.attack.name(), origin.intensity.name())),
    };
    let attack = match engine.nature(exchange.actor) {
        Nature::Attacker(origin) => Some(origin.attack),
        Nature::Customer | Nature::Machine => None,
    };
    let stopped = !exchange.reached;
    if stopped {
        watch.stopped(&who, reference(response));
    }
    tally.count(&Judged {
        session: (&engine.name(exchange.actor), exchange.session),
        nature,
        attack: &who,
        time: exchange.sent.as_secs_f64(),
        stopped,
        harm: !stopped && attack.is_some_and(|attack| harms(attack, &exchange.request, response)),
    });
}

/// The transaction that an answer of the proxy's own names: 32 hexadecimal digits.
fn reference(response: &crate::simulate::http::Response) -> Option<String> {
    let crate::simulate::http::Body::Text(text) = &response.body else { return None };
    let mut words = text.split(|letter: char| !letter.is_ascii_hexdigit());
    words.find(|word| word.len() == 32).map(str::to_owned)
}

async fn until_ready(
    children: &mut [Child],
    at: std::net::SocketAddr,
    what: &str,
    (most, message): (Duration, &str),
) -> Result<(), CommandError> {
    let began = Instant::now();
    let bar = spinner(message);
    loop {
        if let Some(child) = children.last_mut() {
            child.check()?;
            if began.elapsed() > most {
                return Err(child.failure(&format!("does not serve after {} s", most.as_secs())));
            }
        }
        if plain_http::get(at, what).await.is_some_and(|(status, _)| status == 200) {
            bar.finish_and_clear();
            return Ok(());
        }
        bar.tick();
        sleep(Duration::from_millis(50)).await;
    }
}

fn spinner(message: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(message.to_owned());
    bar
}

struct Programs {
    telltale: PathBuf,
    proxy: PathBuf,
    target: PathBuf,
}

fn programs() -> Result<Programs, CommandError> {
    let telltale = std::env::current_exe().map_err(CommandError::failed)?;
    let folder = telltale.parent().unwrap_or(Path::new(".")).to_path_buf();
    let proxy = folder.join("telltale-proxy");
    if !proxy.is_file() {
        return Err(CommandError::failed(format!("there is no `{}`; `make build` builds it", proxy.display())));
    }
    let target = folder.parent().map_or_else(|| folder.clone(), Path::to_path_buf);
    Ok(Programs { telltale, proxy, target })
}

fn models(args: &Args) -> Option<PathBuf> {
    match &args.models {
        Some(path) if path == Path::new("none") => None,
        Some(path) => std::path::absolute(path).ok(),
        None => std::path::absolute("models/default").ok().filter(|path| path.is_dir()),
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
