//! The world: who lives in it, where their addresses are, and which attacks befall it. Enters options, leave actors and their shop.

use super::actor::{Actor, micros};
use super::attack::{Attack, Attacker, Campaign, Intensity, Measure, Variants, variants};
use super::customer::Customer;
use super::dice::{Dice, mix};
use super::engine::Engine;
use super::machine::Machine;
use super::profile::profile;
use super::shop::{self, Shop};

/// What the world is made of.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Everything is drawn from it.
    pub seed: u64,
    /// How many customers have accounts.
    pub customers: usize,
    /// Begin, microseconds since the epoch.
    pub start: i64,
    /// End.
    pub end: i64,
    /// The attacks, each at each of the intensities.
    pub attacks: Vec<Attack>,
    /// The intensities.
    pub intensities: Vec<Intensity>,
    /// Which variants.
    pub variants: Variants,
    /// Campaigns of each attack and intensity.
    pub campaigns: usize,
}

/// The world at its beginning: its inhabitants and their shop.
pub struct World {
    /// Who acts, by time.
    pub engine: Engine,
    /// Who answers.
    pub shop: Shop,
    /// The attacks that befall it.
    pub campaigns: Vec<Campaign>,
}

impl World {
    /// Builds the world with campaigns drawn over its time.
    pub fn new(options: &WorldOptions) -> Self {
        Self::with_campaigns(options, draw_campaigns(options))
    }

    /// Builds the world with these campaigns.
    pub fn with_campaigns(options: &WorldOptions, campaigns: Vec<Campaign>) -> Self {
        let staff = options.customers / 150 + 1;
        let partners = options.customers / 500 + 2;
        let shop = Shop::new(options.seed, options.customers, staff, partners);
        let mut actors: Vec<Box<dyn Actor>> = Vec::new();
        for (person, orders) in shop::first_orders(options.seed, options.customers).into_iter().enumerate() {
            let works = person + staff >= options.customers;
            let profile = profile(options, person, orders, works);
            // Newcomers come all the time, not all at the beginning.
            let after = if profile.joins {
                (options.end - options.start) as f64 * 0.9 * Dice::new(mix(options.seed, 52), person as u64).unit()
            } else {
                0.0
            };
            actors.push(Box::new(Customer::new(profile, options.start + after as i64)));
        }
        for number in 0..options.customers / 1_500 + 2 {
            actors.push(Box::new(Machine::crawler(options.seed, number, options.start)));
        }
        for number in 0..partners {
            actors.push(Box::new(Machine::partner(options.seed, number, options.start)));
        }
        for campaign in &campaigns {
            for worker in 0..Measure::of(campaign.attack, campaign.intensity).workers {
                actors.push(Box::new(Attacker::new(*campaign, worker, (options.seed, options.customers))));
            }
        }
        Self { engine: Engine::new(actors), shop, campaigns }
    }
}

/// Each attack and intensity, `campaigns` times, somewhere in the world's time.
fn draw_campaigns(options: &WorldOptions) -> Vec<Campaign> {
    let mut campaigns = Vec::new();
    let span = options.end - options.start;
    for attack in &options.attacks {
        let set = variants(*attack, options.variants);
        for intensity in &options.intensities {
            for turn in 0..options.campaigns {
                let number = mix(mix(*attack as u64, *intensity as u64), turn as u64) % 1_000_000;
                let mut dice = Dice::new(mix(options.seed, 51), number);
                let duration = micros(Measure::of(*attack, *intensity).duration);
                let earliest = options.start + span / 12;
                let latest = (options.end - duration).max(earliest + span / 20);
                let start = earliest + ((latest - earliest) as f64 * dice.unit()) as i64;
                let chosen = mix(mix(options.seed, *attack as u64), *intensity as u64) as usize % set.len().max(1);
                if let Some(variant) = set.get((chosen + turn) % set.len().max(1)) {
                    campaigns.push(Campaign { attack: *attack, intensity: *intensity, variant: *variant, start, end: options.end, number });
                }
            }
        }
    }
    campaigns
}
