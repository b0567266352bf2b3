//! One decision, in the order of precedence: human deny, human allow, active denial, then the strongest enforced action.

use telltale_features::entity::{EntityId, Subjects};
use telltale_features::expr::Row;
use telltale_features::kernel::slots::{PolicyState, Slot, SlotChange};
use telltale_features::time::Timestamp;

use crate::compile::aimed;
use crate::decision::{Action, Decision, Mitigation, Mode, NewDenial, Reason, RuleMatch};
use crate::levels::{Given, Origin};
use crate::limits::exceeds;
use crate::overrides::{Override, Ruling};
use crate::policy::{Policy, Situation};
use crate::reasons::{of_model, of_rule};
use crate::rule::Rule;

/// A rule that holds, and how it would be performed.
struct Found<'p> {
    rule: &'p Rule,
    /// Its place in the files.
    at: u16,
    enforced: bool,
    entity: Option<EntityId>,
    retry_after_ms: u32,
    reason: Reason,
}

/// A denial that is in force.
struct Standing<'p> {
    rule: &'p Rule,
    entity: EntityId,
    until: Timestamp,
    enforced: bool,
}

impl Policy {
    /// Decides about one transaction. Reads and changes the policy state of its subjects; the same situation and state always
    /// give the same decision.
    pub fn decide(&self, situation: &Situation<'_>, state: &mut PolicyState) -> Decision {
        let subjects = &situation.admitted.subjects;
        let now = situation.moment.now;
        let room = self.extension.fill(situation, state, &self.levels);
        let row = room.row(situation.fields);

        let ruling = situation.overrides.ruling(subjects, now);
        let standing = self.standing(subjects, state, now);
        let found = self.found(situation, &row, ruling.is_none().then_some(&mut *state));
        let mut decision = self.summary(situation, &found);
        match ruling {
            Some(ruling) => overrule(&mut decision, ruling),
            None => {
                choose(&mut decision, &found, &standing);
                decision.denials = self.remember(situation, &found, &row, state);
            }
        }
        let origin = Origin { rule: found.iter().find(|found| found.rule.evidence > 0.0).map(|found| found.rule.id.clone()), now };
        decision.threats = self.levels.threats(state, subjects, row.numbers, &origin);
        decision.reasons.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        decision
    }

    /// The denials of earlier matches that still hold.
    fn standing<'p>(&'p self, subjects: &Subjects, state: &PolicyState, now: Timestamp) -> Vec<Standing<'p>> {
        let mut standing = Vec::new();
        for (kind, tag, slot) in &state.slots {
            let (Slot::Mark { until }, Some(subject)) = (slot, subjects.of(*kind)) else { continue };
            if *until <= now {
                continue;
            }
            let by = self.rules.iter().find_map(|rule| match (&rule.denial, rule.entity) {
                (Some(denial), Some(entity)) if entity == *kind && denial.enforced == *tag => Some((rule, true)),
                (Some(denial), Some(entity)) if entity == *kind && denial.monitored == *tag => Some((rule, false)),
                _ => None,
            });
            if let Some((rule, enforced)) = by {
                let enforced = enforced && rule.mode.unwrap_or(self.mode) != Mode::Off;
                standing.push(Standing { rule, entity: subject.id, until: *until, enforced });
            }
        }
        standing
    }

    /// The rules that hold. Without a state rate limits neither spend nor match: an override stands above them.
    fn found<'p>(&'p self, situation: &Situation<'_>, row: &Row<'_>, mut state: Option<&mut PolicyState>) -> Vec<Found<'p>> {
        let route = situation.admitted.route.as_str();
        let (operation, method) = self.extension.operation_and_method(row);
        let mut found = Vec::new();
        for at in self.index.candidates(operation, route, method) {
            // The condition first: it hardly ever holds, and all conditions together are few cache lines.
            if !self.conditions.get(usize::from(at)).is_some_and(|when| when.holds(row)) {
                continue;
            }
            let Some(rule) = self.rules.get(usize::from(at)).filter(|rule| rule.is_for(route, method)) else { continue };
            let mode = self.mode_of(rule, route, method);
            if mode == Mode::Off {
                continue;
            }
            let entity = rule.entity.and_then(|kind| situation.admitted.subjects.of(kind)).map(|subject| subject.id);
            let mut retry_after_ms = rule.mitigation.retry_after_ms;
            if let Some(limit) = &rule.limit {
                let (Some(entity), Some(state)) = (entity, state.as_deref_mut()) else { continue };
                let Some(wait_us) = exceeds(state, entity.kind, limit, situation.moment.now) else { continue };
                retry_after_ms = u32::try_from(wait_us / 1_000 + 1).unwrap_or(u32::MAX);
            }
            let reason = of_rule(&rule.id, &rule.reason, &rule.reads, rule.score, row);
            found.push(Found { rule, at, enforced: mode == Mode::Enforce, entity, retry_after_ms, reason });
        }
        found.sort_by_key(|found| (std::cmp::Reverse((found.enforced, found.rule.action)), found.at));
        found
    }

    /// Risk, models and matches: what is reported whatever is done.
    fn summary(&self, situation: &Situation<'_>, found: &[Found<'_>]) -> Decision {
        let points: f64 = found.iter().map(|found| found.rule.score).sum();
        let risk = situation.combined.risk + points;
        let matches = found.iter().map(|found| RuleMatch {
            id: found.rule.id.clone(),
            name: found.rule.name.clone(),
            action: found.rule.action,
            score: found.rule.score,
            enforced: found.enforced,
            tags: found.rule.tags.clone(),
        });
        let from_models = situation.attributions.iter().map(|attribution| {
            let of = situation.scores.parts.iter().position(|part| part.model == attribution.model);
            let points = of.and_then(|of| situation.combined.contributions.get(of)).copied().unwrap_or(0.0);
            of_model(situation.schema, attribution, points)
        });
        Decision {
            risk: if risk.is_finite() { risk.clamp(0.0, 100.0) } else { 0.0 },
            contributions: situation.combined.contributions.clone(),
            rules: matches.collect(),
            reasons: from_models.collect(),
            ..Decision::default()
        }
    }

    /// Writes evidence and denials. Returns the denials that begin.
    fn remember(&self, situation: &Situation<'_>, found: &[Found<'_>], row: &Row<'_>, state: &mut PolicyState) -> Vec<NewDenial> {
        let mut denials = Vec::new();
        let now = situation.moment.now;
        for found in found {
            if found.rule.evidence > 0.0 {
                let given = Given { amount: found.rule.evidence, numbers: row.numbers, now };
                self.levels.add(state, &situation.admitted.subjects, found.rule.entity, &given);
            }
            let (Some(denial), Some(entity)) = (&found.rule.denial, found.entity) else { continue };
            let tag = if found.enforced { denial.enforced } else { denial.monitored };
            if state.holds(entity.kind, tag, now) {
                continue;
            }
            let until = now.plus(denial.duration);
            state.change(entity.kind, tag, SlotChange::Mark { until });
            if found.enforced {
                denials.push(NewDenial {
                    entity,
                    action: found.rule.action,
                    mitigation: aimed(&found.rule.mitigation, Some(entity), Some(until)),
                    until,
                    rule: found.rule.id.clone(),
                    reason: found.reason.text.clone(),
                });
            }
        }
        denials
    }
}

/// A person's ruling is the whole decision; what rules would say stays visible.
fn overrule(decision: &mut Decision, ruling: &Override) {
    let (action, verb) = match ruling.ruling {
        Ruling::Deny => (Action::Block, "denied"),
        Ruling::Allow => (Action::Allow, "allowed"),
    };
    decision.action = action;
    decision.would = action;
    for matched in &mut decision.rules {
        matched.enforced = false;
    }
    decision.mitigation = match action {
        Action::Block => Mitigation { status: 403, entity: Some(ruling.entity), until: ruling.until, ..Mitigation::default() },
        _ => Mitigation::default(),
    };
    let text = match ruling.reason.is_empty() {
        true => format!("{verb} by {}", ruling.author),
        false => format!("{verb} by {}: {}", ruling.author, ruling.reason),
    };
    decision.reasons.push(Reason { contribution: 100.0, text, origin: "override".to_owned(), ..Reason::default() });
}

/// Active denials first, then rules: the strongest that is enforced.
fn choose(decision: &mut Decision, found: &[Found<'_>], standing: &[Standing<'_>]) {
    for denial in standing {
        let rule = denial.rule;
        decision.would = decision.would.max(rule.action);
        let verb = if denial.enforced { "is still in force" } else { "would still be in force" };
        decision.reasons.push(Reason {
            contribution: rule.score,
            text: format!("an earlier match of {} ({}) {verb}", rule.id, rule.name),
            origin: format!("denial {}", rule.id),
            ..Reason::default()
        });
        if denial.enforced && rule.action > decision.action {
            decision.action = rule.action;
            decision.mitigation = aimed(&rule.mitigation, Some(denial.entity), Some(denial.until));
        }
    }
    let denied = decision.action.is_enforcing();
    for found in found {
        let rule = found.rule;
        decision.would = decision.would.max(rule.action);
        let mut reason = found.reason.clone();
        if !found.enforced && rule.action.is_enforcing() {
            reason.text = format!("would {}: {}", rule.action.name(), reason.text);
        }
        decision.reasons.push(reason);
        // A standing denial is not softened or replaced by a rule.
        if found.enforced && !denied && rule.action > decision.action {
            decision.action = rule.action;
            let mut mitigation = aimed(&rule.mitigation, found.entity.filter(|_| rule.limit.is_some() || rule.denial.is_some()), None);
            mitigation.retry_after_ms = found.retry_after_ms;
            decision.mitigation = mitigation;
        }
    }
}
