//! From YAML to a policy: every name, type, pattern and parameter checked, everything that is wrong reported at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use telltale_features::entity::EntityType;
use telltale_features::expr::{NameKind, Predicate, Scope};
use telltale_features::hash::definition;
use telltale_features::schema::Schema;
use telltale_features::time::micros;
use telltale_features::yaml::{Problem, Text, line};

use crate::decision::{Action, Mitigation};
use crate::ensemble::{MOST, Member};
use crate::levels::Levels;
use crate::reasons::Template;
use crate::risk::Risk;
use crate::rule::{Denial, Limit, Rule};
use crate::source::{RawLevels, RawRisk, RawRule, duration};

/// Longest delay of an answer.
const DELAY_MS: u128 = 10_000;

/// Checks one file.
pub(crate) struct Checker<'a> {
    pub file: &'a str,
    pub schema: &'a Schema,
    pub scope: &'a Scope,
    pub levels: &'a Levels,
    pub problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, line: u32, message: String) {
        self.problems.push(Problem { file: self.file.to_owned(), line, message });
    }

    /// A rule and its condition, unless something about it is wrong.
    pub fn rule(&mut self, raw: &RawRule, known: &mut HashMap<String, (String, u32)>) -> Option<(Rule, Predicate)> {
        let before = self.problems.len();
        self.identifier(raw, known);
        let when = match Predicate::compile(&raw.when.value, self.scope) {
            Ok(when) => Some(when),
            Err(error) => {
                self.problem(line(&raw.when), format!("rule `{}`, `when`: {error}", raw.id.value));
                None
            }
        };
        let reason = match Template::parse(&raw.reason.value, self.scope) {
            Ok(reason) => Some(reason),
            Err(message) => {
                self.problem(line(&raw.reason), format!("rule `{}`: {message}", raw.id.value));
                None
            }
        };
        let score = self.points(raw.score.as_ref(), "score", 0.0);
        // What is only logged is no proof of hostility.
        let default = if raw.action.value.is_enforcing() { score / 2.0 } else { 0.0 };
        let evidence = self.points(raw.evidence.as_ref(), "evidence", default);
        let entity = raw.entity.as_ref().and_then(|name| self.entity(name));
        let limit = self.limit(raw, entity);
        let denial = self.denial(raw, entity);
        let mitigation = self.mitigation(raw, limit.as_ref());
        self.operations_and_methods(raw);
        let (when, reason) = (when?, reason?);
        self.propagation(raw, &when);
        let rule = Rule {
            id: raw.id.value.as_str().into(),
            name: raw.name.as_str().into(),
            tags: raw.tags.clone().into(),
            reads: when.reads().into(),
            score,
            action: raw.action.value,
            mode: raw.mode,
            operations: raw.operations.iter().map(|operation| operation.value.clone()).collect(),
            routes: raw.routes.iter().map(|route| route.value.clone()).collect(),
            methods: raw.methods.iter().map(|method| method.value.clone()).collect(),
            entity,
            limit,
            denial,
            evidence,
            mitigation,
            reason,
        };
        (self.problems.len() == before).then_some((rule, when))
    }

    fn identifier(&mut self, raw: &RawRule, known: &mut HashMap<String, (String, u32)>) {
        let id = &raw.id.value;
        let allowed = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !allowed {
            self.problem(line(&raw.id), format!("rule id `{id}`: 1 to 64 letters, digits, `-`, `_` and `.` are allowed"));
        }
        match known.get(id) {
            Some((file, at)) => {
                let message = format!("rule id `{id}` stands twice: first in {file}:{at}");
                self.problem(line(&raw.id), message);
            }
            None => {
                known.insert(id.clone(), (self.file.to_owned(), line(&raw.id)));
            }
        }
    }

    /// Points of 0 to 100.
    fn points(&mut self, raw: Option<&serde_saphyr::Spanned<f64>>, key: &str, default: f64) -> f64 {
        let Some(raw) = raw else { return default };
        if !(0.0..=100.0).contains(&raw.value) {
            self.problem(line(raw), format!("`{key}: {}`: 0 to 100 are allowed", raw.value));
        }
        raw.value
    }

    fn entity(&mut self, name: &Text) -> Option<EntityType> {
        let found = self.schema.entity_type(&name.value);
        if found.is_none() {
            let known: Vec<_> = self.schema.entity_types().iter().map(|spec| format!("`{}`", spec.name)).collect();
            self.problem(line(name), format!("unknown entity `{}`; allowed: {}", name.value, known.join(", ")));
        }
        found
    }

    fn duration(&mut self, text: &Text) -> Option<Duration> {
        duration(&text.value).map_err(|message| self.problem(line(text), message)).ok()
    }

    fn limit(&mut self, raw: &RawRule, entity: Option<EntityType>) -> Option<Limit> {
        let at = line(&raw.action);
        if raw.action.value != Action::RateLimit {
            if let Some(rate) = &raw.rate {
                self.problem(line(rate), "`rate` belongs to `action: rate-limit`".to_owned());
            }
            return None;
        }
        let (Some(rate), Some(period), Some(name)) = (&raw.rate, &raw.period, &raw.entity) else {
            self.problem(at, format!("rule `{}`: `action: rate-limit` needs `rate`, `period` and `entity`", raw.id.value));
            return None;
        };
        let period = self.duration(period)?;
        if rate.value == 0 || rate.value > 1_000_000 {
            self.problem(line(rate), format!("`rate: {}`: 1 to 1000000 are allowed", rate.value));
            return None;
        }
        let burst = raw.burst.as_ref().map_or(rate.value, |burst| burst.value).max(1);
        entity?;
        let tag = definition(&format!("policy bucket {} {}", raw.id.value, name.value));
        Some(Limit { tag, interval_us: (micros(period) / i64::from(rate.value)).max(1), burst })
    }

    fn denial(&mut self, raw: &RawRule, entity: Option<EntityType>) -> Option<Denial> {
        let given = raw.duration.as_ref()?;
        let duration = self.duration(given)?;
        let Some(name) = raw.entity.as_ref() else {
            self.problem(line(given), format!("rule `{}`: `duration` needs an `entity` whom it denies", raw.id.value));
            return None;
        };
        if raw.action.value <= Action::RateLimit {
            self.problem(line(given), "`duration` belongs to challenge, deceive or block".to_owned());
        }
        // A victim must not be locked out by what others do in their name.
        if !self.levels.is_hostile_type(entity?) {
            let hostile = self.levels.hostile.iter().filter_map(|(kind, _)| self.schema.entity_types().get(kind.index()));
            let hostile: Vec<_> = hostile.map(|spec| format!("`{}`", spec.name)).collect();
            let message = format!(
                "rule `{}` would deny a `{}`, who may be the victim; allowed are the types on the client's side: {}",
                raw.id.value,
                name.value,
                hostile.join(", ")
            );
            self.problem(line(name), message);
        }
        let tag = |mode: &str| definition(&format!("policy denial {} {} {mode}", raw.id.value, name.value));
        Some(Denial { duration, enforced: tag("enforced"), monitored: tag("monitored") })
    }

    fn mitigation(&mut self, raw: &RawRule, limit: Option<&Limit>) -> Mitigation {
        let mut made = Mitigation::default();
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        if let (Some(rate), Some(period)) = (&raw.rate, &raw.period) {
            made.rate = rate.value;
            made.period_ms = duration(&period.value).map_or(0, millis);
            made.burst = limit.map_or(0, |limit| limit.burst);
        }
        if let Some(delay) = &raw.delay
            && let Some(given) = self.duration(delay)
        {
            if given.as_millis() > DELAY_MS {
                self.problem(line(delay), format!("`delay: {}`: at most 10s are allowed", delay.value));
            }
            made.delay_ms = millis(given);
        }
        if let Some(retry) = &raw.retry_after {
            made.retry_after_ms = self.duration(retry).map_or(0, millis);
        }
        if let Some(status) = &raw.status {
            if raw.action.value != Action::Block || !(400..=599).contains(&status.value) {
                self.problem(line(status), format!("`status: {}`: 400 to 599 are allowed, for `action: block`", status.value));
            }
            made.status = status.value;
        }
        match (&raw.template, raw.action.value) {
            (Some(template), Action::Deceive) => made.template = template.value.as_str().into(),
            (Some(template), _) => self.problem(line(template), "`template` belongs to `action: deceive`".to_owned()),
            (None, Action::Deceive) => {
                self.problem(line(&raw.action), format!("rule `{}`: `action: deceive` needs a `template`", raw.id.value));
            }
            (None, _) => {}
        }
        if raw.action.value == Action::Block && made.status == 0 {
            made.status = 403;
        }
        made
    }

    fn operations_and_methods(&mut self, raw: &RawRule) {
        const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
        for method in raw.methods.iter().filter(|method| !METHODS.contains(&method.value.as_str())) {
            self.problem(line(method), format!("unknown method `{}`; allowed: {}", method.value, METHODS.join(", ")));
        }
        for route in raw.routes.iter().filter(|route| !route.value.starts_with('/')) {
            self.problem(line(route), format!("route `{}` must begin with `/`", route.value));
        }
    }

    /// What was only propagated may not do more than ask for a proof.
    fn propagation(&mut self, raw: &RawRule, when: &Predicate) {
        if raw.action.value > Action::Challenge && when.reads().iter().any(|read| &*read.name == "threat.propagated") {
            let message = format!(
                "rule `{}` acts on `threat.propagated`: at most `challenge` is allowed, found `{}`",
                raw.id.value,
                raw.action.value.name()
            );
            self.problem(line(&raw.action), message);
        }
    }
}

/// The risk section.
pub(crate) fn risk(raw: &RawRisk, file: &str, problems: &mut Vec<Problem>) -> Risk {
    let mut wrong = |line: u32, message: String| problems.push(Problem { file: file.to_owned(), line, message });
    if !(0.0..=100.0).contains(&raw.alert.value) {
        wrong(line(&raw.alert), format!("`alert: {}`: 0 to 100 are allowed", raw.alert.value));
    }
    for (key, table) in [("probability", &raw.probability), ("p_value", &raw.p_value)] {
        let in_range = |(x, y): &(f64, f64)| (0.0..=1.0).contains(x) && (0.0..=100.0).contains(y);
        let rising = table.value.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
        if table.value.is_empty() || !rising || !table.value.iter().all(in_range) {
            wrong(line(table), format!("`{key}`: pairs of a value from 0 to 1, rising, and its points from 0 to 100"));
        }
    }
    for (model, weight) in raw.weights.iter().filter(|(_, weight)| !(0.0..=1.0).contains(&weight.value)) {
        wrong(line(weight), format!("weight of `{model}`: 0 to 1 are allowed, found {}", weight.value));
    }
    Risk {
        alert: raw.alert.value,
        probability: raw.probability.value.clone(),
        p_value: raw.p_value.value.clone(),
        weights: raw.weights.iter().map(|(model, weight)| (model.clone(), weight.value)).collect(),
        combination: raw.combine,
    }
}

/// The models of the risk section that count only where a condition holds: a model whose condition cannot be evaluated is mute. Which
/// models there are is not known here.
pub(crate) fn members(raw: &RawRisk, file: &str, schema: &Schema, problems: &mut Vec<Problem>) -> Vec<Member> {
    let scope = schema.event_scope();
    let mut members = Vec::new();
    for (model, entry) in &raw.models {
        let mut wrong = |message: String| problems.push(Problem { file: file.to_owned(), line: line(&entry.when), message });
        match Predicate::compile(&entry.when.value, scope) {
            Ok(_) if members.len() == MOST => wrong(format!("model `{model}`: {MOST} models with `when` are allowed")),
            Ok(when) => members.push(Member { model: model.clone(), when }),
            Err(error) => wrong(format!("model `{model}`, `when`, which may name fields of the transaction and no features: {error}")),
        }
    }
    members
}

/// The levels section.
pub(crate) fn levels(raw: &RawLevels, file: &str, schema: &Schema, scope: &Scope, problems: &mut Vec<Problem>) -> Levels {
    let mut wrong = |line: u32, message: String| problems.push(Problem { file: file.to_owned(), line, message });
    let mut hostile = Vec::new();
    for name in &raw.hostile {
        match schema.entity_type(&name.value) {
            Some(_) if ["user", "card", "endpoint", "service"].contains(&name.value.as_str()) => {
                wrong(line(name), format!("`{}` is not on the client's side: it may be the victim", name.value));
            }
            Some(kind) => {
                let degree = raw.degree.get(&name.value);
                let place = degree.and_then(|feature| match scope.resolve(&feature.value) {
                    Some((NameKind::Number, place)) => Some(place),
                    _ => {
                        let closest = scope.closest(&feature.value, 3).join("`, `");
                        wrong(line(feature), format!("unknown feature `{}`; closest allowed: `{closest}`", feature.value));
                        None
                    }
                });
                hostile.push((kind, place));
            }
            // A type that this installation does not have cannot be hostile either.
            None => {}
        }
    }
    let half_life = duration(&raw.half_life.value).unwrap_or_else(|message| {
        wrong(line(&raw.half_life), message);
        Duration::from_secs(3600)
    });
    for (key, value, most) in [("propagate", &raw.propagate, 1.0), ("propagate_cap", &raw.propagate_cap, 100.0)] {
        if !(0.0..=most).contains(&value.value) {
            wrong(line(value), format!("`{key}: {}`: 0 to {most} are allowed", value.value));
        }
    }
    Levels {
        hostile,
        user: schema.entity_type("user"),
        half_life_us: micros(half_life),
        propagate: raw.propagate.value,
        propagate_cap: raw.propagate_cap.value,
    }
}

impl Levels {
    /// Levels where no file says anything.
    pub(crate) fn standard(schema: &Schema) -> Self {
        let kinds = ["address", "session", "fingerprint", "credential", "device"];
        Self {
            hostile: kinds.iter().filter_map(|name| schema.entity_type(name)).map(|kind| (kind, None)).collect(),
            user: schema.entity_type("user"),
            half_life_us: 3_600_000_000,
            propagate: 0.5,
            propagate_cap: 40.0,
        }
    }
}

/// A pack's mitigation with its entity and end.
pub(crate) fn aimed(
    mitigation: &Mitigation,
    entity: Option<telltale_features::entity::EntityId>,
    until: Option<telltale_features::time::Timestamp>,
) -> Mitigation {
    Mitigation { entity, until, template: Arc::clone(&mitigation.template), ..mitigation.clone() }
}
