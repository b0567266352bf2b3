//! The scorer late, silent, absent or killed; the upstream gone; the proxy asked to stop.

use std::time::{Duration, Instant};

use telltale_proto::v1::score_stream_request::Payload;
use telltale_proto::v1::{Action, Mitigation};
use telltale_proxy::metrics::Unscored;
use telltale_proxy::start;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{self, FakeScorer, FakeUpstream, Reply, Stage, allow, entity, exchange, until, verdict};

#[tokio::test]
async fn a_silent_scorer_costs_the_deadline_and_no_more() {
    let stage = Stage::with(
        |_| Reply::Silence,
        |settings| {
            settings.scorer.deadline = Duration::from_millis(30);
            settings.scorer.fail_closed = vec!["/payout".to_owned()];
            settings.scorer.alert_after = 3;
        },
    )
    .await;
    let begun = Instant::now();
    assert_eq!(stage.get("/").await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let closed = stage.get("/payout/7").await;
    assert_eq!((closed.status, closed.header("retry-after")), (503, Some("1")));
    assert_eq!(stage.get("/").await.status, 200);
    assert_eq!(stage.proxy.metrics().unscored.get(Unscored::Deadline), 3);
    assert_eq!(stage.proxy.metrics().alerts.get(), 1);
    assert_eq!(stage.upstream.seen().len(), 2);
}

#[tokio::test]
async fn no_scorer_at_all_lets_requests_pass_at_once() {
    let upstream = FakeUpstream::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = start(support::settings(&upstream, nobody)).await.unwrap();
    let begun = Instant::now();
    let answer = exchange(proxy.address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "the deadline of 3 s was waited for");
    assert_eq!(proxy.metrics().unscored.get(Unscored::Absent), 1);
}

#[tokio::test]
async fn a_killed_scorer_is_passed_over_and_found_again() {
    let mut stage = Stage::new(|_| verdict(Action::Block, Mitigation::default())).await;
    assert_eq!(stage.get("/").await.status, 403);
    stage.scorer.kill();
    until(|| stage.proxy.metrics().links.get() == 0).await;
    assert_eq!(stage.get("/").await.status, 200);
    let address = stage.scorer.address;
    stage.scorer = FakeScorer::start_at(address, |_| verdict(Action::Challenge, Mitigation::default()));
    until(|| stage.proxy.metrics().links.get() == 1).await;
    assert_eq!(stage.get("/").await.status, 403);
}

#[tokio::test]
async fn a_rate_limit_holds_while_no_verdict_can_be_had() {
    let secret = [7; 32];
    let key = blake3_key(&secret, "address", "127.0.0.1");
    let limit = move || Mitigation { rate: 1, period_ms: 3_600_000, burst: 2, entity: entity("address", key), ..Mitigation::default() };
    let mut stage = Stage::new(move |_| verdict(Action::RateLimit, limit())).await;
    stage.scorer.push(crate::decisions::table(1, Vec::new()));
    // The selectors have arrived when a decision sent after them is held.
    stage.scorer.push(crate::decisions::table(2, vec![crate::decisions::deny("user", "nobody", "u")]));
    until(|| stage.proxy.metrics().decisions.get() == 1).await;
    assert_eq!(stage.get("/").await.status, 200);
    stage.scorer.kill();
    until(|| stage.proxy.metrics().links.get() == 0).await;
    assert_eq!(stage.get("/").await.status, 200);
    assert_eq!(stage.get("/").await.status, 429);
}

fn blake3_key(secret: &[u8; 32], kind: &str, id: &str) -> [u8; 16] {
    crate::decisions::key(secret, kind, id)
}

#[tokio::test]
async fn a_dead_upstream_is_said_so_and_reported() {
    let stage = Stage::with(
        |_| allow(),
        |settings| {
            let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            settings.upstream = nobody.to_string().parse().unwrap();
        },
    )
    .await;
    let answer = stage.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("cannot be reached"));
    assert_eq!(stage.scorer.outcome().await.response.unwrap().status, 502);
}

#[tokio::test]
async fn stopping_lets_requests_end() {
    let stage = Stage::new(|_| allow()).await;
    let Stage { proxy, upstream, scorer } = stage;
    let address = proxy.address;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| !upstream.seen().is_empty()).await;
    let stopping = tokio::spawn(proxy.stop());
    tokio::time::timeout(support::PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
    upstream.state.release.notify_one();
    let text = support::read_all(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("slow"), "{text}");
    assert!(stopping.await.unwrap(), "not everything ended");
    assert_eq!(scorer.outcome().await.response.unwrap().status, 200);
}

#[tokio::test]
async fn stopping_waits_until_every_outcome_has_arrived() {
    let stage = Stage::with(|_| allow(), |settings| settings.threads = 3).await;
    let Stage { proxy, upstream: _upstream, scorer } = stage;
    let address = proxy.address;
    let clients: Vec<_> = (0..12)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..20 {
                    let answer = exchange(address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
                    assert_eq!(answer.status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(proxy.metrics().unscored.get(Unscored::Absent), 0);
    assert!(proxy.stop().await);
    // The fake notes a frame before it acknowledges it: whatever was acknowledged is here by now.
    let frames = scorer.pending().await;
    let outcomes = frames.iter().filter(|frame| matches!(frame, Payload::Outcome(_))).count();
    assert_eq!((frames.len() - outcomes, outcomes), (240, 240));
}

#[tokio::test]
async fn upstream_connections_are_kept() {
    let stage = Stage::new(|_| allow()).await;
    for _ in 0..5 {
        assert_eq!(stage.get("/").await.status, 200);
    }
    assert_eq!(stage.upstream.state.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
