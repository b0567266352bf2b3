//! The measures of every attack at every intensity: how many workers, how long, how often, how many identities.
//!
//! Chosen against the customers of `world.rs`, so that at medium simple rates of attackers are rates of some customers too; how well
//! single thresholds do nevertheless is measured by `telltale eval`. Three attacks nobody could miss.

use super::{Attack, Intensity};

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// Actors that work at once.
    pub workers: usize,
    /// Mean pause of one worker between attack requests, seconds.
    pub pause: f64,
    /// How long the campaign lasts, seconds.
    pub duration: f64,
    /// Addresses at its disposal.
    pub addresses: usize,
    /// Attack requests before a worker takes another identity (address, client, session), on average.
    pub per_identity: usize,
    /// Mean rest between identities, seconds.
    pub rest: f64,
    /// How many different clients (agent and headers) it shows.
    pub clients: usize,
}

const fn measure(workers: usize, pause: f64, duration: f64, addresses: usize) -> Measure {
    Measure { workers, pause, duration, addresses, per_identity: 1, rest: 0.0, clients: 40 }
}

const HOUR: f64 = 3_600.0;
const DAY: f64 = 86_400.0;

impl Measure {
    /// The measures of that attack.
    pub const fn of(attack: Attack, intensity: Intensity) -> Self {
        use Intensity::{High, Low, Medium};
        match (attack, intensity) {
            (Attack::StuffingLoud, Low) => Self { per_identity: 400, clients: 1, ..measure(1, 1.0, 600.0, 1) },
            (Attack::StuffingLoud, Medium) => Self { per_identity: 500, clients: 2, ..measure(2, 0.4, 480.0, 3) },
            (Attack::StuffingLoud, High) => Self { per_identity: 500, clients: 2, ..measure(6, 0.25, 300.0, 4) },
            (Attack::StuffingDistributed, Low) => measure(8, 1_150.0, 2.0 * DAY, 400),
            (Attack::StuffingDistributed, Medium) => measure(12, 1_500.0, 3.0 * DAY, 2_000),
            (Attack::StuffingDistributed, High) => measure(24, 700.0, 2.0 * DAY, 5_000),
            (Attack::BruteForce, Low) => Self { per_identity: 2, clients: 8, ..measure(3, 4_800.0, 4.0 * DAY, 30) },
            (Attack::BruteForce, Medium) => Self { per_identity: 3, clients: 12, ..measure(6, 2_700.0, 3.0 * DAY, 60) },
            (Attack::BruteForce, High) => Self { per_identity: 6, clients: 12, ..measure(6, 420.0, DAY, 60) },
            (Attack::Scraping, Low) => Self { per_identity: 60, rest: 2_400.0, clients: 12, ..measure(4, 30.0, 10.0 * HOUR, 60) },
            (Attack::Scraping, Medium) => Self { per_identity: 80, rest: 1_500.0, clients: 16, ..measure(8, 16.0, 12.0 * HOUR, 80) },
            (Attack::Scraping, High) => Self { per_identity: 300, rest: 300.0, clients: 16, ..measure(12, 2.0, 3.0 * HOUR, 80) },
            (Attack::ObjectEnumeration, Low) => Self { per_identity: 6, rest: 5_400.0, clients: 10, ..measure(3, 240.0, 30.0 * HOUR, 40) },
            (Attack::ObjectEnumeration, Medium) => {
                Self { per_identity: 14, rest: 3_600.0, clients: 14, ..measure(4, 150.0, 24.0 * HOUR, 60) }
            }
            (Attack::ObjectEnumeration, High) => Self { per_identity: 60, rest: 300.0, clients: 14, ..measure(6, 12.0, 6.0 * HOUR, 60) },
            (Attack::CardTesting, Low) => Self { per_identity: 3, rest: 2_400.0, clients: 16, ..measure(2, 200.0, 24.0 * HOUR, 60) },
            (Attack::CardTesting, Medium) => Self { per_identity: 4, rest: 1_200.0, clients: 32, ..measure(4, 120.0, 16.0 * HOUR, 120) },
            (Attack::CardTesting, High) => Self { per_identity: 10, rest: 120.0, clients: 32, ..measure(6, 20.0, 5.0 * HOUR, 120) },
            (Attack::LowAndSlow, Low) => Self { clients: 8, ..measure(1, 1_900.0, 9.0 * DAY, 40) },
            (Attack::LowAndSlow, Medium) => Self { clients: 10, ..measure(2, 1_400.0, 9.0 * DAY, 60) },
            (Attack::LowAndSlow, High) => Self { clients: 10, ..measure(4, 900.0, 7.0 * DAY, 80) },
            (Attack::Flood, Low) => Self { per_identity: 100_000, clients: 3, ..measure(20, 0.5, 60.0, 20) },
            (Attack::Flood, Medium) => Self { per_identity: 100_000, clients: 3, ..measure(50, 0.4, 45.0, 50) },
            (Attack::Flood, High) => Self { per_identity: 100_000, clients: 3, ..measure(150, 0.2, 40.0, 150) },
            (Attack::Scanner, Low) => Self { per_identity: 300, clients: 1, ..measure(1, 2.0, 600.0, 1) },
            (Attack::Scanner, Medium) => Self { per_identity: 500, clients: 1, ..measure(1, 0.3, 150.0, 1) },
            (Attack::Scanner, High) => Self { per_identity: 500, clients: 2, ..measure(4, 0.1, 60.0, 2) },
        }
    }
}
