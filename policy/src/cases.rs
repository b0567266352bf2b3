//! Cases of rules: raw transactions, written compactly, run through door, store, features and policy.
//!
//! A case says which rule it is about and whether it must fire at any step. Nothing is set by hand: what a rule sees is what the
//! kernel counted from the transactions before; only what a model says is given. Store and time are the runner's own; nothing else is
//! touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::Spanned;
use telltale_features::domain::{Header, HttpRequest, HttpResponse, Outcome, Source, Transaction};
use telltale_features::door::Door;
use telltale_features::hash::Keyring;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore};
use telltale_features::store::{Moment, Order, Sequence};
use telltale_features::time::Timestamp;
use telltale_features::yaml::{Problem, Problems, Text, line, parse};
use telltale_models::{Calibrated, ModelScore, Role, Scores};

use crate::overrides::Overrides;
use crate::policy::{Policy, Situation};
use crate::source::duration;

/// The cases that are built in: file name and text.
pub const CASES: &[(&str, &str)] = &[
    ("accounts.yaml", include_str!("../packs/cases/accounts.yaml")),
    ("clients.yaml", include_str!("../packs/cases/clients.yaml")),
    ("money.yaml", include_str!("../packs/cases/money.yaml")),
    ("objects.yaml", include_str!("../packs/cases/objects.yaml")),
    ("load.yaml", include_str!("../packs/cases/load.yaml")),
    ("payloads.yaml", include_str!("../packs/cases/payloads.yaml")),
];

/// Cases begin at this instant: 2026-03-02 10:00 UTC, a Monday.
const START: i64 = 1_772_445_600_000_000;
/// Most transactions of one step.
const REPEAT: u32 = 20_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    cases: Vec<RawCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    rule: Text,
    name: String,
    fires: bool,
    steps: Vec<RawStep>,
}

/// Some like transactions. In every text `{n}` is the number of the transaction in its step, from 0; `{n%7}` and `{n/7}` its
/// remainder and quotient.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    #[serde(default = "once")]
    repeat: u32,
    #[serde(default)]
    every: Option<Text>,
    /// Time that passes before the first.
    #[serde(default)]
    after: Option<Text>,
    /// `METHOD /path?query`.
    request: String,
    #[serde(default = "client")]
    ip: String,
    #[serde(default = "browser")]
    agent: String,
    /// More header lines; one that every step has is replaced, and left out when the value is empty.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    session: String,
    #[serde(default)]
    device: String,
    #[serde(default)]
    body: String,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    bytes: u64,
    /// What a model says: a calibrated probability. Absent: there is no model.
    #[serde(default)]
    model: Option<Spanned<f64>>,
}

const fn once() -> u32 {
    1
}

const fn ok() -> u16 {
    200
}

fn client() -> String {
    "198.51.100.7".to_owned()
}

fn browser() -> String {
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".to_owned()
}

/// What a case gave.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseResult {
    /// The rule.
    pub rule: String,
    /// The case in words.
    pub name: String,
    /// Whether the rule had to fire.
    pub expected: bool,
    /// At which transaction of the case it fired first, from 1.
    pub fired: Option<usize>,
    /// Transactions run.
    pub transactions: usize,
    /// The reason it gave at that transaction.
    pub reason: String,
}

impl CaseResult {
    /// Whether the rule did what the case says.
    pub const fn holds(&self) -> bool {
        self.expected == self.fired.is_some()
    }
}

/// Runs the cases of several files, each given with its name, against a policy.
///
/// # Errors
/// What is wrong with a file; a case of an unknown rule.
pub fn run_cases(policy: &Policy, schema: &Arc<Schema>, files: &[(String, String)]) -> Result<Vec<CaseResult>, Problems> {
    let mut problems = Vec::new();
    let mut results = Vec::new();
    for (file, text) in files {
        let raw: RawFile = match parse(file, text) {
            Ok(raw) => raw,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for case in &raw.cases {
            let wrong = |line: u32, message: String| Problem { file: file.clone(), line, message };
            if !policy.rules().any(|rule| rule.id == case.rule.value) {
                problems.push(wrong(line(&case.rule), format!("a case of rule `{}`, which the policy does not have", case.rule.value)));
                continue;
            }
            match Run::new(policy, schema).case(case) {
                Ok(result) => results.push(result),
                Err(message) => problems.push(wrong(line(&case.rule), format!("case `{}`: {message}", case.name))),
            }
        }
    }
    if problems.is_empty() { Ok(results) } else { Err(Problems { problems }) }
}

/// One case's world.
struct Run<'a> {
    policy: &'a Policy,
    schema: &'a Arc<Schema>,
    door: Door,
    store: EmbeddedStore,
    now: Timestamp,
    sequence: u64,
}

impl<'a> Run<'a> {
    fn new(policy: &'a Policy, schema: &'a Arc<Schema>) -> Self {
        let door = Door::new(Arc::clone(schema), Keyring::new(1, [7; 32]).hasher());
        let store = EmbeddedStore::new(schema.plans(), EmbeddedOptions::default());
        Self { policy, schema, door, store, now: Timestamp::from_micros(START), sequence: 0 }
    }

    fn case(mut self, case: &RawCase) -> Result<CaseResult, String> {
        let mut result = CaseResult {
            rule: case.rule.value.clone(),
            name: case.name.clone(),
            expected: case.fires,
            fired: None,
            transactions: 0,
            reason: String::new(),
        };
        for step in &case.steps {
            if step.repeat == 0 || step.repeat > REPEAT {
                return Err(format!("`repeat: {}`: 1 to {REPEAT} are allowed", step.repeat));
            }
            if let Some(wrong) = step.model.as_ref().filter(|model| !(0.0..=1.0).contains(&model.value)) {
                return Err(format!("`model: {}`: a probability from 0 to 1 is allowed", wrong.value));
            }
            let every = step.every.as_ref().map(|text| duration(&text.value)).transpose()?.unwrap_or_default();
            if let Some(after) = &step.after {
                self.now = self.now.plus(duration(&after.value)?);
            }
            for n in 0..step.repeat {
                self.now = self.now.plus(every);
                result.transactions += 1;
                let reason = self.transaction(step, n, &case.rule.value)?;
                if let (None, Some(reason)) = (result.fired, reason) {
                    result.fired = Some(result.transactions);
                    result.reason = reason;
                }
            }
        }
        Ok(result)
    }

    fn moment(&mut self) -> Moment {
        self.sequence += 1;
        Moment { sequence: Sequence(self.sequence), now: self.now }
    }

    /// One transaction and its outcome. Returns the rule's reason when it matched.
    fn transaction(&mut self, step: &RawStep, n: u32, rule: &str) -> Result<Option<String>, String> {
        let tx = step.transaction(n, self.sequence, self.now)?;
        let admitted = self.door.admit(tx).map_err(|error| error.to_string())?;
        let moment = self.moment();
        let history = self.store.observe_now(self.schema.events(&admitted), Order::Recorded(moment));
        let vector = self.schema.extract(&admitted, &history);
        let (scores, overrides) = (step.scores(), Overrides::default());
        let order = Order::Recorded(self.moment());
        let fields = self.schema.fields(&admitted);
        let combined = self.policy.combine(&scores, self.policy.ensemble(&fields));
        let decision = self.store.decide_now(&admitted.subjects, order, |state, moment| {
            let situation = Situation {
                schema: self.schema,
                admitted: &admitted,
                fields: &fields,
                vector: &vector,
                scores: &scores,
                combined: &combined,
                attributions: &[],
                overrides: &overrides,
                moment,
            };
            self.policy.decide(&situation, state)
        });
        let context = self.schema.context(&admitted, history.event_time);
        let outcome = Outcome {
            transaction_id: context.transaction_id.clone(),
            time: self.now,
            response: Some(HttpResponse { status: step.status, body_size: step.bytes, duration_us: 20_000, headers: Vec::new() }),
            ..Outcome::default()
        };
        let outcome = self.door.admit_outcome(outcome, &context).map_err(|error| error.to_string())?;
        let moment = self.moment();
        self.store.apply_now(self.schema.outcome_events(&context, &outcome), Order::Recorded(moment));
        if !decision.rules.iter().any(|matched| &*matched.id == rule) {
            return Ok(None);
        }
        let origin = format!("rule {rule}");
        Ok(Some(decision.reasons.into_iter().find(|reason| reason.origin == origin).map_or_else(String::new, |reason| reason.text)))
    }
}

impl RawStep {
    fn scores(&self) -> Scores {
        let part = |probability: f64| ModelScore {
            model: "case".into(),
            version: 1,
            raw: probability,
            calibrated: Calibrated::Probability(probability),
            role: Role::Champion,
        };
        Scores { parts: self.model.iter().map(|model| part(model.value)).collect(), ..Scores::default() }
    }

    fn transaction(&self, n: u32, sequence: u64, time: Timestamp) -> Result<Transaction, String> {
        let request = vary(&self.request, n);
        let (method, target) = request.split_once(' ').ok_or("`request` is `METHOD /path?query`")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = vary(&self.body, n).into_bytes();
        let mut headers = vec![Header { name: "host".to_owned(), value: "shop.example".to_owned() }];
        let mut push = |name: &str, value: String| {
            let value = self.headers.get(name).map_or(value, |own| vary(own, n));
            if !value.is_empty() && headers.iter().all(|header| header.name != name) {
                headers.push(Header { name: name.to_owned(), value });
            }
        };
        push("user-agent", vary(&self.agent, n));
        push("accept", "*/*".to_owned());
        push("accept-language", if self.agent.starts_with("Mozilla") { "en".to_owned() } else { String::new() });
        push("accept-encoding", "gzip".to_owned());
        push("content-type", if body.is_empty() { String::new() } else { "application/json".to_owned() });
        let cookie = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name}={}", vary(value, n)));
        let cookies: Vec<_> = cookie("sid", &self.session).into_iter().chain(cookie("did", &self.device)).collect();
        push("cookie", cookies.join("; "));
        for name in self.headers.keys() {
            push(name, String::new());
        }
        let body_size = body.len() as u64;
        let http = HttpRequest {
            method: method.to_owned(),
            scheme: "https".to_owned(),
            host: "shop.example".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body,
            body_size,
            version: "1.1".to_owned(),
            ..HttpRequest::default()
        };
        Ok(Transaction {
            id: format!("{sequence:032x}"),
            time,
            source: Source { ip: vary(&self.ip, n), port: 40_000, ..Source::default() },
            http: Some(http),
            service: "shop".to_owned(),
            ..Transaction::default()
        })
    }
}

/// Replaces `{n}`, `{n%7}` and `{n/7}`.
fn vary(text: &str, n: u32) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{n") {
        out.push_str(before);
        let Some((inside, left)) = after.split_once('}') else {
            out.push_str("{n");
            rest = after;
            continue;
        };
        let by = |digits: &str| digits.parse::<u32>().ok().filter(|by| *by > 0);
        let value = match inside.split_at_checked(1) {
            None => Some(n),
            Some(("%", by_text)) => by(by_text).map(|by| n % by),
            Some(("/", by_text)) => by(by_text).map(|by| n / by),
            Some(_) => None,
        };
        match value {
            Some(value) => out.push_str(&value.to_string()),
            None => {
                out.push_str("{n");
                out.push_str(inside);
                out.push('}');
            }
        }
        rest = left;
    }
    out.push_str(rest);
    out
}
