//! Models together: which count where, and how their points become one risk.

use super::*;

const WHERE: &str = "risk:
  alert: 40
  probability: [[0.0, 0], [1.0, 100]]
  p_value: [[0.0, 60], [1.0, 0]]
  models:
    accounts: {when: 'http.route == \"/api/login\" && http.method == \"POST\"'}
    elsewhere: {when: 'http.route != \"/api/login\"'}
";

fn world(combine: &str) -> World {
    let mut world = World::new("  []");
    let rules = "rules:\n  - {id: M, name: n, when: 'model.elsewhere > 0.1', score: 5, action: log, reason: r}\n";
    let pack = format!("mode: enforce\n{WHERE}{combine}{rules}");
    world.policy = Policy::from_sources(&[("test.yaml".to_owned(), pack)], &world.schema).unwrap_or_else(|errors| panic!("{errors}"));
    let part = |model: &str, p| ModelScore {
        model: model.into(),
        version: 1,
        raw: p,
        calibrated: Calibrated::Probability(p),
        role: Role::Champion,
    };
    world.scores.parts = vec![part("accounts", 0.2), part("elsewhere", 0.6), part("everywhere", 0.4)];
    world
}

fn combined(world: &World) -> Combined {
    world.policy.combine(&world.scores, world.policy.ensemble(&world.schema.fields(&world.admitted)))
}

#[test]
fn points_combine_as_the_policy_says() {
    for (combine, risk) in [
        ("", 52.0),
        ("  combine: independent\n", 52.0),
        ("  combine: max\n", 40.0),
        ("  combine: sum\n", 60.0),
        ("  combine: mean\n", 30.0),
    ] {
        let world = world(combine);
        let combined = combined(&world);
        assert!((combined.risk - risk).abs() < 1e-9, "{combine:?}: {}", combined.risk);
        assert_eq!((combined.points.as_slice(), combined.muted.as_slice()), (&[20.0, 0.0, 40.0][..], &[false, true, false][..]));
        assert!((combined.contributions.iter().sum::<f64>() - risk).abs() < 1e-9);
        assert_eq!(combined.alert, risk >= 40.0);
        let name = combine.trim().strip_prefix("combine: ").unwrap_or("independent");
        assert_eq!(world.policy.combination().map(Combination::name), Some(name));
    }
    // At most 100, and a model that still calibrates has no say in the mean.
    let mut world = world("  combine: sum\n");
    for part in &mut world.scores.parts {
        part.calibrated = Calibrated::Probability(0.9);
    }
    assert_eq!(combined(&world).risk, 100.0);
    let mut world = super::ensemble::world("  combine: mean\n");
    world.scores.parts[2].calibrated = Calibrated::Calibrating { have: 1, need: 2 };
    assert_eq!(combined(&world).risk, 20.0);
    assert_eq!(Policy::shipped(&world.schema).unwrap().combination(), None);
}

#[test]
fn a_model_counts_only_where_its_condition_holds() {
    let mut world = world("");
    assert!(world.decide().rules.is_empty(), "a rule hears a model that does not count");
    world.admitted.route = "/api/search".to_owned();
    let elsewhere = combined(&world);
    assert_eq!(elsewhere.muted, [true, false, false]);
    assert_eq!(world.decide().rules[0].id.as_ref(), "M");
    world.admitted.route = "/api/login".to_owned();
    world.admitted.tx.http.as_mut().unwrap().method = "GET".to_owned();
    assert_eq!(combined(&world).muted, [true, true, false]);
    let named: Vec<&str> = world.policy.named_models().collect();
    assert_eq!(named, ["accounts", "elsewhere"]);
}

#[test]
fn conditions_of_models_are_checked() {
    let schema = Schema::shipped();
    let risk = "risk:\n  alert: 40\n  probability: [[0.0, 0]]\n  p_value: [[0.0, 60]]\n";
    let cases = [
        ("  combine: most\n", 5, "independent, max, sum, mean"),
        ("  models: {a: {when: 'http.rout == \"/\"'}}\n", 5, "http.route"),
        ("  models: {a: {when: 'address.requests_1m > 3.0'}}\n", 5, "fields of the transaction and no features"),
        ("  models: {a: {when: 'risk > 3.0'}}\n", 5, "fields of the transaction and no features"),
        ("  models: {a: {when: 'http.route'}}\n", 5, "true or false"),
        ("  models: {a: {wehn: 'true'}}\n", 5, "did you mean `when`"),
    ];
    for (text, at, part) in cases {
        let errors = Policy::from_sources(&[("bad.yaml".to_owned(), format!("{risk}{text}"))], &schema).err().expect(text);
        assert!(errors.to_string().contains(part), "{text}\n  gave: {errors}");
        assert_eq!((errors.problems[0].file.as_str(), errors.problems[0].line), ("bad.yaml", at), "{text}\n  gave: {errors}");
    }
}
