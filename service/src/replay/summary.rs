//! What a replay found: counts by action, rule and label, rate, malformed lines, differences. Filled as it goes, then printed.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Serialize;
use telltale_features::domain::{Label, LabelKind};
use telltale_policy::{Action, Decision};
use telltale_proto::journal::v1 as journal;

use super::batch::Output;
use crate::convert::{self, Clamps};
use crate::verdict::{grouped, vector_digest};

/// How many malformed lines and differences are shown in full.
const SHOWN: usize = 5;

/// A malformed line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Malformed {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

/// How often a rule matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleCount {
    /// All matches.
    pub matched: u64,
    /// Those that were enforced.
    pub enforced: u64,
}

/// What became of the transactions of one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCount {
    /// Transactions.
    pub transactions: u64,
    /// Those with an enforcing action.
    pub enforced: u64,
    /// Those with an enforcing action, were every rule in force.
    pub would_enforce: u64,
}

/// What a comparison with the journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Decisions compared.
    pub decisions: u64,
    /// Decisions with another digest.
    pub different_decisions: u64,
    /// Decisions whose vector differs.
    pub different_vectors: u64,
    /// Transaction identifiers of the first differences.
    pub first: Vec<String>,
    /// Sequence numbers that the journal lacks.
    pub missing: u64,
    /// Decisions whose transaction the journal lacks.
    pub orphans: u64,
    /// Records that were erased on request: nothing is claimed of what they held.
    pub erased: u64,
    /// Files with a torn tail or damage.
    pub damaged: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Lines or records read.
    pub read: u64,
    /// Transactions decided.
    pub transactions: u64,
    /// Outcomes applied.
    pub outcomes: u64,
    /// Labels read.
    pub labels: u64,
    /// Aggregates applied.
    pub aggregates: u64,
    /// Transactions that repeated an earlier identifier and content.
    pub duplicates: u64,
    /// Transactions whose identifier had been used for another content.
    pub id_conflicts: u64,
    /// Outcomes and labels whose transaction is not known.
    pub unmatched: u64,
    /// Transactions whose time was moved into the last hour.
    pub clamped_times: u64,
    /// Transactions of which something was cut to the limits.
    pub cut: u64,
    /// Fields that the contract does not have.
    pub unknown_fields: u64,
    /// Malformed lines.
    pub malformed: u64,
    /// The first of them.
    pub malformed_first: Vec<Malformed>,
    /// By action.
    pub actions: BTreeMap<&'static str, u64>,
    /// By the action that would be taken were every rule in force.
    pub would: BTreeMap<&'static str, u64>,
    /// By rule.
    pub rules: BTreeMap<String, RuleCount>,
    /// By label: `benign`, `fraud`, `abuse`, each followed by its detail where there is one.
    pub by_label: BTreeMap<String, LabelCount>,
    /// Comparison with the journal, for journals.
    pub compared: Option<Compared>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Transactions a second.
    pub rate: f64,
    /// What was missing, in words.
    pub degraded: Vec<String>,
    #[serde(skip)]
    actions_by_id: HashMap<u64, (bool, bool)>,
    #[serde(skip)]
    labels_by_id: HashMap<String, Label>,
    #[serde(skip)]
    started: Option<Instant>,
}

impl Summary {
    /// An empty one; time runs from here.
    #[expect(clippy::disallowed_methods, reason = "how long a replay takes is about this process, not about events")]
    pub fn begin() -> Self {
        Self { started: Some(Instant::now()), ..Self::default() }
    }

    /// Counts a decided transaction.
    pub fn decided(&mut self, output: &Output) {
        let decision = &output.scored.decision;
        self.transactions += 1;
        *self.actions.entry(decision.action.name()).or_default() += 1;
        *self.would.entry(decision.would.name()).or_default() += 1;
        for rule in &decision.rules {
            let count = self.rules.entry(rule.id.to_string()).or_default();
            count.matched += 1;
            count.enforced += u64::from(rule.enforced);
        }
        let id = telltale_features::hash::member(&output.scored.admitted.tx.id);
        self.actions_by_id.insert(id, enforcing(decision));
        if let Some(recorded) = &output.recorded {
            self.compare(output, recorded);
        }
    }

    fn compare(&mut self, output: &Output, recorded: &journal::Decided) {
        let compared = self.compared.get_or_insert_default();
        compared.decisions += 1;
        let same_vector = recorded.vector.is_empty() || vector_digest(&output.scored.assessed.vector) == *recorded.vector;
        let digest = output.verdict.clone().map(|mut verdict| convert::decision_digest(&mut verdict));
        let same_decision = digest.is_none_or(|digest| digest == *recorded.digest);
        compared.different_vectors += u64::from(!same_vector);
        compared.different_decisions += u64::from(!same_decision);
        if !(same_vector && same_decision) && compared.first.len() < SHOWN {
            compared.first.push(output.scored.admitted.tx.id.clone());
        }
    }

    /// Notes a label: the last one about a transaction counts.
    pub fn labelled(&mut self, label: &Label) {
        self.labels += 1;
        self.labels_by_id.insert(label.transaction_id.clone(), label.clone());
    }

    /// Notes a malformed line.
    pub fn malformed(&mut self, line: u64, message: String) {
        self.malformed += 1;
        if self.malformed_first.len() < SHOWN {
            self.malformed_first.push(Malformed { line, message });
        }
    }

    /// Notes what was cut.
    pub fn clamped(&mut self, clamps: &Clamps) {
        self.cut += u64::from(clamps.any());
    }

    /// Labels by transaction.
    pub const fn labels(&self) -> &HashMap<String, Label> {
        &self.labels_by_id
    }

    /// Joins labels, computes the rate.
    pub fn finish(&mut self) {
        for label in self.labels_by_id.values() {
            let key = match label.detail.as_str() {
                "" => label_name(label.kind).to_owned(),
                detail => format!("{} {detail}", label_name(label.kind)),
            };
            let count = self.by_label.entry(key).or_default();
            if let Some((enforced, would)) = self.actions_by_id.get(&telltale_features::hash::member(&label.transaction_id)) {
                count.transactions += 1;
                count.enforced += u64::from(*enforced);
                count.would_enforce += u64::from(*would);
            }
        }
        self.actions_by_id = HashMap::new();
        self.seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        self.rate = self.transactions as f64 / self.seconds.max(1e-6);
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut lines = vec![format!(
            "{} transactions, {} outcomes, {} labels, {} aggregates in {:.1} s: {} transactions/s",
            grouped(self.transactions),
            grouped(self.outcomes),
            grouped(self.labels),
            grouped(self.aggregates),
            self.seconds,
            grouped(self.rate as u64)
        )];
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                lines.push(format!("{:>12}  {what}", grouped(count)));
            }
        };
        note(self.duplicates, "repeated transactions, counted once");
        note(self.id_conflicts, "identifiers used for two different transactions");
        note(self.unmatched, "outcomes and labels of unknown transactions");
        note(self.clamped_times, "times moved into the last hour");
        note(self.cut, "transactions cut to the limits");
        note(self.unknown_fields, "unknown fields left out");
        note(self.malformed, "malformed lines skipped");
        lines.extend(self.malformed_first.iter().map(|bad| format!("              line {}: {}", bad.line, bad.message)));
        lines.extend(self.degraded.iter().map(|what| format!("degraded: {what}")));
        lines.push(format!("\n{:<14}{:>12}{:>12}", "action", "taken", "would"));
        for action in [Action::Allow, Action::Log, Action::RateLimit, Action::Challenge, Action::Deceive, Action::Block] {
            let of = |counts: &BTreeMap<&'static str, u64>| grouped(counts.get(action.name()).copied().unwrap_or_default());
            lines.push(format!("{:<14}{:>12}{:>12}", action.name(), of(&self.actions), of(&self.would)));
        }
        self.table_rules(&mut lines);
        self.table_labels(&mut lines);
        self.table_compared(&mut lines);
        lines.join("\n")
    }

    fn table_rules(&self, lines: &mut Vec<String>) {
        if !self.rules.is_empty() {
            lines.push(format!("\n{:<14}{:>12}{:>12}", "rule", "matched", "enforced"));
        }
        for (rule, count) in &self.rules {
            lines.push(format!("{rule:<14}{:>12}{:>12}", grouped(count.matched), grouped(count.enforced)));
        }
    }

    fn table_labels(&self, lines: &mut Vec<String>) {
        if !self.by_label.is_empty() {
            lines.push(format!("\n{:<44}{:>14}{:>12}{:>12}", "label", "transactions", "enforced", "would"));
        }
        for (label, count) in &self.by_label {
            let (all, enforced, would) = (grouped(count.transactions), grouped(count.enforced), grouped(count.would_enforce));
            lines.push(format!("{label:<44}{all:>14}{enforced:>12}{would:>12}"));
        }
    }

    fn table_compared(&self, lines: &mut Vec<String>) {
        let Some(compared) = &self.compared else { return };
        lines.push(format!(
            "\ncompared with the journal: {} decisions, {} differ, {} vectors differ; {} numbers missing, {} decisions without transaction",
            grouped(compared.decisions),
            grouped(compared.different_decisions),
            grouped(compared.different_vectors),
            grouped(compared.missing),
            grouped(compared.orphans)
        ));
        if compared.erased > 0 {
            lines.push(format!("  {} records were erased on request; nothing is claimed of what they held", grouped(compared.erased)));
        }
        lines.extend(compared.first.iter().map(|id| format!("  differs: {id}")));
        lines.extend(compared.damaged.iter().map(|what| format!("  damaged: {what}")));
    }
}

/// A label's kind in words.
pub const fn label_name(kind: LabelKind) -> &'static str {
    match kind {
        LabelKind::Benign => "benign",
        LabelKind::Fraud => "fraud",
        LabelKind::Abuse => "abuse",
    }
}

fn enforcing(decision: &Decision) -> (bool, bool) {
    (decision.action.is_enforcing(), decision.would.is_enforcing())
}
