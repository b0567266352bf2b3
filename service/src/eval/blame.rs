//! Which rule did what: customers' sessions that each wrongly hit, attacks that each was the first to stop.
//!
//! Enters the decision about one transaction at a time with the truth about it, leaves one row a rule. Several rules may stop one
//! transaction; each is named. A standing denial is its rule's doing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;
use telltale_policy::Decision;

/// What a rule did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleRow {
    /// The rule.
    pub rule: String,
    /// Customers' sessions of which it stopped a request.
    pub customer_sessions: u64,
    /// Those of them that no other rule hit.
    pub customer_sessions_alone: u64,
    /// Days of crawlers and partners of which it stopped a request.
    pub machine_days: u64,
    /// Requests of attacks that it stopped.
    pub attack_requests: u64,
    /// Attacks that it was the first to stop, alone or with others.
    pub first_at: Vec<String>,
}

/// Gathers who stopped what.
#[derive(Debug, Default)]
pub struct Blame {
    rules: BTreeMap<String, Doing>,
    stopped: HashSet<String>,
}

#[derive(Debug, Default)]
struct Doing {
    customers: BTreeSet<u32>,
    machines: BTreeSet<(u32, u32)>,
    attack_requests: u64,
    first_at: Vec<String>,
}

/// Whose transaction it was.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// A customer's, in the session of that number.
    Customer(u32),
    /// A crawler's or a partner's: its number, and the day.
    Machine((u32, u32)),
    /// An attack's, by name.
    Attack(&'a str),
}

impl Blame {
    /// Counts one transaction that was stopped.
    pub fn count(&mut self, decision: &Decision, whose: Whose<'_>) {
        let first = matches!(whose, Whose::Attack(name) if self.stopped.insert(name.to_owned()));
        for rule in culprits(decision) {
            let doing = self.rules.entry(rule.to_owned()).or_default();
            match whose {
                Whose::Customer(session) => {
                    doing.customers.insert(session);
                }
                Whose::Machine(day) => {
                    doing.machines.insert(day);
                }
                Whose::Attack(name) => {
                    doing.attack_requests += 1;
                    if first {
                        doing.first_at.push(name.to_owned());
                    }
                }
            }
        }
    }

    /// One row a rule, those that hit most customers first.
    pub fn rows(&self) -> Vec<RuleRow> {
        let mut by: BTreeMap<u32, u32> = BTreeMap::new();
        for session in self.rules.values().flat_map(|doing| &doing.customers) {
            *by.entry(*session).or_default() += 1;
        }
        let alone = |doing: &Doing| doing.customers.iter().filter(|session| by.get(session) == Some(&1)).count() as u64;
        let mut rows: Vec<RuleRow> = self
            .rules
            .iter()
            .map(|(rule, doing)| RuleRow {
                rule: rule.clone(),
                customer_sessions: doing.customers.len() as u64,
                customer_sessions_alone: alone(doing),
                machine_days: doing.machines.len() as u64,
                attack_requests: doing.attack_requests,
                first_at: doing.first_at.clone(),
            })
            .collect();
        rows.sort_by(|a, b| (b.customer_sessions, b.attack_requests, &a.rule).cmp(&(a.customer_sessions, a.attack_requests, &b.rule)));
        rows
    }
}

/// The rules that stopped it: those enforced now, and those whose earlier match still denies.
fn culprits(decision: &Decision) -> BTreeSet<&str> {
    let matched = decision.rules.iter().filter(|rule| rule.enforced && rule.action.is_enforcing()).map(|rule| &*rule.id);
    let standing = decision.reasons.iter().filter_map(|reason| reason.origin.strip_prefix("denial "));
    matched.chain(standing).collect()
}

/// The rows as a table for people.
pub fn table(rows: &[RuleRow]) -> String {
    let mut lines = vec![format!(
        "\n{:<12} {:>18} {:>12} {:>14} {:>16}  first to stop",
        "rule", "customer sessions", "of them alone", "machine days", "attack requests"
    )];
    lines.extend(rows.iter().map(|row| {
        format!(
            "{:<12} {:>18} {:>12} {:>14} {:>16}  {}",
            row.rule,
            row.customer_sessions,
            row.customer_sessions_alone,
            row.machine_days,
            row.attack_requests,
            row.first_at.join(", ")
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Blame, Whose};
    use telltale_policy::{Action, Decision, Reason, RuleMatch};

    fn stopped(rule: &str, denial: &str) -> Decision {
        let matched = RuleMatch { id: rule.into(), name: "".into(), action: Action::Block, score: 1.0, enforced: true, tags: [].into() };
        let origin = if denial.is_empty() { "rule X".to_owned() } else { format!("denial {denial}") };
        Decision {
            action: Action::Block,
            rules: vec![matched],
            reasons: vec![Reason { origin, ..Reason::default() }],
            ..Decision::default()
        }
    }

    #[test]
    fn each_rule_answers_for_the_sessions_that_it_hit() {
        let mut blame = Blame::default();
        for (decision, whose) in [
            (stopped("A", ""), Whose::Customer(1)),
            (stopped("A", ""), Whose::Customer(1)),
            (stopped("A", "B"), Whose::Customer(2)),
            (stopped("A", ""), Whose::Attack("scraping/medium")),
            (stopped("B", ""), Whose::Attack("scraping/medium")),
        ] {
            blame.count(&decision, whose);
        }
        let rows = blame.rows();
        let seen: Vec<_> =
            rows.iter().map(|row| (row.rule.as_str(), row.customer_sessions, row.customer_sessions_alone, row.attack_requests)).collect();
        assert_eq!(seen, [("A", 2, 1, 1), ("B", 1, 0, 1)]);
        assert_eq!(rows[0].first_at, ["scraping/medium"]);
        assert!(rows[1].first_at.is_empty());
    }
}
