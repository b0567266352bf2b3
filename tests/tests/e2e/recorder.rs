//! A scorer that allows everything and keeps what it was sent, in the order received.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use telltale_proto::v1::decisions_server::{Decisions, DecisionsServer};
use telltale_proto::v1::score_stream_request::Payload;
use telltale_proto::v1::score_stream_response::Payload as Answer;
use telltale_proto::v1::scorer_server::{Scorer, ScorerServer};
use telltale_proto::v1::{
    Acknowledgement, Action, FeedbackRequest, FeedbackResponse, Outcome, ReportRequest, ReportResponse, ScoreRequest, ScoreResponse,
    ScoreStreamRequest, ScoreStreamResponse, StreamRequest, StreamResponse, Transaction, Verdict,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// What was sent.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub transactions: Vec<Transaction>,
    pub outcomes: Vec<Outcome>,
}

#[derive(Clone, Default)]
struct Service {
    recorded: Arc<Mutex<Recorded>>,
}

/// The recording scorer; it serves until its runtime ends.
pub struct Recorder {
    pub address: SocketAddr,
    recorded: Arc<Mutex<Recorded>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let service = Service::default();
        let recorded = Arc::clone(&service.recorded);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            // Small frames must not wait for each other's acknowledgement.
            let incoming =
                TcpListenerStream::new(listener).map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
            tonic::transport::Server::builder()
                .add_service(ScorerServer::new(service.clone()))
                .add_service(DecisionsServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self { address, recorded }
    }

    /// What came so far.
    pub fn recorded(&self) -> Recorded {
        self.recorded.lock().unwrap().clone()
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Scorer for Service {
    type ScoreStreamStream = Replies<ScoreStreamResponse>;

    async fn score_stream(&self, request: Request<Streaming<ScoreStreamRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        let mut incoming = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let recorded = Arc::clone(&self.recorded);
        tokio::spawn(async move {
            while let Some(Ok(frame)) = incoming.next().await {
                let answer = match frame.payload {
                    Some(Payload::Transaction(transaction)) => {
                        let verdict =
                            Verdict { transaction_id: transaction.id.clone(), action: Action::Allow.into(), ..Verdict::default() };
                        recorded.lock().unwrap().transactions.push(transaction);
                        Answer::Verdict(verdict)
                    }
                    Some(Payload::Outcome(outcome)) => {
                        recorded.lock().unwrap().outcomes.push(outcome);
                        Answer::Acknowledgement(Acknowledgement::default())
                    }
                    Some(Payload::Aggregate(_)) | None => Answer::Acknowledgement(Acknowledgement::default()),
                };
                // The proxy may have gone.
                drop(sender.send(Ok(ScoreStreamResponse { sequence: frame.sequence, payload: Some(answer) })).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn score(&self, _: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        Err(Status::unimplemented("the proxy streams"))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Err(Status::unimplemented("the proxy streams"))
    }

    async fn feedback(&self, _: Request<FeedbackRequest>) -> Result<Response<FeedbackResponse>, Status> {
        Err(Status::unimplemented("the proxy knows no labels"))
    }
}

#[tonic::async_trait]
impl Decisions for Service {
    type StreamStream = Replies<StreamResponse>;

    async fn stream(&self, _: Request<StreamRequest>) -> Result<Response<Self::StreamStream>, Status> {
        let snapshot = StreamResponse { snapshot: true, hash_key: vec![7; 32].into(), ..StreamResponse::default() };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(snapshot)]).chain(tokio_stream::pending()))))
    }
}
