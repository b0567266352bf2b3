//! The RPCs of `Models`: checked messages in, answers out. Every change is a job of the models' thread.

use std::sync::Arc;

use telltale_models::repository::{Manifest, ModelPolicy, Origin, Step};
use telltale_models::{Loader, ModelError, State};
use telltale_proto::v1;
use tonic::{Request, Response, Status};

use super::change::{self, Changed};
use super::{Asker, drift, inbox, loader};
use crate::server::Service;
use crate::server::access::Caller;
use crate::server::errors::CallError;
use crate::verdict::grouped;

/// Longest reason, bytes.
const REASON_BYTES: usize = 512;

/// The service as tonic calls it.
#[derive(Clone)]
pub struct ModelsApi(pub Arc<Service>);

type Reply<T> = Result<Response<T>, Status>;

impl ModelsApi {
    async fn step(
        &self,
        caller: Option<Caller>,
        model: String,
        step: Step,
        (uncalibrated, why): (bool, String),
    ) -> Result<v1::ModelChange, Status> {
        let changed = async {
            let asker = asker(caller, why)?;
            self.0
                .models
                .ask(move |service| made(service, &model.clone(), change::step(service, &model, step, uncalibrated, &asker)?))
                .await
        };
        changed.await.map_err(|error| self.0.refuse(error))
    }

    async fn ask<T: Send + 'static>(&self, job: impl FnOnce(&Service) -> Result<T, CallError> + Send + 'static) -> Result<T, Status> {
        self.0.models.ask(job).await.map_err(|error| self.0.refuse(error))
    }
}

#[tonic::async_trait]
impl v1::models_server::Models for ModelsApi {
    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Reply<v1::ListModelsResponse> {
        let models = self.ask(|service| {
            let loader = loader(service)?;
            let names = loader.repository().models()?;
            names.iter().map(|name| describe(service, &loader, name)).collect::<Result<Vec<_>, _>>()
        });
        Ok(Response::new(v1::ListModelsResponse { models: models.await? }))
    }

    async fn publish_model(&self, request: Request<v1::PublishModelRequest>) -> Reply<v1::PublishModelResponse> {
        let (caller, asked) = opened(request);
        let asker = asker(caller, asked.reason).map_err(|error| self.0.refuse(error))?;
        let (service, model, by) = (Arc::clone(&self.0), asked.model.clone(), asker.clone());
        let published =
            tokio::task::spawn_blocking(move || inbox::publish(&service, &model, (asked.onnx.to_vec(), &asked.signature), &by)).await;
        let version = published.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| self.0.refuse(error))?;
        let model = asked.model;
        let change = self.ask(move |service| {
            let changed = change::step(service, &model, Step::Shadow(version, true), false, &asker)?;
            made(service, &model, changed)
        });
        Ok(Response::new(v1::PublishModelResponse { version, change: Some(change.await?) }))
    }

    async fn promote_model(&self, request: Request<v1::PromoteModelRequest>) -> Reply<v1::PromoteModelResponse> {
        let (caller, asked) = opened(request);
        let change = self.step(caller, asked.model, Step::Promote(asked.version), (asked.uncalibrated, asked.reason)).await?;
        Ok(Response::new(v1::PromoteModelResponse { change: Some(change) }))
    }

    async fn rollback_model(&self, request: Request<v1::RollbackModelRequest>) -> Reply<v1::RollbackModelResponse> {
        let (caller, asked) = opened(request);
        let change = self.step(caller, asked.model, Step::Rollback, (false, asked.reason)).await?;
        Ok(Response::new(v1::RollbackModelResponse { change: Some(change) }))
    }

    async fn set_canary(&self, request: Request<v1::SetCanaryRequest>) -> Reply<v1::SetCanaryResponse> {
        let (caller, asked) = opened(request);
        let change = self.step(caller, asked.model, Step::Canary(asked.version, asked.percent), (false, asked.reason)).await?;
        Ok(Response::new(v1::SetCanaryResponse { change: Some(change) }))
    }

    async fn set_shadow(&self, request: Request<v1::SetShadowRequest>) -> Reply<v1::SetShadowResponse> {
        let (caller, asked) = opened(request);
        let change = self.step(caller, asked.model, Step::Shadow(asked.version, !asked.remove), (false, asked.reason)).await?;
        Ok(Response::new(v1::SetShadowResponse { change: Some(change) }))
    }

    async fn compare_model(&self, request: Request<v1::CompareModelRequest>) -> Reply<v1::CompareModelResponse> {
        let asked = request.into_inner();
        Ok(Response::new(self.ask(move |service| compared(service, &asked)).await?))
    }

    async fn verify_model(&self, request: Request<v1::VerifyModelRequest>) -> Reply<v1::VerifyModelResponse> {
        let asked = request.into_inner();
        let answer = self.ask(move |service| match loader(service)?.verify(&asked.model, asked.version) {
            Ok(signer) => Ok(v1::VerifyModelResponse { usable: true, reason: String::new(), signer: signer.to_string() }),
            Err(error @ (ModelError::Name { .. } | ModelError::Absent { .. })) => Err(error.into()),
            Err(error) => Ok(v1::VerifyModelResponse { usable: false, reason: error.to_string(), signer: String::new() }),
        });
        Ok(Response::new(answer.await?))
    }

    async fn drift(&self, request: Request<v1::DriftRequest>) -> Reply<v1::DriftResponse> {
        let model = request.into_inner().model;
        let answer = self.ask(move |service| {
            loader(service)?;
            let models = drift::report(service, &model);
            if models.is_empty() && !model.is_empty() {
                return Err(ModelError::Data(format!("model `{model}` has no version in force")).into());
            }
            Ok(v1::DriftResponse { models })
        });
        Ok(Response::new(answer.await?))
    }

    async fn remove_model(&self, request: Request<v1::RemoveModelRequest>) -> Reply<v1::RemoveModelResponse> {
        let (caller, asked) = opened(request);
        let asker = asker(caller, asked.reason).map_err(|error| self.0.refuse(error))?;
        let removed = self.ask(move |service| {
            loader(service)?.remove(&asked.model, asked.version, &asker.author(service))?;
            change::audit(service, &asker, "remove", &format!("{}:{}", asked.model, asked.version));
            Ok(v1::RemoveModelResponse {})
        });
        Ok(Response::new(removed.await?))
    }
}

fn opened<T>(request: Request<T>) -> (Option<Caller>, T) {
    (request.extensions().get::<Caller>().cloned(), request.into_inner())
}

fn asker(caller: Option<Caller>, why: String) -> Result<Asker, CallError> {
    if why.len() > REASON_BYTES {
        return Err(CallError::Override(format!("`reason` is {} bytes long; allowed: at most {REASON_BYTES}", why.len())));
    }
    let (who, role) = caller.map_or(("local".into(), None), |caller| (caller.name, caller.role));
    Ok(Asker { who: who.to_string(), role: role.map_or("any", crate::server::access::Role::name), why })
}

fn made(service: &Service, model: &str, changed: Changed) -> Result<v1::ModelChange, CallError> {
    let model = describe(service, &*loader(service)?, model)?;
    let took_us = u64::try_from(changed.took.as_micros()).unwrap_or(u64::MAX);
    Ok(v1::ModelChange { model: Some(model), epoch: changed.epoch, took_us })
}

/// A model as it stands: its policy in force, and every version in the repository.
fn describe(service: &Service, loader: &Loader, name: &str) -> Result<v1::Model, CallError> {
    let repository = loader.repository();
    let policy = match service.engine.in_force().bundle.policy(name) {
        Some(policy) => policy.clone(),
        None => repository.policy(name)?,
    };
    let statuses = loader.statuses();
    let versions = repository.versions(name)?.into_iter().map(|version| {
        let status = statuses.iter().find(|status| &*status.model == name && status.version == version);
        let manifest = repository.manifest(name, version);
        let said = status.map_or((State::Staged, ""), |status| (status.state, &status.reason));
        let signer = status.filter(|status| !matches!(status.state, State::Staged | State::Failed)).map(|status| status.signer.to_string());
        let version = describe_version(service, name, version, (said, manifest));
        v1::ModelVersion { signer: signer.unwrap_or_default(), ..version }
    });
    let versions = versions.collect();
    let ModelPolicy { revision, shadow, aliases, canary, .. } = policy;
    Ok(v1::Model {
        name: name.to_owned(),
        champion: aliases.champion.unwrap_or_default(),
        previous: aliases.previous.unwrap_or_default(),
        challenger: aliases.challenger.unwrap_or_default(),
        canary: canary.map_or(0, |canary| canary.version),
        canary_percent: canary.map_or(0.0, |canary| canary.percent),
        shadow,
        revision,
        versions,
    })
}

fn describe_version(
    service: &Service,
    name: &str,
    version: u32,
    ((state, reason), manifest): ((State, &str), Result<Manifest, ModelError>),
) -> v1::ModelVersion {
    let (kind, origin, description, broken) = match manifest {
        Ok(manifest) => (manifest.kind.name(), manifest.origin, manifest.description, None),
        Err(error) => ("", Origin::Own, String::new(), Some(error.to_string())),
    };
    let state = if broken.is_some() { State::Failed } else { state };
    v1::ModelVersion {
        version,
        state: state_to_proto(state).into(),
        reason: broken.unwrap_or_else(|| reason.to_owned()),
        kind: kind.to_owned(),
        origin: origin.name().to_owned(),
        description,
        calibration: calibration(service, name, version),
        signer: String::new(),
    }
}

/// How far the calibration of a loaded version is, in words.
fn calibration(service: &Service, name: &str, version: u32) -> String {
    match service.engine.in_force().bundle.is_calibrated(name, version) {
        None => String::new(),
        Some(true) => "calibrated".to_owned(),
        Some(false) => {
            let progress = service.engine.calibration_progress(name, version).or_else(|| service.models.shadows.progress(name, version));
            progress.map_or("calibrating".to_owned(), |(have, need)| format!("calibrating {}/{}", grouped(have), grouped(need)))
        }
    }
}

fn compared(service: &Service, asked: &v1::CompareModelRequest) -> Result<v1::CompareModelResponse, CallError> {
    let bundle = service.engine.in_force().bundle.clone();
    let absent = |what: String| ModelError::Data(what);
    let policy = bundle.policy(&asked.model).ok_or_else(|| absent(format!("model `{}` is not loaded", asked.model)))?;
    let version = match asked.version {
        0 => policy.aliases.challenger.or(policy.aliases.champion),
        version => Some(version),
    };
    let version =
        version.ok_or_else(|| absent(format!("model `{}` has no challenger: name a version in shadow or on trial", asked.model)))?;
    let calibration = calibration(service, &asked.model, version);
    let dropped = service.models.shadows.dropped();
    match service.models.shadows.comparison(&asked.model, version) {
        Some(comparison) => Ok(comparison.to_proto(version, dropped, calibration)),
        None if policy.versions().contains(&version) => Ok(v1::CompareModelResponse {
            champion: policy.aliases.champion.unwrap_or_default(),
            version,
            dropped,
            calibration,
            ..Default::default()
        }),
        None => Err(absent(format!("`{}` version {version} plays no part: put it in shadow first", asked.model)).into()),
    }
}

const fn state_to_proto(state: State) -> v1::ModelState {
    match state {
        State::Staged => v1::ModelState::Staged,
        State::Verified => v1::ModelState::Verified,
        State::Probed => v1::ModelState::Probed,
        State::Warm => v1::ModelState::Warm,
        State::Ready => v1::ModelState::Ready,
        State::Shadow => v1::ModelState::Shadow,
        State::Canary => v1::ModelState::Canary,
        State::Champion => v1::ModelState::Champion,
        State::Draining => v1::ModelState::Draining,
        State::Unloaded => v1::ModelState::Unloaded,
        State::Failed => v1::ModelState::Failed,
    }
}
