//! Three hundred rules for one transaction: a third of them come as far as comparing features, the others are for other
//! operations or fail at their first text. Prints the time of a whole decision and of the predicates alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::allow_attributes, reason = "a benchmark")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use telltale_features::domain::{HttpRequest, Transaction};
use telltale_features::door::Admitted;
use telltale_features::expr::Predicate;
use telltale_features::kernel::slots::PolicyState;
use telltale_features::schema::{RowBuffers, Schema};
use telltale_features::store::Moment;
use telltale_features::vector::FeatureVector;
use telltale_policy::{Combined, Overrides, Policy, Scores, Situation};

fn sources(schema: &Schema) -> Vec<String> {
    let features: Vec<_> = schema.features().iter().map(|feature| feature.name.clone()).collect();
    let feature = |i: usize| features.get(i % features.len()).cloned().unwrap();
    (0..300)
        .map(|i| match i % 3 {
            0 => format!("{} > {} && {} > {} && {} > 0.5", feature(i), i, feature(i + 1), i + 1, feature(i + 2)),
            1 => format!("http.operation == \"checkout\" && {} > {}", feature(i), i),
            _ => format!("http.path.startsWith(\"/admin/{i}\") && {} > {}", feature(i), i),
        })
        .collect()
}

fn rules(c: &mut Criterion) {
    let schema = Schema::shipped();
    let sources = sources(&schema);
    let pack: String = sources
        .iter()
        .enumerate()
        .map(|(i, when)| format!("  - {{id: R{i}, name: n, when: '{when}', score: 1, action: log, reason: r}}\n"))
        .collect();
    let policy = Policy::from_sources(&[("bench.yaml".to_owned(), format!("rules:\n{pack}"))], &schema).unwrap();
    let http = HttpRequest { method: "POST".to_owned(), path: "/api/login".to_owned(), ..HttpRequest::default() };
    let tx = Transaction { id: "t".to_owned(), http: Some(http), ..Transaction::default() };
    let admitted = Admitted { tx, route: "/api/login".to_owned(), ..Admitted::default() };
    let vector = FeatureVector { values: Arc::from(vec![0.75; schema.features().len()]) };
    let (scores, combined, overrides) = (Scores::default(), Combined::default(), Overrides::default());
    let fields = schema.fields(&admitted);
    let situation = Situation {
        schema: &schema,
        admitted: &admitted,
        fields: &fields,
        vector: &vector,
        scores: &scores,
        combined: &combined,
        attributions: &[],
        overrides: &overrides,
        moment: Moment::default(),
    };
    c.bench_function("rules/300_decision", |b| b.iter(|| policy.decide(&situation, &mut PolicyState::default())));

    let scope = schema.scope();
    let predicates: Vec<_> = sources.iter().map(|source| Predicate::compile(source, &scope).unwrap()).collect();
    let mut room = RowBuffers::default();
    let row = schema.row(&fields, &vector, &mut room);
    c.bench_function("rules/300_predicates", |b| b.iter(|| predicates.iter().filter(|predicate| predicate.holds(&row)).count()));
}

criterion_group!(benches, rules);
criterion_main!(benches);
