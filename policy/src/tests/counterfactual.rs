//! The smallest change that would have been allowed: it is true, it is nearest, and it writes nothing.

use std::cell::Cell;

use telltale_features::vector::FeatureId;
use telltale_models::{Absent, Change};

use super::*;

/// A model whose probability is its feature by a hundred; `None`: it gives no score.
struct Linear {
    feature: FeatureId,
    scores: Scores,
    fails: bool,
    /// How often the search may still ask whether it may go on.
    left: Cell<u32>,
    /// It gave no reasons, and is not asked about its feature.
    silent: bool,
    /// Other features that it names.
    named: Vec<FeatureId>,
}

impl Models for Linear {
    fn what_if(&self, changes: &[Change]) -> Result<Vec<Option<Scores>>, Absent> {
        if self.fails {
            return Err(Absent { model: "linear".into(), version: 1, problem: "no answer within 50 ms".into() });
        }
        let changed = |change: &Change| {
            let mut scores = self.scores.clone();
            if change.feature == self.feature {
                scores.parts[0].calibrated = Calibrated::Probability(change.value / 100.0);
            }
            Some(scores)
        };
        Ok(changes.iter().map(changed).collect())
    }

    fn may_go_on(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    fn is_asked(&self, feature: FeatureId) -> bool {
        !self.silent || feature != self.feature
    }

    fn spread(&self, _: FeatureId) -> f64 {
        2.0
    }
}

/// A world with that model at 90, where risk from 60 on is blocked and a login rule from 14 failures on.
fn world() -> (World, Linear) {
    let mut world = World::new("  []");
    let pack = "mode: enforce
risk:
  alert: 40
  probability: [[0.0, 0], [1.0, 100]]
  p_value: [[0.0, 60]]
rules:
  - {id: HIGH, name: n, when: 'risk >= 60', action: block, reason: r}
  - {id: MANY, name: n, when: 'address.failed_logins_10m >= 14 && address.login_fail_ratio_10m > 0.5', score: 50, action: challenge, reason: r}
  - {id: RATE, name: n, when: 'true', action: rate-limit, entity: address, rate: 1, period: 10s, burst: 1, reason: r}
";
    world.policy =
        Policy::from_sources(&[("test.yaml".to_owned(), pack.to_owned())], &world.schema).unwrap_or_else(|errors| panic!("{errors}"));
    let feature = world.schema.feature("session.objects_10m").unwrap();
    world.set("session.objects_10m", 90.0);
    let part = ModelScore { model: "linear".into(), version: 1, raw: 0.9, calibrated: Calibrated::Probability(0.9), role: Role::Champion };
    world.scores.parts = vec![part];
    let models =
        Linear { feature, scores: world.scores.clone(), fails: false, left: Cell::new(u32::MAX), silent: false, named: Vec::new() };
    (world, models)
}

/// Decides, then searches with the state as it was before.
fn search(world: &mut World, models: &Linear, usual: f64) -> (Decision, Option<Result<Option<Counterfactual>, Unfinished>>) {
    let attribution = |feature| Attribution { model: "linear".into(), feature, value: 90.0, usual, share: 1.0 };
    let named = [models.feature].into_iter().chain(models.named.iter().copied());
    let attributions: Vec<_> = if world.scores.parts.is_empty() { Vec::new() } else { named.map(attribution).collect() };
    let vector = FeatureVector { values: Arc::from(world.features.as_slice()) };
    let fields = world.schema.fields(&world.admitted);
    let combined = world.policy.combine(&world.scores, world.policy.ensemble(&fields));
    let situation = Situation {
        schema: &world.schema,
        admitted: &world.admitted,
        fields: &fields,
        vector: &vector,
        scores: &world.scores,
        combined: &combined,
        attributions: &attributions,
        overrides: &world.overrides,
        moment: Moment { sequence: Sequence(1), now: Timestamp::from_micros(world.now) },
    };
    let before = state_copy(&world.state);
    let decision = world.policy.decide(&situation, &mut world.state);
    let slots = world.state.slots.clone();
    let worth = world.policy.is_worth_a_hint(&situation, &decision);
    let found = worth.then(|| world.policy.counterfactual(&situation, &decision, &before, models));
    assert_eq!(world.state.slots, slots, "a search changes nothing");
    (decision, found)
}

#[test]
fn the_nearest_value_of_a_models_feature_is_found() {
    let (mut world, models) = world();
    let (decision, found) = search(&mut world, &models, 10.0);
    assert_eq!(decision.action, Action::Block);
    let found = found.unwrap().unwrap().unwrap();
    assert_eq!((&*found.feature, found.value), ("session.objects_10m", 90.0));
    // 59 is the nearest allowed; the search looks at an eighth of an eighth of the way, 80 / 64.
    assert!((57.5..60.0).contains(&found.allowed), "{found:?}");
    assert!(found.text.ends_with(&format!(": 90, would have been allowed at {}", found.allowed)), "{found:?}");
    // It is true: the transaction with that value is let through.
    let (mut changed, _) = super::counterfactual::world();
    changed.set("session.objects_10m", found.allowed);
    changed.scores.parts[0].calibrated = Calibrated::Probability(found.allowed / 100.0);
    assert!(!changed.decide().action.is_enforcing());
}

#[test]
fn a_rule_gives_its_own_edge() {
    let (mut world, mut models) = world();
    world.scores.parts.clear();
    models.scores.parts.clear();
    world.set("address.failed_logins_10m", 40.0);
    world.set("address.login_fail_ratio_10m", 0.9);
    let (decision, found) = search(&mut world, &models, 10.0);
    assert_eq!((decision.action, decision.risk), (Action::Challenge, 50.0));
    let found = found.unwrap().unwrap().unwrap();
    // 0.4 of a ratio is fewer spreads than 27 failures.
    assert_eq!((&*found.feature, found.allowed), ("address.login_fail_ratio_10m", 0.5));
    world.set("address.login_fail_ratio_10m", f64::NAN);
    world.state = PolicyState::default();
    world.policy = {
        let pack = "mode: enforce\nrules:\n  - {id: MANY, name: n, when: 'address.failed_logins_10m >= 14', score: 50, action: block, reason: r}\n";
        Policy::from_sources(&[("test.yaml".to_owned(), pack.to_owned())], &world.schema).unwrap()
    };
    let (_, found) = search(&mut world, &models, 10.0);
    let found = found.unwrap().unwrap().unwrap();
    assert_eq!((&*found.feature, found.allowed), ("address.failed_logins_10m", 13.0));
    assert!(found.text.contains("40, would have been allowed at 13"), "{found:?}");
}

#[test]
fn what_no_single_feature_changes_has_no_hint() {
    // Two reasons, each enough: no change of one feature helps.
    let (mut world, models) = world();
    world.set("address.failed_logins_10m", 40.0);
    world.set("address.login_fail_ratio_10m", 0.9);
    assert_eq!(search(&mut world, &models, 10.0).1, Some(Ok(None)));
    // A person decided.
    world.rule_on("address", Ruling::Deny, None);
    assert_eq!(search(&mut world, &models, 10.0).1, None);
    // Nothing a client feels; and what is below the alert threshold.
    let (mut mild, models) = super::counterfactual::world();
    mild.scores.parts[0].calibrated = Calibrated::Probability(0.5);
    assert_eq!(search(&mut mild, &models, 10.0).1, None);
    let (mut low, models) = super::counterfactual::world();
    low.scores.parts[0].calibrated = Calibrated::Probability(0.1);
    search(&mut low, &models, 10.0);
    let (decision, found) = search(&mut low, &models, 10.0);
    assert_eq!((decision.action, found), (Action::RateLimit, None));
    // A model that does not answer.
    let (mut silent, mut models) = super::counterfactual::world();
    models.fails = true;
    assert!(search(&mut silent, &models, 10.0).1.unwrap().is_err());
}

#[test]
fn a_search_ends_when_its_time_is_used_up() {
    for left in [0, 1, 4] {
        let (mut world, models) = world();
        models.left.set(left);
        assert_eq!(search(&mut world, &models, 10.0).1, Some(Err(Unfinished::Time)), "after {left} steps");
    }
}

/// The hint of a world without models that blocks by this condition.
fn by_rule(when: &str, feature: &str, value: f64) -> Counterfactual {
    let (mut world, mut models) = world();
    world.scores.parts.clear();
    models.scores.parts.clear();
    let pack = format!("mode: enforce\nrules:\n  - {{id: ONLY, name: n, when: '{when}', score: 50, action: block, reason: r}}\n");
    world.policy = Policy::from_sources(&[("test.yaml".to_owned(), pack)], &world.schema).unwrap_or_else(|errors| panic!("{errors}"));
    world.set(feature, value);
    search(&mut world, &models, 10.0).1.unwrap().unwrap().unwrap()
}

#[test]
fn what_counts_whole_things_is_told_in_whole_numbers_and_nothing_else_is() {
    // A share of exactly 1 is no count, whatever it happens to read; a count may read between two numbers.
    let share = by_rule("address.login_fail_ratio_10m >= 1.0", "address.login_fail_ratio_10m", 1.0);
    assert_eq!(share.allowed, 1.0_f64.next_down());
    assert!(share.text.ends_with(": 1, would have been allowed at just below 1"), "{share:?}");
    let count = by_rule("address.failed_logins_10m >= 14.0", "address.failed_logins_10m", 40.5);
    assert_eq!(count.allowed, 13.0);
    assert_eq!(by_rule("address.failed_logins_10m > 13.5", "address.failed_logins_10m", 40.0).allowed, 13.0);
}

#[test]
fn the_features_of_a_rule_come_before_those_of_models() {
    let (mut world, mut models) = world();
    world.scores.parts[0].calibrated = Calibrated::Probability(0.5);
    models.scores = world.scores.clone();
    world.set("address.failed_logins_10m", 40.0);
    world.set("address.login_fail_ratio_10m", 0.9);
    let unset = (0..world.features.len()).filter(|at| world.features[*at].is_nan()).take(5).collect::<Vec<_>>();
    for at in unset {
        world.features[at] = 3.0;
        models.named.push(FeatureId(u16::try_from(at).unwrap()));
    }
    let (decision, found) = search(&mut world, &models, 10.0);
    assert_eq!(decision.action, Action::Challenge);
    assert_eq!(&*found.unwrap().unwrap().unwrap().feature, "address.login_fail_ratio_10m");
}

#[test]
fn a_feature_that_a_silent_model_reads_is_not_tried() {
    let (mut world, mut models) = world();
    models.silent = true;
    assert_eq!(search(&mut world, &models, 10.0).1, Some(Ok(None)));
}

#[test]
fn the_last_steps_are_taken_from_the_value_that_is_denied_on_the_same_side() {
    // From 18 on it is denied. The model's reason points down to 0, a rule's up to 61, where another rule stands.
    let (mut world, mut models) = world();
    let pack = "mode: enforce
risk: {alert: 10, probability: [[0.0, 0], [1.0, 100]], p_value: [[0.0, 60]]}
rules:
  - {id: BAND, name: n, when: 'session.objects_10m <= 60.0 && risk >= 17.5', score: 50, action: block, reason: r}
  - {id: ABOVE, name: n, when: 'session.objects_10m > 60.0', score: 50, action: block, reason: r}
";
    world.policy = Policy::from_sources(&[("test.yaml".to_owned(), pack.to_owned())], &world.schema).unwrap();
    world.set("session.objects_10m", 40.0);
    world.scores.parts[0].calibrated = Calibrated::Probability(0.4);
    models.scores = world.scores.clone();
    let found = search(&mut world, &models, 0.0).1.unwrap().unwrap().unwrap();
    // Tried were 35, 30, 25, 20, 61 and 15: what lies between 20 and 15 is left.
    assert_eq!(found.allowed, 17.0, "{found:?}");
}
