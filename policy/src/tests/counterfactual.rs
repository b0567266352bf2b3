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
}

impl Models for Linear {
    fn what_if(&self, changes: &[Change]) -> Result<Vec<Scores>, Absent> {
        if self.fails {
            return Err(Absent { model: "linear".into(), version: 1, problem: "no answer within 50 ms".into() });
        }
        let changed = |change: &Change| {
            let mut scores = self.scores.clone();
            if change.feature == self.feature {
                scores.parts[0].calibrated = Calibrated::Probability(change.value / 100.0);
            }
            scores
        };
        Ok(changes.iter().map(changed).collect())
    }

    fn may_go_on(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
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
    let models = Linear { feature, scores: world.scores.clone(), fails: false, left: Cell::new(u32::MAX) };
    (world, models)
}

/// Decides, then searches with the state as it was before.
fn search(world: &mut World, models: &Linear, usual: f64) -> (Decision, Option<Result<Option<Counterfactual>, Unfinished>>) {
    let attribution = Attribution { model: "linear".into(), feature: models.feature, value: 90.0, usual, share: 1.0 };
    let attributions = if world.scores.parts.is_empty() { Vec::new() } else { vec![attribution] };
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
