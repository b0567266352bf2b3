//! The policy as a whole: precedence, modes, levels, limits, and packs that must be refused.

mod counterfactual;
mod ensemble;

use std::sync::Arc;

use proptest::prelude::*;
use telltale_features::domain::{HttpRequest, Transaction};
use telltale_features::door::Admitted;
use telltale_features::entity::{EntityId, EntityKey, Subject, Subjects};
use telltale_features::kernel::slots::PolicyState;
use telltale_features::schema::Schema;
use telltale_features::store::{Moment, Sequence};
use telltale_features::time::Timestamp;
use telltale_features::vector::FeatureVector;

use super::*;

const START: i64 = 1_772_445_600_000_000;
const SECOND: i64 = 1_000_000;

/// A policy, a transaction and the policy state of its subjects.
struct World {
    schema: Schema,
    policy: Policy,
    admitted: Admitted,
    features: Vec<f64>,
    scores: Scores,
    overrides: Overrides,
    state: PolicyState,
    now: i64,
}

fn id(schema: &Schema, kind: &str) -> EntityId {
    EntityId { kind: schema.entity_type(kind).unwrap(), key: EntityKey([u8::try_from(kind.len()).unwrap(); 16]) }
}

impl World {
    fn new(rules: &str) -> Self {
        let schema = Schema::shipped();
        let pack = format!("version: 1\nmode: enforce\nrules:\n{rules}");
        let policy = Policy::from_sources(&[("test.yaml".to_owned(), pack)], &schema).unwrap_or_else(|errors| panic!("{errors}"));
        let subjects = ["address", "session", "user", "fingerprint", "device"].map(|kind| Subject {
            id: id(&schema, kind),
            verified: false,
            name: None,
        });
        let http = HttpRequest { method: "POST".to_owned(), path: "/api/login".to_owned(), ..HttpRequest::default() };
        let tx = Transaction { id: "t".to_owned(), http: Some(http), ..Transaction::default() };
        let admitted = Admitted { tx, subjects: Subjects::new(subjects), route: "/api/login".to_owned(), ..Admitted::default() };
        let features = vec![f64::NAN; schema.features().len()];
        let (scores, overrides, state) = (Scores::default(), Overrides::default(), PolicyState::default());
        Self { schema, policy, admitted, features, scores, overrides, state, now: START }
    }

    fn set(&mut self, feature: &str, value: f64) {
        let at = self.schema.feature(feature).unwrap().index();
        self.features[at] = value;
    }

    fn decide(&mut self) -> Decision {
        let vector = FeatureVector { values: Arc::from(self.features.as_slice()) };
        let fields = self.schema.fields(&self.admitted);
        let combined = self.policy.combine(&self.scores, self.policy.ensemble(&fields));
        let situation = Situation {
            schema: &self.schema,
            admitted: &self.admitted,
            fields: &fields,
            vector: &vector,
            scores: &self.scores,
            combined: &combined,
            attributions: &[],
            overrides: &self.overrides,
            moment: Moment { sequence: Sequence(1), now: Timestamp::from_micros(self.now) },
        };
        self.policy.decide(&situation, &mut self.state)
    }

    fn rule_on(&mut self, kind: &str, ruling: Ruling, until: Option<i64>) {
        self.overrides = self.overrides.with(Override {
            entity: id(&self.schema, kind),
            ruling,
            until: until.map(Timestamp::from_micros),
            reason: "checked by hand".into(),
            author: "ana".into(),
            created: Timestamp::from_micros(START),
        });
    }
}

fn rule(name: &str, action: &str, rest: &str) -> String {
    format!("  - {{id: {name}, name: n, when: 'address.requests_1m > 5', score: 10, action: {action}, reason: r{rest}}}\n")
}

#[test]
fn shipped_pack_compiles() {
    let schema = Schema::shipped();
    let policy = Policy::shipped(&schema).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(policy.rules().count() >= 25, "{}", policy.rules().count());
    assert!(policy.rules().all(|rule| rule.mode == Mode::Monitor), "a first run only watches");
    let digest = policy.digest().to_owned();
    assert_ne!(policy.with_mode(Mode::Enforce).digest(), digest);
}

#[test]
fn the_strongest_enforced_action_wins() {
    let order = ["allow", "log", "rate-limit", "challenge", "deceive", "block"];
    let made = |action: &str| match action {
        "rate-limit" => rule("A", action, ", entity: address, rate: 1, period: 10s, burst: 1"),
        "deceive" => rule("A", action, ", template: empty-list"),
        action => rule("A", action, ""),
    };
    for (i, weak) in order.iter().enumerate() {
        for strong in &order[i..] {
            let second = made(strong).replace("id: A", "id: B");
            let mut world = World::new(&format!("{}{second}", made(weak)));
            world.set("address.requests_1m", 6.0);
            world.decide();
            let decision = world.decide();
            assert_eq!((decision.action.name(), decision.would.name()), (*strong, *strong), "{weak} and {strong}");
        }
    }
}

#[test]
fn monitor_says_what_it_would_do() {
    let mut world = World::new(&format!("{}{}", rule("A", "block", ", mode: monitor"), rule("B", "log", "")));
    world.set("address.requests_1m", 6.0);
    let decision = world.decide();
    assert_eq!((decision.action, decision.would), (Action::Log, Action::Block));
    assert!(decision.reasons.iter().any(|reason| reason.text.starts_with("would block: r")), "{:?}", decision.reasons);
    assert_eq!(decision.rules.iter().map(|found| (&*found.id, found.enforced)).collect::<Vec<_>>(), [("B", true), ("A", false)]);
    assert_eq!(decision.risk, 20.0);
    let reason = decision.reasons.iter().find(|reason| reason.origin == "rule A").unwrap();
    assert_eq!((reason.value, reason.usual), (Some(6.0), Some(5.0)));
}

#[test]
fn the_routes_that_a_policy_names_are_listed() {
    let when = "http.route in [\"/a\", \"/b\"] && http.method != \"GET\"";
    let rule = format!("  - {{id: A, name: n, when: '{when}', score: 10, action: log, routes: [/c], reason: r}}\n");
    let pack = format!("routes:\n  - {{route: /api/login, mode: enforce}}\nrules:\n{rule}");
    let policy = Policy::from_sources(&[("p.yaml".to_owned(), pack)], &Schema::shipped()).unwrap();
    assert_eq!(policy.named_routes().collect::<Vec<_>>(), ["/a", "/b", "/c", "/api/login"]);
}

#[test]
fn a_route_has_a_mode_of_its_own() {
    let schema = Schema::shipped();
    let pack = format!("mode: monitor\nroutes:\n  - {{route: /api/login, mode: enforce}}\nrules:\n{}", rule("A", "block", ""));
    let mut world = World::new(&rule("A", "block", ""));
    world.policy = Policy::from_sources(&[("p.yaml".to_owned(), pack)], &schema).unwrap();
    world.set("address.requests_1m", 6.0);
    assert_eq!(world.decide().action, Action::Block);
    world.admitted.route = "/api/cart".to_owned();
    assert_eq!((world.decide().action, world.decide().would), (Action::Allow, Action::Block));
    world.policy = world.policy.with_mode(Mode::Enforce);
    assert_eq!(world.decide().action, Action::Block);
}

#[test]
fn people_outrank_denials_and_denials_outrank_rules() {
    let rules = rule("A", "challenge", ", entity: address, duration: 10m");
    let mut world = World::new(&rules);
    world.set("address.requests_1m", 6.0);
    let first = world.decide();
    assert_eq!((first.action, first.denials.len()), (Action::Challenge, 1));
    assert_eq!(first.denials[0].until, Timestamp::from_micros(START + 600 * SECOND));
    world.set("address.requests_1m", 0.0);
    world.now += 60 * SECOND;
    let held = world.decide();
    assert_eq!((held.action, held.denials.len()), (Action::Challenge, 0), "a denial goes on without a match");
    assert!(held.reasons.iter().any(|reason| reason.origin.starts_with("denial ")));
    world.rule_on("user", Ruling::Allow, Some(world.now + SECOND));
    assert_eq!(world.decide().action, Action::Allow);
    world.rule_on("session", Ruling::Deny, None);
    assert_eq!(world.decide().action, Action::Block, "a denial by a person beats an exemption");
    world.overrides = Overrides::default();
    world.now = START + 601 * SECOND;
    assert_eq!(world.decide().action, Action::Allow, "a denial ends");
}

#[test]
fn an_override_ends() {
    let mut world = World::new(&rule("A", "log", ""));
    world.rule_on("address", Ruling::Deny, Some(START + SECOND));
    assert_eq!(world.decide().action, Action::Block);
    world.now += SECOND;
    assert_eq!(world.decide().action, Action::Allow);
    assert!(world.overrides.current(Timestamp::from_micros(world.now)).is_empty());
}

#[test]
fn a_victim_is_targeted_and_never_hostile() {
    let mut world = World::new(&rule("A", "block", ", entity: address, evidence: 40"));
    world.set("address.requests_1m", 6.0);
    for _ in 0..20 {
        world.decide();
    }
    let decision = world.decide();
    let user = decision.threats.iter().find(|threat| threat.entity.kind == world.schema.entity_type("user").unwrap()).unwrap();
    assert_eq!(user.level, 0.0);
    assert!(user.targeted > 50.0 && user.targeted <= 100.0);
    let address = decision.threats.iter().find(|threat| threat.entity.kind == world.schema.entity_type("address").unwrap()).unwrap();
    assert_eq!(address.level, 100.0);
    let pack = "rules:\n  - {id: A, name: n, when: 'true', action: block, entity: user, duration: 1h, reason: r}\n";
    let error = Policy::from_sources(&[("p.yaml".to_owned(), pack.to_owned())], &world.schema).err().unwrap();
    assert!(error.to_string().contains("may be the victim"), "{error}");
}

#[test]
fn evidence_decays_by_half() {
    let mut world = World::new(&rule("A", "log", ", entity: address, evidence: 80"));
    world.set("address.requests_1m", 6.0);
    world.decide();
    world.set("address.requests_1m", 0.0);
    let level = |decision: &Decision, kind| decision.threats.iter().find(|threat| threat.entity.kind == kind).map_or(0.0, |t| t.level);
    let address = world.schema.entity_type("address").unwrap();
    world.now += 3_600 * SECOND;
    assert!((level(&world.decide(), address) - 40.0).abs() < 0.01);
}

#[test]
fn a_shared_address_does_not_condemn_its_neighbours() {
    let pack = include_str!("../packs/default.yaml");
    let rules = rule("T1", "log", ", entity: address, evidence: 80");
    let header = pack.split("rules:\n").next().unwrap();
    let mut world = World::new("  []");
    let files = [("p.yaml".to_owned(), format!("{header}rules:\n{rules}"))];
    world.policy = Policy::from_sources(&files, &world.schema).unwrap_or_else(|errors| panic!("{errors}"));
    world.set("address.requests_1m", 6.0);
    world.set("address.sessions_1h", 40.0);
    let decision = world.decide();
    let address = world.schema.entity_type("address").unwrap();
    let level = decision.threats.iter().find(|threat| threat.entity.kind == address).map_or(0.0, |threat| threat.level);
    assert!(level < 25.0, "40 people share it: {level}");
    let pack = "rules:\n  - {id: A, name: n, when: 'threat.propagated > 10', action: block, reason: r}\n";
    let error = Policy::from_sources(&[("p.yaml".to_owned(), pack.to_owned())], &world.schema).err().unwrap();
    assert!(error.to_string().contains("at most `challenge`"), "{error}");
}

#[test]
fn rates_are_exact() {
    let mut world = World::new(&rule("A", "rate-limit", ", entity: address, rate: 6, period: 60s, burst: 3"));
    world.set("address.requests_1m", 6.0);
    let actions: Vec<_> = (0..4).map(|_| world.decide().action).collect();
    assert_eq!(actions, [Action::Allow, Action::Allow, Action::Allow, Action::RateLimit], "three at once, not four");
    let refused = world.decide();
    assert!((9_999..=10_001).contains(&refused.mitigation.retry_after_ms), "{:?}", refused.mitigation);
    assert_eq!((refused.mitigation.rate, refused.mitigation.period_ms, refused.mitigation.burst), (6, 60_000, 3));
    let mut passed = 0;
    for _ in 0..600 {
        world.now += SECOND;
        passed += usize::from(world.decide().action == Action::Allow);
    }
    assert_eq!(passed, 60, "6 a minute for 10 minutes");
}

#[test]
fn bad_packs_say_what_where_and_what_is_allowed() {
    let schema = Schema::shipped();
    let good = "  - {id: A, name: n, when: 'true', action: log, reason: r}";
    let cases = [
        ("rules:\n  - {id: A, name: n, when: 'address.request_1m > 1', action: log, reason: r}", 2, "address.requests_1m"),
        ("rules:\n  - {id: A, name: n, when: 'http.path > 1', action: log, reason: r}", 2, "cannot compare string with int"),
        ("rules:\n  - {id: A, name: n, when: 'http.path.matches(\"(\")', action: log, reason: r}", 2, "not a regular expression"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: log, reason: r, scores: 3}", 2, "unknown field `scores`"),
        (&format!("rules:\n{good}\n{good}"), 3, "stands twice: first in bad.yaml:2"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: explode, reason: r}", 2, "rate-limit"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: log, reason: 'x {nobody}'}", 2, "unknown name `nobody`"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: rate-limit, reason: r}", 2, "needs `rate`"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: deceive, reason: r}", 2, "needs a `template`"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: block, status: 200, reason: r}", 2, "400 to 599"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: block, entity: adress, reason: r}", 2, "`address`"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: block, entity: address, duration: 5x, reason: r}", 2, "no duration"),
        ("rules:\n  - {id: A, name: n, when: 'true', action: log, score: 101, reason: r}", 2, "0 to 100"),
        ("mode: enforce\nrules: 5", 2, "sequence"),
    ];
    for (text, at, part) in cases {
        let errors = Policy::from_sources(&[("bad.yaml".to_owned(), text.to_owned())], &schema).err().expect(text);
        assert!(errors.to_string().contains(part), "{text}\n  gave: {errors}");
        assert_eq!((errors.problems[0].file.as_str(), errors.problems[0].line), ("bad.yaml", at), "{text}\n  gave: {errors}");
    }
}

#[test]
fn reasons_name_only_what_holds() {
    let rules = "  - {id: A, name: n, when: 'address.requests_1m > 5 || address.requests_10m > 50', action: log, reason: busy}\n";
    let mut world = World::new(rules);
    world.set("address.requests_1m", 2.0);
    world.set("address.requests_10m", 60.0);
    let decision = world.decide();
    let reason = decision.reasons.iter().find(|reason| reason.origin == "rule A").unwrap();
    assert_eq!(reason.text, "busy (address.requests_10m is 60, suspicious above 50)");
    assert_eq!((&*reason.feature, reason.value), ("address.requests_10m", Some(60.0)));
    // The words of a reason are the whole rule's, so each shipped rule has one way to hold.
    for (name, text) in PACKS {
        let raw: Vec<_> = text.lines().filter(|line| line.contains("||")).collect();
        assert!(raw.is_empty(), "{name} has alternatives, split them: {raw:?}");
    }
}

proptest! {
    #[test]
    fn risk_is_a_number_from_0_to_100(values in proptest::collection::vec(prop_oneof![Just(f64::NAN), any::<f64>(), 0.0..1e6_f64], 0..260), p in any::<f64>()) {
        let mut world = World::new("  []");
        world.policy = Policy::shipped(&world.schema).unwrap().with_mode(Mode::Enforce);
        for (feature, value) in world.features.iter_mut().zip(values) {
            *feature = value;
        }
        let part = |calibrated| ModelScore { model: "m".into(), version: 1, raw: p, calibrated, role: Role::Champion };
        world.scores.parts = vec![part(Calibrated::Probability(p)), part(Calibrated::PValue(p))];
        let decision = world.decide();
        prop_assert!(decision.risk.is_finite() && (0.0..=100.0).contains(&decision.risk), "{}", decision.risk);
        prop_assert!(decision.would >= decision.action);
        prop_assert!(decision.threats.iter().all(|threat| (0.0..=100.0).contains(&threat.level)));
    }
}

/// The simulator's attacks, each with rules of the catalogue that are there for it.
const ATTACKS: [(&str, &[&str]); 9] = [
    ("credential stuffing, loud", &["ATO-01"]),
    ("credential stuffing, distributed", &["ATO-02", "ATO-05B"]),
    ("password brute force", &["ATO-03", "ATO-03B"]),
    ("scraping", &["BOT-07", "BOT-07B"]),
    ("object enumeration", &["AUT-01", "AUT-01B"]),
    ("card testing", &["BIZ-01", "BIZ-03"]),
    ("low and slow", &["ATO-05", "ATO-03E"]),
    ("flood", &["RES-01", "RES-02"]),
    ("scanner", &["REC-01", "REC-02", "REC-04"]),
];

#[test]
fn every_shipped_rule_fires_in_a_case_and_spares_its_honest_neighbour() {
    let schema = Arc::new(Schema::shipped());
    let policy = Policy::shipped(&schema).unwrap_or_else(|errors| panic!("{errors}"));
    let files: Vec<_> = CASES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let results = run_cases(&policy, &schema, &files).unwrap_or_else(|errors| panic!("{errors}"));
    for result in &results {
        println!("{} {}: {:?} of {}: {}", result.rule, result.name, result.fired, result.transactions, result.reason);
    }
    let wrong: Vec<_> = results.iter().filter(|result| !result.holds()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    let has = |rule: &str, fires: bool| results.iter().any(|result| result.rule == rule && result.expected == fires);
    let mut lacking = Vec::new();
    for rule in policy.rules() {
        for fires in [true, false].into_iter().filter(|fires| !has(&rule.id, *fires)) {
            lacking.push(format!("{} has no case with `fires: {fires}`", rule.id));
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    for (attack, rules) in ATTACKS {
        assert!(rules.iter().all(|rule| has(rule, true)), "{attack}: not all of {rules:?} have a case that fires");
    }
    println!("{} rules, {} cases", policy.rules().count(), results.len());
}

#[test]
fn bad_cases_say_what_where_and_what_is_allowed() {
    let schema = Arc::new(Schema::shipped());
    let policy = Policy::shipped(&schema).unwrap_or_else(|errors| panic!("{errors}"));
    let case = |rule: &str, step: &str| format!("cases:\n  - rule: {rule}\n    name: n\n    fires: true\n    steps:\n      - {{{step}}}\n");
    let bad = [
        (case("NO-1", "request: GET /"), 2, "a case of rule `NO-1`, which the policy does not have"),
        (case("ATO-01", "request: GET /, repeat: 0"), 2, "1 to 20000"),
        (case("ATO-01", "request: nonsense"), 2, "METHOD /path?query"),
        (case("ATO-01", "request: GET /, every: soon"), 2, "no duration"),
        (case("ATO-01", "request: GET /, model: 7"), 2, "from 0 to 1"),
        (case("ATO-01", "request: GET /, requst: GET /"), 6, "did you mean `request`"),
    ];
    for (text, at, part) in bad {
        let errors = run_cases(&policy, &schema, &[("bad.yaml".to_owned(), text.clone())]).expect_err(&text);
        assert!(errors.to_string().contains(part), "{text}\n  gave: {errors}");
        assert_eq!((errors.problems[0].file.as_str(), errors.problems[0].line), ("bad.yaml", at), "{text}\n  gave: {errors}");
    }
}
