//! Sizes, times and numbers.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Stage, allow, exchange, read_all, until};

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let stage = Stage::with(
        |_| allow(),
        |settings| {
            settings.limits.headers = 10;
            settings.limits.header_bytes = 2048;
            settings.limits.body_bytes = 1000;
        },
    )
    .await;
    let end = "Host: a\r\nConnection: close\r\n";
    let table = [
        (format!("GET / HTTP/1.1\r\n{end}{}\r\n", "A: b\r\n".repeat(11)), 431, "header lines"),
        (format!("GET / HTTP/1.1\r\n{end}A: {}\r\n\r\n", "x".repeat(2100)), 431, "head has"),
        (format!("GET /{} HTTP/1.1\r\n{end}\r\n", "x".repeat(2100)), 414, "head has"),
        (format!("POST / HTTP/1.1\r\n{end}Content-Length: 1001\r\n\r\n"), 413, "at most 1000"),
        (
            format!("POST / HTTP/1.1\r\n{end}Transfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)),
            413,
            "at most 1000",
        ),
    ];
    for (request, status, message) in table {
        let answer = exchange(stage.proxy.address, &request).await;
        assert_eq!(answer.status, status, "{request:.40}: {answer:?}");
        assert!(answer.body.contains(message), "{answer:?}");
    }
    assert!(stage.upstream.seen().is_empty());
    let huge = format!("GET / HTTP/1.1\r\n{end}{}\r\n", "A: b\r\n".repeat(100_000));
    let mut client = TcpStream::connect(stage.proxy.address).await.unwrap();
    let _reset = client.write_all(huge.as_bytes()).await;
    assert!(!read_all(&mut client).await.contains(" 200 "));
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let stage = Stage::with(
        |_| allow(),
        |settings| {
            settings.limits.header_time = Duration::from_millis(60);
            settings.limits.idle_time = Duration::from_secs(30);
        },
    )
    .await;
    let mut slow = TcpStream::connect(stage.proxy.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    assert!(!read_all(&mut slow).await.contains(" 200 "));

    let stage = Stage::with(|_| allow(), |settings| settings.limits.idle_time = Duration::from_millis(60)).await;
    let mut idle = TcpStream::connect(stage.proxy.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_all(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_request_has_a_limit_in_all() {
    let stage = Stage::with(|_| allow(), |settings| settings.limits.request_time = Duration::from_millis(80)).await;
    let answer = stage.get("/slow").await;
    assert_eq!(answer.status, 504);
    assert!(answer.body.contains("in time"));
}

#[tokio::test]
async fn connections_are_bounded() {
    let stage = Stage::with(|_| allow(), |settings| settings.limits.connections = 1).await;
    let held = TcpStream::connect(stage.proxy.address).await.unwrap();
    until(|| stage.proxy.metrics().connections.get() == 1).await;
    let mut second = TcpStream::connect(stage.proxy.address).await.unwrap();
    let text = read_all(&mut second).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("later.\n"), "{text}");
    drop(held);
    until(|| stage.proxy.metrics().connections.get() == 0).await;
}
