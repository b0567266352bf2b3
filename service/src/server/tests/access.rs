//! Every RPC with every role, overrides pushed and kept, metrics and health.

use telltale_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use telltale_proto::inference::{ModelInferRequest, ServerReadyRequest};
use tonic::Code;
use tonic::metadata::MetadataValue;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use super::*;

const ROLES: [&str; 6] = ["scorer", "viewer", "analyst", "operator", "none", "unknown"];

fn token(role: &str) -> String {
    format!("{role}-0123456789abcdef")
}

fn with<T>(role: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if role != "none" {
        let value = MetadataValue::try_from(format!("Bearer {}", token(role))).unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Calls what is not there.
async fn unknown(client: &mut tonic::client::Grpc<Channel>, request: tonic::Request<()>) -> Result<(), tonic::Status> {
    client.ready().await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
    let path = ::http::uri::PathAndQuery::from_static("/telltale.v1.Nowhere/Nothing");
    client.unary::<(), (), _>(request, path, tonic_prost::ProstCodec::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_knows_its_roles() {
    let folder = tempfile::tempdir().unwrap();
    let tokens: Vec<String> = ROLES[..4].iter().map(|role| format!("{role} my-{role} {}", token(role))).collect();
    std::fs::write(folder.path().join("tokens"), tokens.join("\n")).unwrap();
    let mut config = config(folder.path());
    config.access.tokens = Some(folder.path().join("tokens"));
    let running = start(config).await;
    let mut scorer = client(&running).await;
    let mut decisions = v1::decisions_client::DecisionsClient::new(channel(running.scoring).await);
    let mut entities = v1::entities_client::EntitiesClient::new(channel(running.admin).await);
    let mut decisions_of_admin = v1::decisions_client::DecisionsClient::new(channel(running.admin).await);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel(running.scoring).await);
    let mut reflection = ServerReflectionClient::new(channel(running.admin).await);
    let mut models = v1::models_client::ModelsClient::new(channel(running.admin).await);
    let mut inference = GrpcInferenceServiceClient::new(channel(running.scoring).await);
    let mut elsewhere = tonic::client::Grpc::new(channel(running.admin).await);
    let empty = || tokio_stream::iter(Vec::<v1::ScoreStreamRequest>::new());
    let entity = Some(v1::Entity { r#type: "address".to_owned(), id: "192.0.2.9".to_owned(), ..Default::default() });
    for role in ROLES {
        let code = |result: Result<(), tonic::Status>| result.map_or_else(|status| status.code(), |()| Code::Ok);
        let change = v1::OverrideRequest { entity: entity.clone(), action: v1::Action::Block.into(), ..Default::default() };
        // An empty message is refused as such only by who lets it in.
        let found = [
            code(scorer.score(with(role, v1::ScoreRequest::default())).await.map(drop)),
            code(scorer.report(with(role, v1::ReportRequest::default())).await.map(drop)),
            code(scorer.feedback(with(role, v1::FeedbackRequest::default())).await.map(drop)),
            code(scorer.score_stream(with(role, empty())).await.map(drop)),
            code(decisions.stream(with(role, v1::StreamRequest::default())).await.map(drop)),
            code(entities.r#override(with(role, change)).await.map(drop)),
            code(entities.list_decisions(with(role, v1::ListDecisionsRequest {})).await.map(drop)),
            code(decisions_of_admin.stream(with(role, v1::StreamRequest::default())).await.map(drop)),
            code(health.check(with(role, HealthCheckRequest::default())).await.map(drop)),
            code(reflection.server_reflection_info(with(role, tokio_stream::iter(Vec::new()))).await.map(drop)),
            code(models.list_models(with(role, v1::ListModelsRequest {})).await.map(drop)),
            code(models.compare_model(with(role, v1::CompareModelRequest::default())).await.map(drop)),
            code(models.drift(with(role, v1::DriftRequest::default())).await.map(drop)),
            code(models.promote_model(with(role, v1::PromoteModelRequest::default())).await.map(drop)),
            code(models.publish_model(with(role, v1::PublishModelRequest::default())).await.map(drop)),
            code(inference.server_ready(with(role, ServerReadyRequest {})).await.map(drop)),
            code(inference.model_infer(with(role, ModelInferRequest::default())).await.map(drop)),
            code(unknown(&mut elsewhere, with(role, ())).await),
        ];
        // There is no repository here: that is said only to who may ask.
        use Code::{
            FailedPrecondition as Pre, InvalidArgument as In, Ok as Yes, PermissionDenied as No, Unauthenticated as Who,
            Unimplemented as Not,
        };
        let wanted = match role {
            "scorer" => [In, In, In, Yes, Yes, No, No, Yes, Yes, Yes, No, No, No, No, No, Yes, In, Not],
            "viewer" => [No, No, No, No, Yes, No, Yes, Yes, Yes, Yes, Pre, Pre, Pre, No, No, Yes, No, Not],
            "analyst" => [No, No, No, No, Yes, Yes, Yes, Yes, Yes, Yes, Pre, Pre, Pre, No, No, Yes, In, Not],
            "operator" => [No, No, No, No, Yes, Yes, Yes, Yes, Yes, Yes, Pre, Pre, Pre, Pre, Pre, Yes, In, Not],
            // Load balancers have no token: health alone is open to everybody.
            _ => [Who, Who, Who, Who, Who, Who, Who, Who, Yes, Who, Who, Who, Who, Who, Who, Who, Who, Who],
        };
        assert_eq!(found, wanted, "{role}");
    }
    let audit = std::fs::read_to_string(folder.path().join("data/audit.ndjson")).unwrap();
    assert!(audit.contains("my-analyst") && audit.contains("my-operator") && audit.contains("deny"), "{audit}");
    assert!(!audit.contains("0123456789abcdef"), "no token in the audit");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_is_pushed_decides_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let mut decisions = v1::decisions_client::DecisionsClient::new(channel(running.scoring).await);
    let mut entities = v1::entities_client::EntitiesClient::new(channel(running.admin).await);
    let mut pushed = decisions.stream(v1::StreamRequest::default()).await.unwrap().into_inner();
    let table = pushed.message().await.unwrap().unwrap();
    assert!(table.snapshot && table.decisions.is_empty() && table.hash_key.len() == 32, "{table:?}");
    let entity = Some(v1::Entity { r#type: "address".to_owned(), id: "192.0.2.66".to_owned(), ..Default::default() });
    let deny =
        v1::OverrideRequest { entity: entity.clone(), action: v1::Action::Block.into(), reason: "test".to_owned(), ..Default::default() };
    let answer = entities.r#override(deny).await.unwrap().into_inner().decision.unwrap();
    let change = tokio::time::timeout(Duration::from_secs(1), pushed.message()).await.expect("within 1 s").unwrap().unwrap();
    assert_eq!((change.snapshot, change.decisions), (false, vec![answer]));
    assert_eq!(score(&mut scorer, login("o1", "192.0.2.66", "anna")).await.unwrap().action, v1::Action::Block as i32);
    assert_ne!(score(&mut scorer, login("o2", "192.0.2.67", "anna")).await.unwrap().action, v1::Action::Block as i32);
    running.stop().await.unwrap();

    let running = start(config(folder.path())).await;
    let mut scorer = client(&running).await;
    let mut entities = v1::entities_client::EntitiesClient::new(channel(running.admin).await);
    assert_eq!(score(&mut scorer, login("o3", "192.0.2.66", "anna")).await.unwrap().action, v1::Action::Block as i32);
    let remove = v1::OverrideRequest { entity, ..Default::default() };
    assert_eq!(entities.r#override(remove).await.unwrap().into_inner().decision, None);
    assert_ne!(score(&mut scorer, login("o4", "192.0.2.66", "anna")).await.unwrap().action, v1::Action::Block as i32);
    let wrong = v1::OverrideRequest {
        entity: Some(v1::Entity { r#type: "planet".to_owned(), id: "x".to_owned(), ..Default::default() }),
        action: v1::Action::Block.into(),
        ..Default::default()
    };
    let status = entities.r#override(wrong).await.unwrap_err();
    assert!(status.message().contains("planet") && status.message().contains("address"), "{status:?}");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_leaves_the_old_one_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(config(folder.path())).await;
    let before = running.service().engine.in_force().policy.digest().to_owned();
    let pack = folder.path().join("pack.yaml");
    std::fs::write(&pack, "rules: [{ id: nothing").unwrap();
    reload::PolicyWatch::new(Some(pack), None).reload(running.service(), "test");
    assert_eq!(running.service().engine.in_force().policy.digest(), before);
    assert_eq!(running.service().metrics.reloads.with_label_values(&["refused"]).get(), 1);
    running.stop().await.unwrap();
}
