//! Passive: scored beside, never delayed, never refused.

use std::time::{Duration, Instant};

use telltale_proto::v1::{Action, Mitigation};

use crate::support::{Reply, Stage, until, verdict};

#[tokio::test]
async fn a_silent_scorer_is_not_waited_for() {
    let stage = Stage::with(|_| Reply::Silence, |settings| settings.passive = true).await;
    let begun = Instant::now();
    assert_eq!(stage.get("/").await.status, 200);
    assert!(begun.elapsed() < Duration::from_millis(900), "passive requests wait: {:?}", begun.elapsed());
    assert_eq!(stage.scorer.transaction().await.http.unwrap().path, "/");
}

#[tokio::test]
async fn nothing_is_enforced_and_all_is_reported() {
    let stage = Stage::with(
        |_| verdict(Action::Block, Mitigation { delay_ms: 5_000, ..Mitigation::default() }),
        |settings| settings.passive = true,
    )
    .await;
    stage.scorer.push(crate::decisions::table(1, vec![crate::decisions::deny("address", "127.0.0.1", "d")]));
    until(|| stage.proxy.metrics().decisions.get() == 1).await;
    let body = "x".repeat(40_000);
    let request = format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    assert_eq!(stage.send(&request).await.status, 200);
    let transaction = stage.scorer.transaction().await;
    let http = transaction.http.unwrap();
    assert_eq!((http.body.len(), http.body_size, http.truncated), (16_384, 40_000, true));
    let outcome = stage.scorer.outcome().await;
    assert_eq!((outcome.transaction_id, outcome.enforced), (transaction.id, Action::Allow.into()));
    assert_eq!(&stage.upstream.last().body[..], body.as_bytes());
}
