//! `ScoreStream`: many frames over one connection. A frame that is no message is answered with its error and never ends the stream.
//!
//! The generated service would end a stream at the first frame that prost cannot decode, so this path is served here, with a
//! decoder that hands such frames on. Everything else goes to the generated service.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use futures_util::future::BoxFuture;
use prost::Message;
use telltale_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::Service;
use super::api::{Api, present};
use super::errors::CallError;

/// Path of the RPC.
const PATH: &str = "/telltale.v1.Scorer/ScoreStream";
/// Replies that may wait for a slow reader; beyond, its frames wait too.
const REPLIES: usize = 1_024;
/// While shutting down: how long a stream may be silent before it ends.
const LAST_FRAMES: Duration = Duration::from_millis(50);

/// The scorer's service with its own stream.
#[derive(Clone)]
pub struct Scorer {
    generated: v1::scorer_server::ScorerServer<Api>,
    service: Arc<Service>,
}

impl Scorer {
    /// Over that service.
    pub fn new(service: &Arc<Service>) -> Self {
        Self { generated: v1::scorer_server::ScorerServer::new(Api(Arc::clone(service))), service: Arc::clone(service) }
    }
}

impl NamedService for Scorer {
    const NAME: &'static str = "telltale.v1.Scorer";
}

impl tower::Service<http::Request<Body>> for Scorer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.generated.call(request);
        }
        let frames = Frames(Arc::clone(&self.service));
        Box::pin(async move { Ok(Grpc::new(FrameCodec).streaming(frames, request).await) })
    }
}

/// One frame as it arrived.
struct Frame(Result<v1::ScoreStreamRequest, (u64, String)>);

#[derive(Clone, Copy, Default)]
struct FrameCodec;

/// What can still be read of a frame that is no message.
#[derive(Clone, PartialEq, Message)]
struct SequenceOnly {
    #[prost(uint64, tag = "1")]
    sequence: u64,
}

impl Codec for FrameCodec {
    type Encode = v1::ScoreStreamResponse;
    type Decode = Frame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = v1::ScoreStreamResponse;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(Frame(v1::ScoreStreamRequest::decode(bytes.clone()).map_err(|error| {
            let sequence = SequenceOnly::decode(bytes).map(|found| found.sequence).unwrap_or_default();
            (sequence, error.to_string())
        }))))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// Answers the frames of one stream.
#[derive(Clone)]
struct Frames(Arc<Service>);

impl StreamingService<Frame> for Frames {
    type Response = v1::ScoreStreamResponse;
    type ResponseStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ScoreStreamResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        let (replies, stream) = mpsc::channel(REPLIES);
        tokio::spawn(read(Arc::clone(&self.0), request.into_inner(), replies));
        let stream: Self::ResponseStream = Box::pin(ReceiverStream::new(stream));
        std::future::ready(Ok(Response::new(stream)))
    }
}

type Replies = mpsc::Sender<Result<v1::ScoreStreamResponse, Status>>;

/// Reads frames until the caller ends the stream, or until it falls silent while the scorer shuts down.
async fn read(service: Arc<Service>, mut frames: Streaming<Frame>, replies: Replies) {
    let mut draining = service.draining.subscribe();
    loop {
        let next = tokio::select! {
            biased;
            next = frames.next() => Some(next),
            () = until_drain(&mut draining) => None,
        };
        let next = match next {
            Some(next) => next,
            None => timeout(LAST_FRAMES, frames.next()).await.unwrap_or_default(),
        };
        match next {
            Some(Ok(frame)) => answer(&service, frame, &replies).await,
            // The connection broke, or the caller is done. Whatever was taken is answered by its own task.
            Some(Err(_)) | None => return,
        }
    }
}

async fn until_drain(draining: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    draining.wait_for(|draining| *draining).await.map(drop).unwrap_or_default();
}

/// Most frames are answered at once; one that has to wait (a repeated identifier) does so in a task of its own.
async fn answer(service: &Arc<Service>, frame: Frame, replies: &Replies) {
    let service = Arc::clone(service);
    let mut reply = Box::pin(async move {
        let (sequence, payload) = match frame.0 {
            Ok(request) => (request.sequence, reply(&service, request).await),
            Err((sequence, message)) => (sequence, Err(CallError::Frame(message))),
        };
        let payload = payload.unwrap_or_else(|error| {
            let status = service.refuse(error);
            let error = v1::FrameError { code: status.code() as i32, message: status.message().to_owned() };
            v1::score_stream_response::Payload::Error(error)
        });
        v1::ScoreStreamResponse { sequence, payload: Some(payload) }
    });
    match std::future::poll_fn(|cx| Poll::Ready(reply.as_mut().poll(cx))).await {
        Poll::Ready(reply) => replies.send(Ok(reply)).await.unwrap_or_default(),
        Poll::Pending => {
            let replies = replies.clone();
            tokio::spawn(async move { replies.send(Ok(reply.await)).await.unwrap_or_default() });
        }
    }
}

async fn reply(service: &Arc<Service>, request: v1::ScoreStreamRequest) -> Result<v1::score_stream_response::Payload, CallError> {
    use v1::score_stream_request::Payload;
    use v1::score_stream_response::Payload as Answer;
    let own = (request.deadline_us > 0).then(|| Duration::from_micros(u64::from(request.deadline_us)));
    let deadline = present() + own.unwrap_or(service.longest).min(service.longest);
    let acknowledge = |duplicate| Answer::Acknowledgement(v1::Acknowledgement { duplicate });
    match request.payload {
        Some(Payload::Transaction(transaction)) => {
            service.score(transaction, deadline).await.map(|verdict| Answer::Verdict((*verdict).clone()))
        }
        Some(Payload::Outcome(outcome)) => service.outcome(outcome).await.map(acknowledge),
        Some(Payload::Aggregate(aggregate)) => service.aggregate(aggregate).await.map(acknowledge),
        None => Err(CallError::Empty("payload")),
    }
}
