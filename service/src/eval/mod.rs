//! The command `telltale eval`: how well attacks that tuned nothing are found, and beside it what one threshold would have found.
//!
//! Simulates evaluation traffic, replays it through the same pipeline as live traffic, and compares each decision with the truth.

mod blame;
mod reasons;
mod report;
mod threshold;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use telltale_features::time::{ManualClock, Timestamp};

use crate::cli::{self, ConfigArgs, Shape};
use crate::demo::tally::{Judged, Tally};
use crate::error::CommandError;
use crate::journal::Journal;
use crate::replay::{Format, Output, ReplayOptions, feed};
use crate::simulate::attack::{Attack, Intensity, Variants};
use crate::simulate::network::Addresses;
use crate::simulate::output::write_records;
use crate::simulate::stream::{Stream, StreamOptions, Truth};
use crate::simulate::world::{World, WorldOptions};
use crate::simulate::{DEFAULT_START, named};
use crate::{setup, token};
use blame::{Blame, Whose};
use reasons::Reasons;
use report::Rival;
use threshold::Rivals;

/// The budget of thresholds: one customer session in so many.
const BUDGET: usize = 1_000;
/// Customer sessions that an evaluation should have.
const LEAST_SESSIONS: u64 = 20_000;

/// Arguments of `telltale eval`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  telltale eval --out target/eval/summary.json\n  telltale eval --attacks brute-force,scraping --customers 1000 --days 7"
)]
pub struct Args {
    /// Seed of the world; not among those that tuned anything.
    #[arg(long, default_value_t = 92_001)]
    pub seed: u64,
    /// Days.
    #[arg(long, default_value_t = 14.0)]
    pub days: f64,
    /// Customers with accounts; 5,000 make some 25,000 sessions in fourteen days.
    #[arg(long, default_value_t = 5_000)]
    pub customers: usize,
    /// Attacks: `all`, `none`, or a list of names separated by commas.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    pub attacks: Vec<String>,
    /// Intensities of each attack: `all`, or a list of low, medium, high.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    pub intensity: Vec<String>,
    /// Variants.
    #[arg(long, value_enum, default_value = "eval")]
    pub variants: Variants,
    /// Where the figures go, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the truth of reasons goes, as JSON: for each kind of model and each model alerts, true reasons, and their cost.
    #[arg(long, value_name = "FILE")]
    pub reasons: Option<PathBuf>,
    /// Threads; 0: one a core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    shape: Shape,
}

/// Runs the command.
///
/// # Errors
/// When the configuration is wrong or a file cannot be written. A missed bar is no error: it is in the figures.
pub fn run(args: Args) -> Result<(), CommandError> {
    let options = args.world()?;
    let folder = tempfile::tempdir().map_err(CommandError::failed)?;
    let traffic = folder.path().join("traffic.ndjson.gz");
    eprintln!("simulating {} days of {} customers", args.days, args.customers);
    let known = Known::simulate(&options, &traffic)?;
    eprintln!("replaying {} transactions of {} customer sessions", known.briefs.len(), known.customer_sessions);
    let judgement = args.judge(&known, &traffic)?;

    let rival = |name: &str| judgement.rivals.get(name).cloned().unwrap_or_default();
    let rows = report::figures(&judgement.tally, &rival, LEAST_SESSIONS);
    if let Some(out) = &args.out {
        write(out, &rows)?;
    }
    if let (Some(out), Some(truth)) = (&args.reasons, &judgement.truth) {
        write(out, &truth.rows())?;
    }
    let by_rule = judgement.blame.rows();
    args.shape.print(&rows, || report::table(&judgement.tally, &rival, &rows) + &blame::table(&by_rule))
}

/// Writes figures as JSON.
fn write(out: &Path, figures: &impl serde::Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(figures).map_err(CommandError::failed)?;
    if let Some(parent) = out.parent() {
        std::fs::create_dir_all(parent).map_err(CommandError::failed)?;
    }
    std::fs::write(out, text + "\n").map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", out.display())))
}

struct Judgement {
    tally: Tally,
    truth: Option<Reasons>,
    blame: Blame,
    rivals: HashMap<String, Rival>,
}

impl Args {
    fn world(&self) -> Result<WorldOptions, CommandError> {
        if !(self.days >= 0.1 && self.days <= 60.0 && (10..=100_000).contains(&self.customers)) {
            return Err(CommandError::usage("allowed are --days 0.1 to 60 and --customers 10 to 100,000"));
        }
        Ok(WorldOptions {
            seed: self.seed,
            customers: self.customers,
            start: DEFAULT_START,
            end: DEFAULT_START + (self.days * 86_400e6) as i64,
            attacks: named("--attacks", &self.attacks, &Attack::ALL)?,
            intensities: named("--intensity", &self.intensity, &Intensity::ALL)?,
            variants: self.variants,
            campaigns: 1,
        })
    }

    fn judge(&self, known: &Known, traffic: &Path) -> Result<Judgement, CommandError> {
        let mut config = self.config.read()?;
        if config.policy.mode.is_none() {
            config.policy.mode = Some("enforce".to_owned());
        }
        let threads = cli::threads(self.threads);
        let clock = Arc::new(ManualClock::at(Timestamp::default()));
        let engine =
            setup::engine(&config, threads, token::replay_keyring().hasher(), clock, Journal::default()).map_err(CommandError::usage)?;
        let options = ReplayOptions {
            input: traffic.to_path_buf(),
            format: Format::Ndjson,
            strict: true,
            threads,
            verdicts: None,
            features: None,
            progress: true,
            recorded_policy: false,
        };
        let schema = Arc::clone(&engine.schema);
        let (mut tally, mut blame) = (Tally::default(), Blame::default());
        let mut rivals = Rivals::new(schema.features().len(), known.customer_sessions, known.attacks.len());
        let mut truth = self.reasons.as_ref().map(|_| Reasons::default());
        feed(&engine, &options, &mut |output| {
            if let Some(truth) = &mut truth {
                truth.count(&engine, &output.scored);
            }
            known.judge(&output, (&mut tally, &mut blame, &mut rivals));
            Ok(())
        })
        .map_err(CommandError::failed)?;
        let best = rivals.best(BUDGET);
        let words = |feature: usize| schema.features().get(feature).map(|feature| feature.name.to_string()).unwrap_or_default();
        let rivals = known.attacks.iter().zip(best).map(|(name, best)| {
            let allowed = Attack::ALL.iter().any(|attack| attack.obvious() && name.starts_with(attack.name()));
            let rival = best.map_or_else(Rival::default, |best| Rival {
                words: format!("{} {} {:.4}", words(best.feature), if best.above { ">" } else { "<" }, best.value),
                catches: best.catches,
                allowed,
            });
            (name.clone(), Rival { allowed, ..rival })
        });
        Ok(Judgement { tally, truth, blame, rivals: rivals.collect() })
    }
}

/// What is known of one transaction.
struct Brief {
    actor: u32,
    session: u32,
    /// Number among the customers' sessions, or among the attacks.
    group: u32,
    nature: &'static str,
    time: i64,
    harm: bool,
}

/// The truth about all of it.
#[derive(Default)]
struct Known {
    briefs: HashMap<String, Brief>,
    actors: Vec<String>,
    attacks: Vec<String>,
    customer_sessions: usize,
}

impl Known {
    fn simulate(options: &WorldOptions, traffic: &Path) -> Result<Self, CommandError> {
        let wanted = StreamOptions { seed: options.seed, until: options.end, addresses: Addresses::Public, labels: false };
        let mut known = Self::default();
        let mut actors: HashMap<String, u32> = HashMap::new();
        let mut sessions: HashMap<(u32, u32), u32> = HashMap::new();
        write_records(&mut Stream::new(World::new(options), wanted), traffic, &mut |truth| {
            let next = actors.len() as u32;
            let actor = *actors.entry(truth.actor.clone()).or_insert(next);
            if actor == next {
                known.actors.push(truth.actor.clone());
            }
            known.add(truth, actor, &mut sessions);
        })?;
        known.customer_sessions = sessions.len();
        Ok(known)
    }

    fn add(&mut self, truth: &Truth, actor: u32, sessions: &mut HashMap<(u32, u32), u32>) {
        let group = match truth.nature {
            "customer" => {
                let next = sessions.len() as u32;
                *sessions.entry((actor, truth.session)).or_insert(next)
            }
            "attack" => self.attack(&truth.attack),
            _ => 0,
        };
        let brief = Brief { actor, session: truth.session, group, nature: truth.nature, time: truth.time, harm: truth.harm };
        self.briefs.insert(truth.transaction_id.clone(), brief);
    }

    /// The number of `attack/intensity`, whatever the variant.
    fn attack(&mut self, detail: &str) -> u32 {
        let name = detail.rsplit_once('/').map_or(detail, |(name, _)| name);
        let place = self.attacks.iter().position(|known| known == name).unwrap_or_else(|| {
            self.attacks.push(name.to_owned());
            self.attacks.len() - 1
        });
        place as u32
    }

    fn judge(&self, output: &Output, (tally, blame, rivals): (&mut Tally, &mut Blame, &mut Rivals)) {
        let Some(brief) = self.briefs.get(&*output.scored.admitted.tx.id) else { return };
        let stopped = output.scored.decision.action.is_enforcing();
        let row = &output.scored.assessed.vector;
        match brief.nature {
            "customer" => rivals.customer(brief.group as usize, row),
            "attack" => rivals.attack(brief.group as usize, row),
            _ => {}
        }
        let attack = if brief.nature == "attack" { self.attacks.get(brief.group as usize).map_or("", String::as_str) } else { "" };
        let actor = self.actors.get(brief.actor as usize).map_or("", String::as_str);
        if stopped {
            let whose = match brief.nature {
                "customer" => Whose::Customer(brief.group),
                "attack" => Whose::Attack(attack),
                _ => Whose::Machine((brief.actor, brief.session)),
            };
            blame.count(&output.scored.decision, whose);
        }
        tally.count(&Judged {
            session: (actor, brief.session),
            nature: brief.nature,
            attack,
            time: brief.time as f64 / 1e6,
            stopped,
            harm: brief.harm && !stopped,
        });
    }
}
