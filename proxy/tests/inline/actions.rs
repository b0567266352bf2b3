//! Every action of a verdict, and what is reported of it.

use std::time::{Duration, Instant};

use telltale_proto::v1::{Action, Mitigation};

use crate::support::{Reply, Stage, allow, entity, until, verdict};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml\r\nUser-Agent: Mozilla/5.0 (X11)\r\nSec-Fetch-Mode: navigate\r\n";

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{headers}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn allow_and_log_go_on_and_are_reported() {
    for action in [Action::Unspecified, Action::Allow, Action::Log] {
        let stage = Stage::new(move |_| verdict(action, Mitigation::default())).await;
        let answer = stage.get("/orders?page=2").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "upstream /orders"));
        assert_eq!(answer.header("x-telltale-secret"), None, "the upstream may not speak for the proxy");
        let transaction = stage.scorer.transaction().await;
        let outcome = stage.scorer.outcome().await;
        let response = outcome.response.clone().unwrap();
        assert_eq!(outcome.transaction_id, transaction.id);
        assert_eq!(&outcome.context[..], b"token");
        assert_eq!(outcome.enforced(), if action == Action::Log { Action::Log } else { Action::Allow });
        assert_eq!((response.status, response.body_size), (200, 16));
        assert!(response.duration_us > 0);
        let mut names: Vec<_> = response.headers.iter().map(|header| header.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "set-cookie"]);
    }
}

#[tokio::test]
async fn the_transaction_is_what_the_contract_says() {
    let stage = Stage::new(|_| allow()).await;
    let body = "{\"username\":\"ann\"}";
    let request = format!(
        "POST /api/login?next=%2F HTTP/1.1\r\nHost: Shop.Test:8080\r\nUser-Agent: t\r\nX-Telltale-Transaction-Id: mine\r\nCookie: did=d1\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(stage.send(&request).await.status, 200);
    let transaction = stage.scorer.transaction().await;
    assert_eq!(transaction.id.len(), 32);
    assert!(transaction.id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(transaction.service, "shop");
    assert!(transaction.time.is_some() && transaction.identity.is_none() && transaction.response.is_none());
    let source = transaction.source.unwrap();
    assert_eq!(source.ip, "127.0.0.1");
    assert_ne!(source.port, 0);
    let http = transaction.http.unwrap();
    assert_eq!((http.method.as_str(), http.scheme.as_str(), http.host.as_str()), ("POST", "http", "shop.test:8080"));
    assert_eq!((http.path.as_str(), http.query.as_str(), http.version.as_str()), ("/api/login", "next=%2F", "1.1"));
    assert_eq!((&http.body[..], http.body_size, http.truncated), (body.as_bytes(), body.len() as u64, false));
    assert_eq!(http.route, "");
    let names: Vec<_> = http.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, ["host", "user-agent", "cookie", "content-type", "content-length"]);
    let seen = stage.upstream.last();
    assert_eq!(seen.headers["x-telltale-transaction-id"].to_str().unwrap(), transaction.id);
    assert_eq!((&seen.body[..], seen.target.as_str()), (body.as_bytes(), "/api/login?next=%2F"));
}

#[tokio::test]
async fn block_has_the_status_asked_for_and_fits_the_client() {
    let stage = Stage::new(|_| verdict(Action::Block, Mitigation { status: 451, retry_after_ms: 1500, ..Mitigation::default() })).await;
    let table = [
        ("", "application/json", "{\"error\":\"forbidden\""),
        (BROWSER, "text/html; charset=utf-8", "<!doctype html>"),
        ("Accept: text/html\r\nUser-Agent: curl/8\r\n", "application/json", "{\"error\""),
        ("Accept: text/plain\r\n", "text/plain; charset=utf-8", "This request was refused."),
        ("Accept: */*\r\nUser-Agent: Mozilla/5.0\r\n", "application/json", "{\"error\""),
    ];
    for (headers, kind, begins) in table {
        let answer = stage.send(&get("/", headers)).await;
        assert_eq!((answer.status, answer.header("content-type")), (451, Some(kind)), "{headers}");
        assert!(answer.body.starts_with(begins), "{}", answer.body);
        assert_eq!(answer.header("retry-after"), Some("2"));
        let outcome = stage.scorer.outcome().await;
        assert_eq!((outcome.enforced(), outcome.response.unwrap().status), (Action::Block, 451));
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_block_without_a_sensible_status_is_403() {
    for status in [0, 200, 302, 99_999] {
        let stage = Stage::new(move |_| verdict(Action::Block, Mitigation { status, ..Mitigation::default() })).await;
        assert_eq!(stage.get("/").await.status, 403, "{status}");
    }
}

#[tokio::test]
async fn challenge_is_a_plain_403() {
    let stage = Stage::new(|_| verdict(Action::Challenge, Mitigation::default())).await;
    let answer = stage.get("/").await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("verification_required"));
    assert!(stage.send(&get("/", BROWSER)).await.body.contains("<h1>"));
    assert_eq!(stage.scorer.outcome().await.enforced(), Action::Challenge);
}

#[tokio::test]
async fn deceive_answers_from_a_template_that_gives_nothing_away() {
    let table = [
        ("empty_list", 200, "\"items\":[]"),
        ("fake_order", 200, "accepted"),
        ("login_failure", 401, "invalid"),
        ("no such", 401, "invalid"),
    ];
    for (name, status, part) in table {
        let stage = Stage::new(move |_| verdict(Action::Deceive, Mitigation { template: name.to_owned(), ..Mitigation::default() })).await;
        let answer = stage.get("/api/orders").await;
        assert_eq!(answer.status, status, "{name}");
        assert!(answer.body.contains(part), "{}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(!answer.head.contains("telltale") && !answer.body.contains("reference"));
        assert!(stage.upstream.seen().is_empty());
        assert_eq!(stage.scorer.outcome().await.enforced(), Action::Deceive);
    }
}

#[tokio::test]
async fn rate_limit_has_a_bucket_for_each_entity() {
    let limit = |key| Mitigation { rate: 1, period_ms: 3_600_000, burst: 3, entity: entity("address", [key; 16]), ..Mitigation::default() };
    let stage = Stage::new(move |transaction| {
        let path = &transaction.http.as_ref().unwrap().path;
        verdict(Action::RateLimit, limit(if path == "/a" { 1 } else { 2 }))
    })
    .await;
    let mut statuses = Vec::new();
    for path in ["/a", "/a", "/a", "/a", "/b", "/a"] {
        statuses.push(stage.get(path).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 200, 429]);
    let refused = stage.get("/a").await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_rate_limit_without_an_entity_is_for_the_request_alone() {
    let stage = Stage::new(|_| verdict(Action::RateLimit, Mitigation { retry_after_ms: 7000, ..Mitigation::default() })).await;
    let answer = stage.get("/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
}

#[tokio::test]
async fn delays_are_given_bounded_and_capped_in_number() {
    let delayed = |_: &_| verdict(Action::Allow, Mitigation { delay_ms: 10_000, ..Mitigation::default() });
    let stage = Stage::with(delayed, |settings| settings.limits.delay = Duration::from_millis(150)).await;
    let begun = Instant::now();
    assert_eq!(stage.get("/").await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());

    let stage = Stage::with(delayed, |settings| settings.limits.delayed = 0).await;
    assert_eq!(stage.get("/").await.status, 200);
    assert_eq!(stage.proxy.metrics().undelayed.get(), 1);
}

#[tokio::test]
async fn actions_are_counted_and_the_added_time_is_measured() {
    let stage = Stage::new(|transaction| match transaction.http.as_ref().unwrap().path.as_str() {
        "/block" => verdict(Action::Block, Mitigation::default()),
        "/error" => Reply::Error,
        _ => allow(),
    })
    .await;
    for path in ["/", "/", "/block", "/error"] {
        stage.get(path).await;
    }
    let address = stage.proxy.metrics_address.unwrap();
    let text = crate::support::exchange(address, "GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").await.body;
    for line in [
        "telltale_proxy_requests_total{action=\"allow\"} 3",
        "telltale_proxy_requests_total{action=\"block\"} 1",
        "telltale_proxy_unscored_total{reason=\"refused\"} 1",
        "telltale_proxy_added_seconds_count 4",
        "telltale_proxy_scorer_streams 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    until(|| stage.proxy.metrics().connections.get() == 0).await;
}
