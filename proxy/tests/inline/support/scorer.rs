//! A scorer that follows a script. It runs on a runtime of its own, so that it can be killed at any moment.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use telltale_proto::v1::decisions_server::{Decisions, DecisionsServer};
use telltale_proto::v1::score_stream_request::Payload;
use telltale_proto::v1::score_stream_response::Payload as Answer;
use telltale_proto::v1::scorer_server::{Scorer, ScorerServer};
use telltale_proto::v1::*;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// What the script answers to a transaction.
#[derive(Clone, Debug)]
pub enum Reply {
    Verdict(Box<Verdict>),
    Error,
    Silence,
}

type Script = Arc<dyn Fn(&Transaction) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Service {
    script: Script,
    frames: mpsc::UnboundedSender<Payload>,
    table: watch::Receiver<StreamResponse>,
}

/// The fake.
pub struct FakeScorer {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
    frames: Mutex<mpsc::UnboundedReceiver<Payload>>,
    table: watch::Sender<StreamResponse>,
}

impl FakeScorer {
    pub fn start(script: impl Fn(&Transaction) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script)
    }

    pub fn start_at(address: SocketAddr, script: impl Fn(&Transaction) -> Reply + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (frames, received) = mpsc::unbounded_channel();
        let snapshot = StreamResponse { snapshot: true, hash_key: vec![7; 32].into(), ..StreamResponse::default() };
        let (table, changes) = watch::channel(snapshot);
        let service = Service { script: Arc::new(script), frames, table: changes };
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            tonic::transport::Server::builder()
                .add_service(ScorerServer::new(service.clone()))
                .add_service(DecisionsServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self { address, runtime: Some(runtime), frames: Mutex::new(received), table }
    }

    /// Drops every connection and the listener at once.
    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Pushes a message to everybody who follows the decisions.
    pub fn push(&self, message: StreamResponse) {
        self.table.send_replace(message);
    }

    pub async fn frame(&self) -> Payload {
        let mut frames = self.frames.lock().await;
        tokio::time::timeout(super::PATIENCE, frames.recv()).await.expect("no frame came").unwrap()
    }

    pub async fn transaction(&self) -> Transaction {
        loop {
            if let Payload::Transaction(transaction) = self.frame().await {
                return transaction;
            }
        }
    }

    pub async fn outcome(&self) -> Outcome {
        loop {
            if let Payload::Outcome(outcome) = self.frame().await {
                return outcome;
            }
        }
    }

    pub async fn aggregate(&self) -> Aggregate {
        loop {
            if let Payload::Aggregate(aggregate) = self.frame().await {
                return aggregate;
            }
        }
    }

    /// Frames that came and were not looked at.
    pub async fn pending(&self) -> Vec<Payload> {
        let mut frames = self.frames.lock().await;
        std::iter::from_fn(|| frames.try_recv().ok()).collect()
    }
}

impl Drop for FakeScorer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Scorer for Service {
    type ScoreStreamStream = Replies<ScoreStreamResponse>;

    async fn score_stream(&self, request: Request<Streaming<ScoreStreamRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        let mut incoming = request.into_inner();
        let (sender, receiver) = mpsc::channel(1024);
        let service = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = incoming.next().await {
                let payload = frame.payload.unwrap();
                let reply = match &payload {
                    Payload::Transaction(transaction) => match (service.script)(transaction) {
                        Reply::Verdict(verdict) => Some(Answer::Verdict(Verdict { transaction_id: transaction.id.clone(), ..*verdict })),
                        Reply::Error => Some(Answer::Error(FrameError { code: 3, message: "no".to_owned() })),
                        Reply::Silence => None,
                    },
                    _ => Some(Answer::Acknowledgement(Acknowledgement::default())),
                };
                let _ended = service.frames.send(payload);
                if let Some(reply) = reply {
                    let _gone = sender.send(Ok(ScoreStreamResponse { sequence: frame.sequence, payload: Some(reply) })).await;
                }
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
        Ok(Response::new(Box::pin(WatchStream::new(self.table.clone()).map(Ok))))
    }
}
