//! `Score` and `ScoreStream`, served here and not by the generated code: verdicts leave as bytes, and a frame that is no message is
//! answered with its error and never ends the stream. Everything else goes to the generated service.
//!
//! A stream is read, scored and answered in one task, the one that sends its answers: no frame waits for a second task to be
//! woken, and answers that are ready together leave in one write.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use telltale_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

use super::Service;
use super::api::{Api, timeout};
use super::errors::CallError;
use super::wire::{Answer, Frame, FrameCodec, FrameReply, ScoreCodec, ScoreReply};

const SCORE: &str = "/telltale.v1.Scorer/Score";
const SCORE_STREAM: &str = "/telltale.v1.Scorer/ScoreStream";
/// While shutting down: how long a stream may be silent before it ends.
const LAST_FRAMES: Duration = Duration::from_millis(50);

/// The scorer's service.
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
        let calls = Calls(Arc::clone(&self.service));
        match request.uri().path() {
            SCORE => Box::pin(async move { Ok(Grpc::new(ScoreCodec).unary(calls, request).await) }),
            SCORE_STREAM => Box::pin(async move { Ok(Grpc::new(FrameCodec).streaming(calls, request).await) }),
            _ => self.generated.call(request),
        }
    }
}

/// Answers calls and opens streams.
#[derive(Clone)]
struct Calls(Arc<Service>);

impl UnaryService<v1::ScoreRequest> for Calls {
    type Response = ScoreReply;
    type Future = BoxFuture<'static, Result<Response<ScoreReply>, Status>>;

    fn call(&mut self, request: Request<v1::ScoreRequest>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            let deadline = service.deadline(timeout(&request));
            let verdict = match request.into_inner().transaction {
                Some(transaction) => service.score(transaction, deadline).await,
                None => Err(CallError::Empty("transaction")),
            };
            verdict.map(|verdict| Response::new(ScoreReply(verdict))).map_err(|error| service.refuse(error))
        })
    }
}

impl StreamingService<Frame> for Calls {
    type Response = FrameReply;
    type ResponseStream = Replies;
    type Future = std::future::Ready<Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Replies::new(&self.0, request.into_inner()))))
    }
}

/// The answers to the frames of one stream. A client that reads none is sent none, and then its frames are not read either.
struct Replies {
    service: Arc<Service>,
    /// Gone once the caller has ended the stream, the connection broke, or it fell silent while the scorer shuts down.
    frames: Option<Streaming<Frame>>,
    /// Answers that had to wait for something, each in a task of its own: whatever was taken is answered.
    late: mpsc::UnboundedReceiver<FrameReply>,
    later: Option<mpsc::UnboundedSender<FrameReply>>,
    /// Ends when the scorer begins to shut down.
    draining: Option<BoxFuture<'static, ()>>,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Replies {
    fn new(service: &Arc<Service>, frames: Streaming<Frame>) -> Self {
        let (later, late) = mpsc::unbounded_channel();
        let mut draining = service.draining.subscribe();
        let draining = Box::pin(async move {
            // An error means that the sender is gone, which is a stop as well.
            draining.wait_for(|draining| *draining).await.map(drop).unwrap_or_default();
        });
        Self { service: Arc::clone(service), frames: Some(frames), late, later: Some(later), draining: Some(draining), silence: None }
    }

    /// Most frames are answered at once; one that has to wait (a repeated identifier) does so in a task of its own.
    fn answer(&self, cx: &mut Context<'_>, frame: Frame) -> Option<FrameReply> {
        let service = Arc::clone(&self.service);
        let mut reply = Box::pin(async move { reply(&service, frame).await });
        if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
            return Some(reply);
        }
        let later = self.later.clone()?;
        tokio::spawn(async move {
            // The caller may have gone; its transaction counts all the same.
            later.send(reply.await).ok();
        });
        None
    }

    /// True once the scorer shuts down and the stream has been silent for long enough.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.draining = None;
        }
        if self.draining.is_some() {
            return false;
        }
        self.silence.get_or_insert_with(|| Box::pin(sleep(LAST_FRAMES))).as_mut().poll(cx).is_ready()
    }
}

impl Stream for Replies {
    type Item = Result<FrameReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Poll::Ready(late) = self.late.poll_recv(cx) {
                return Poll::Ready(late.map(Ok));
            }
            let Some(frames) = &mut self.frames else { return Poll::Pending };
            let ended = match Pin::new(frames).poll_next(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.silence = None;
                    if let Some(reply) = self.answer(cx, frame) {
                        return Poll::Ready(Some(Ok(reply)));
                    }
                    false
                }
                Poll::Ready(Some(Err(_)) | None) => true,
                Poll::Pending if self.poll_silence(cx) => true,
                Poll::Pending => return Poll::Pending,
            };
            if ended {
                // The last answer that still waits closes the channel, and with it the stream.
                (self.frames, self.later) = (None, None);
            }
        }
    }
}

async fn reply(service: &Arc<Service>, frame: Frame) -> FrameReply {
    let (sequence, answer) = match frame.0 {
        Ok(request) => (request.sequence, answer(service, request).await),
        Err((sequence, message)) => (sequence, Err(CallError::Frame(message))),
    };
    let answer = answer.unwrap_or_else(|error| {
        let status = service.refuse(error);
        let error = v1::FrameError { code: status.code() as i32, message: status.message().to_owned() };
        Answer::Error(error)
    });
    FrameReply { sequence, answer }
}

async fn answer(service: &Arc<Service>, request: v1::ScoreStreamRequest) -> Result<Answer, CallError> {
    use v1::score_stream_request::Payload;
    let own = (request.deadline_us > 0).then(|| Duration::from_micros(u64::from(request.deadline_us)));
    let acknowledge = |duplicate| Answer::Acknowledgement(v1::Acknowledgement { duplicate });
    match request.payload {
        Some(Payload::Transaction(transaction)) => service.score(transaction, service.deadline(own)).await.map(Answer::Verdict),
        Some(Payload::Outcome(outcome)) => service.outcome(outcome).await.map(acknowledge),
        Some(Payload::Aggregate(aggregate)) => service.aggregate(aggregate).await.map(acknowledge),
        None => Err(CallError::Empty("payload")),
    }
}
