//! What every test stands on: the proxy between its fakes, and a plain client.

pub mod scorer;
pub mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use telltale_proto::v1::{Action, Entity, Mitigation, Verdict};
use telltale_proxy::{Running, Settings, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub use scorer::{FakeScorer, Reply};
pub use upstream::FakeUpstream;

/// No single step of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Settings for tests: fakes on loopback, a deadline that a busy machine keeps.
pub fn settings(upstream: &FakeUpstream, scorer: SocketAddr) -> Settings {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nupstream = \"http://{}\"\nservice = \"shop\"\nthreads = 1\n[scorer]\naddress = \"http://{scorer}\"\ndeadline_ms = 3000\n[decisions]\nfile = \"\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n",
        upstream.address
    );
    Settings::parse(&text, "test").unwrap()
}

/// The proxy with both fakes; returns once its stream to the scorer stands.
pub struct Stage {
    pub proxy: Running,
    pub upstream: FakeUpstream,
    pub scorer: FakeScorer,
}

impl Stage {
    pub async fn new(script: impl Fn(&telltale_proto::v1::Transaction) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(script, |_| {}).await
    }

    pub async fn with(
        script: impl Fn(&telltale_proto::v1::Transaction) -> Reply + Send + Sync + 'static,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let upstream = FakeUpstream::start().await;
        let scorer = FakeScorer::start(script);
        let mut settings = settings(&upstream, scorer.address);
        change(&mut settings);
        let proxy = start(settings).await.unwrap();
        until(|| proxy.metrics().links.get() > 0).await;
        Self { proxy, upstream, scorer }
    }

    pub async fn get(&self, path: &str) -> Answer {
        exchange(self.proxy.address, &format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")).await
    }

    pub async fn send(&self, request: &str) -> Answer {
        exchange(self.proxy.address, request).await
    }
}

/// An answer as a client reads it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends raw bytes on a connection of its own and reads until the other side closes.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    Answer::parse(&raw(address, request).await)
}

pub async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    read_all(&mut stream).await
}

pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the proxy neither answered nor closed in time");
    if let Err(error) = read {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for what another task does, without a guess at how long it takes.
pub async fn until(mut holds: impl FnMut() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("what was waited for did not come");
}

pub fn verdict(action: Action, mitigation: Mitigation) -> Reply {
    let context = (&b"token"[..]).into();
    Reply::Verdict(Box::new(Verdict { action: action.into(), mitigation: Some(mitigation), context, ..Verdict::default() }))
}

pub fn allow() -> Reply {
    verdict(Action::Allow, Mitigation::default())
}

pub fn entity(kind: &str, key: [u8; 16]) -> Option<Entity> {
    Some(Entity { r#type: kind.to_owned(), key: key.to_vec().into(), id: String::new() })
}
