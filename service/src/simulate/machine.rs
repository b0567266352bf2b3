//! Welcome programs: declared crawlers that keep to the rules, and partners' integrations with their steady traffic.

use std::net::IpAddr;

use super::actor::{Actor, Nature, Sent, micros};
use super::client::{Client, Family};
use super::dice::{Dice, mix};
use super::http::Response;
use super::intent::Intent;
use super::network::{self, Pool};
use super::shop::{PRODUCTS, partner_key};

const DAY_US: i64 = 86_400_000_000;

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Reads the catalogue, a stretch every few hours.
    Crawl,
    /// Asks for the stock every few minutes, day and night.
    Poll,
}

/// One welcome program.
pub struct Machine {
    task: Task,
    number: usize,
    dice: Dice,
    client: Client,
    address: IpAddr,
    every: f64,
    left: usize,
    product: u32,
    next: i64,
    start: i64,
}

impl Machine {
    /// A declared crawler.
    pub fn crawler(seed: u64, number: usize, start: i64) -> Self {
        let mut dice = Dice::new(mix(seed, 41), number as u64);
        let name = dice.pick(&["Nordbot", "SeekSpider", "CatalogBot", "FindexBot"]);
        let agent = format!("Mozilla/5.0 (compatible; {name}/2.{number}; +https://bots.example/{})", name.to_lowercase());
        let client = Client { family: Family::Crawler, agent, ..Client::default() };
        Self::new(Task::Crawl, number, (dice, client), start)
    }

    /// A partner's integration.
    pub fn partner(seed: u64, number: usize, start: i64) -> Self {
        let mut dice = Dice::new(mix(seed, 42), number as u64);
        let family = dice.pick(&[Family::Go, Family::Node, Family::Python]);
        let bearer = Some(partner_key(seed, number));
        let client = Client { bearer, ..super::client::tool(&mut dice, family) };
        Self::new(Task::Poll, number, (dice, client), start)
    }

    fn new(task: Task, number: usize, (mut dice, client): (Dice, Client), start: i64) -> Self {
        let address = network::draw(&mut dice, Pool::Datacentre);
        let every = if task == Task::Crawl { dice.between(5.0, 15.0) } else { dice.between(120.0, 420.0) };
        let next = start + micros(dice.unit() * every);
        Self { task, number, dice, client, address, every, left: 0, product: 1, next, start }
    }
}

impl Actor for Machine {
    fn wakes(&self) -> Option<i64> {
        Some(self.next)
    }

    fn send(&mut self, now: i64) -> Option<Sent> {
        let intent = match self.task {
            Task::Poll => Intent::Stock,
            Task::Crawl if self.left == 0 => {
                self.left = self.dice.whole(40, 160);
                self.product = 1 + self.dice.below(PRODUCTS as usize) as u32;
                Intent::Probe("/robots.txt".to_owned())
            }
            Task::Crawl => {
                self.left -= 1;
                self.product = 1 + (self.product + 1) % PRODUCTS;
                if self.dice.chance(0.1) { Intent::Listing(self.product / 24 + 1) } else { Intent::Product(self.product) }
            }
        };
        let session = ((now - self.start) / DAY_US) as u32;
        Some(Sent { request: intent.request(&self.client), address: self.address, session })
    }

    fn hear(&mut self, now: i64, _response: &Response) {
        let rest = if self.task == Task::Crawl && self.left == 0 { self.dice.lognormal(14_000.0, 0.4) } else { 0.0 };
        let jitter = if self.task == Task::Poll { 0.02 } else { 0.3 };
        self.next = now + micros(rest + self.every * self.dice.between(1.0 - jitter, 1.0 + jitter));
    }

    fn hurry(&mut self, at: i64, factor: f64) {
        self.next = at;
        self.every *= factor;
    }

    fn name(&self) -> String {
        format!("{}-{}", if self.task == Task::Crawl { "crawler" } else { "partner" }, self.number)
    }

    fn nature(&self) -> Nature {
        Nature::Machine
    }
}
