//! The command `telltale simulate`: a small shop's customers and attackers, labelled, as NDJSON or as live HTTP traffic.
//!
//! Enters a seed and the measures of a world, leave records as the proxy would send them, and the truth about them in a file of its
//! own. The same actors drive both ways; nothing here scores anything.

pub mod actor;
pub mod attack;
pub mod client;
pub mod convert;
pub mod customer;
pub mod dice;
pub mod engine;
pub mod http;
pub mod intent;
pub mod live;
pub mod machine;
pub mod network;
pub mod output;
pub mod people;
pub mod profile;
pub mod rhythm;
pub mod serve;
pub mod shop;
pub mod stream;
pub mod wall;
pub mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate};
use clap::ValueEnum;

use crate::error::CommandError;
use attack::{Attack, Intensity, Variants};
use live::{LiveOptions, Source};
use network::Addresses;
use stream::{Stream, StreamOptions};
use world::{World, WorldOptions};

/// Begin of a world for which none is said: 2026-10-05T00:00:00Z, a Monday.
pub const DEFAULT_START: i64 = 1_791_158_400_000_000;
const DAY_US: f64 = 86_400e6;

/// Arguments of `telltale simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  telltale simulate --days 3 --customers 500 --out traffic.ndjson.gz --truth truth.ndjson\n  \
    telltale simulate --attacks brute-force,scraping --intensity medium --variants eval --out - | telltale replay -")]
pub struct Args {
    /// Seed: the same seed and options give the same bytes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Days to simulate.
    #[arg(long, default_value_t = 7.0)]
    pub days: f64,
    /// Customers with accounts, the shop's own staff among them.
    #[arg(long, default_value_t = 1_000)]
    pub customers: usize,
    /// Attacks: `all`, `none`, or a list of names separated by commas.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    pub attacks: Vec<String>,
    /// Intensities of each attack: `all`, or a list of low, medium, high.
    #[arg(long, default_value = "medium", value_delimiter = ',')]
    pub intensity: Vec<String>,
    /// Variants of tool, pace, routes and addresses.
    #[arg(long, value_enum, default_value_t)]
    pub variants: Variants,
    /// Campaigns of each attack and intensity.
    #[arg(long, default_value_t = 1)]
    pub campaigns: usize,
    /// Begin: a date or a time with zone, such as 2026-10-05 or 2026-10-05T08:00:00Z.
    #[arg(long, value_parser = moment)]
    pub start: Option<i64>,
    /// End; with it and without --start, the begin is --days earlier.
    #[arg(long, value_parser = moment)]
    pub end: Option<i64>,
    /// Addresses shown: public ones, or ones in 127/8 that live traffic can have too.
    #[arg(long, value_enum, default_value_t)]
    pub addresses: Addresses,
    /// Where the records go: a file, `.gz` compressed, or `-`.
    #[arg(long, default_value = "-")]
    pub out: PathBuf,
    /// File for the truth about each transaction: actor, session, attack, harm.
    #[arg(long)]
    pub truth: Option<PathBuf>,
    /// Writes no labels.
    #[arg(long)]
    pub no_labels: bool,
    /// Sends live HTTP to `http://address:port` instead of writing records; from --start on, at --speed.
    #[arg(long, value_parser = target)]
    pub target: Option<SocketAddr>,
    /// Live: simulated seconds in a second.
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Live: seconds until the end.
    #[arg(long, default_value_t = 60.0)]
    pub seconds: f64,
    /// Live: most requests.
    #[arg(long, default_value_t = 1_000_000)]
    pub requests: u64,
    /// Live: most requests under way.
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,
    /// Live: name client addresses in X-Forwarded-For, as a trusted hop does, instead of binding them in 127/8.
    #[arg(long)]
    pub trusted_hop: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), CommandError> {
    let options = args.world()?;
    if let Some(target) = args.target {
        return send(&args, &options, target);
    }
    let stream = StreamOptions { seed: args.seed, until: options.end, addresses: args.addresses, labels: !args.no_labels };
    output::write(Stream::new(World::new(&options), stream), &args.out, args.truth.as_deref(), (options.start, options.end))
}

/// Sends the world to a live target. Its shop must be the one of the same seed, or logins fail.
fn send(args: &Args, options: &WorldOptions, target: SocketAddr) -> Result<(), CommandError> {
    let speed = args.speed > 0.0 && args.speed <= 100_000.0;
    let seconds = args.seconds > 0.0 && args.seconds <= 86_400.0;
    if !speed || !seconds || !(1..=4_096).contains(&args.in_flight) {
        return Err(CommandError::usage("allowed are --speed up to 100,000, --seconds up to 86,400, --in-flight 1 to 4,096"));
    }
    let live = LiveOptions {
        target,
        source: if args.trusted_hop { Source::Header("x-forwarded-for") } else { Source::Bound },
        from: options.start,
        lasts: std::time::Duration::from_secs_f64(args.seconds),
        speed: Some(args.speed),
        requests: args.requests,
        in_flight: args.in_flight,
    };
    let mut world = World::new(options);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::failed)?;
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    let mut count = |_: &engine::Engine, exchange: &live::Exchange| {
        *statuses.entry(exchange.response.as_ref().map_or(0, |response| response.status)).or_default() += 1;
    };
    let sent = runtime.block_on(live::drive(&mut world.engine, &live, &mut count));
    eprintln!("sent {sent} requests");
    for (status, count) in statuses {
        eprintln!("{} {count}", if status == 0 { "no answer".to_owned() } else { format!("status {status}") });
    }
    Ok(())
}

impl Args {
    /// The world that the arguments describe.
    pub fn world(&self) -> Result<WorldOptions, CommandError> {
        if !(self.days > 0.0 && self.days <= 400.0) {
            return Err(CommandError::usage(format!("--days is `{}`; allowed is more than 0, up to 400", self.days)));
        }
        if !(10..=1_000_000).contains(&self.customers) {
            return Err(CommandError::usage(format!("--customers is `{}`; allowed is 10 to 1,000,000", self.customers)));
        }
        let span = (self.days * DAY_US) as i64;
        let (start, end) = match (self.start, self.end) {
            (Some(start), Some(end)) => (start, end),
            (None, Some(end)) => (end - span, end),
            (start, None) => (start.unwrap_or(DEFAULT_START), start.unwrap_or(DEFAULT_START) + span),
        };
        if end <= start {
            return Err(CommandError::usage("--end is not after --start"));
        }
        Ok(WorldOptions {
            seed: self.seed,
            customers: self.customers,
            start,
            end,
            attacks: named("--attacks", &self.attacks, &Attack::ALL)?,
            intensities: named("--intensity", &self.intensity, &Intensity::ALL)?,
            variants: self.variants,
            campaigns: self.campaigns,
        })
    }
}

/// Reads a list of names; `all` stands for all of them, `none` for none.
pub fn named<T: ValueEnum + Copy>(flag: &str, names: &[String], all: &[T]) -> Result<Vec<T>, CommandError> {
    let mut chosen = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => chosen.extend_from_slice(all),
            "none" => {}
            name => chosen.push(T::from_str(name, false).map_err(|_| CommandError::usage(unknown(flag, name, all)))?),
        }
    }
    Ok(chosen)
}

fn unknown<T: ValueEnum>(flag: &str, name: &str, all: &[T]) -> String {
    let allowed: Vec<String> = all.iter().filter_map(|value| value.to_possible_value()).map(|value| value.get_name().to_owned()).collect();
    format!("{flag} names `{name}`; allowed are all, none, {}", allowed.join(", "))
}

fn target(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
    address
        .filter(|address| address.ip().is_loopback())
        .ok_or_else(|| format!("`{text}` is no target; allowed is http://127.0.0.1:PORT, loopback only"))
}

fn moment(text: &str) -> Result<i64, String> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_micros());
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .map(|time| time.and_utc().timestamp_micros());
    time.ok().or(date).ok_or_else(|| format!("`{text}` is no time; allowed is 2026-10-05 or 2026-10-05T08:00:00Z"))
}

#[cfg(test)]
mod tests;
