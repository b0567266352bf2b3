//! Compilation, hashes, refusals, routes, events and extraction.

mod derived;
mod spreads;

use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;

use super::*;
use crate::domain::{Context, Header, HttpRequest, HttpResponse, Label, LabelKind, Outcome, Source, Transaction, Value};
use crate::door::Door;
use crate::hash::Keyring;
use crate::kernel::plan::{AccumulatorKind, Read};
use crate::store::{EntityReads, Moment, Status};

const SMALL: &str = r#"
entities:
  - {name: address, meaning: client, from: [address], normalization: address, keep_names: true}
  - {name: user, meaning: account, from: ["json:username"], normalization: lowercase}
fields:
  - {name: amount, meaning: money, type: number, from: ["attribute:amount", "json:amount"], carried: true}
  - {name: agent, meaning: software, type: text, from: ["header:user-agent"]}
endpoints:
  operations: {login: ["POST **/login"]}
feature_views:
  - name: address
    entity: address
    aggregations:
      - {name: requests, aggregation: count, windows: [1m, 10m], meaning: "requests in the last {window}"}
      - {name: failed, aggregation: count, phase: outcome, filter: 'http.operation == "login" && failed', windows: [10m], meaning: failed logins}
      - {name: users, aggregation: distinct, of: user, windows: [10m, 24h], meaning: accounts}
      - {name: amount_mean, aggregation: mean, of: attributes.amount, windows: [24h], meaning: mean amount}
  - name: request
    aggregations:
      - {name: big, aggregation: holds, filter: 'attributes.amount > 100', meaning: large}
      - {name: depth, aggregation: field, of: http.path_depth, meaning: depth}
      - {name: lateness, aggregation: lateness, meaning: late}
"#;

fn compile(text: &str) -> Result<Schema, Problems> {
    Schema::from_sources(&[("t.yaml".to_owned(), text.to_owned())])
}

fn small() -> Arc<Schema> {
    Arc::new(compile(SMALL).unwrap())
}

/// The problems of `SMALL` with one text replaced.
fn problems(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    compile(&SMALL.replace(from, to)).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
}

fn login(user: &str) -> Transaction {
    Transaction {
        id: "t1".to_owned(),
        time: Timestamp::from_micros(1_700_000_000_000_000),
        source: Source { ip: "192.0.2.7".to_owned(), ..Source::default() },
        http: Some(HttpRequest {
            method: "POST".to_owned(),
            path: "/api/login".to_owned(),
            headers: vec![Header { name: "user-agent".to_owned(), value: "curl/8".to_owned() }],
            body: format!(r#"{{"username":"{user}","amount":150}}"#).into_bytes(),
            ..HttpRequest::default()
        }),
        ..Transaction::default()
    }
}

fn door(schema: &Arc<Schema>) -> Door {
    Door::new(Arc::clone(schema), Keyring::new(1, [7; 32]).hasher())
}

#[test]
fn shipped_schemas_compile() {
    let http = Schema::shipped();
    let names: Vec<&str> = http.entity_types().iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["address", "session", "user", "fingerprint", "credential", "card", "device", "endpoint", "service"]);
    assert!(http.features().len() >= 60, "{}", http.features().len());
    for schema in [&http, &Schema::payments()] {
        assert!(schema.features().iter().all(|feature| !feature.meaning.is_empty() && !feature.meaning.contains('{')));
        for size in schema.sizes() {
            assert!(size.worst_bytes <= size.max_bytes && size.filters <= 64 && size.values <= 16 && size.members <= 32, "{size:?}");
        }
        let plans = schema.plans();
        for plan in plans.iter() {
            let mut tags: Vec<u64> = plan.accumulators.iter().map(|accumulator| accumulator.tag).collect();
            tags.sort_unstable();
            tags.dedup();
            assert_eq!(tags.len(), plan.accumulators.len(), "{}", plan.name);
        }
    }
    assert!(Schema::payments().features().len() >= 60, "{}", Schema::payments().features().len());
}

#[test]
fn definition_hashes_are_golden() {
    let schema = small();
    let hashes: Vec<String> = schema.list().iter().map(|feature| format!("{} {}", feature.name, feature.hash)).collect();
    let golden = include_str!("golden_hashes.txt");
    assert_eq!(
        hashes.join("\n"),
        golden.trim_end(),
        "a changed hash invalidates every model: raise SEMANTICS or `version` on purpose only"
    );
}

#[test]
fn a_hash_depends_on_its_definition_alone() {
    let hash = |text: &str, name: &str| {
        let schema = compile(text).unwrap();
        schema.features()[schema.feature(name).unwrap().index()].hash
    };
    let users = "- {name: users, aggregation: distinct, of: user, windows: [10m, 24h], meaning: accounts}";
    let before = hash(SMALL, "address.users_10m");
    let more = SMALL.replace("windows: [10m, 24h]", "windows: [10m, 24h, 30d]");
    assert_eq!(hash(&more, "address.users_10m"), before, "a further window");
    let fewer =
        SMALL.replace("      - {name: requests, aggregation: count, windows: [1m, 10m], meaning: \"requests in the last {window}\"}\n", "");
    assert_eq!(hash(&fewer, "address.users_10m"), before, "other features");
    let renamed = SMALL.replace(users, "- {name: accounts, aggregation: distinct, of: user, windows: [10m, 24h], meaning: other words}");
    assert_eq!(hash(&renamed, "address.accounts_10m"), before, "name and meaning");
    let spaced = SMALL.replace("login\" && failed", "login\"   &&  failed");
    assert_eq!(hash(&spaced, "address.failed_10m"), hash(SMALL, "address.failed_10m"), "layout of a filter");
    let filtered = SMALL.replace("\"login\" && failed", "\"login\" && success");
    assert_ne!(hash(&filtered, "address.failed_10m"), hash(SMALL, "address.failed_10m"), "another filter");
    assert_ne!(
        hash(&SMALL.replace("entity: address\n", "entity: address\n    version: 2\n"), "address.users_10m"),
        before,
        "another version"
    );
    assert_ne!(hash(SMALL, "address.users_24h"), before, "another window");
    let tag = |text: &str| {
        let plans = compile(text).unwrap().plans();
        plans[0].accumulators.iter().find(|a| matches!(a.kind, AccumulatorKind::Distinct { .. })).unwrap().tag
    };
    assert_eq!(tag(&more), tag(SMALL), "a longer window keeps the history");
}

#[test]
fn errors_name_file_line_and_what_is_allowed() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "aggregation: distinct, of: user",
            "aggregation: distnct, of: user",
            &["t.yaml:16", "`distnct`", "did you mean `distinct`", "`interarrival`"],
        ),
        ("windows: [10m, 24h]", "windows: [10m, 40d]", &["t.yaml:16", "`40d`", "`10s` to `30d`"]),
        ("windows: [10m, 24h]", "windows: [ten]", &["t.yaml:16", "`ten` is no duration"]),
        ("of: user,", "of: usr,", &["t.yaml:16", "`usr`", "`user`"]),
        ("entity: address\n", "entity: adress\n", &["t.yaml:12", "`adress`", "did you mean `address`"]),
        ("phase: outcome", "phase: later", &["t.yaml:15", "`later`", "`outcome`"]),
        ("normalization: lowercase", "normalization: lower", &["t.yaml:4", "`lower`", "`lowercase`"]),
        ("json:username", "jsn:username", &["t.yaml:4", "`jsn:username`", "did you mean `json`"]),
        ("type: number", "type: numeric", &["t.yaml:6", "`numeric`", "`flag`"]),
        ("keep_names: true", "keep_nmes: true", &["t.yaml:3", "keep_nmes", "keep_names"]),
        ("of: http.path_depth", "of: http.path_dept", &["t.yaml:21", "`http.path_dept`", "`http.path_depth`"]),
        ("attributes.amount > 100", "attributes.amont > 100", &["t.yaml:20", "attributes.amont", "attributes.amount"]),
        ("POST **/login", "POST login", &["t.yaml:9", "`POST login`"]),
        ("name: users,", "name: Users,", &["t.yaml:16", "`Users`", "small letters"]),
        ("name: failed,", "name: users,", &["t.yaml:16", "`address.users_10m` is declared twice"]),
        ("aggregation: distinct, of: user", "aggregation: novelty, of: user", &["t.yaml:16", "`novelty` takes one window"]),
        ("keep_names: true", "max_bytes: 100", &["t.yaml", "`address` may need", "allows 100"]),
    ];
    for (from, to, wanted) in cases {
        let found = problems(from, to);
        for part in *wanted {
            assert!(found.contains(part), "{from} → {to}: {part:?} is not in\n{found}");
        }
    }
}

#[test]
fn every_problem_is_said_at_once() {
    let text = SMALL.replace("phase: outcome", "phase: later").replace("type: number", "type: numeric");
    let error = compile(&text).unwrap_err();
    assert!(error.problems.len() >= 2, "{error}");
    assert_eq!(Schema::check(&[("t.yaml".to_owned(), text)]).problems, error.problems);
}

#[test]
fn outcome_aggregations_use_only_what_is_carried() {
    for (filter, name) in [
        ("http.user_agent == \"curl\"", "http.user_agent"),
        ("attributes.agent == \"x\"", "attributes.agent"),
        ("source.asn > 3", "source.asn"),
    ] {
        let found = problems("http.operation == \"login\" && failed", filter);
        assert!(found.contains(name) && found.contains("context token carries") && found.contains("t.yaml:15"), "{found}");
        assert!(found.contains("`status`") && found.contains("`attributes.amount`"), "{found}");
    }
    let distinct =
        "- {name: paths, aggregation: distinct, of: http.path, phase: outcome, windows: [10m], meaning: paths}\n      - {name: users,";
    assert!(problems("- {name: users,", distinct).contains("`http.path` belongs to the request"));
    let sum =
        "- {name: sizes, aggregation: sum, of: http.body_size, phase: outcome, windows: [10m], meaning: sizes}\n      - {name: users,";
    assert!(problems("- {name: users,", sum).contains("`http.body_size` belongs to the request"));
    assert_eq!(problems("\"login\" && failed", "\"login\" && failed && attributes.amount > 3 && status == 402 && duration_ms > 1"), "");
}

#[test]
fn routes_by_template_and_by_shape() {
    let schema = Schema::shipped();
    let cases = [
        ("/", "/"),
        ("/api/products/shoe-42", "/api/products/{id}"),
        ("/api/orders/17", "/api/orders/{id}"),
        ("/api/orders", "/api/orders"),
        ("/assets/app.9f8e7d.js", "/assets/{file}"),
        ("/v1/users/6f1c2c1e-9f43-4f0b-a0cb-0d1b9f7a2b11/cards", "/v1/users/{id}/cards"),
        ("/v2/items/deadbeef01", "/v2/items/{id}"),
        ("/files/a1b2c3d4e5f6a7b8c9", "/files/{id}"),
        ("/partner/v1/stock", "/partner/v1/stock"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/**"),
        ("/x/%2e%2e%2f", "/x/{id}"),
        ("/api//orders", "/api//orders"),
        ("", "/"),
        ("/blog/how-to-bake-bread", "/blog/how-to-bake-bread"),
    ];
    for (path, route) in cases {
        assert_eq!(schema.routes().route(path), route, "{path}");
    }
    let learned =
        Templates::new(["/blog/{slug}", "/api/{any}", "/api/orders/{id}/{part}"].map(|path| Template::new("", "", path).unwrap()));
    let among = |method: &str, path: &str| schema.routes().route_among(&learned, ("shop", method), path);
    assert_eq!(among("GET", "/blog/how-to-bake-bread"), "/blog/{slug}");
    assert_eq!(among("GET", "/blog/how/to"), "/blog/how/to");
    assert_eq!(among("GET", "/api/products/shoe-42"), "/api/products/{id}", "what is configured comes first");
    assert_eq!(among("GET", "/api/orders/17/parts"), "/api/orders/{id}/{part}");
    assert_eq!(among("GET", "/api/login"), "/api/{any}");
    assert_eq!(among("POST", "/api/login"), "/api/login", "an operation is never hidden");
    let learnable = |method: &str, path: &str| schema.routes().learnable(method, path);
    assert_eq!(learnable("GET", "/blog/17/how-to").as_deref(), Some("/blog/{id}/how-to"));
    for (method, path) in [("GET", "/api/products/shoe-42"), ("POST", "/api/login"), ("GET", "/a//b"), ("GET", "/a/b/c/d/e/f/g/h/i")] {
        assert_eq!(learnable(method, path), None, "{method} {path}");
    }
    let operations = [
        ("POST", "/api/login", "login"),
        ("GET", "/api/login", ""),
        ("POST", "/login", "login"),
        ("POST", "/v1/Login", "login"),
        ("POST", "/api/password-reset", "reset"),
        ("POST", "/api/signup", "signup"),
        ("POST", "/api/checkout", "checkout"),
        ("POST", "/api/account/email", "account_change"),
        ("GET", "/api/account", "account"),
        ("GET", "/assets/{file}", "static"),
        ("GET", "/api/orders/{id}", ""),
    ];
    for (method, route, operation) in operations {
        assert_eq!(schema.routes().operation(method, route), operation, "{method} {route}");
    }
    assert_eq!(routes::object_id("/api/orders/17", "/api/orders/{id}"), "17");
    assert_eq!(routes::object_id("/api/orders", "/api/orders"), "");
    assert_eq!(routes::segment_of("/users/ann/cards", "/users/{user}/cards", "user"), Some("ann"));
    assert_eq!(routes::segment_of("/users/ann", "/users/{user}/cards", "user"), None);
}

#[test]
fn events_follow_the_plan() {
    let schema = small();
    let admitted = door(&schema).admit(login("Ann")).unwrap();
    let events = schema.events(&admitted);
    assert_eq!(events.events.len(), 2);
    let (address, event) = &events.events[0];
    assert_eq!(address.kind, EntityType(0));
    assert_eq!(event.filters & 1, 1, "bit 0 is every request");
    let plan = &schema.plans()[0];
    let bits = event.filters.count_ones();
    assert_eq!(bits, 2, "every request, and those with an amount: {:b}", event.filters);
    assert_eq!(event.values.as_slice(), [150.0]);
    let user = admitted.subjects.of(EntityType(1)).unwrap();
    assert_eq!(event.members.as_slice(), [Some(user.id.key.low64())]);
    assert_eq!((plan.values.len(), plan.members.len()), (1, 1));

    let context = schema.context(&admitted, admitted.tx.time);
    assert_eq!(context.carried.get("amount"), Some(&Value::Number(150.0)));
    assert!(!context.carried.contains_key("agent"), "only what is declared `carried`");
    for (status, count) in [(401, 1), (200, 0)] {
        let response = HttpResponse { status, ..HttpResponse::default() };
        let outcome = Outcome { transaction_id: "t1".to_owned(), response: Some(response), ..Outcome::default() };
        let outcome = door(&schema).admit_outcome(outcome, &context).unwrap();
        let events = schema.outcome_events(&context, &outcome);
        let of_address = events.events.iter().filter(|(id, _)| id.kind == EntityType(0)).count();
        assert_eq!(of_address, count, "status {status}");
        assert!(events.events.iter().all(|(_, event)| event.filters & 1 == 0 && event.time == admitted.tx.time));
    }
}

#[test]
fn labels_count_and_are_taken_back() {
    let schema = Arc::new(Schema::payments());
    let tx = Transaction {
        id: "p".to_owned(),
        attributes: [("customer", Value::Text("c1".to_owned())), ("terminal", Value::Number(9.0)), ("amount", Value::Number(12.5))]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..Transaction::default()
    };
    let admitted = door(&schema).admit(tx).unwrap();
    assert_eq!(admitted.subjects.len(), 2);
    let context = schema.context(&admitted, Timestamp::from_micros(5));
    let label =
        |kind, replaces| Label { transaction_id: "p".to_owned(), time: Timestamp::from_micros(9), kind, detail: String::new(), replaces };
    assert_eq!(schema.label_events(&context, &label(LabelKind::Fraud, None)).events.len(), 2);
    let corrected = label(LabelKind::Benign, Some(LabelKind::Fraud));
    assert!(schema.label_events(&context, &corrected).events.is_empty());
    let back = schema.retraction_events(&context, &corrected).unwrap();
    assert!(back.events.len() == 2 && back.events.iter().all(|(_, event)| event.sign == -1 && event.time == Timestamp::from_micros(5)));
    let vector = schema.extract(&admitted, &History::default());
    assert_eq!(vector.get(schema.feature("payment.amount").unwrap()), 12.5);
}

#[test]
fn extract_puts_reads_in_their_columns() {
    let schema = small();
    let admitted = door(&schema).admit(login("ann")).unwrap();
    let plan = &schema.plans()[0];
    let reads = (0..plan.reads.len()).map(|read| read as f64 + 1.0).collect();
    let address = admitted.subjects.of(EntityType(0)).unwrap().id;
    let history = History {
        moment: Moment::default(),
        event_time: admitted.tx.time,
        clamped: false,
        status: Status::Full,
        entities: smallvec![EntityReads { entity: address, lateness: 3.0, reads }],
        ..History::default()
    };
    let vector = schema.extract(&admitted, &history);
    let value = |name: &str| vector.get(schema.feature(name).unwrap());
    assert_eq!(value("address.requests_1m"), 1.0);
    assert_eq!(value("address.requests_10m"), 2.0);
    assert_eq!(value("address.failed_10m"), 3.0);
    assert_eq!(value("address.users_24h"), 5.0);
    assert_eq!((value("request.big"), value("request.depth"), value("request.lateness")), (1.0, 2.0, 3.0));
    assert!(matches!(plan.reads[2], Read::Count(_)));
    // A subject that was not there leaves its features missing.
    assert!(schema.extract(&admitted, &History::default()).get(schema.feature("address.users_24h").unwrap()).is_nan());
}

#[test]
fn rows_agree_with_the_scope() {
    let schema = Arc::new(Schema::shipped());
    let admitted = door(&schema).admit(login("ann")).unwrap();
    let fields = schema.fields(&admitted);
    let vector = schema.extract(&admitted, &History::default());
    let mut buffers = RowBuffers::default();
    let scope = schema.scope();
    let row = schema.row(&fields, &vector, &mut buffers);
    assert_eq!((row.numbers.len(), row.texts.len(), row.flags.len()), scope.widths());
    for (rule, holds) in [
        (r#"http.method == "POST" && http.operation == "login""#, true),
        (r#"http.route == "/api/login" && http.present"#, true),
        ("attributes.amount == 150.0 && request.is_login == 1.0", true),
        ("content.automation_agent > 0 && content.browser_agent == 0", true),
        ("request.path_depth > 2", false),
        ("http.has_cookie", false),
        ("address.requests_1m > 0", false),
    ] {
        assert_eq!(crate::expr::Predicate::compile(rule, &scope).unwrap().holds(&row), holds, "{rule}");
    }
    // Moved to another time they are what they would be then.
    let mut later = admitted.clone();
    later.tx.time = admitted.tx.time.plus(Duration::from_secs(29 * 3600));
    let mut moved = schema.fields(&admitted);
    moved.move_to(later.tx.time);
    assert_eq!(format!("{moved:?}"), format!("{:?}", schema.fields(&later)));
    assert_ne!(format!("{moved:?}"), format!("{fields:?}"));
    // The rows of the other phases are as wide as their scopes too.
    let context: Context = schema.context(&admitted, admitted.tx.time);
    let outcome = door(&schema).admit_outcome(Outcome::default(), &context).unwrap();
    let fields = Fields::of_outcome(&context, &outcome, &schema.declared, &schema.routes);
    assert_eq!((fields.numbers.len(), fields.texts.len(), fields.flags.len()), schema.layout.outcome.widths());
    let fields = Fields::of_label(&context, LabelKind::Fraud, &schema.declared, &schema.routes);
    assert_eq!((fields.numbers.len(), fields.texts.len(), fields.flags.len()), schema.layout.label.widths());
}

#[test]
fn features_are_listed_and_explained() {
    let schema = Schema::shipped();
    assert_eq!(schema.list().len(), schema.features().len());
    let explained = schema.explain("address.users_failed_10m").unwrap();
    assert_eq!((explained.of.as_str(), explained.phase, explained.includes_event), ("user", Phase::Outcome, true));
    assert!(explained.feature.meaning.ends_with("during the last 10 minutes"));
    assert!(schema.explain("address.user_failed_10m").unwrap_err().contains("did you mean `address.users_failed_10m`"));
    let device = schema.explain("user.device_new").unwrap();
    assert_eq!(device.warm_after, std::time::Duration::from_secs(30 * 86_400), "novelty keeps its plain name");
    let selectors = schema.selectors();
    assert!(selectors.iter().any(|selector| selector.entity == "session" && selector.places == [Place::Cookie("sid".to_owned())]));
}
