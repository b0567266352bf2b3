//! Proxy, scorer and upstream together, seen by a real HTTP client: actions, fail-open, overrides, restarts.

use std::path::Path;
use std::time::Duration;

use telltale_proto::v1::{Action, Entity, OverrideRequest};
use telltale_tests::http::Http;
use telltale_tests::stand::{Between, Proxy, Scorer, Upstream};
use tokio::time::Instant;

use crate::stage::{acting_policy, within};

struct Stand {
    folder: tempfile::TempDir,
    sections: String,
    scorer: Scorer,
    proxy: Proxy,
    upstream: Upstream,
}

impl Stand {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sections = acting_policy(folder.path());
        let upstream = Upstream::start(folder.path()).unwrap();
        let scorer = Scorer::start(folder.path(), &sections).unwrap();
        let proxy = Self::proxy(folder.path(), &upstream, &scorer);
        Self { folder, sections, scorer, proxy, upstream }
    }

    fn proxy(folder: &Path, upstream: &Upstream, scorer: &Scorer) -> Proxy {
        Proxy::start("proxy", folder, Between { upstream: upstream.listen, scorer: scorer.scoring, deadline_ms: 500 }, "").unwrap()
    }

    fn http(&self) -> Http {
        Http::new(self.proxy.listen)
    }

    /// The proxy asks the scorer: a path that asks for a block is blocked.
    async fn scored(&self) {
        let http = self.http();
        within(Duration::from_secs(15), "the proxy reaches the scorer", || {
            let http = http.clone();
            async move { http.get("/act/block", "127.9.0.250").await.is_ok_and(|answer| answer.status == 403) }
        })
        .await;
    }

    async fn deny(&self, address: &str) {
        let request = OverrideRequest {
            entity: Some(Entity { r#type: "address".to_owned(), id: address.to_owned(), ..Entity::default() }),
            action: Action::Block.into(),
            duration: None,
            reason: "an end-to-end test".to_owned(),
        };
        let decision = self.scorer.entities().await.r#override(request).await.unwrap().into_inner().decision;
        assert_eq!(decision.unwrap().action(), Action::Block);
    }

    async fn denied_within(&self, limit: Duration, address: &'static str) {
        let http = self.http();
        within(limit, "the denial in force at the proxy", || {
            let http = http.clone();
            async move { http.get("/quiet", address).await.is_ok_and(|answer| answer.status == 403) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sees_each_action() {
    let stand = Stand::start();
    stand.scored().await;
    let http = stand.http();
    let allowed = http.get("/quiet", "127.9.0.1").await.unwrap();
    assert_eq!((allowed.status.as_u16(), allowed.header("x-upstream")), (200, "yes"));
    let logged = http.get("/act/log", "127.9.0.1").await.unwrap();
    assert_eq!((logged.status.as_u16(), logged.header("x-upstream")), (200, "yes"));

    let blocked = http.get("/act/block", "127.9.0.1").await.unwrap();
    assert_eq!((blocked.status.as_u16(), blocked.header("x-upstream")), (403, ""));
    assert!(!blocked.header("content-type").contains("html"), "HTML for a client that is not a browser");
    let challenged = http.get("/act/challenge", "127.9.0.1").await.unwrap();
    assert_eq!((challenged.status.as_u16(), challenged.header("x-upstream")), (403, ""));
    let deceived = http.get("/act/deceive", "127.9.0.1").await.unwrap();
    assert_eq!((deceived.status.as_u16(), deceived.header("x-upstream")), (200, ""), "{}", deceived.text());

    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = http.get("/act/limit", "127.9.0.2").await.unwrap();
        if answer.status == 429 {
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{:?}", answer.headers);
        }
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429]);
    assert_eq!(http.get("/act/limit", "127.9.0.3").await.unwrap().status, 200, "the bucket of one address limited another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_scorer_the_proxy_fails_open_and_holds_decisions() {
    let mut stand = Stand::start();
    stand.scored().await;
    stand.deny("127.9.0.77").await;
    stand.denied_within(Duration::from_secs(1), "127.9.0.77").await;

    stand.scorer.process.signal(rustix::process::Signal::KILL).unwrap();
    assert!(!stand.scorer.process.wait().unwrap());
    let http = stand.http();
    for _ in 0..20 {
        let began = Instant::now();
        let open = http.get("/act/block", "127.9.0.4").await.unwrap();
        assert_eq!((open.status.as_u16(), open.header("x-upstream")), (200, "yes"));
        assert!(began.elapsed() < Duration::from_millis(900), "an answer took {:?}, the deadline is 500 ms", began.elapsed());
    }
    assert_eq!(http.get("/quiet", "127.9.0.77").await.unwrap().status, 403, "the denial did not hold without the scorer");

    stand.scorer = Scorer::start_at(stand.folder.path(), &stand.sections, stand.scorer.addresses()).unwrap();
    stand.scored().await;
    assert_eq!(http.get("/quiet", "127.9.0.77").await.unwrap().status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_outlives_both_restarts() {
    let mut stand = Stand::start();
    stand.scored().await;
    let http = stand.http();
    assert_eq!(http.get("/quiet", "127.9.0.88").await.unwrap().status, 200);
    stand.deny("127.9.0.88").await;
    stand.denied_within(Duration::from_secs(1), "127.9.0.88").await;
    assert_eq!(http.get("/quiet", "127.9.0.89").await.unwrap().status, 200, "the denial of one address hit another");

    for process in [&mut stand.proxy.process, &mut stand.scorer.process] {
        process.signal(rustix::process::Signal::TERM).unwrap();
        assert!(process.wait().unwrap(), "{}", process.last_words());
    }
    // The proxy alone first: it holds what it saved.
    stand.proxy = Stand::proxy(stand.folder.path(), &stand.upstream, &stand.scorer);
    assert_eq!(stand.http().get("/quiet", "127.9.0.88").await.unwrap().status, 403, "not in force after the proxy's restart");
    stand.scorer = Scorer::start_at(stand.folder.path(), &stand.sections, stand.scorer.addresses()).unwrap();
    stand.scored().await;
    assert_eq!(stand.http().get("/quiet", "127.9.0.88").await.unwrap().status, 403, "not in force after the scorer's restart");
}
