//! What the demonstration needs before it begins: free ports, configuration files, and a world with a past.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::Args;
use crate::error::CommandError;
use crate::simulate::actor::{Nature, micros};
use crate::simulate::attack::{Attack, Campaign, Measure, variants};
use crate::simulate::convert::SERVICE;
use crate::simulate::dice::{Dice, mix};
use crate::simulate::engine::Engine;
use crate::simulate::world::{World, WorldOptions};

/// How long the demonstration's proxy waits for a verdict, milliseconds; the product's default is less.
pub const DEADLINE_MS: u64 = 50;

/// Where everything of the demonstration listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Scoring.
    pub scoring: SocketAddr,
    /// Administration.
    pub admin: SocketAddr,
    /// The scorer's metrics.
    pub metrics: SocketAddr,
    /// The proxy.
    pub proxy: SocketAddr,
    /// The proxy's metrics.
    pub proxy_metrics: SocketAddr,
}

impl Ports {
    /// Five ports that are free now, below those that the operating system gives to outgoing connections: nobody's client takes one
    /// before the programs listen there.
    pub fn free() -> Result<Self, CommandError> {
        let begin = 20_480 + (std::process::id() % 10_000) as u16;
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let mut ports = (begin..32_768).chain(20_480..begin).filter(free);
        let mut next = || {
            let port = ports.next().ok_or_else(|| CommandError::failed("no port from 20480 to 32767 is free on 127.0.0.1"))?;
            Ok::<_, CommandError>(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        Ok(Self { scoring: next()?, admin: next()?, metrics: next()?, proxy: next()?, proxy_metrics: next()? })
    }
}

/// Writes the scorer's configuration.
pub fn scorer_config(folder: &Path, ports: &Ports, models: Option<&Path>) -> Result<PathBuf, CommandError> {
    let mut text = format!(
        "data = {:?}\n[scoring]\nlisten = \"{}\"\n[admin]\nlisten = \"{}\"\n[metrics]\nlisten = \"{}\"\n[policy]\nmode = \"enforce\"\n[log]\njson = false\n",
        folder.join("data"),
        ports.scoring,
        ports.admin,
        ports.metrics
    );
    if let Some(models) = models {
        text.push_str(&format!("[models]\npath = {models:?}\nshipped_calibration = true\n"));
    }
    write(folder.join("telltale.toml"), &text)
}

/// Writes the proxy's configuration.
pub fn proxy_config(folder: &Path, ports: &Ports, upstream: SocketAddr) -> Result<PathBuf, CommandError> {
    let text = format!(
        "listen = \"{}\"\nupstream = \"http://{upstream}\"\nservice = \"{SERVICE}\"\n[scorer]\naddress = \"http://{}\"\ndeadline_ms = {DEADLINE_MS}\n[decisions]\nfile = {:?}\n[metrics]\nlisten = \"{}\"\n",
        ports.proxy,
        ports.scoring,
        folder.join("proxy-decisions.json"),
        ports.proxy_metrics
    );
    write(folder.join("telltale-proxy.toml"), &text)
}

fn write(path: PathBuf, text: &str) -> Result<PathBuf, CommandError> {
    std::fs::write(&path, text).map_err(|error| CommandError::failed(format!("cannot write `{}`: {error}", path.display())))?;
    Ok(path)
}

/// The world of the demonstration: its past ends at `now`; slow attacks began in it, loud ones begin in the live part.
pub fn world(args: &Args, now: i64) -> World {
    let options = WorldOptions {
        seed: args.seed,
        customers: args.customers,
        start: now - micros(args.days * 86_400.0),
        end: now,
        attacks: Vec::new(),
        intensities: Vec::new(),
        variants: args.variants,
        campaigns: 0,
    };
    let end = now + micros(args.seconds + 3_600.0);
    let mut campaigns = Vec::new();
    for (number, attack) in args.attacks.iter().enumerate() {
        let number = 7_000 + number as u64;
        let mut dice = Dice::new(mix(args.seed, 81), number);
        let set = variants(*attack, args.variants);
        let Some(variant) = set.get(dice.below(set.len())) else { continue };
        let measure = Measure::of(*attack, args.intensity);
        let start = if attack.obvious() {
            now + micros(args.seconds * dice.between(0.1, 0.35))
        } else {
            // In the midst of it: between the middle and four fifths are past.
            now - micros((measure.duration * dice.between(0.5, 0.8)).min(args.days * 86_400.0 * 0.9))
        };
        campaigns.push(Campaign { attack: *attack, intensity: args.intensity, variant: *variant, start, end, number });
    }
    World::with_campaigns(&options, campaigns)
}

/// Brings people and slow attacks into the live part: nobody waits days for a page.
pub fn gather(engine: &mut Engine, args: &Args, now: i64) {
    let mut dice = Dice::new(mix(args.seed, 82), 0);
    let mut sessions = args.sessions;
    let length = args.seconds;
    engine.gather(|actor, at| match actor.nature() {
        Nature::Customer if actor.resting() && sessions > 0 => {
            sessions -= 1;
            Some((now + micros(dice.between(0.0, length * 0.8)), 1.0))
        }
        Nature::Attacker(origin) if !origin.attack.obvious() => {
            let measure = Measure::of(origin.attack, origin.intensity);
            // About one request a second of each attack; who copies a catalogue shows only in how much is copied.
            let pause = match origin.attack {
                Attack::Scraping => 2.0,
                _ => (measure.workers as f64 * 1.1).clamp(3.0, 12.0),
            };
            let first = now + micros(length * 0.05 + dice.between(0.0, pause.min(length / 4.0)));
            Some((at.min(first), (pause / measure.pause).min(0.999)))
        }
        _ => None,
    });
}
