//! Spreads, shares, steps, places and label rates, from the words of a schema to the numbers of a vector.

use super::*;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::store::{Order, Sequence};

/// The features of payments, one after the other, as a store counts them and the schema puts them together.
#[test]
fn a_payment_unlike_all_before_shows_in_its_features() {
    const HOUR: i64 = 3_600_000_000;
    let schema = Arc::new(Schema::payments());
    let (door, store) = (door(&schema), EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes: 1 << 24 }));
    let start = 1_767_225_600_000_000;
    let pay = |step: u64, hours: i64, (amount, merchant, category, latitude): (f64, &str, &str, f64)| {
        let text = |text: &str| Value::Text(text.to_owned());
        let attributes = [
            ("customer", text("c1")),
            ("card", text("k1")),
            ("merchant", text(merchant)),
            ("category", text(category)),
            ("amount", Value::Number(amount)),
            ("latitude", Value::Number(latitude)),
            ("longitude", Value::Number(13.4)),
        ];
        let time = Timestamp::from_micros(start + hours * HOUR);
        let tx = Transaction {
            id: step.to_string(),
            time,
            attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Transaction::default()
        };
        let admitted = door.admit(tx).unwrap();
        let order = Order::Recorded(Moment { sequence: Sequence(step), now: time });
        let history = store.observe_now(schema.events(&admitted), order);
        (schema.extract(&admitted, &history), schema.context(&admitted, time))
    };
    for step in 1..40 {
        let (_, context) = pay(step, 12 + 24 * step as i64 / 2, (20.0 + step as f64 % 5.0, "grocer", "food", 52.5));
        let label = Label {
            transaction_id: step.to_string(),
            time: context.event_time,
            kind: LabelKind::Fraud,
            detail: String::new(),
            replaces: None,
        };
        if step % 4 == 0 {
            store.apply_now(
                schema.label_events(&context, &label),
                Order::Recorded(Moment { sequence: Sequence(step), now: context.event_time }),
            );
        }
    }
    let (usual, _) = pay(40, 12 + 24 * 20, (22.0, "grocer", "food", 52.5));
    let (unusual, _) = pay(41, 12 + 24 * 20 + 1, (900.0, "jeweller", "jewels", 41.9));
    let value = |vector: &FeatureVector, name: &str| vector.get(schema.feature(name).unwrap());
    for (name, usually, now) in [
        ("customer.amount_z_30d", -1.5..1.5, 10.0..1e6),
        ("customer.amount_rank_30d", 0.2..0.8, 0.95..1.01),
        ("customer.amount_before", 19.0..25.0, 22.0..22.1),
        ("customer.amount_max_30d", 24.0..24.1, 900.0..900.1),
        ("customer.merchant_new", 0.0..0.1, 1.0..1.1),
        ("customer.category_share_30d", 1.0..1.1, 0.0..0.1),
        ("customer.category_step_30d", 0.0..0.1, 3.0..6.0),
        ("customer.category_entropy_30d", 0.0..0.01, 0.05..0.3),
        ("customer.speed", 0.0..0.1, 1_100.0..1_300.0),
        ("card.amount_min_24h", 20.0..22.1, 20.0..22.1),
        ("customer.fraud_rate_30d", 0.2..0.3, 0.2..0.3),
        ("customer.payments_1h", 1.0..1.1, 1.0..1.1),
    ] {
        let (before, after) = (value(&usual, name), value(&unusual, name));
        assert!(usually.contains(&before) && now.contains(&after), "{name}: {before}, then {after}");
    }
    assert!(value(&unusual, "merchant.amount_rank_7d").is_nan(), "a new merchant has no history");
}

#[test]
fn spreads_say_what_is_wrong_with_them() {
    let wrong = |aggregation: &str| {
        let text = format!(
            "entities: [{{name: card, meaning: m, from: [\"attribute:card\"], max_bytes: 65536}}]\n\
             fields: [{{name: amount, meaning: m, type: number, from: [\"attribute:amount\"]}}]\n\
             feature_views: [{{name: v, entity: card, aggregations: [{{name: a, meaning: m, {aggregation}}}]}}]"
        );
        let report = Schema::check(&[("s.yaml".to_owned(), text)]);
        report.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (aggregation, says) in [
        ("aggregation: max, windows: [1h]", "`max` needs `of`"),
        ("aggregation: stddev, of: attributes.amont, windows: [1h]", "closest are `attributes.amount`"),
        ("aggregation: max, of: attributes.amount, phase: outcome, windows: [1h]", "carried"),
        ("aggregation: entropy, windows: [1h]", "`entropy` needs `of`"),
        ("aggregation: heavy_hitters, of: card, windows: [1h]", "needs `stat`"),
        ("aggregation: heavy_hitters, of: card, stat: mean, windows: [1h]", "`top_share`, `own_share`"),
        ("aggregation: geo_velocity, latitude: attributes.amount", "`geo_velocity` needs `longitude`"),
        ("aggregation: geo_velocity, latitude: attributes.amount, longitude: attributes.amount, windows: [1h]", "takes no `windows`"),
        ("aggregation: label_rate, windows: [1h], delay: 1h", "`label_rate` takes `part`"),
        ("aggregation: label_rate, part: 'label == \"fraud\"', windows: [1h]", "needs `delay`"),
        ("aggregation: label_rate, part: 'label == \"fraud\"', windows: [1h], delay: 7d", "more than 9 times the window `1h`"),
    ] {
        let said = wrong(aggregation);
        assert!(said.contains(says), "{aggregation}: {said}");
    }
    assert_eq!(wrong("aggregation: last, of: attributes.amount"), "");
    let explained = Schema::payments().explain("customer.amount_z_30d").unwrap();
    assert!(!explained.includes_event && explained.definition.contains("1.4826") && explained.error_bound.contains("bucket"));
}
