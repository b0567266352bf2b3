//! What the suites share: policies whose actions a path asks for, waiting with a bound, running the command line.

use std::future::Future;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{ScoreRequest, Transaction, Verdict};
use telltale_tests::process::built;
use tonic::Status;
use tonic::transport::Channel;

/// Rules that act on what the path asks for, and one that tells how often an address was seen.
pub const ACTING: &str = r#"version: 1
mode: enforce
rules:
  - {id: E2E-1, name: Asked to block, when: 'http.path == "/act/block"', action: block, status: 403, score: 90, reason: "the path asks for a block"}
  - {id: E2E-2, name: Asked to challenge, when: 'http.path == "/act/challenge"', action: challenge, score: 50, reason: "the path asks for a challenge"}
  - {id: E2E-3, name: Asked to deceive, when: 'http.path == "/act/deceive"', action: deceive, template: empty_list, score: 60, reason: "the path asks for a decoy"}
  - {id: E2E-4, name: Asked to limit, when: 'http.path == "/act/limit"', action: rate-limit, entity: address, rate: 2, period: 1m, burst: 2, score: 30, reason: "the path asks for a limit"}
  - {id: E2E-5, name: Asked to log, when: 'http.path == "/act/log"', action: log, score: 5, reason: "the path asks for a line"}
  - {id: E2E-6, name: Seen, when: 'address.requests_10m >= 1', action: log, score: 0, reason: "{address.requests_10m} requests within ten minutes"}
"#;

/// Writes that policy below a folder and returns the section that names it.
pub fn acting_policy(folder: &Path) -> String {
    let path = folder.join("acting.yaml");
    std::fs::write(&path, ACTING).unwrap();
    format!("[policy]\npath = {path:?}\n")
}

/// Scores one transaction.
pub async fn score(client: &ScorerClient<Channel>, transaction: Transaction) -> Result<Verdict, Status> {
    let answer = client.clone().score(ScoreRequest { transaction: Some(transaction) }).await?;
    Ok(answer.into_inner().verdict.unwrap())
}

/// Asks every 20 ms until the answer is yes; fails after `limit`. What is awaited gives no event to wait for.
pub async fn within<F: Future<Output = bool>>(limit: Duration, what: &str, mut ask: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + limit;
    while !ask().await {
        assert!(tokio::time::Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs `telltale` to its end.
pub fn telltale(arguments: &[&str]) -> Output {
    Command::new(built("telltale").unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Its standard output, once it ended well.
pub fn telltale_ok(arguments: &[&str]) -> Vec<u8> {
    let output = telltale(arguments);
    assert!(output.status.success(), "telltale {arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Leaves figures where `make check-models` reads them.
pub fn write_figures(name: &str, figures: &serde_json::Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/check");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), format!("{figures:#}\n")).unwrap();
}
