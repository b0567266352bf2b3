//! The world as a stream of records in arrival order: transactions, their outcomes, later their labels, with the truth beside.
//!
//! Enters a world, leave records exactly as the proxy would send them. Memory is bounded by what is under way.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::Serialize;
use telltale_proto::v1::{Action, Label, LabelKind, Outcome, Record, Transaction, record::Kind};

use super::actor::Nature;
use super::attack::Attack;
use super::convert;
use super::dice::{Dice, mix, mix_text};
use super::engine::Due;
use super::http::{Request, Response};
use super::network::{self, Addresses};
use super::world::World;

const HOUR_US: i64 = 3_600_000_000;

/// What the evaluation knows and the scorer does not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Truth {
    /// The transaction.
    pub transaction_id: String,
    /// When, microseconds since the epoch.
    pub time: i64,
    /// Who sent it.
    pub actor: String,
    /// Number of the actor's session.
    pub session: u32,
    /// `customer`, `machine` or `attack`.
    pub nature: &'static str,
    /// `attack/intensity/variant`; empty for everybody else.
    pub attack: String,
    /// Status that the shop answered.
    pub status: u16,
    /// Whether this very request did harm: an account opened, a product copied, a card approved, a foreign order read.
    pub harm: bool,
}

/// One element of the stream.
pub enum Item {
    /// The truth of the transaction that comes next.
    Truth(Box<Truth>),
    /// A record.
    Record(Box<Record>),
}

/// What of the stream is wanted.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Seed of identifiers and durations.
    pub seed: u64,
    /// Where it ends, microseconds since the epoch. Outcomes and labels of what came before still follow.
    pub until: i64,
    /// Which addresses are shown.
    pub addresses: Addresses,
    /// Whether labels are written.
    pub labels: bool,
}

/// What is under way: ordered by its time, then by its number.
struct Pending {
    at: i64,
    number: u64,
    what: Later,
}

enum Later {
    Outcome(Box<Outcome>),
    Label { id: String, kind: LabelKind, detail: String },
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The stream.
pub struct Stream {
    world: World,
    options: StreamOptions,
    dice: Dice,
    pending: BinaryHeap<Reverse<Pending>>,
    ready: VecDeque<Item>,
    next: Option<Due>,
    number: u64,
}

impl Stream {
    /// The stream of a world.
    pub fn new(world: World, options: StreamOptions) -> Self {
        let dice = Dice::new(mix(options.seed, 71), 0);
        let mut stream = Self { world, options, dice, pending: BinaryHeap::new(), ready: VecDeque::new(), next: None, number: 0 };
        stream.next = stream.world.engine.next(options.until);
        stream
    }

    /// The world as it stands when the stream has ended.
    pub fn into_world(self) -> World {
        self.world
    }

    fn act(&mut self, due: &Due) {
        let response = self.world.shop.handle(&due.sent.request, due.at);
        let duration = duration(&mut self.dice, &due.sent.request);
        let id = self.dice.hex32();
        let nature = self.world.engine.nature(due.actor);
        let name = self.world.engine.name(due.actor);
        let transaction = self.transaction(&id, due);
        let outcome = Outcome {
            transaction_id: id.clone(),
            time: Some(convert::timestamp(due.at + duration)),
            response: Some(convert::response(&response, duration)),
            enforced: Action::Allow.into(),
            ..Outcome::default()
        };
        self.later(due.at + duration, Later::Outcome(Box::new(outcome)));
        let truth = truth(&nature, due, &response, (id.clone(), name));
        if self.options.labels {
            self.label(due, &truth);
        }
        self.ready.push_back(Item::Truth(Box::new(truth)));
        self.ready.push_back(record(Kind::Transaction(transaction)));
        self.world.engine.answer(due.actor, due.at, &response);
    }

    fn transaction(&mut self, id: &str, due: &Due) -> Transaction {
        let address = network::shown(due.sent.address, self.options.addresses);
        let port = 32_768 + self.dice.below(28_000) as u32;
        convert::transaction(&due.sent.request, id, (due.at, address, port))
    }

    /// Somebody finds out: within two hours to two days, all of a session at about the same time.
    fn label(&mut self, due: &Due, truth: &Truth) {
        let spread = mix_text(u64::from(truth.session), &truth.actor) % 46;
        let kind = if truth.nature == "attack" { LabelKind::Abuse } else { LabelKind::Benign };
        let detail = if truth.attack.is_empty() { "benign".to_owned() } else { truth.attack.clone() };
        let at = due.at + HOUR_US * (2 + spread as i64);
        self.later(at, Later::Label { id: truth.transaction_id.clone(), kind, detail });
    }

    fn later(&mut self, at: i64, what: Later) {
        self.number += 1;
        self.pending.push(Reverse(Pending { at, number: self.number, what }));
    }

    fn settle(&mut self) -> Option<Item> {
        let Reverse(Pending { at, what, .. }) = self.pending.pop()?;
        Some(match what {
            Later::Outcome(outcome) => record(Kind::Outcome(*outcome)),
            Later::Label { id, kind, detail } => {
                let label = Label { transaction_id: id, time: Some(convert::timestamp(at)), kind: kind.into(), detail, ..Label::default() };
                record(Kind::Label(label))
            }
        })
    }
}

impl Iterator for Stream {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let settles = self.pending.peek().map(|Reverse(pending)| pending.at);
            match (&self.next, settles) {
                (Some(due), Some(at)) if at <= due.at => return self.settle(),
                (None, _) => return self.settle(),
                (Some(_), _) => {}
            }
            let due = self.next.take()?;
            self.act(&due);
            self.next = self.world.engine.next(self.options.until);
        }
    }
}

fn record(kind: Kind) -> Item {
    Item::Record(Box::new(Record { kind: Some(kind) }))
}

fn truth(nature: &Nature, due: &Due, response: &Response, (transaction_id, actor): (String, String)) -> Truth {
    let (word, attack, harm) = match nature {
        Nature::Customer => ("customer", String::new(), false),
        Nature::Machine => ("machine", String::new(), false),
        Nature::Attacker(origin) => ("attack", origin.detail(), harms(origin.attack, &due.sent.request, response)),
    };
    let (time, session, status) = (due.at, due.sent.session, response.status);
    Truth { transaction_id, time, actor, session, nature: word, attack, status, harm }
}

/// Whether an attacker got what this attack came for; page views for cover do no harm.
pub fn harms(attack: Attack, request: &Request, response: &Response) -> bool {
    let path = request.path.as_str();
    let wanted = match attack {
        Attack::StuffingLoud | Attack::StuffingDistributed | Attack::BruteForce | Attack::LowAndSlow => path == "/api/login",
        Attack::Scraping => path.starts_with("/api/products/"),
        Attack::ObjectEnumeration => path.starts_with("/api/orders/"),
        Attack::CardTesting => path == "/api/checkout",
        Attack::Flood | Attack::Scanner => false,
    };
    wanted && (200..300).contains(&response.status)
}

/// How long the shop takes, microseconds.
fn duration(dice: &mut Dice, request: &Request) -> i64 {
    let median = match request.path.as_str() {
        "/api/login" | "/api/signup" => 74_000.0,
        "/api/checkout" => 310_000.0,
        "/api/search" => 38_000.0,
        path if path.starts_with("/assets/") => 1_900.0,
        _ => 9_500.0,
    };
    dice.lognormal(median, 0.35) as i64
}
