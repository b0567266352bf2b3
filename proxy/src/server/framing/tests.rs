//! Streams that are clean, streams that are not, and that cutting them anywhere changes nothing.

use super::*;

fn watch(bytes: &[u8], cut: usize) -> (u64, Option<&'static str>) {
    let mut watch = Watch::default();
    for part in bytes.chunks(cut) {
        watch.feed(part);
    }
    (watch.heads(), watch.wrong())
}

#[test]
fn clean_streams_are_counted_however_they_are_cut() {
    let streams: [(&[u8], u64); 6] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", 2),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET \nGET / HTTP/1.1\r\n\r\n", 2),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\ncd\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", 0),
    ];
    for (stream, heads) in streams {
        for cut in 1..=stream.len() {
            assert_eq!(watch(stream, cut), (heads, None), "{} cut every {cut}", String::from_utf8_lossy(stream));
        }
    }
}

#[test]
fn ambiguous_heads_are_found() {
    let table: [(&[u8], &str); 12] = [
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "exclude each other"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "exclude each other"),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "different values"),
        (b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", "one decimal number"),
        (b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", "one decimal number"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: identity, chunked\r\n\r\n", "may only be `chunked`"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "may only be `chunked`"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", "before the colon"),
        (b"GET / HTTP/1.1\nHost: a\n\n", "bare line feed"),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "folded"),
        (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", "carriage return"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5 x\r\nabcde\r\n0\r\n\r\n", "hexadecimal"),
    ];
    for (stream, wanted) in table {
        for cut in 1..=stream.len() {
            let (_, wrong) = watch(stream, cut);
            assert!(wrong.is_some_and(|wrong| wrong.contains(wanted)), "{} cut every {cut}: {wrong:?}", String::from_utf8_lossy(stream));
        }
    }
}
