//! The server in this process: roles, repeated calls, deadlines, shedding, drain, restart, parity.

mod access;
mod answers;
mod doors;
mod drift;
mod guard;
mod hints;
mod inference;
mod kept;
#[cfg(feature = "object-store")]
mod mirror;
mod models;
mod online;
mod parity;
mod trust;

use std::net::SocketAddr;
use std::path::Path;

use telltale_proto::v1;
use tonic::transport::Channel;

use super::*;
use crate::config::Config;

type Client = v1::scorer_client::ScorerClient<Channel>;

/// A configuration in that folder, on free ports.
fn config(folder: &Path) -> Config {
    let mut config = Config { data: folder.join("data"), ..Config::default() };
    for listen in [&mut config.scoring.listen, &mut config.admin.listen, &mut config.metrics.listen] {
        *listen = "127.0.0.1:0".to_owned();
    }
    config.policy.mode = Some("enforce".to_owned());
    config.scoring.deadline_ms = 10_000;
    config
}

async fn start(config: Config) -> Running {
    serve(config, ServeOptions::default()).await.unwrap()
}

async fn channel(address: Option<SocketAddr>) -> Channel {
    Channel::from_shared(format!("http://{}", address.unwrap())).unwrap().connect().await.unwrap()
}

async fn client(running: &Running) -> Client {
    Client::new(channel(running.scoring).await)
}

fn now() -> i64 {
    telltale_features::time::Clock::now(&crate::setup::SystemClock).micros()
}

/// A login of somebody from somewhere.
fn login(id: &str, ip: &str, user: &str) -> v1::Transaction {
    let body = format!(r#"{{"username":"{user}","password":"pw-{user}"}}"#);
    v1::Transaction {
        id: id.to_owned(),
        time: Some(convert::timestamp_to_proto(telltale_features::time::Timestamp::from_micros(now()))),
        source: Some(v1::Source { ip: ip.to_owned(), port: 40_000, ..Default::default() }),
        http: Some(v1::HttpRequest {
            method: "POST".to_owned(),
            scheme: "http".to_owned(),
            host: "shop.example".to_owned(),
            path: "/api/login".to_owned(),
            headers: vec![v1::Header { name: "content-type".to_owned(), value: "application/json".to_owned() }],
            body_size: body.len() as u64,
            body: body.into(),
            version: "1.1".to_owned(),
            ..Default::default()
        }),
        service: "shop".to_owned(),
        ..Default::default()
    }
}

fn outcome(verdict: &v1::Verdict, status: u32) -> v1::Outcome {
    v1::Outcome {
        transaction_id: verdict.transaction_id.clone(),
        context: verdict.context.clone(),
        time: Some(convert::timestamp_to_proto(telltale_features::time::Timestamp::from_micros(now()))),
        response: Some(v1::HttpResponse { status, ..Default::default() }),
        ..Default::default()
    }
}

async fn score(client: &mut Client, transaction: v1::Transaction) -> Result<v1::Verdict, tonic::Status> {
    let answer = client.score(v1::ScoreRequest { transaction: Some(transaction) }).await?;
    Ok(answer.into_inner().verdict.unwrap())
}

async fn report(client: &mut Client, outcome: v1::Outcome) -> Result<bool, tonic::Status> {
    let payload = Some(v1::report_request::Payload::Outcome(outcome));
    Ok(client.report(v1::ReportRequest { payload }).await?.into_inner().duplicate)
}
