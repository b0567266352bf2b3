//! The RPCs of `GRPCInferenceService`: messages in, answers out. What is asked for is looked up in the models in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use telltale_features::schema::Schema;
use telltale_models::Served;
use telltale_proto::inference::grpc_inference_service_server::GrpcInferenceService;
use telltale_proto::inference::model_metadata_response::TensorMetadata;
use telltale_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use tonic::{Request, Response, Status};

use crate::convert::{ConvertError, inference};
use crate::server::Service;
use crate::server::errors::CallError;

/// The service as tonic calls it.
#[derive(Clone)]
pub struct InferenceApi(pub Arc<Service>);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for InferenceApi {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Reply<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Reply<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.ready.load(Ordering::Acquire) }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Reply<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = match served(&self.0, (&name, "name"), (&version, "version")) {
            Ok(_) => true,
            Err(CallError::NotLoaded(_) | CallError::NoRepository) => false,
            Err(error) => return Err(self.0.refuse(error)),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Reply<ServerMetadataResponse> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(ServerMetadataResponse { name: "telltale".to_owned(), version, extensions: Vec::new() }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Reply<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let served = served(&self.0, (&name, "name"), (&version, "version")).map_err(|error| self.0.refuse(error))?;
        let tensor = |name: &str, datatype: &str, shape: &[i64]| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
        };
        Ok(Response::new(ModelMetadataResponse {
            versions: self.0.engine.in_force().bundle.loaded(&name).iter().map(u32::to_string).collect(),
            name,
            platform: platform(served.kind()),
            inputs: names(&self.0.engine.schema, &served).into_iter().map(|name| tensor(name, "FP32", &[-1, 1])).collect(),
            outputs: inference::OUTPUTS.iter().map(|name| tensor(name, "FP64", &[-1])).collect(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Reply<ModelInferResponse> {
        let inferred = infer(&self.0, request.into_inner()).await;
        let result = match &inferred {
            Ok((rows, _)) => {
                self.0.metrics.inference_rows.inc_by(*rows);
                "scored"
            }
            Err(CallError::Queue { .. } | CallError::Draining) => "shed",
            Err(CallError::Unscored(_)) => "failed",
            Err(_) => "refused",
        };
        self.0.metrics.inferences.with_label_values(&[result]).inc();
        inferred.map(|(_, response)| Response::new(response)).map_err(|error| self.0.refuse(error))
    }
}

/// What runs a model of a kind, as the protocol names platforms.
fn platform(kind: &str) -> String {
    if kind == "onnx" { "onnxruntime_onnx".to_owned() } else { format!("telltale_{kind}") }
}

/// The number of rows that a request brings, and its answer.
async fn infer(service: &Service, request: ModelInferRequest) -> Result<(u64, ModelInferResponse), CallError> {
    let served = served(service, (&request.model_name, "model_name"), (&request.model_version, "model_version"))?;
    service.inference.ask(served, request).await
}

/// The features that a version reads, by name.
pub(super) fn names<'a>(schema: &'a Schema, served: &Served) -> Vec<&'a str> {
    let features = schema.features();
    served.inputs().filter_map(|id| features.get(id.index())).map(|feature| feature.name.as_str()).collect()
}

/// The version of a model that is asked for; each text comes with the name of its field.
fn served(service: &Service, model: (&str, &str), version: (&str, &str)) -> Result<Served, CallError> {
    let ((model, model_field), (version, version_field)) = (model, version);
    if model.is_empty() {
        return Err(CallError::Empty(if model_field == "name" { "name" } else { "model_name" }));
    }
    let number = match version {
        "" => None,
        text => Some(
            text.parse::<u32>()
                .map_err(|_| ConvertError::of(version_field, text, "the number of a version, or nothing for the champion"))?,
        ),
    };
    let force = service.engine.in_force();
    if let Some(served) = force.bundle.served(model, number) {
        return Ok(served);
    }
    if force.loader.is_none() {
        return Err(CallError::NoRepository);
    }
    let loaded: Vec<String> = force.bundle.loaded(model).iter().map(u32::to_string).collect();
    Err(CallError::NotLoaded(match (loaded.is_empty(), number) {
        (true, _) => {
            let models: Vec<&str> = force.bundle.states().map(|(name, _)| name).collect();
            format!("model {} is not loaded; loaded: {}", crate::convert::shown(model), models.join(", "))
        }
        (false, None) => format!("model `{model}` has no champion; name one of its loaded versions: {}", loaded.join(", ")),
        (false, Some(number)) => format!("model `{model}` version {number} is not loaded; loaded: {}", loaded.join(", ")),
    }))
}

#[cfg(test)]
mod tests {
    use super::platform;

    #[test]
    fn every_native_kind_has_its_own_platform() {
        let found = ["onnx", "forest", "pca", "logistic", "half-space"].map(platform);
        assert_eq!(found, ["onnxruntime_onnx", "telltale_forest", "telltale_pca", "telltale_logistic", "telltale_half-space"]);
    }
}
