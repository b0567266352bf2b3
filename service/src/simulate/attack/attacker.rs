//! One worker of an attack: takes an identity, mixes page views with what it came for, and takes another identity.
//!
//! Enters a campaign, leave requests. What it steals is counted by whoever watches the answers, not here.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Attack, Campaign, Measure, Origin};
use crate::simulate::actor::{Actor, Nature, Sent, micros};
use crate::simulate::client::Client;
use crate::simulate::dice::{Dice, mix};
use crate::simulate::http::Response;
use crate::simulate::intent::{Intent, page_parts, pictures, words};
use crate::simulate::network;
use crate::simulate::people;
use crate::simulate::shop::{FIRST_ORDER, PRODUCTS};

/// One worker.
pub struct Attacker {
    campaign: Campaign,
    measure: Measure,
    origin: Arc<Origin>,
    seed: u64,
    people: usize,
    worker: usize,
    dice: Dice,
    client: Client,
    address: IpAddr,
    plan: VecDeque<(f64, Intent)>,
    next: Option<i64>,
    session: u32,
    left: usize,
    /// Whether this identity has loaded nothing yet.
    fresh: bool,
    cursor: u32,
    hits: u32,
    factor: f64,
    last: Option<Intent>,
}

const PROBES: [&str; 40] = [
    "/.env",
    "/.git/config",
    "/wp-login.php",
    "/wp-admin/install.php",
    "/phpmyadmin/index.php",
    "/admin/config.php",
    "/server-status",
    "/.aws/credentials",
    "/backup.zip",
    "/db.sql",
    "/config.json",
    "/actuator/env",
    "/actuator/heapdump",
    "/solr/admin/info/system",
    "/cgi-bin/luci",
    "/boaform/admin/formLogin",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/console/",
    "/manager/html",
    "/jenkins/script",
    "/api/v1/pods",
    "/.svn/entries",
    "/.DS_Store",
    "/web.config",
    "/xmlrpc.php",
    "/owa/auth/logon.aspx",
    "/remote/login",
    "/api/products?page=1%27%20OR%20%271%27=%271",
    "/api/search?q=%3Cscript%3Ealert(1)%3C/script%3E",
    "/api/search?q=1%20UNION%20SELECT%20username,password%20FROM%20users--",
    "/api/products/1%20AND%20SLEEP(5)",
    "/assets/..%2f..%2f..%2fetc%2fpasswd",
    "/api/search?q=$%7Bjndi:ldap://127.0.0.1/a%7D",
    "/?cmd=cat%20/etc/passwd",
    "/index.php?page=../../../../etc/passwd",
    "/api/debug",
    "/swagger.json",
    "/graphql",
    "/api/internal/users",
    "/old/",
];

impl Attacker {
    /// Worker `worker` of the campaign, in a world of that seed and so many people.
    pub fn new(campaign: Campaign, worker: usize, (seed, people): (u64, usize)) -> Self {
        let measure = Measure::of(campaign.attack, campaign.intensity);
        let origin = Arc::new(Origin { attack: campaign.attack, intensity: campaign.intensity, variant: campaign.variant.name });
        let mut dice = Dice::new(mix(seed, 31 + campaign.number), worker as u64);
        let client = campaign.variant.client(&mut dice);
        let address = network::draw(&mut dice, campaign.variant.pool);
        let first = campaign.start + micros(dice.unit() * measure.pause.min(600.0) * 2.0);
        let cursor = (mix(seed ^ campaign.number, worker as u64) % u64::from(PRODUCTS)) as u32;
        Self {
            campaign,
            measure,
            origin,
            seed,
            people,
            worker,
            dice,
            client,
            address,
            plan: VecDeque::new(),
            next: Some(first),
            session: 0,
            left: 0,
            fresh: true,
            cursor,
            hits: 0,
            factor: 1.0,
            last: None,
        }
    }

    /// Another address, client and session, from what the campaign has at its disposal.
    fn change_identity(&mut self) {
        self.session += 1;
        self.fresh = true;
        let per = self.measure.per_identity;
        self.left = if per == 1 { 1 + usize::from(self.dice.chance(0.3)) } else { self.dice.whole(per - per / 3, per + per / 3) };
        let stock = mix(self.seed, 1_000 + self.campaign.number);
        let address = match self.campaign.attack {
            Attack::Flood => self.worker,
            _ => self.dice.below(self.measure.addresses),
        };
        self.address = network::draw(&mut Dice::new(stock, address as u64), self.campaign.variant.pool);
        let shape = self.dice.below(self.measure.clients);
        self.client = self.campaign.variant.client(&mut Dice::new(stock ^ 0xc11e, shape as u64));
        if self.client.device.is_some() {
            self.client.device = Some(self.dice.hex32());
        }
    }

    /// Plans the next identity or the next attack request, with the page views around it.
    fn refill(&mut self) {
        let mut pause = self.campaign.variant.pacing.pause(&mut self.dice, self.measure.pause);
        if self.left == 0 {
            if self.session > 0 && self.measure.rest > 0.0 {
                pause += self.dice.lognormal(self.measure.rest, 0.5);
            }
            self.change_identity();
            self.introduce(&mut pause);
        }
        if self.dice.chance(self.campaign.variant.cover) {
            self.cover(&mut pause);
        }
        self.left -= 1;
        let intent = self.strike();
        self.plan.push_back((pause, intent));
        if self.campaign.attack == Attack::Scraping && !self.client.headless() && self.dice.chance(self.campaign.variant.cover) {
            let product = self.cursor;
            let parts = pictures(&mut self.dice, product);
            self.parts(parts);
        }
    }

    /// Steps that a new identity begins with.
    fn introduce(&mut self, pause: &mut f64) {
        if self.campaign.attack == Attack::ObjectEnumeration {
            let (username, password) = (people::stranger(&mut self.dice), people::any_password(&mut self.dice));
            self.plan.push_back((std::mem::replace(pause, 12.0), Intent::Home));
            self.plan.push_back((self.dice.lognormal(20.0, 0.5), Intent::Signup { username, password }));
            self.plan.push_back((self.dice.lognormal(5.0, 0.5), Intent::Orders));
        }
    }

    /// Ordinary page views before the request that matters.
    fn cover(&mut self, pause: &mut f64) {
        if !self.client.headless() && self.dice.chance(0.6) {
            self.plan.push_back((std::mem::replace(pause, 4.0), Intent::Home));
            // As a browser that keeps what it has: the parts come with an identity's first page, seldom again.
            if std::mem::take(&mut self.fresh) || self.dice.chance(0.3) {
                let parts = page_parts(&mut self.dice);
                self.parts(parts);
            }
        }
        for _ in 0..self.dice.whole(0, 2) {
            let product = 1 + self.dice.zipf(PRODUCTS as usize) as u32;
            let gap = self.dice.lognormal(6.0, 0.7);
            self.plan.push_back((std::mem::replace(pause, gap), Intent::Product(product)));
        }
    }

    fn parts(&mut self, parts: Vec<Intent>) {
        for part in parts {
            let gap = self.dice.between(0.01, 0.12);
            self.plan.push_back((gap, part));
        }
    }

    /// The request that the attack is about.
    fn strike(&mut self) -> Intent {
        match self.campaign.attack {
            Attack::StuffingLoud | Attack::StuffingDistributed | Attack::LowAndSlow => self.stolen_login(),
            Attack::BruteForce => {
                let victim = mix(self.seed ^ self.campaign.number, 900 + self.worker as u64) as usize % self.people.max(1);
                Intent::Login { username: people::username(self.seed, victim), password: people::any_password(&mut self.dice) }
            }
            Attack::Scraping => {
                let step = if self.campaign.variant.ordered { 1 } else { self.dice.below(PRODUCTS as usize) as u32 };
                self.cursor = 1 + (self.cursor + step) % PRODUCTS;
                if self.dice.chance(0.08) { Intent::Listing(1 + self.cursor / 24) } else { Intent::Product(self.cursor) }
            }
            Attack::ObjectEnumeration => {
                let all = self.people as u32 * 3;
                let step = if self.campaign.variant.ordered { 1 } else { self.dice.below(all as usize) as u32 };
                self.cursor = (self.cursor + step) % all.max(1);
                Intent::Order(FIRST_ORDER + self.cursor)
            }
            Attack::CardTesting => {
                let card = people::any_card(&mut self.dice, self.seed);
                Intent::Checkout { card, cents: self.dice.lognormal(600.0, 0.7).clamp(100.0, 6_000.0) as u32 }
            }
            Attack::Flood if self.campaign.variant.ordered => Intent::Search(words(&mut self.dice)),
            Attack::Flood => Intent::Listing(1 + self.dice.below(160) as u32),
            Attack::Scanner => Intent::Probe(self.probe()),
        }
    }

    fn stolen_login(&mut self) -> Intent {
        let known = self.dice.chance(0.55);
        let person = self.dice.below(self.people);
        if known {
            let right = self.dice.chance(0.02);
            let password = if right { people::password(self.seed, person, 0) } else { people::any_password(&mut self.dice) };
            return Intent::Login { username: people::username(self.seed, person), password };
        }
        Intent::Login { username: people::stranger(&mut self.dice), password: people::any_password(&mut self.dice) }
    }

    fn probe(&mut self) -> String {
        let path = self.dice.pick(&PROBES).to_owned();
        match self.dice.below(4) {
            0 if !path.contains('?') => format!("{path}.{}", self.dice.pick(&["bak", "old", "save", "swp"])),
            _ => path,
        }
    }

    /// What an attacker does with an account that opened.
    fn loot(&mut self) {
        self.hits += 1;
        for intent in [Intent::Account, Intent::Orders] {
            let gap = self.dice.lognormal(3.0, 0.6);
            self.plan.push_back((gap, intent));
        }
    }

    fn proceed(&mut self, now: i64) {
        let ended = self.campaign.start.saturating_add(micros(self.measure.duration)).min(self.campaign.end);
        let over = now >= if self.factor < 1.0 { self.campaign.end } else { ended };
        if self.plan.is_empty() {
            if over {
                self.next = None;
                return;
            }
            self.refill();
        }
        let gap = self.plan.front().map_or(1.0, |(gap, intent)| if intent.automatic() { *gap } else { gap * self.factor });
        self.next = Some(now + micros(gap.clamp(0.002, 40_000.0)));
    }
}

impl Actor for Attacker {
    fn wakes(&self) -> Option<i64> {
        self.next
    }

    fn send(&mut self, now: i64) -> Option<Sent> {
        let Some((_, intent)) = self.plan.pop_front() else {
            self.proceed(now);
            return None;
        };
        let request = intent.request(&self.client);
        self.last = Some(intent);
        Some(Sent { request, address: self.address, session: self.session })
    }

    fn hear(&mut self, now: i64, response: &Response) {
        if let Some(session) = response.session() {
            let session = session.to_owned();
            match self.last.take() {
                Some(Intent::Signup { .. }) => self.client.session = Some(session),
                Some(Intent::Login { .. }) => {
                    self.client.session = Some(session);
                    self.loot();
                }
                _ => {}
            }
        }
        self.proceed(now);
    }

    fn hurry(&mut self, at: i64, factor: f64) {
        self.next = Some(at);
        self.factor = factor;
    }

    fn name(&self) -> String {
        format!("{}-{}-{}", self.campaign.attack.name(), self.campaign.number, self.worker)
    }

    fn nature(&self) -> Nature {
        Nature::Attacker(Arc::clone(&self.origin))
    }
}
