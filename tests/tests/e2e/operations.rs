//! What an operator relies on: metrics, health, reflection, listeners, hot reload.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use telltale_proto::v1::ListDecisionsRequest;
use telltale_tests::http::Http;
use telltale_tests::process::built;
use telltale_tests::stand::{Between, Proxy, Scorer, Upstream, connect, shipped_models};
use telltale_tests::traffic::Traffic;
use tokio_stream::StreamExt;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request, server_reflection_response};

use crate::stage::{ACTING, score, within};

/// What promtool says of a page of metrics; empty when nothing.
fn promtool(text: &str) -> String {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: install it with `apt-get install prometheus` (tests/setup.sh does)");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { String::new() } else { format!("{}: {said}\n{text}", output.status) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_of_scorer_and_proxy_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(folder.path()).unwrap();
    let scorer = Scorer::start(folder.path(), "").unwrap();
    let between = Between { upstream: upstream.listen, scorer: scorer.scoring, deadline_ms: 500 };
    let proxy = Proxy::start("proxy", folder.path(), between, "").unwrap();
    let mut traffic = Traffic::new(71, 20);
    for at in 0..50 {
        score(&scorer.client().await, traffic.next_transaction()).await.unwrap();
        Http::new(proxy.listen).get(&format!("/status/{}", 200 + at), "127.9.0.1").await.unwrap();
    }
    for metrics in [scorer.metrics, proxy.metrics] {
        let text = Http::new(metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
        assert!(text.contains("# TYPE telltale_"), "{text}");
        assert_eq!(promtool(&text), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_serve_and_listeners_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    let scorer = Scorer::start(folder.path(), "").unwrap();
    let scoring = services(scorer.scoring).await;
    let admin = services(scorer.admin).await;
    for service in ["telltale.v1.Scorer", "telltale.v1.Decisions"] {
        assert!(scoring.iter().any(|name| name == service), "{service} is not among {scoring:?}");
    }
    assert!(admin.iter().any(|name| name == "telltale.v1.Entities"), "{admin:?}");
    let mut health = HealthClient::new(connect(scorer.scoring));
    let asked = HealthCheckRequest { service: "telltale.v1.Scorer".to_owned() };
    assert_eq!(health.check(asked).await.unwrap().into_inner().status(), ServingStatus::Serving);

    // Administration does not answer where gateways call.
    let mut misplaced = telltale_proto::v1::entities_client::EntitiesClient::new(connect(scorer.scoring));
    assert_eq!(misplaced.list_decisions(ListDecisionsRequest {}).await.unwrap_err().code(), tonic::Code::Unimplemented);
    scorer.entities().await.list_decisions(ListDecisionsRequest {}).await.unwrap();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(Http::new(scorer.metrics).send("GET", path, &[], "").await.unwrap().status, 200, "{path}");
    }
}

async fn services(server: SocketAddr) -> Vec<String> {
    let mut client = ServerReflectionClient::new(connect(server));
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    list.service.into_iter().map(|service| service.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_pack_is_reloaded_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack.yaml");
    std::fs::write(&pack, ACTING).unwrap();
    let scorer = Scorer::start(folder.path(), &format!("[policy]\npath = {pack:?}\n")).unwrap();
    let client = scorer.client().await;
    let traffic = std::sync::Mutex::new(Traffic::new(72, 5));
    let policy = || {
        let (client, transaction) = (client.clone(), traffic.lock().unwrap().next_transaction());
        async move { score(&client, transaction).await.unwrap().versions.unwrap().policy }
    };
    let first = policy().await;

    // By a change of the file alone.
    let rule = "  - {id: E2E-7, name: New, when: 'http.method == \"PUT\"', action: log, score: 1, reason: \"a PUT\"}\n";
    std::fs::write(&pack, format!("{ACTING}{rule}")).unwrap();
    within(Duration::from_secs(15), "the changed file in force", || async { policy().await != first }).await;
    let second = policy().await;

    // A bad pack, asked for by signal: refused, counted, the old one stays.
    std::fs::write(&pack, "version: 1\nrules: [{id: broken}]\n").unwrap();
    scorer.process.signal(rustix::process::Signal::HUP).unwrap();
    let http = Http::new(scorer.metrics);
    within(Duration::from_secs(15), "the refused reload is counted", || {
        let http = http.clone();
        async move {
            let text = http.send("GET", "/metrics", &[], "").await.unwrap().text();
            text.lines().any(|line| line.starts_with("telltale_policy_reloads_total{result=\"refused\"}") && !line.ends_with(" 0"))
        }
    })
    .await;
    assert_eq!(policy().await, second);
    assert!(scorer.process.last_words().contains("pack.yaml"), "{}", scorer.process.last_words());

    // A good one again, by signal.
    std::fs::write(&pack, ACTING).unwrap();
    scorer.process.signal(rustix::process::Signal::HUP).unwrap();
    within(Duration::from_secs(15), "the first pack in force again", || async { policy().await == first }).await;
}

#[test]
fn onnx_runtime_reports_to_nobody() {
    let (models, home) = (shipped_models().expect("models/default is absent"), tempfile::tempdir().unwrap());
    let mut command = Command::new(built("telltale").unwrap());
    command.args(["models", "verify", "--models"]).arg(&models).current_dir(home.path());
    // What the caller's environment says must not count: that of a CI run switches the reports off as well.
    command.env_clear().env("HOME", home.path()).env("ORT_DISABLE_TELEMETRY", "0");
    command.env("ORT_DYLIB_PATH", std::env::var_os("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH is not set: run `make test`"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A device id and a queue of reports would stand in `.cache`.
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
