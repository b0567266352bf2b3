//! Bodies stream both ways; scoring waits neither for a long one nor for a slow one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::upstream::BIG;
use crate::support::{PATIENCE, Stage, allow, read_all, until};

#[tokio::test]
async fn fifty_megabytes_stream_up() {
    let stage = Stage::new(|_| allow()).await;
    let mut client = TcpStream::connect(stage.proxy.address).await.unwrap();
    client
        .write_all(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {BIG}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let block = vec![b'u'; 1 << 20];
    client.write_all(&block).await.unwrap();
    // The upstream has bytes while the client has not sent the rest: nothing waits for the whole.
    until(|| stage.upstream.state.received.load(Ordering::SeqCst) >= 1 << 20).await;
    for _ in 1..BIG >> 20 {
        client.write_all(&block).await.unwrap();
    }
    assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_eq!(stage.upstream.state.received.load(Ordering::SeqCst), BIG as u64);
    let http = stage.scorer.transaction().await.http.unwrap();
    assert_eq!((http.body.len(), http.body_size, http.truncated), (16_384, BIG as u64, true));
}

#[tokio::test]
async fn fifty_megabytes_stream_down() {
    let stage = Stage::new(|_| allow()).await;
    let mut client = TcpStream::connect(stage.proxy.address).await.unwrap();
    client.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        total += read;
    }
    assert!(total > BIG, "{total}");
    assert_eq!(stage.scorer.outcome().await.response.unwrap().body_size, BIG as u64);
}

#[tokio::test]
async fn a_slow_body_is_scored_without_its_rest() {
    let stage = Stage::with(|_| allow(), |settings| settings.scorer.sample_wait = Duration::from_millis(40)).await;
    let mut client = TcpStream::connect(stage.proxy.address).await.unwrap();
    client.write_all(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n").await.unwrap();
    let http = stage.scorer.transaction().await.http.unwrap();
    assert_eq!((&http.body[..], http.body_size, http.truncated), (&b"abc"[..], 3, true));
    until(|| stage.upstream.state.received.load(Ordering::SeqCst) == 3).await;
    client.write_all(b"3\r\ndef\r\n0\r\n\r\n").await.unwrap();
    assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_eq!(&stage.upstream.last().body[..], b"abcdef");
}
