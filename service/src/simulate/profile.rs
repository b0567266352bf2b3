//! Who the customers are: what is particular about each, their devices and lines, drawn from the seed.
//!
//! Enters a number of a person, leaves a profile. Every mark that attackers bear some customers bear too: odd headers from office
//! proxies and privacy tools, fresh devices, shared terminals, accounts that are minutes old.

use std::net::IpAddr;

use super::client::{self, Client, Family, Slip};
use super::dice::{Dice, mix};
use super::network::{self, Pool};
use super::people;
use super::rhythm::Rhythm;
use super::world::WorldOptions;

/// What is particular about a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Ordinary,
    /// Looks at very many products.
    Collector,
    /// Has many passwords and tries them all.
    Guesser,
    /// Has an app that goes on logging in with an old password.
    StaleApp,
    /// Buys for a company: many cards, many orders, some of them colleagues'.
    Buyer,
    /// Shares device and mail with somebody else who has an account.
    Household,
    /// Has cards that are often declined.
    Unlucky,
    /// Works in the shop's support.
    Staff,
    /// Runs a script that asks for orders which it may no longer see.
    Integration,
}

/// Where a session comes from.
#[derive(Clone, Copy, Debug)]
pub enum Line {
    /// One address, perhaps shared with many.
    Fixed(IpAddr),
    /// A telephone on that carrier.
    Mobile(u64),
}

/// Everything that makes a customer who they are.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Seed of the world.
    pub seed: u64,
    /// Number of the person.
    pub person: usize,
    /// How many people there are.
    pub people: usize,
    /// What is particular about them.
    pub habit: Habit,
    /// Their devices, each with the line it mostly uses.
    pub devices: Vec<(Client, Line)>,
    /// Sessions a day, on average.
    pub sessions_a_day: f64,
    /// Share of logins that begin with a slip of the finger.
    pub clumsy: f64,
    /// The orders they own.
    pub orders: Vec<u32>,
    /// When people shop.
    pub rhythm: Rhythm,
    /// Whether they have no account when the world begins.
    pub joins: bool,
}

/// The families of software that a company's own script uses.
const SCRIPTS: [Family; 3] = [Family::Python, Family::Node, Family::Go];

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

/// The profile of a person who owns these orders; `works` says that it is the shop's own staff.
pub fn profile(options: &WorldOptions, person: usize, orders: Vec<u32>, works: bool) -> Profile {
    let mut dice = Dice::new(mix(options.seed, 61), person as u64);
    let joins = people::joins(options.seed, person, works);
    let habit = match habit(&mut dice, works) {
        Habit::Integration if joins => Habit::Ordinary,
        habit => habit,
    };
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
        orders: if joins { Vec::new() } else { orders },
        rhythm: Rhythm { seed: options.seed },
        joins,
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
    let mut own = Dice::new(mix(options.seed, 70), person as u64);
    let office = Dice::new(mix(options.seed, 69), person as u64 / 40);
    let (first, slip) = match dice.weighted(&[0.55, 0.2, 0.17, 0.08]) {
        0 => (home, oddity(&mut own)),
        1 => (Line::Mobile(carrier), oddity(&mut own)),
        2 => (shared(65, person / 40), oddity(&mut { office })),
        _ => (shared(66, person % (options.customers / 900 + 1)), oddity(&mut own)),
    };
    let mut devices = vec![(Client { slip, ..client::ordinary(dice) }, first)];
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

/// How a customer's own software departs from the browser that it says it is: privacy tools and old web views leave out what
/// newer ones send, an office's proxy writes headers in an order of its own.
fn oddity(dice: &mut Dice) -> Slip {
    match dice.weighted(&[0.93, 0.025, 0.025, 0.005, 0.015]) {
        0 => Slip::None,
        1 => Slip::NoHints,
        2 => Slip::NoMetadata,
        3 => Slip::Swapped,
        _ => Slip::Sorted,
    }
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
