//! Attacks: what is attacked, how hard, and with which variant of tool, pace, routes and addresses.
//!
//! Enters a choice, leave campaigns that the world turns into actors. Variants for training and for evaluation share no tool settings.

mod attacker;
mod measure;

pub use attacker::Attacker;
pub use measure::Measure;

use super::client::{self, Client, Family, Slip};
use super::dice::Dice;
use super::network::Pool;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Attack {
    /// A stolen list of logins, fast, from a few addresses.
    #[value(name = "stuffing-loud")]
    StuffingLoud,
    /// A stolen list of logins, spread over thousands of addresses.
    #[value(name = "stuffing-distributed")]
    StuffingDistributed,
    /// Many passwords for a few accounts.
    #[value(name = "brute-force")]
    BruteForce,
    /// The catalogue copied by many patient sessions.
    #[value(name = "scraping")]
    Scraping,
    /// Orders of others asked for by number (broken object-level authorisation).
    #[value(name = "object-enumeration")]
    ObjectEnumeration,
    /// Stolen cards tried with small payments.
    #[value(name = "card-testing")]
    CardTesting,
    /// A stolen list of logins, a few an hour, for days.
    #[value(name = "low-and-slow")]
    LowAndSlow,
    /// Expensive requests by the thousand.
    #[value(name = "flood")]
    Flood,
    /// Known holes looked for by path.
    #[value(name = "scanner")]
    Scanner,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::StuffingLoud,
        Self::StuffingDistributed,
        Self::BruteForce,
        Self::Scraping,
        Self::ObjectEnumeration,
        Self::CardTesting,
        Self::LowAndSlow,
        Self::Flood,
        Self::Scanner,
    ];

    /// Its name, as on the command line and in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StuffingLoud => "stuffing-loud",
            Self::StuffingDistributed => "stuffing-distributed",
            Self::BruteForce => "brute-force",
            Self::Scraping => "scraping",
            Self::ObjectEnumeration => "object-enumeration",
            Self::CardTesting => "card-testing",
            Self::LowAndSlow => "low-and-slow",
            Self::Flood => "flood",
            Self::Scanner => "scanner",
        }
    }

    /// Whether nobody could miss it: a single threshold is allowed to find these.
    pub const fn obvious(self) -> bool {
        matches!(self, Self::StuffingLoud | Self::Flood | Self::Scanner)
    }
}

/// How hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Intensity {
    /// Hardly to be seen.
    Low,
    /// As usual.
    Medium,
    /// In a hurry.
    High,
}

impl Intensity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Which variants are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Variants {
    /// Those that models are trained and rules are tuned on.
    #[default]
    Train,
    /// Those kept apart for evaluation.
    Eval,
}

/// How the pauses between requests are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pacing {
    /// Log-normal, as people.
    LogNormal(f64),
    /// Exponential.
    Poisson,
    /// A fixed pause with that share of jitter.
    Jitter(f64),
    /// Runs of quick requests between long pauses.
    Bursts,
}

impl Pacing {
    /// One pause with that mean, seconds.
    pub fn pause(self, dice: &mut Dice, mean: f64) -> f64 {
        match self {
            Self::LogNormal(sigma) => dice.lognormal(mean * (-sigma * sigma / 2.0).exp(), sigma),
            Self::Poisson => dice.exponential(mean),
            Self::Jitter(share) => mean * dice.between(1.0 - share, 1.0 + share),
            Self::Bursts if dice.chance(0.7) => mean * dice.between(0.05, 0.25),
            Self::Bursts => mean * dice.between(1.5, 4.5),
        }
    }
}

/// What an attacker sends with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tool {
    /// A bare library under its own name.
    Bare(Family),
    /// A browser's agent with a library's headers.
    Dressed(Family),
    /// A browser imitated, but for those slips.
    Imitated(&'static [Slip]),
    /// Real browsers under remote control.
    Driven,
}

/// One way of going about an attack.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name in labels.
    pub name: &'static str,
    /// What it sends with.
    pub tool: Tool,
    /// How it paces itself.
    pub pacing: Pacing,
    /// Where its addresses come from.
    pub pool: Pool,
    /// Share of attack requests that ordinary page views precede.
    pub cover: f64,
    /// Whether numbers are tried in order (else at random).
    pub ordered: bool,
}

const QUIET_TRAIN: [Variant; 4] = [
    Variant {
        name: "t1",
        tool: Tool::Imitated(&[Slip::NoHints, Slip::Swapped]),
        pacing: Pacing::LogNormal(0.8),
        pool: Pool::Residential,
        cover: 0.45,
        ordered: true,
    },
    Variant {
        name: "t2",
        tool: Tool::Imitated(&[Slip::NoMetadata]),
        pacing: Pacing::Poisson,
        pool: Pool::Mixed,
        cover: 0.3,
        ordered: false,
    },
    Variant {
        name: "t3",
        tool: Tool::Imitated(&[Slip::NoHints, Slip::NoMetadata, Slip::None]),
        pacing: Pacing::Jitter(0.5),
        pool: Pool::Datacentre,
        cover: 0.55,
        ordered: false,
    },
    Variant { name: "t4", tool: Tool::Driven, pacing: Pacing::LogNormal(1.1), pool: Pool::Residential, cover: 0.5, ordered: false },
];
const QUIET_EVAL: [Variant; 3] = [
    Variant {
        name: "e1",
        tool: Tool::Imitated(&[Slip::Sorted, Slip::None]),
        pacing: Pacing::Bursts,
        pool: Pool::Mixed,
        cover: 0.4,
        ordered: false,
    },
    Variant {
        name: "e2",
        tool: Tool::Imitated(&[Slip::Sorted, Slip::NoHints]),
        pacing: Pacing::LogNormal(0.6),
        pool: Pool::Residential,
        cover: 0.5,
        ordered: true,
    },
    Variant {
        name: "e3",
        tool: Tool::Imitated(&[Slip::NoHints, Slip::NoMetadata, Slip::Swapped]),
        pacing: Pacing::Poisson,
        pool: Pool::Mobile,
        cover: 0.35,
        ordered: false,
    },
];
const OBVIOUS_TRAIN: [Variant; 3] = [
    Variant { name: "t1", tool: Tool::Bare(Family::Python), pacing: Pacing::Poisson, pool: Pool::Datacentre, cover: 0.0, ordered: true },
    Variant {
        name: "t2",
        tool: Tool::Dressed(Family::Go),
        pacing: Pacing::Jitter(0.3),
        pool: Pool::Residential,
        cover: 0.0,
        ordered: false,
    },
    Variant {
        name: "t3",
        tool: Tool::Imitated(&[Slip::NoHints]),
        pacing: Pacing::LogNormal(0.5),
        pool: Pool::Mixed,
        cover: 0.05,
        ordered: true,
    },
];
const OBVIOUS_EVAL: [Variant; 3] = [
    Variant { name: "e1", tool: Tool::Bare(Family::Go), pacing: Pacing::Bursts, pool: Pool::Datacentre, cover: 0.0, ordered: true },
    Variant {
        name: "e2",
        tool: Tool::Dressed(Family::Node),
        pacing: Pacing::Poisson,
        pool: Pool::Residential,
        cover: 0.03,
        ordered: false,
    },
    Variant {
        name: "e3",
        tool: Tool::Imitated(&[Slip::NoMetadata]),
        pacing: Pacing::LogNormal(0.7),
        pool: Pool::Mobile,
        cover: 0.0,
        ordered: false,
    },
];

/// The variants of an attack in a set.
pub const fn variants(attack: Attack, set: Variants) -> &'static [Variant] {
    match (attack.obvious(), set) {
        (true, Variants::Train) => &OBVIOUS_TRAIN,
        (true, Variants::Eval) => &OBVIOUS_EVAL,
        (false, Variants::Train) => &QUIET_TRAIN,
        (false, Variants::Eval) => &QUIET_EVAL,
    }
}

impl Variant {
    /// A client as this variant's tool shows itself; every call is another identity.
    pub fn client(&self, dice: &mut Dice) -> Client {
        match self.tool {
            Tool::Bare(family) => client::tool(dice, family),
            Tool::Dressed(family) => {
                let dress = client::browser(dice);
                Client { family, brands: String::new(), ..dress }
            }
            Tool::Imitated(slips) => {
                let index = dice.below(slips.len());
                let slip = slips.get(index).copied().unwrap_or_default();
                Client { slip, device: Some(dice.hex32()), ..client::browser(dice) }
            }
            Tool::Driven => Client { device: Some(dice.hex32()), ..client::browser(dice) },
        }
    }
}

/// Which attack a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The attack.
    pub attack: Attack,
    /// How hard.
    pub intensity: Intensity,
    /// The name of the variant.
    pub variant: &'static str,
}

impl Origin {
    /// As labels say it: `brute-force/medium/t2`.
    pub fn detail(&self) -> String {
        format!("{}/{}/{}", self.attack.name(), self.intensity.name(), self.variant)
    }
}

/// One attack from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The attack.
    pub attack: Attack,
    /// How hard.
    pub intensity: Intensity,
    /// How.
    pub variant: Variant,
    /// When it begins, microseconds.
    pub start: i64,
    /// When it ends at the latest.
    pub end: i64,
    /// Number of the campaign: its dice.
    pub number: u64,
}
