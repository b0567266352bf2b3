//! When doors open and close: nobody is let in before the scorer can serve, everybody is told when it stops.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::*;

#[tokio::test]
async fn an_address_that_is_only_taken_refuses_connections() {
    let taken = listen::bind("scoring.listen", "127.0.0.1:0").await.unwrap();
    let address = taken.address().unwrap();
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let _open = taken.open("scoring.listen", "127.0.0.1:0").unwrap();
    TcpStream::connect(address).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_the_health_is_told_of_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut health = HealthClient::new(channel(running.scoring).await);
    let asked = HealthCheckRequest { service: "telltale.v1.Scorer".to_owned() };
    let mut watched = health.watch(asked).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopping = tokio::spawn(running.stop());
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(watched);
    stopping.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_never_ends_does_not_keep_it_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.scoring.drain_ms = 200;
    let running = start(config).await;
    // A call that was begun and whose message never comes.
    let mut caller = TcpStream::connect(running.scoring.unwrap()).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HEADERS of stream 1, without END_STREAM: static table entries `:method: POST`, `:scheme: http`, then literals.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(4_u8, "/telltale.v1.Scorer/Score"), (1, "a"), (31, "application/grpc")] {
        block.extend(if name < 15 { vec![name] } else { vec![0x0f, name - 15] });
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    bytes.extend(block);
    caller.write_all(&bytes).await.unwrap();
    let mut settings = [0; 9];
    caller.read_exact(&mut settings).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), running.stop()).await.expect("the stop waits for a caller").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_scorers_do_not_share_a_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let error = serve(config(folder.path()), ServeOptions::default()).await.err().unwrap().to_string();
    assert!(error.contains("data directory") && error.contains("another scorer"), "{error}");
    running.stop().await.unwrap();
    start(config(folder.path())).await.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_served_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("scorer.sock");
    let mut config = config(folder.path());
    config.scoring.listen = format!("unix:{}", socket.display());
    let running = start(config).await;
    let path = socket.clone();
    let connector = tower::service_fn(move |_: ::http::Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = tonic::transport::Endpoint::from_static("http://scorer").connect_with_connector(connector).await.unwrap();
    score(&mut Client::new(channel), login("u1", "192.0.2.1", "anna")).await.unwrap();
    running.stop().await.unwrap();
    assert!(!socket.exists());
}
