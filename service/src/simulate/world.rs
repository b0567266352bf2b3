//! The world: who lives in it, where their addresses are, and which attacks befall it. Enters options, leave actors and their shop.

use super::actor::{Actor, micros};
use super::attack::{Attack, Attacker, Campaign, Intensity, Measure, Variants, variants};
use super::client::{self, Client};
use super::customer::{Customer, Habit, Line, Profile, SCRIPTS};
use super::dice::{Dice, mix};
use super::engine::Engine;
use super::machine::Machine;
use super::network::{self, Pool};
use super::rhythm::Rhythm;
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
            actors.push(Box::new(Customer::new(profile(options, person, orders, works), options.start)));
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

fn habit(dice: &mut Dice, works: bool) -> Habit {
    const HABITS: [Habit; 8] = [
        Habit::Ordinary,
        Habit::Collector,
        Habit::Guesser,
        Habit::StaleApp,
        Habit::Buyer,
        Habit::Household,
        Habit::Unlucky,
        Habit::Integration,
    ];
    let index = dice.weighted(&[0.9, 0.018, 0.016, 0.012, 0.014, 0.02, 0.018, 0.003]);
    if works { Habit::Staff } else { HABITS.get(index).copied().unwrap_or(Habit::Ordinary) }
}

fn profile(options: &WorldOptions, person: usize, orders: Vec<u32>, works: bool) -> Profile {
    let mut dice = Dice::new(mix(options.seed, 61), person as u64);
    let habit = habit(&mut dice, works);
    let sessions_a_day = match habit {
        Habit::Staff => dice.between(2.0, 5.0),
        Habit::Integration => dice.between(0.5, 1.5),
        Habit::Buyer => dice.between(0.4, 1.2),
        _ => dice.lognormal(0.22, 0.9).clamp(0.03, 3.0),
    };
    Profile {
        seed: options.seed,
        person,
        people: options.customers,
        habit,
        devices: devices(options, person, habit, &mut dice),
        sessions_a_day,
        clumsy: (dice.lognormal(0.08, 0.7)).clamp(0.01, 0.5),
        orders,
        rhythm: Rhythm { seed: options.seed },
    }
}

fn devices(options: &WorldOptions, person: usize, habit: Habit, dice: &mut Dice) -> Vec<(Client, Line)> {
    let home = Line::Fixed(network::draw(&mut Dice::new(mix(options.seed, 62), household(person) as u64), Pool::Residential));
    let shared =
        |kind: u64, index: usize| Line::Fixed(network::draw(&mut Dice::new(mix(options.seed, kind), index as u64), Pool::Residential));
    if habit == Habit::Staff {
        return vec![(client::browser(dice), shared(63, 0))];
    }
    if habit == Habit::Integration {
        let family = dice.pick(&SCRIPTS);
        return vec![(client::tool(dice, family), shared(64, person))];
    }
    let carrier = dice.below(3) as u64;
    let first = match dice.weighted(&[0.55, 0.2, 0.17, 0.08]) {
        0 => home,
        1 => Line::Mobile(carrier),
        2 => shared(65, person / 40),
        _ => shared(66, person % (options.customers / 900 + 1)),
    };
    let mut devices = vec![(client::ordinary(dice), first)];
    if dice.chance(0.45) {
        devices.push((client::ordinary(dice), Line::Mobile(carrier)));
    }
    if dice.chance(0.15) {
        devices.push((client::browser(dice), home));
    }
    // A terminal in a store or a library: one device, one address, many people.
    if dice.chance(0.03) {
        let terminal = person % (options.customers / 700 + 1);
        let mut its = Dice::new(mix(options.seed, 67), terminal as u64);
        let device = Some(its.hex32());
        devices.push((Client { device, ..client::browser(&mut its) }, shared(68, terminal)));
    }
    devices
}

/// Most people live alone or in pairs, some in families of four.
const fn household(person: usize) -> usize {
    match person % 10 {
        0..=3 => person - person % 10,
        4 | 5 => person - person % 10 + 4,
        6 | 7 => person - person % 10 + 6,
        _ => person,
    }
}
