//! Requests that two parsers could read in two ways: refused in words, and never more than one request upstream.

use crate::support::{Stage, allow, exchange, raw};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn ambiguous_framing_is_refused_with_its_reason() {
    let stage = Stage::new(|_| allow()).await;
    let table = [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "exclude each other"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "exclude each other"),
        ("GET / HTTP/1.1\nHost: a\n\n", "bare line feed"),
        ("GET / HTTP/1.1\r\n\r\n", "Host header is missing"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "more than once"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "no host name"),
        ("GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n", "no host name"),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", "no host name"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "different hosts"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", "must not name `host`"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "not served"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "not served"),
    ];
    for (request, message) in table {
        let answer = exchange(stage.proxy.address, format!("{request}{SMUGGLED}")).await;
        assert!(matches!(answer.status, 400 | 405), "{request:?}: {answer:?}");
        assert!(answer.body.contains(message), "{request:?}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
    assert!(stage.scorer.pending().await.is_empty());
}

#[tokio::test]
async fn what_hyper_refuses_reaches_nobody_either() {
    let stage = Stage::new(|_| allow()).await;
    let table = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ];
    for request in table {
        let text = raw(stage.proxy.address, format!("{request}{SMUGGLED}")).await;
        assert!(!text.contains(" 200 "), "{request:?}: {text}");
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
}

#[tokio::test]
async fn a_clean_pipeline_is_served_in_order() {
    let stage = Stage::new(|_| allow()).await;
    let request = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let text = raw(stage.proxy.address, request).await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 3, "{text}");
    let bodies: Vec<_> = stage.upstream.seen().iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
    assert_eq!(bodies, ["abc", "ok", ""]);
}
