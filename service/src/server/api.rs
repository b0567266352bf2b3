//! The RPCs of `Scorer`, `Decisions` and `Entities`: checked messages in, answers out. The work is done elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use telltale_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::Caller;
use super::errors::CallError;
use super::{Service, entities, forget, overrides};

/// The service as tonic calls it.
#[derive(Clone)]
pub struct Api(pub Arc<Service>);

type Reply<T> = Result<Response<T>, Status>;
type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::scorer_server::Scorer for Api {
    /// For callers in this process: over the wire `super::stream` answers, without making a message of the verdict again.
    async fn score(&self, request: Request<v1::ScoreRequest>) -> Reply<v1::ScoreResponse> {
        let deadline = self.0.deadline(timeout(&request));
        let transaction = request.into_inner().transaction.ok_or(CallError::Empty("transaction"));
        let verdict = match transaction {
            Ok(transaction) => self.0.score(transaction, deadline).await,
            Err(error) => Err(error),
        };
        let verdict = verdict.map_err(|error| self.0.refuse(error))?;
        let verdict = verdict.open().map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::ScoreResponse { verdict: Some(verdict) }))
    }

    type ScoreStreamStream = Stream<v1::ScoreStreamResponse>;

    /// Never called: `super::stream` takes this path before it gets here, because a bad frame must not end the stream.
    async fn score_stream(&self, _: Request<Streaming<v1::ScoreStreamRequest>>) -> Reply<Self::ScoreStreamStream> {
        Err(Status::internal("the stream is served elsewhere"))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Reply<v1::ReportResponse> {
        use v1::report_request::Payload;
        let duplicate = match request.into_inner().payload {
            Some(Payload::Outcome(outcome)) => self.0.outcome(outcome).await,
            Some(Payload::Aggregate(aggregate)) => self.0.aggregate(aggregate).await,
            None => Err(CallError::Empty("payload")),
        };
        let duplicate = duplicate.map_err(|error| self.0.refuse(error))?;
        Ok(Response::new(v1::ReportResponse { duplicate }))
    }

    async fn feedback(&self, request: Request<v1::FeedbackRequest>) -> Reply<v1::FeedbackResponse> {
        let label = request.into_inner().label.ok_or(CallError::Empty("label"));
        let duplicate = match label {
            Ok(label) => self.0.label(label).await,
            Err(error) => Err(error),
        };
        let duplicate = duplicate.map_err(|error| self.0.refuse(error))?;
        Ok(Response::new(v1::FeedbackResponse { duplicate }))
    }
}

#[tonic::async_trait]
impl v1::decisions_server::Decisions for Api {
    type StreamStream = Stream<v1::StreamResponse>;

    async fn stream(&self, request: Request<v1::StreamRequest>) -> Reply<Self::StreamStream> {
        let service = Arc::clone(&self.0);
        let mut held = request.into_inner().version;
        let (replies, stream) = mpsc::channel(16);
        let mut changes = service.decisions.changes();
        let mut draining = service.draining.subscribe();
        tokio::spawn(async move {
            loop {
                changes.borrow_and_update();
                if let Some(message) = service.decisions.since(held) {
                    held = message.version;
                    if replies.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    _ = draining.wait_for(|draining| *draining) => return,
                    () = replies.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

#[tonic::async_trait]
impl v1::entities_server::Entities for Api {
    async fn r#override(&self, request: Request<v1::OverrideRequest>) -> Reply<v1::OverrideResponse> {
        let caller = Caller::of(&request);
        let decision = overrides::change(&self.0, &caller, request.into_inner()).map_err(|error| self.0.refuse(error))?;
        Ok(Response::new(v1::OverrideResponse { decision }))
    }

    async fn get_entity(&self, request: Request<v1::GetEntityRequest>) -> Reply<v1::GetEntityResponse> {
        let found = entities::get(&self.0, request.into_inner()).await;
        Ok(Response::new(found.map_err(|error| self.0.refuse(error))?))
    }

    async fn top_entities(&self, request: Request<v1::TopEntitiesRequest>) -> Reply<v1::TopEntitiesResponse> {
        let found = entities::top(&self.0, request.into_inner()).await;
        Ok(Response::new(found.map_err(|error| self.0.refuse(error))?))
    }

    async fn forget_entity(&self, request: Request<v1::ForgetEntityRequest>) -> Reply<v1::ForgetEntityResponse> {
        let caller = Caller::of(&request);
        let forgotten = forget::change(&self.0, &caller, request.into_inner()).await;
        Ok(Response::new(forgotten.map_err(|error| self.0.refuse(error))?))
    }

    async fn list_decisions(&self, _: Request<v1::ListDecisionsRequest>) -> Reply<v1::ListDecisionsResponse> {
        Ok(Response::new(v1::ListDecisionsResponse { decisions: self.0.decisions.list() }))
    }
}

/// The caller's own deadline, as the gRPC header says it (gRPC over HTTP/2, `grpc-timeout`).
pub fn timeout<T>(request: &Request<T>) -> Option<Duration> {
    parse_timeout(request.metadata().get("grpc-timeout")?.to_str().ok()?)
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount.saturating_mul(3_600)),
        "M" => Duration::from_secs(amount.saturating_mul(60)),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The present, for deadlines.
#[expect(clippy::disallowed_methods, reason = "deadlines are about this process, not about events")]
pub fn present() -> Instant {
    Instant::now()
}
