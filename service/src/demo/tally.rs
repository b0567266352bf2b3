//! Counts what became of everybody: for each attack when it was first stopped and what it did before, for customers who was wrongly hit.
//!
//! Enters one exchange or one judged transaction at a time, leaves a summary. The same tally serves the live run and the evaluation.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

/// What became of one attack.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AttackTally {
    /// Requests sent, page views for cover among them.
    pub requests: u64,
    /// How many were stopped.
    pub stopped: u64,
    /// `stopped / requests`.
    pub share_stopped: f64,
    /// Requests until the first was stopped, that one included; absent when none was.
    pub first_stopped_request: Option<u64>,
    /// Seconds from the first request to the first one stopped.
    pub first_stopped_seconds: Option<f64>,
    /// Requests that did harm before the first was stopped.
    pub harm_before: u64,
    /// Requests that did harm in all.
    pub harm: u64,
    #[serde(skip)]
    began: Option<f64>,
}

/// What became of everybody who attacks nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuestTally {
    /// Sessions.
    pub sessions: u64,
    /// Requests.
    pub requests: u64,
    /// Sessions of which at least one request was stopped.
    pub sessions_stopped: u64,
    /// Requests stopped.
    pub requests_stopped: u64,
}

/// One transaction and what became of it.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    /// Name of the actor and number of its session.
    pub session: (&'a str, u32),
    /// `customer`, `machine` or `attack`.
    pub nature: &'a str,
    /// `attack/intensity`; empty for everybody else.
    pub attack: &'a str,
    /// When, seconds.
    pub time: f64,
    /// Whether it was stopped.
    pub stopped: bool,
    /// Whether it did harm (it was not stopped, and got what nobody should get).
    pub harm: bool,
}

/// Counts of everybody.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Attacks by `attack/intensity`.
    pub attacks: BTreeMap<String, AttackTally>,
    /// Customers.
    pub customers: GuestTally,
    /// Crawlers and partners.
    pub machines: GuestTally,
    #[serde(skip)]
    seen: HashSet<(String, u32)>,
    #[serde(skip)]
    hit: HashSet<(String, u32)>,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, judged: &Judged<'_>) {
        if judged.nature == "attack" {
            self.attacks.entry(judged.attack.to_owned()).or_default().count(judged);
            return;
        }
        let session = (judged.session.0.to_owned(), judged.session.1);
        let guests = if judged.nature == "customer" { &mut self.customers } else { &mut self.machines };
        guests.requests += 1;
        guests.requests_stopped += u64::from(judged.stopped);
        if judged.stopped && self.hit.insert(session.clone()) {
            guests.sessions_stopped += 1;
        }
        if self.seen.insert(session) {
            guests.sessions += 1;
        }
    }
}

impl AttackTally {
    fn count(&mut self, judged: &Judged<'_>) {
        self.requests += 1;
        let began = *self.began.get_or_insert(judged.time);
        if judged.stopped {
            self.stopped += 1;
            if self.first_stopped_request.is_none() {
                self.first_stopped_request = Some(self.requests);
                self.first_stopped_seconds = Some(judged.time - began);
            }
        }
        if judged.harm {
            self.harm += 1;
            self.harm_before += u64::from(self.first_stopped_request.is_none());
        }
        self.share_stopped = self.stopped as f64 / self.requests as f64;
    }
}

/// What harm an attack does, in words.
pub fn harm_words(attack: &str) -> &'static str {
    match attack.split('/').next().unwrap_or_default() {
        "scraping" => "products copied",
        "object-enumeration" => "orders read",
        "card-testing" => "cards found good",
        "flood" | "scanner" => "",
        _ => "accounts opened",
    }
}

#[cfg(test)]
mod tests {
    use super::{Judged, Tally};

    fn judged(nature: &'static str, time: f64, stopped: bool, harm: bool) -> Judged<'static> {
        Judged { session: ("x", 1), nature, attack: "brute-force/medium", time, stopped, harm }
    }

    #[test]
    fn harm_is_counted_until_the_first_stop() {
        let mut tally = Tally::default();
        for (time, stopped, harm) in [(10.0, false, true), (11.0, false, false), (14.0, true, false), (15.0, false, true)] {
            tally.count(&judged("attack", time, stopped, harm));
        }
        let attack = &tally.attacks["brute-force/medium"];
        assert_eq!((attack.requests, attack.stopped, attack.harm_before, attack.harm), (4, 1, 1, 2));
        assert_eq!((attack.first_stopped_request, attack.first_stopped_seconds), (Some(3), Some(4.0)));
    }

    #[test]
    fn a_session_counts_once_however_often_it_is_hit() {
        let mut tally = Tally::default();
        for stopped in [false, true, true] {
            tally.count(&judged("customer", 0.0, stopped, false));
        }
        assert_eq!((tally.customers.sessions, tally.customers.sessions_stopped, tally.customers.requests_stopped), (1, 1, 2));
    }
}
