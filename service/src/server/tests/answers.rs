//! What callers get: verdicts, the same verdict again, errors that say what is wrong; never a broken stream, never a lost call.

use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_gets_the_same_verdict_and_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let tx = login("same", "192.0.2.1", "anna");
    let first = score(&mut scorer, tx.clone()).await.unwrap();
    assert_eq!(first.transaction_id, "same");
    assert!(!first.context.is_empty() && first.versions.is_some() && first.timings.is_some());
    assert_eq!(score(&mut scorer, tx.clone()).await.unwrap(), first);
    assert_eq!(running.service().metrics.duplicates.get(), 1);
    // The same identifier for something else is scored as new, and counted.
    let other = score(&mut scorer, login("same", "192.0.2.2", "berta")).await.unwrap();
    assert_ne!(other.context, first.context);
    assert_eq!(running.service().metrics.id_conflicts.get(), 1);
    // Many at once: one is scored, the others wait for it.
    let tx = login("at once", "192.0.2.1", "anna");
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (mut scorer, tx) = (scorer.clone(), tx.clone());
            tokio::spawn(async move { score(&mut scorer, tx).await.unwrap() })
        })
        .collect();
    let mut verdicts = Vec::new();
    for call in calls {
        verdicts.push(call.await.unwrap());
    }
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
    assert_eq!(running.service().metrics.duplicates.get(), 1 + 15);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_what_where_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let number = |value| v1::Value { kind: Some(v1::value::Kind::Number(value)) };
    let mut nan = login("nan", "192.0.2.1", "anna");
    nan.attributes.insert("amount".to_owned(), number(f64::NAN));
    let mut negative = login("negative", "192.0.2.1", "anna");
    negative.attributes.insert("amount".to_owned(), number(-1.0));
    let mut late = login("late", "192.0.2.1", "anna");
    late.time.as_mut().unwrap().seconds = 9_000_000_000;
    for (tx, parts) in [
        (login("", "192.0.2.1", "anna"), ["transaction.id", "1 to 128"]),
        (login("ip", "nowhere", "anna"), ["transaction.source.ip", "IPv4 or IPv6"]),
        (nan, ["transaction.attributes.amount", "finite"]),
        (negative, ["transaction.attributes.amount", "0 or more"]),
        (late, ["transaction.time", "2100"]),
    ] {
        let status = score(&mut scorer, tx).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(parts.iter().all(|part| status.message().contains(part)), "{status:?} lacks {parts:?}");
    }
    let status = scorer.score(v1::ScoreRequest { transaction: None }).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("transaction")), (Code::InvalidArgument, true));
    // What the client controls is cut, counted, and scored.
    let mut huge = login("huge", "192.0.2.1", "anna");
    let http = huge.http.as_mut().unwrap();
    http.path = format!("/{}", "a".repeat(1 << 20));
    http.headers = vec![v1::Header { name: "x".to_owned(), value: "y".to_owned() }; 100_000];
    score(&mut scorer, huge).await.unwrap();
    // Times of 1970 are moved into the last hour, and counted.
    let mut old = login("old", "192.0.2.1", "anna");
    old.time.as_mut().unwrap().seconds = 1;
    score(&mut scorer, old).await.unwrap();
    let metrics = &running.service().metrics;
    assert_eq!((metrics.cut.get(), metrics.clamped_times.get()), (1, 1));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_is_answered_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let frames = [
        frame(1, Some(login("f1", "192.0.2.1", "anna"))),
        // Field 3 is announced as a message of 2 bytes that are no UTF-8 identifier.
        vec![0x08, 0x02, 0x1a, 0x04, 0x0a, 0x02, 0xff, 0xfe],
        frame(3, None),
        frame(4, Some(login("f4", "nowhere", "anna"))),
        frame(5, Some(login("f5", "192.0.2.1", "anna"))),
    ];
    let mut replies = raw_stream(&running, frames.to_vec()).await;
    replies.sort_by_key(|reply| reply.sequence);
    let codes: Vec<(u64, i32)> = replies
        .iter()
        .map(|reply| match reply.payload.as_ref().unwrap() {
            v1::score_stream_response::Payload::Error(error) => (reply.sequence, error.code),
            _ => (reply.sequence, 0),
        })
        .collect();
    let bad = Code::InvalidArgument as i32;
    assert_eq!(codes, [(1, 0), (2, bad), (3, bad), (4, bad), (5, 0)]);
    running.stop().await.unwrap();
}

fn frame(sequence: u64, transaction: Option<v1::Transaction>) -> Vec<u8> {
    let payload = transaction.map(v1::score_stream_request::Payload::Transaction);
    prost::Message::encode_to_vec(&v1::ScoreStreamRequest { sequence, deadline_us: 0, payload })
}

/// Sends frames as bytes, as a broken client would, and reads replies until the stream ends.
async fn raw_stream(running: &Running, frames: Vec<Vec<u8>>) -> Vec<v1::ScoreStreamResponse> {
    let mut grpc = tonic::client::Grpc::new(channel(running.scoring).await);
    grpc.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/telltale.v1.Scorer/ScoreStream");
    let request = tonic::Request::new(tokio_stream::iter(frames));
    let mut replies = grpc.streaming(request, path, RawCodec).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        all.push(reply);
    }
    all
}

#[derive(Clone, Copy, Default)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = v1::ScoreStreamResponse;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = tonic::Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = v1::ScoreStreamResponse;
    type Error = tonic::Status;
    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Self::Item>, tonic::Status> {
        prost::Message::decode(buffer).map(Some).map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_deadline_is_an_error_and_a_full_scorer_sheds() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.scoring.max_concurrent = 2;
    config.scoring.shed_from = 0.5;
    let running = start(config).await;
    let service = running.service();
    let late = service.score(login("late", "192.0.2.1", "anna"), present()).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let mut scorer = client(&running).await;
    let mut ordinary = login("shed", "192.0.2.1", "anna");
    ordinary.http.as_mut().unwrap().path = "/api/products".to_owned();
    let place = service.admission.enter("/api/products").ok().unwrap();
    assert_eq!(score(&mut scorer, ordinary.clone()).await.unwrap_err().code(), Code::ResourceExhausted);
    score(&mut scorer, login("login", "192.0.2.1", "anna")).await.expect("logins are shed last");
    assert_eq!(service.metrics.shed.with_label_values(&["ordinary"]).get(), 1);
    drop(place);
    score(&mut scorer, ordinary).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_taken_once_and_forged_tokens_never() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let verdict = score(&mut scorer, login("r1", "192.0.2.1", "anna")).await.unwrap();
    assert!(!report(&mut scorer, outcome(&verdict, 401)).await.unwrap());
    assert!(report(&mut scorer, outcome(&verdict, 401)).await.unwrap(), "the second is a duplicate");
    // Without its token, by identifier.
    let verdict = score(&mut scorer, login("r2", "192.0.2.1", "anna")).await.unwrap();
    let bare = v1::Outcome { context: Default::default(), ..outcome(&verdict, 200) };
    assert!(!report(&mut scorer, bare).await.unwrap());
    // A changed byte, another transaction, garbage.
    let mut forged = outcome(&verdict, 200);
    let mut token = forged.context.to_vec();
    let middle = token.len() / 2;
    token[middle] ^= 1;
    forged.context = token.into();
    forged.transaction_id = "r3".to_owned();
    let status = report(&mut scorer, forged).await.unwrap_err();
    assert!(matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument), "{status:?}");
    assert!(status.message().contains("context"), "{status:?}");
    let other = v1::Outcome { transaction_id: "r4".to_owned(), ..outcome(&verdict, 200) };
    let status = report(&mut scorer, other).await.unwrap_err();
    assert!(status.message().contains("r2") && status.message().contains("r4"), "{status:?}");
    // One that comes before its transaction is held, then applied.
    let early = v1::Outcome { transaction_id: "r5".to_owned(), context: Default::default(), ..outcome(&verdict, 401) };
    assert!(!report(&mut scorer, early).await.unwrap());
    assert_eq!(running.service().memory.sizes().1, 1);
    score(&mut scorer, login("r5", "192.0.2.1", "anna")).await.unwrap();
    assert_eq!(running.service().memory.sizes().1, 0);
    // A label of an unknown transaction is counted.
    let label = v1::Label {
        transaction_id: "never".to_owned(),
        kind: v1::LabelKind::Fraud.into(),
        time: login("x", "", "").time,
        ..Default::default()
    };
    scorer.feedback(v1::FeedbackRequest { label: Some(label) }).await.unwrap();
    assert_eq!(running.service().metrics.unmatched.get(), 1);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_answers_every_frame_that_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let (frames, stream) = tokio::sync::mpsc::channel(512);
    let mut replies = scorer.score_stream(ReceiverStream::new(stream)).await.unwrap().into_inner();
    for sequence in 1..=300_u64 {
        let transaction = login(&format!("d{sequence}"), "192.0.2.1", "anna");
        let payload = Some(v1::score_stream_request::Payload::Transaction(transaction));
        frames.send(v1::ScoreStreamRequest { sequence, deadline_us: 0, payload }).await.unwrap();
    }
    // The first reply shows that the stream is being served; then the scorer is told to stop.
    let first = replies.message().await.unwrap().unwrap();
    let stopping = tokio::spawn(running.stop());
    let mut answered = vec![first.sequence];
    while let Ok(Some(reply)) = replies.message().await {
        answered.push(reply.sequence);
    }
    drop(frames);
    stopping.await.unwrap().unwrap();
    answered.sort_unstable();
    assert_eq!(answered, (1..=300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = config(folder.path());
    busy.scoring.listen = taken.local_addr().unwrap().to_string();
    let error = serve(busy.clone(), ServeOptions::default()).await.err().unwrap().to_string();
    assert!(error.contains("scoring.listen") && error.contains(&busy.scoring.listen), "{error}");
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let mut unwritable = config(folder.path());
    unwritable.data = folder.path().join("file/data");
    let error = serve(unwritable, ServeOptions::default()).await.err().unwrap().to_string();
    assert!(error.contains("data directory") && error.contains("can be written"), "{error}");
    let mut missing = config(folder.path());
    missing.models.path = Some(folder.path().join("nowhere"));
    let error = serve(missing, ServeOptions::default()).await.err().unwrap().to_string();
    assert!(error.contains("nowhere"), "{error}");
}
