//! A customer: sessions after a daily rhythm, pages read at human pace, passwords mistyped, cards declined, orders opened.
//!
//! Enters a person of the world, leave requests. Some customers are odd on purpose (they guess passwords, share a kiosk, lost
//! access to orders, browse for hours): every simple rate that attackers have, some customers have too.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::actor::{Actor, Nature, Sent, micros};
use super::client::Client;
use super::dice::Dice;
use super::http::{Body, Request, Response};
use super::intent::{Intent, page_parts, pictures, words};
use super::network;
use super::people::{self, Card};
use super::profile::{Habit, Line, Profile};
use super::shop::{FIRST_ORDER, PRODUCTS};

/// A customer at work.
pub struct Customer {
    profile: Profile,
    dice: Dice,
    plan: VecDeque<(f64, Intent)>,
    next: i64,
    session: u32,
    device: usize,
    turn: u64,
    password: String,
    resets: u32,
    username: String,
    login: Login,
    last: Option<Intent>,
    pace: f64,
    payments: usize,
    /// Whether the account exists: who joins signs up first.
    member: bool,
}

/// How the login of this session goes.
#[derive(Default)]
struct Login {
    /// Wrong passwords still to come before the right one or the reset.
    wrong: usize,
    /// Whether the right one is gone from memory.
    forgotten: bool,
    /// What follows once it succeeded.
    then: Vec<(f64, Intent)>,
}

impl Customer {
    /// A customer who first comes some time after `start`.
    pub fn new(profile: Profile, start: i64) -> Self {
        let mut dice = Dice::new(profile.seed ^ 0x00c0_ffee, profile.person as u64);
        let next = profile.rhythm.next(&mut dice, start, profile.sessions_a_day);
        let turn = dice.bits();
        let password = people::password(profile.seed, profile.person, 0);
        let username = people::username(profile.seed, profile.person);
        let member = !profile.joins;
        Self {
            profile,
            dice,
            plan: VecDeque::new(),
            next,
            session: 0,
            device: 0,
            turn,
            password,
            resets: 0,
            username,
            login: Login::default(),
            last: None,
            pace: 1.0,
            payments: 0,
            member,
        }
    }

    fn client(&mut self) -> Option<&mut Client> {
        self.profile.devices.get_mut(self.device).map(|(client, _)| client)
    }

    fn think(&mut self, median: f64) -> f64 {
        self.dice.lognormal(median, 0.9).clamp(0.4, 900.0)
    }

    fn begin(&mut self) {
        self.session += 1;
        self.payments = 0;
        self.device = if self.dice.chance(0.7) { 0 } else { self.dice.below(self.profile.devices.len()) };
        self.turn = self.dice.bits();
        self.login = Login { wrong: usize::from(self.dice.chance(self.profile.clumsy)), forgotten: false, then: Vec::new() };
        if self.login.wrong > 0 && self.dice.chance(0.25) {
            self.login.wrong += self.dice.whole(1, 2);
        }
        match self.profile.habit {
            Habit::StaleApp if self.member && self.dice.chance(0.35) => return self.plan_stale_app(),
            Habit::Integration => return self.plan_integration(),
            Habit::Guesser if self.member && self.dice.chance(0.3) => {
                self.login.forgotten = true;
                self.login.wrong = self.dice.lognormal(11.0, 0.6).clamp(4.0, 40.0) as usize;
            }
            _ if self.member && self.dice.chance(0.025) => {
                self.login.forgotten = true;
                self.login.wrong = self.dice.whole(2, 6);
            }
            _ => {}
        }
        self.plan_visit();
    }

    fn plan_visit(&mut self) {
        // A private window, cleared cookies, a new telephone: known people with nothing known about them.
        if self.dice.chance(0.05)
            && let Some(client) = self.client()
        {
            (client.device, client.session) = (None, None);
        }
        let fresh = self.client().is_none_or(|client| client.device.is_none());
        if fresh {
            let device = self.dice.hex32();
            if let Some(client) = self.client() {
                client.device = Some(device);
            }
        }
        let kiosk_or_shared = matches!(self.profile.habit, Habit::Household | Habit::Staff);
        let known = !kiosk_or_shared && self.client().is_some_and(|client| client.session.is_some()) && self.dice.chance(0.5);
        if !known && let Some(client) = self.client() {
            client.session = None;
        }
        let headless = self.client().is_some_and(|client| client.headless());
        if !headless {
            self.plan.push_back((0.0, Intent::Home));
            let parts = if fresh || self.dice.chance(0.3) { page_parts(&mut self.dice) } else { Vec::new() };
            self.parts(parts);
        }
        self.browse();
        let wants_account = match self.profile.habit {
            Habit::Ordinary | Habit::Collector | Habit::StaleApp => self.dice.chance(0.5),
            _ => true,
        };
        if !wants_account {
            if self.dice.chance(0.08) {
                let payment = self.purchase(0);
                self.plan.extend(payment);
            }
            return;
        }
        let errand = self.errand();
        if !self.member {
            self.login.then = errand;
            let first = self.join();
            let pause = self.think(12.0);
            self.plan.push_back((pause, first));
        } else if known {
            self.plan.extend(errand);
        } else {
            self.login.then = errand;
            let login = self.attempt();
            let pause = self.think(7.0);
            self.plan.push_back((pause, login));
        }
    }

    fn parts(&mut self, parts: Vec<Intent>) {
        for part in parts {
            let gap = self.dice.between(0.01, 0.12);
            self.plan.push_back((gap, part));
        }
    }

    fn browse(&mut self) {
        let views = match self.profile.habit {
            Habit::Collector => self.dice.lognormal(95.0, 0.7).clamp(20.0, 600.0),
            Habit::Staff => 0.0,
            _ => self.dice.lognormal(5.0, 0.9).clamp(0.0, 80.0),
        } as usize;
        let pace = if self.profile.habit == Habit::Collector { self.dice.between(3.0, 12.0) } else { 9.0 };
        let pictured = !self.client().is_some_and(|client| client.headless());
        let mut page = 1 + self.dice.zipf(40) as u32;
        for _ in 0..views {
            if self.dice.chance(0.25) {
                let search = self.dice.chance(0.35).then(|| words(&mut self.dice));
                page += 1;
                let pause = self.think(6.0);
                self.plan.push_back((pause, search.map_or(Intent::Listing(page), Intent::Search)));
            }
            let product = self.product(page);
            let pause = self.think(pace);
            self.plan.push_back((pause, Intent::Product(product)));
            if pictured {
                let pictures = if self.dice.chance(0.7) { pictures(&mut self.dice, product) } else { Vec::new() };
                self.parts(pictures);
            }
        }
    }

    fn product(&mut self, page: u32) -> u32 {
        let near = self.dice.chance(0.5);
        let product = if near { (page * 24 + self.dice.below(24) as u32) % PRODUCTS } else { self.dice.zipf(PRODUCTS as usize) as u32 };
        product + 1
    }

    /// What they logged in for.
    fn errand(&mut self) -> Vec<(f64, Intent)> {
        let mut steps = Vec::new();
        let orders = match self.profile.habit {
            Habit::Staff => self.dice.lognormal(60.0, 0.6).clamp(10.0, 300.0) as usize,
            // Who has not bought yet has nothing to look up.
            Habit::Buyer if self.profile.orders.is_empty() => 0,
            Habit::Buyer => self.dice.lognormal(16.0, 0.6).clamp(3.0, 70.0) as usize,
            Habit::Household => self.dice.whole(1, 4),
            _ if !self.member => self.guest_orders(),
            _ if self.dice.chance(0.4) => self.dice.whole(1, 3),
            _ => 0,
        };
        if orders > 0 {
            steps.push((self.think(2.0), Intent::Orders));
        }
        for _ in 0..orders {
            let order = self.some_order();
            steps.push((self.think(if self.profile.habit == Habit::Staff { 14.0 } else { 5.0 }), Intent::Order(order)));
        }
        if self.dice.chance(0.25) {
            steps.push((self.think(4.0), Intent::Account));
        }
        if self.dice.chance(0.008) {
            steps.push((self.think(15.0), Intent::Email(format!("{}@mail.example", self.profile.person))));
        }
        let payments = match self.profile.habit {
            Habit::Buyer => self.dice.whole(1, 8),
            Habit::Unlucky => 1,
            Habit::Staff => 0,
            _ => usize::from(self.dice.chance(0.22)),
        };
        for payment in 0..payments {
            let card = if self.profile.habit == Habit::Buyer { payment } else { 0 };
            steps.extend(self.purchase(card));
        }
        steps
    }

    /// How many orders a newcomer looks for that were placed as a guest, by the numbers in mails.
    fn guest_orders(&mut self) -> usize {
        let searches = self.dice.chance(0.15);
        if searches { self.dice.whole(1, 5) } else { 0 }
    }

    /// A product into the cart, and paid with that card.
    fn purchase(&mut self, card: usize) -> [(f64, Intent); 2] {
        let product = self.product(1);
        let cart = (self.think(8.0), Intent::Cart(product));
        let checkout = self.checkout(card);
        [cart, (self.think(35.0), checkout)]
    }

    /// The first step of somebody without an account; some believe that they have one.
    fn join(&mut self) -> Intent {
        if self.dice.chance(0.2) {
            self.login.forgotten = true;
            self.login.wrong = self.dice.whole(1, 3);
            return self.attempt();
        }
        Intent::Signup { username: self.username.clone(), password: self.password.clone() }
    }

    fn some_order(&mut self) -> u32 {
        let foreign = match self.profile.habit {
            Habit::Staff => 1.0,
            Habit::Buyer => 0.33,
            Habit::Household => 0.6,
            _ => 0.004,
        };
        if self.profile.orders.is_empty() || self.dice.chance(foreign) {
            FIRST_ORDER + self.dice.below(self.profile.people * 3) as u32
        } else {
            let orders = std::mem::take(&mut self.profile.orders);
            let order = self.dice.pick(&orders);
            self.profile.orders = orders;
            order
        }
    }

    fn checkout(&mut self, index: usize) -> Intent {
        let mut card = if self.profile.habit == Habit::Unlucky && self.dice.chance(0.75) {
            people::any_card(&mut Dice::new(self.profile.seed ^ 0xbad, (self.profile.person * 8 + index) as u64), self.profile.seed)
        } else {
            people::card(self.profile.seed, self.profile.person, index)
        };
        if self.dice.chance(0.03) {
            card.cvv = format!("{:03}", self.dice.below(1000));
        }
        let median = if self.dice.chance(0.12) { 500.0 } else { 4_900.0 };
        Intent::Checkout { card, cents: self.dice.lognormal(median, 0.8).clamp(100.0, 400_000.0) as u32 }
    }

    fn attempt(&mut self) -> Intent {
        let username = self.username.clone();
        let password = if self.login.wrong == 0 && !self.login.forgotten {
            self.password.clone()
        } else if self.login.forgotten {
            people::any_password(&mut self.dice)
        } else {
            people::mistyped(&mut self.dice, &self.password)
        };
        Intent::Login { username, password }
    }

    /// An app in a pocket that has an old password and tries again and again.
    fn plan_stale_app(&mut self) {
        let old = people::password(self.profile.seed, self.profile.person, 900);
        for _ in 0..self.dice.lognormal(60.0, 0.8).clamp(8.0, 400.0) as usize {
            let pause = self.dice.lognormal(200.0, 0.7).clamp(15.0, 1_800.0);
            self.plan.push_back((pause, Intent::Login { username: self.username.clone(), password: old.clone() }));
        }
        self.login.wrong = usize::MAX;
    }

    /// A company's script that asks for the same few orders, none of which it may see any more.
    fn plan_integration(&mut self) {
        self.login.then = Vec::new();
        let first = FIRST_ORDER + (self.profile.person * 7) as u32 % (self.profile.people as u32 * 3).max(1);
        for _ in 0..self.dice.whole(6, 16) {
            let pause = self.dice.lognormal(1_700.0, 0.08);
            let polls = (0..self.profile.person as u32 % 7 + 2)
                .map(|order| (if order == 0 { pause } else { 0.6 }, Intent::Order(first + order * 3)));
            self.login.then.extend(polls);
        }
        self.login.wrong = 0;
        let login = self.attempt();
        self.plan.push_back((0.0, login));
    }

    fn hear_login(&mut self, response: &Response) {
        if let Some(session) = response.session() {
            let session = session.to_owned();
            if let Some(client) = self.client() {
                client.session = Some(session);
            }
            let then = std::mem::take(&mut self.login.then);
            self.plan.extend(then);
            return;
        }
        if self.login.wrong == usize::MAX || response.status != 401 {
            return;
        }
        self.login.wrong = self.login.wrong.saturating_sub(1);
        let pause = self.think(7.0);
        if self.login.wrong == 0 && !self.member {
            self.plan.push_back((pause, Intent::Signup { username: self.username.clone(), password: self.password.clone() }));
            return;
        }
        if self.login.wrong == 0 && self.login.forgotten {
            if self.dice.chance(0.75) {
                self.plan.push_back((pause, Intent::AskReset(self.username.clone())));
            }
            return;
        }
        let login = self.attempt();
        self.plan.push_back((pause, login));
    }

    fn hear_reset(&mut self, asked: bool) {
        if asked {
            let password = people::password(self.profile.seed, self.profile.person, self.resets + 1);
            let code = people::reset_code(self.profile.seed, &self.username);
            let pause = self.dice.lognormal(80.0, 0.6);
            self.plan.push_back((pause, Intent::DoReset { username: self.username.clone(), code, password }));
            return;
        }
        self.resets += 1;
        self.password = people::password(self.profile.seed, self.profile.person, self.resets);
        self.login.forgotten = false;
        self.login.wrong = 0;
        let login = self.attempt();
        let pause = self.think(5.0);
        self.plan.push_back((pause, login));
    }

    fn hear_decline(&mut self, card: &Card) {
        self.payments += 1;
        let stubborn = if self.profile.habit == Habit::Unlucky { 0.85 } else { 0.6 };
        if self.payments > 6 || !self.dice.chance(stubborn) {
            return;
        }
        let other = self.dice.chance(if self.profile.habit == Habit::Unlucky { 0.6 } else { 0.35 });
        let again = if other { self.checkout(self.payments) } else { self.with_right_code(card) };
        let pause = self.think(22.0);
        self.plan.push_front((pause, again));
    }

    fn with_right_code(&mut self, card: &Card) -> Intent {
        let cvv = people::security_code(self.profile.seed, &card.number);
        Intent::Checkout { card: Card { cvv, ..card.clone() }, cents: self.dice.lognormal(4_900.0, 0.8).clamp(100.0, 400_000.0) as u32 }
    }

    /// Schedules the next step, or the next session when this one is over.
    fn proceed(&mut self, now: i64) {
        self.next = match self.plan.front() {
            Some((gap, intent)) => now + micros(if intent.automatic() { *gap } else { gap * self.pace }).max(1_000),
            None => self.profile.rhythm.next(&mut self.dice, now, self.profile.sessions_a_day),
        };
    }

    fn address(&mut self, automatic: bool) -> Option<IpAddr> {
        if !automatic && self.dice.chance(0.05) {
            self.turn = self.dice.bits();
        }
        self.profile.devices.get(self.device).map(|(_, line)| match line {
            Line::Fixed(address) => *address,
            Line::Mobile(carrier) => network::mobile(*carrier, self.turn),
        })
    }
}

impl Actor for Customer {
    fn wakes(&self) -> Option<i64> {
        Some(self.next)
    }

    fn send(&mut self, now: i64) -> Option<Sent> {
        if self.plan.is_empty() {
            self.begin();
            self.next = now;
        }
        let Some((_, intent)) = self.plan.pop_front() else {
            self.proceed(now);
            return None;
        };
        let address = self.address(intent.automatic())?;
        let request: Request = self.client().map(|client| intent.request(client))?;
        self.last = Some(intent);
        Some(Sent { request, address, session: self.session })
    }

    fn hear(&mut self, now: i64, response: &Response) {
        match (self.last.take(), response.status) {
            (Some(Intent::Login { .. }), _) => self.hear_login(response),
            (Some(Intent::Signup { .. }), 200..=299) => {
                self.member = true;
                self.hear_login(response);
            }
            (Some(Intent::Checkout { .. }), 200..=299) => self.profile.orders.extend(placed(response)),
            (Some(Intent::AskReset(_)), 200..=299) => self.hear_reset(true),
            (Some(Intent::DoReset { .. }), 200..=299) => self.hear_reset(false),
            (Some(Intent::Checkout { card, .. }), 402) => self.hear_decline(&card),
            // Refused by whoever stands before the shop: some try once more, most leave.
            (Some(intent), 403 | 429) if !matches!(intent, Intent::Order(_)) => {
                self.plan.clear();
                if self.dice.chance(0.3) {
                    self.plan.push_back((5.0, intent));
                }
            }
            _ => {}
        }
        self.proceed(now);
    }

    fn hurry(&mut self, at: i64, factor: f64) {
        self.next = at;
        self.pace = factor;
    }

    fn name(&self) -> String {
        format!("customer-{}", self.profile.person)
    }

    fn nature(&self) -> Nature {
        if self.profile.habit == Habit::Integration { Nature::Machine } else { Nature::Customer }
    }

    fn resting(&self) -> bool {
        self.plan.is_empty()
    }
}

/// The number of the order that an answer confirms.
fn placed(response: &Response) -> Option<u32> {
    let Body::Text(text) = &response.body else { return None };
    text.strip_prefix("{\"order\":")?.strip_suffix('}')?.parse().ok()
}
