//! Calls that are no gRPC, or no message: refused with where the message breaks off, and the server goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut};
use prost::Message;
use telltale_proto::v1::{ScoreRequest, ScoreResponse};
use telltale_tests::stand::{Scorer, connect};
use telltale_tests::traffic::Traffic;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::stage::score;

/// Sends bytes as they are, as if they were a message.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ScoreResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ScoreResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<ScoreResponse>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        ScoreResponse::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

async fn call(scorer: &Scorer, path: &'static str, bytes: Vec<u8>) -> Result<ScoreResponse, Status> {
    let mut client = tonic::client::Grpc::new(connect(scorer.scoring));
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(Request::new(bytes), path, Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_refused() {
    const SCORE: &str = "/telltale.v1.Scorer/Score";
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let mut traffic = Traffic::new(54, 10);
    let good = ScoreRequest { transaction: Some(traffic.next_transaction()) }.encode_to_vec();
    let cases: [(&str, Vec<u8>, &[Code], &str); 6] = [
        ("noise", vec![0xff; 64], &[Code::Internal, Code::InvalidArgument], "decode"),
        ("a message cut off", good[..good.len() / 2].to_vec(), &[Code::Internal, Code::InvalidArgument], "ScoreRequest"),
        ("a wrong wire type", vec![0x08, 0x01], &[Code::Internal, Code::InvalidArgument], "wire type"),
        // `id` of the transaction, two bytes that are no UTF-8.
        ("text that is no UTF-8", vec![0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe], &[Code::Internal, Code::InvalidArgument], "UTF-8"),
        ("no transaction", Vec::new(), &[Code::InvalidArgument], "transaction"),
        ("a message of 20 MB", [good.clone(), vec![0; 20 << 20]].concat(), &[Code::OutOfRange, Code::ResourceExhausted], "limit"),
    ];
    for (what, bytes, codes, part) in cases {
        let status = call(&scorer, SCORE, bytes).await.unwrap_err();
        assert!(codes.contains(&status.code()) && status.message().contains(part), "{what}: {status:?} lacks `{part}`");
        score(&scorer.client().await, traffic.next_transaction()).await.unwrap();
    }
    assert_eq!(call(&scorer, "/telltale.v1.Scorer/Nothing", good.clone()).await.unwrap_err().code(), Code::Unimplemented);
    assert!(call(&scorer, SCORE, good).await.unwrap().verdict.is_some());
    ends_well(&mut scorer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_speak_no_grpc_end_and_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::start(folder.path(), "").unwrap();
    let mut traffic = Traffic::new(55, 10);
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ];
    for bytes in cases {
        let server = scorer.scoring;
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(server).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // The server may have closed before it has read everything.
            drop(stream.write_all(bytes));
            drop(stream.shutdown(std::net::Shutdown::Write));
            // An answer, an end or a reset: anything but a hang.
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            assert!(read.is_ok() || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        })
        .await
        .unwrap();
        score(&scorer.client().await, traffic.next_transaction()).await.unwrap();
    }
    ends_well(&mut scorer);
}

fn ends_well(scorer: &mut Scorer) {
    scorer.process.signal(rustix::process::Signal::TERM).unwrap();
    assert!(scorer.process.wait().unwrap(), "{}", scorer.process.last_words());
    assert!(!scorer.process.last_words().contains("panicked"), "{}", scorer.process.last_words());
}
