//! What a client may not claim, seen from the upstream and from the scorer.

use telltale_proxy::hops::TrustedHops;

use crate::support::{Stage, allow};

#[tokio::test]
async fn spoofed_headers_reach_nobody() {
    let stage = Stage::new(|_| allow()).await;
    let spoofed = [
        "X-Telltale-Transaction-Id: deadbeef",
        "X-Telltale-Verdict: allow",
        "X-Forwarded-For: 9.9.9.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil",
        "Forwarded: for=9.9.9.9",
        "X-Real-IP: 9.9.9.9",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Upgrade: websocket",
        "X-Hop: gone",
    ];
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n{}\r\nConnection: close, x-hop\r\n\r\n", spoofed.join("\r\n"));
    assert_eq!(stage.send(&request).await.status, 200);
    let transaction = stage.scorer.transaction().await;
    let names: Vec<_> = transaction.http.as_ref().unwrap().headers.iter().map(|header| header.name.clone()).collect();
    assert_eq!(names, ["host", "x-kept"]);
    assert_eq!((transaction.source.unwrap().ip.as_str(), transaction.http.unwrap().scheme.as_str()), ("127.0.0.1", "http"));
    let headers = stage.upstream.last().headers;
    let of = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(of("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(of("x-forwarded-proto"), ["http"]);
    assert_eq!(of("x-telltale-transaction-id"), [transaction.id.as_str()]);
    for gone in ["x-telltale-verdict", "x-forwarded-host", "forwarded", "keep-alive", "te", "upgrade", "x-hop", "connection"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn a_trusted_hop_is_believed() {
    let stage = Stage::with(|_| allow(), |settings| settings.trusted_hops = TrustedHops::parse(&["127.0.0.0/8".to_owned()]).unwrap()).await;
    stage.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 203.0.113.9, 127.0.0.7\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n").await;
    let transaction = stage.scorer.transaction().await;
    let source = transaction.source.unwrap();
    assert_eq!((source.ip.as_str(), source.port), ("203.0.113.9", 0));
    assert_eq!(transaction.http.unwrap().scheme, "https");
    let headers = stage.upstream.last().headers;
    assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 203.0.113.9, 127.0.0.7, 127.0.0.1");
    assert_eq!(headers["x-real-ip"], "203.0.113.9");
}
