//! Bad requests at the proxy, as bytes: each gets an answer or an end, and the proxy goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use telltale_tests::http::Http;
use telltale_tests::stand::{Between, Proxy, Scorer, Upstream};

use crate::stage::within;

/// Sends bytes and returns the status of the answer; 0 when the connection ended without one.
fn status_of(server: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The proxy may answer and close before it has read everything: what it said still counts.
    drop(stream.write_all(request));
    let mut head = [0; 12];
    let mut filled = 0;
    while filled < head.len() {
        match stream.read(&mut head[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    let text = String::from_utf8_lossy(&head[..filled]).into_owned();
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// Requests that the proxy counts as refused for their form or size.
async fn refused(metrics: SocketAddr) -> f64 {
    let text = Http::new(metrics).send("GET", "/metrics", &[], "").await.unwrap().text();
    let lines = text.lines().filter(|line| line.starts_with("telltale_proxy_refused_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_the_proxy_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(folder.path()).unwrap();
    let scorer = Scorer::start(folder.path(), "").unwrap();
    let between = Between { upstream: upstream.listen, scorer: scorer.scoring, deadline_ms: 200 };
    let mut proxy = Proxy::start("proxy", folder.path(), between, "").unwrap();

    let many: String = (0..100_000).map(|at| format!("x-{at}: 1\r\n")).collect();
    let long_path = "a".repeat(1 << 20);
    let cases: [(&str, Vec<u8>, &[u16]); 9] = [
        ("a path of 1 MB", format!("GET /{long_path} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes(), &[0, 400, 414, 431]),
        ("100,000 headers", format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").into_bytes(), &[0, 400, 431]),
        ("invalid UTF-8 in a header", b"GET /ok HTTP/1.1\r\nhost: a\r\nx-bad: \xff\xfe\r\nconnection: close\r\n\r\n".to_vec(), &[200, 400]),
        ("invalid UTF-8 in the path", b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(), &[0, 200, 400]),
        ("two lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_vec(), &[0, 400]),
        (
            "length and chunks",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            &[0, 400],
        ),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[0, 400]),
        ("a bare NUL", b"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), &[0, 400]),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[0, 400]),
    ];
    for (what, request, allowed) in cases {
        let (listen, before) = (proxy.listen, refused(proxy.metrics).await);
        let status = tokio::task::spawn_blocking(move || status_of(listen, &request)).await.unwrap();
        println!("{what}: {status}");
        assert!(allowed.contains(&status), "{what}: answered {status}, allowed {allowed:?}");
        if status != 200 {
            let metrics = proxy.metrics;
            within(Duration::from_secs(5), &format!("{what} is counted"), || async move { refused(metrics).await > before }).await;
        }
    }

    let http = Http::new(proxy.listen);
    let forged = [("x-telltale-transaction-id", "chosen"), ("x-telltale-verdict", "allow"), ("x-forwarded-for", "127.9.1.1")];
    let answer = http.send("GET", "/quiet", &forged, "").await.unwrap();
    assert_eq!(answer.status, 200);
    for claim in ["chosen", "x-telltale-verdict"] {
        assert!(!answer.text().contains(claim), "a client's claim reached the upstream: {}", answer.text());
    }
    assert!(answer.text().contains("x-telltale-transaction-id"), "the proxy's own identifier is missing: {}", answer.text());
    proxy.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(proxy.process.wait().unwrap());
    assert!(!proxy.process.last_words().contains("panicked"), "{}", proxy.process.last_words());
}
