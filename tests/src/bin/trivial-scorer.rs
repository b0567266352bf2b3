//! The baseline of the gRPC bench: decodes the same Transaction, returns a Verdict of the size given, does nothing else.

use std::net::SocketAddr;

use telltale_proto::v1::scorer_server::{Scorer, ScorerServer};
use telltale_proto::v1::{
    Action, FeedbackRequest, FeedbackResponse, ReportRequest, ReportResponse, ScoreRequest, ScoreResponse, ScoreStreamRequest,
    ScoreStreamResponse, Verdict,
};
use tonic::{Request, Response, Status};

struct Trivial {
    padding: usize,
}

#[tonic::async_trait]
impl Scorer for Trivial {
    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let transaction = request.into_inner().transaction.unwrap_or_default();
        let verdict = Verdict {
            transaction_id: transaction.id,
            action: Action::Allow.into(),
            context: vec![7; self.padding].into(),
            ..Verdict::default()
        };
        Ok(Response::new(ScoreResponse { verdict: Some(verdict) }))
    }

    type ScoreStreamStream = tokio_stream::Empty<Result<ScoreStreamResponse, Status>>;

    async fn score_stream(&self, _: Request<tonic::Streaming<ScoreStreamRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(ReportResponse::default()))
    }

    async fn feedback(&self, _: Request<FeedbackRequest>) -> Result<Response<FeedbackResponse>, Status> {
        Ok(Response::new(FeedbackResponse::default()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().ok_or("usage: trivial-scorer ADDRESS VERDICT_BYTES")?.parse()?;
    let padding: usize = arguments.next().ok_or("usage: trivial-scorer ADDRESS VERDICT_BYTES")?.parse()?;
    tonic::transport::Server::builder().add_service(ScorerServer::new(Trivial { padding })).serve(address).await?;
    Ok(())
}
