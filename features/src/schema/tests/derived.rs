//! Features across entities: quotients, differences, distances from another's baseline, and steps of a population.

use super::*;
use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::store::{Order, Sequence};

const ACROSS: &str = r#"
entities:
  - {name: user, meaning: m, from: ["attribute:user"], max_bytes: 100000}
  - {name: session, meaning: m, from: ["cookie:sid"], max_bytes: 100000}
  - {name: shop, meaning: m, from: ["attribute:shop"], max_bytes: 100000}
  - {name: service, meaning: m, from: [service], max_bytes: 100000}
fields:
  - {name: amount, meaning: m, type: number, from: ["attribute:amount"]}
  - {name: previous_route, meaning: m, type: text, from: [previous_route]}
feature_views:
  - name: user
    entity: user
    aggregations:
      - {name: amount, aggregation: sum, of: attributes.amount, windows: [1h], meaning: m}
      - {name: mean, aggregation: mean, of: attributes.amount, windows: [24h], meaning: m}
  - name: shop
    entity: shop
    aggregations:
      - {name: mean, aggregation: mean, of: attributes.amount, windows: [1h], meaning: m}
      - {name: z, aggregation: zscore_self, of: attributes.amount, windows: [24h], meaning: m}
  - name: step
    entity: service
    aggregations:
      - {name: rarity, aggregation: transition_rarity, of: http.route, after: attributes.previous_route, windows: [1h], meaning: m}
  - name: across
    aggregations:
      - {name: share, aggregation: quotient, of: user.amount_1h, against: shop.mean_1h, meaning: m}
      - {name: excess, aggregation: difference, of: user.mean_24h, against: shop.mean_1h, meaning: m}
      - {name: z, aggregation: zscore_against, of: user.mean_24h, against: shop.z_24h, meaning: m}
"#;

fn pay(user: &str, shop: &str, amount: f64) -> Transaction {
    let text = |text: &str| Value::Text(text.to_owned());
    let attributes = [("user", text(user)), ("shop", text(shop)), ("amount", Value::Number(amount))];
    Transaction { attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(), ..Transaction::default() }
}

/// A schema, a door and a store through which transactions go one after the other, a second apart.
struct Counter {
    schema: Arc<Schema>,
    door: Door,
    store: EmbeddedStore,
    step: u64,
}

impl Counter {
    fn new() -> Self {
        let schema = Arc::new(compile(ACROSS).unwrap());
        let store = EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes: 1 << 24 });
        Self { door: door(&schema), schema, store, step: 0 }
    }

    fn observe(&mut self, tx: Transaction) -> (Admitted, FeatureVector) {
        self.step += 1;
        let time = Timestamp::from_micros(1_767_225_600_000_000 + self.step as i64 * 1_000_000);
        let admitted = self.door.admit(Transaction { id: self.step.to_string(), time, ..tx }).unwrap();
        let order = Order::Recorded(Moment { sequence: Sequence(self.step), now: time });
        let history = self.store.observe_now(self.schema.events(&admitted), order);
        let vector = self.schema.extract(&admitted, &history);
        assert_eq!(vector.values.len(), self.schema.features().len(), "hidden reads are in no vector");
        (admitted, vector)
    }

    fn value(&self, vector: &FeatureVector, name: &str) -> f64 {
        vector.get(self.schema.feature(name).unwrap())
    }
}

#[test]
fn one_entity_is_told_beside_another() {
    let mut counter = Counter::new();
    for step in 0..60 {
        counter.observe(pay("other", "s1", 40.0 + f64::from(step % 20)));
    }
    counter.observe(pay("u1", "s2", 500.0));
    let (_, vector) = counter.observe(pay("u1", "s1", 100.0));
    let of = |name: &str| counter.value(&vector, name);
    assert_eq!(of("across.share"), of("user.amount_1h") / of("shop.mean_1h"));
    assert_eq!(of("across.excess"), of("user.mean_24h") - of("shop.mean_1h"));
    assert!((of("user.amount_1h") - 600.0).abs() < 1e-9 && (of("shop.mean_1h") - (60.0 * 49.5 + 100.0) / 61.0).abs() < 0.5);
    // The shop's middle is about 49.5 and its spread about 7.4; this payment is 100, the user's mean 300.
    assert!((of("shop.z_24h") - 6.8).abs() < 0.7, "{}", of("shop.z_24h"));
    assert!((of("across.z") - 33.8).abs() < 3.5, "{}", of("across.z"));
    let (_, lone) = counter.observe(pay("u9", "s9", 1.0));
    assert!(counter.value(&lone, "across.z").is_nan(), "a shop without history has no baseline");
}

#[test]
fn a_step_is_the_sessions_and_its_rarity_everybodys() {
    let mut counter = Counter::new();
    let visit = |session: &str, path: &str| {
        let headers = vec![Header { name: "cookie".to_owned(), value: format!("sid={session}") }];
        let http = HttpRequest { method: "GET".to_owned(), path: path.to_owned(), headers, ..HttpRequest::default() };
        Transaction { service: "shop".to_owned(), http: Some(http), ..Transaction::default() }
    };
    let previous = |admitted: &Admitted| admitted.fields.get("previous_route").cloned();
    for session in 0..30 {
        let session = format!("s{session}");
        let (first, vector) = counter.observe(visit(&session, "/home"));
        assert_eq!(previous(&first), None, "a first request has no step");
        assert!(counter.value(&vector, "step.rarity_1h").is_nan());
        let (second, _) = counter.observe(visit(&session, "/list"));
        assert_eq!(previous(&second), Some(Value::Text("/home".to_owned())));
        counter.observe(visit(&session, "/pay"));
    }
    counter.observe(visit("new", "/home"));
    let (_, usual) = counter.observe(visit("new", "/list"));
    counter.observe(visit("odd", "/home"));
    let (_, odd) = counter.observe(visit("odd", "/pay"));
    let (usual, odd) = (counter.value(&usual, "step.rarity_1h"), counter.value(&odd, "step.rarity_1h"));
    assert!(usual < 0.1 && odd > 3.0, "{usual} {odd}");
}

#[test]
fn what_it_is_made_of_is_its_definition() {
    let hash = |text: &str| {
        let schema = compile(text).unwrap();
        schema.features()[schema.feature("across.share").unwrap().index()].hash
    };
    let before = hash(ACROSS);
    assert_ne!(
        hash(&ACROSS.replace(
            "name: mean, aggregation: mean, of: attributes.amount, windows: [1h]",
            "name: mean, aggregation: max, of: attributes.amount, windows: [1h]"
        )),
        before
    );
    assert_eq!(
        hash(&ACROSS.replace("user.amount_1h", "user.spent_1h").replace("name: amount, aggregation: sum", "name: spent, aggregation: sum")),
        before,
        "a name"
    );
}

#[test]
fn errors_say_what_may_be_named() {
    let cases = [
        (
            "of: user.amount_1h",
            "of: user.amonut_1h",
            "`of: user.amonut_1h` is no feature that is declared before this one; did you mean `user.amount_1h`?",
        ),
        (
            "aggregation: zscore_against, of: user.mean_24h, against: shop.z_24h",
            "aggregation: zscore_against, of: user.mean_24h, against: shop.mean_1h",
            "`zscore_against` needs `against`: a `zscore_self` feature",
        ),
        (
            "aggregation: difference, of: user.mean_24h, against: shop.mean_1h",
            "aggregation: difference, of: user.mean_24h",
            "`difference` needs `against`",
        ),
        ("aggregation: quotient, of", "aggregation: quotient, windows: [1h], of", "takes `of` and `against`"),
        (
            "aggregation: sum, of: attributes.amount",
            "aggregation: sum, after: http.route, of: attributes.amount",
            "`sum` takes no `after`: it belongs to `transition_rarity`",
        ),
        ("from: [service], ", "from: [previous_route], ", "identifies nobody"),
    ];
    for (from, to, expected) in cases {
        let error = compile(&ACROSS.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}
