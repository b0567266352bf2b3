//! Models asked directly over gRPC: a forest and an ONNX model, every form of a request, refusals, and what Score says of the same rows.

use std::path::PathBuf;

use telltale_features::vector::FeatureVector;
use telltale_models::intake::draft;
use telltale_models::repository::{FeatureIndex, Origin};
use telltale_models::{Repository, RuntimeOptions};
use telltale_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use telltale_proto::inference::infer_parameter::ParameterChoice;
use telltale_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use telltale_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest,
};
use tonic::Code;

use super::*;

type Asking = GrpcInferenceServiceClient<Channel>;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");

/// Fails with the install line when ONNX Runtime is absent: never skips.
fn library() -> PathBuf {
    let root = Path::new(MODELS).join("..");
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or(root.join("target/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(library.is_file(), "{} is absent: run training/setup_ort.sh", library.display());
    library
}

/// The shipped forest in two versions, the second in shadow, and a LightGBM export as `boosted`.
fn with_models(folder: &Path) -> Config {
    let (mut config, root) = (config(folder), folder.join("models"));
    config.models.path = Some(root.clone());
    config.models.runtime = Some(library());
    // In this process: the test's own program has no worker.
    config.models.contain = "none".to_owned();
    for version in 1..=2 {
        let to = root.join(format!("unusual/versions/{version}"));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(Path::new(MODELS).join("default/unusual/versions/1")).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
    }
    std::fs::write(root.join("unusual/policy.toml"), "shadow = [2]\n[aliases]\nchampion = 1\n").unwrap();
    let schema = crate::setup::schema(None).unwrap();
    let options = RuntimeOptions { library: library(), contained: telltale_models::Which::None, ..RuntimeOptions::default() };
    let onnx = std::fs::read(Path::new(MODELS).join("fixtures/exports/lightgbm.onnx")).unwrap();
    let drafted = draft(onnx, Origin::Published, &FeatureIndex::of(&schema), &options).map_err(|refusal| refusal.reason).unwrap();
    Repository::open(&root).unwrap().publish("boosted", drafted).unwrap();
    std::fs::write(root.join("boosted/policy.toml"), "[aliases]\nchampion = 1\n").unwrap();
    config
}

async fn asking(running: &Running) -> Asking {
    Asking::new(channel(running.scoring).await)
}

fn matrix(model: &str, width: usize, values: &[f64]) -> ModelInferRequest {
    let rows = i64::try_from(values.len() / width).unwrap();
    let contents = Some(InferTensorContents { fp64_contents: values.to_vec(), ..Default::default() });
    let shape = vec![rows, i64::try_from(width).unwrap()];
    let (name, datatype) = ("features".to_owned(), "FP64".to_owned());
    let inputs = vec![InferInputTensor { name, datatype, shape, contents, ..Default::default() }];
    ModelInferRequest { model_name: model.to_owned(), inputs, ..Default::default() }
}

fn raws(answer: &ModelInferResponse) -> Vec<f64> {
    let output = answer.outputs.iter().find(|output| output.name == "raw").unwrap();
    output.contents.as_ref().unwrap().fp64_contents.clone()
}

/// What `Score` makes of some transactions: their vectors, and the raw score that the model gave each.
async fn scored(service: &Service, model: &str, transactions: usize) -> (Vec<FeatureVector>, Vec<f64>) {
    let (mut vectors, mut raws) = (Vec::new(), Vec::new());
    for at in 0..transactions {
        let wire = login(&format!("{model}-{at}"), &format!("192.0.2.{}", at % 7), &format!("user{}", at % 5));
        let (tx, _) = convert::transaction(wire, "transaction").unwrap();
        let (admitted, watch) = service.engine.admit(tx).unwrap();
        let scored = service.engine.score(admitted, watch, Lane(at % service.lanes)).await;
        let part = scored.assessed.scores.parts.iter().find(|part| &*part.model == model).unwrap();
        raws.push(part.raw);
        vectors.push(scored.assessed.vector.clone());
    }
    (vectors, raws)
}

/// The values that a model reads of some vectors, row after row.
fn values(service: &Service, model: &str, vectors: &[FeatureVector]) -> (usize, Vec<f64>) {
    let inputs: Vec<_> = service.engine.in_force().bundle.served(model, None).unwrap().inputs().collect();
    (inputs.len(), vectors.iter().flat_map(|vector| inputs.iter().map(|input| vector.get(*input))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_asked_directly_says_what_it_says_of_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(with_models(folder.path())).await;
    let (service, mut asking) = (running.service(), asking(&running).await);
    for model in ["unusual", "boosted"] {
        let (vectors, expected) = scored(service, model, 150).await;
        let (width, values) = values(service, model, &vectors);
        let together = raws(&asking.model_infer(matrix(model, width, &values)).await.unwrap().into_inner());
        assert_eq!(together.len(), 150);
        for ((row, expected), together) in values.chunks(width).zip(&expected).zip(&together) {
            let alone = raws(&asking.model_infer(matrix(model, width, row)).await.unwrap().into_inner());
            assert_eq!(alone[0].to_bits(), expected.to_bits(), "{model}: a row alone has the bits that Score has");
            // A forest gives the same bits in a batch; ONNX Runtime what golden rows may differ by.
            let close = (together - expected).abs() <= 1e-5 * (1.0 + expected.abs());
            assert!(if model == "unusual" { together.to_bits() == expected.to_bits() } else { close }, "{model}: {together} {expected}");
        }
        // To the boosted trees these logins are all one.
        assert!(model == "boosted" || expected.iter().any(|raw| raw.to_bits() != expected[0].to_bits()), "{model}: rows differ");
    }
    let text = service.metrics.text(service).unwrap();
    assert!(text.contains("telltale_inferences_total{result=\"scored\"} 302"), "{text}");
    assert!(text.contains("telltale_inference_rows_total 600"), "{text}");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loaded_version_answers_in_the_form_that_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(with_models(folder.path())).await;
    let mut asking = asking(&running).await;
    assert!(asking.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(asking.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert_eq!(asking.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner().name, "telltale");
    let ready = |name: &str, version: &str| ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
    for (name, version, expected) in [("unusual", "", true), ("unusual", "2", true), ("unusual", "9", false), ("nobody", "", false)] {
        assert_eq!(asking.model_ready(ready(name, version)).await.unwrap().into_inner().ready, expected, "{name} {version}");
    }
    let of = |name: &str| ModelMetadataRequest { name: name.to_owned(), version: String::new() };
    let forest = asking.model_metadata(of("unusual")).await.unwrap().into_inner();
    assert_eq!((forest.platform.as_str(), &forest.versions[..]), ("telltale_forest", &["1".to_owned(), "2".to_owned()][..]));
    let boosted = asking.model_metadata(of("boosted")).await.unwrap().into_inner();
    let names: Vec<&str> = boosted.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!((boosted.platform.as_str(), names.len(), names[0]), ("onnxruntime_onnx", 8, "session.objects_10m"));

    // One tensor a feature, as bytes, in another order; the fourth row has a missing value.
    let row = |at: usize, column: usize| if (at, column) == (3, 2) { f64::NAN } else { (at * 7 + column) as f64 };
    let all: Vec<f64> = (0..4).flat_map(|at| (0..8).map(move |column| row(at, column))).collect();
    let wanted = raws(&asking.model_infer(matrix("boosted", 8, &all)).await.unwrap().into_inner());
    let tensor = |(_, name): (usize, &&str)| InferInputTensor {
        name: (*name).to_owned(),
        datatype: "FP64".to_owned(),
        shape: vec![4, 1],
        ..Default::default()
    };
    let bytes = |(column, _): (usize, &&str)| (0..4).flat_map(|at| row(at, column).to_le_bytes()).collect::<Vec<u8>>().into();
    let columns = ModelInferRequest {
        model_name: "boosted".to_owned(),
        model_version: "1".to_owned(),
        id: "mine".to_owned(),
        inputs: names.iter().enumerate().rev().map(tensor).collect(),
        raw_input_contents: names.iter().enumerate().rev().map(bytes).collect(),
        outputs: vec![InferRequestedOutputTensor { name: "raw".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    let answer = asking.model_infer(columns).await.unwrap().into_inner();
    assert_eq!((answer.id.as_str(), answer.model_version.as_str(), answer.outputs.len()), ("mine", "1", 1));
    let expected: Vec<u8> = wanted.iter().flat_map(|raw| raw.to_le_bytes()).collect();
    assert_eq!(answer.raw_output_contents[0], expected);

    // A version in shadow answers too, and says that it means nothing yet.
    let width = forest.inputs.len();
    let shadow = ModelInferRequest { model_version: "2".to_owned(), ..matrix("unusual", width, &vec![1.0; width]) };
    let shadow = asking.model_infer(shadow).await.unwrap().into_inner();
    let calibrated = shadow.outputs.iter().find(|output| output.name == "calibrated").unwrap();
    let calibration = calibrated.parameters["calibration"].parameter_choice.clone();
    assert_eq!((shadow.model_version.as_str(), calibration), ("2", Some(ParameterChoice::StringParam("calibrating".to_owned()))));
    assert!(calibrated.contents.as_ref().unwrap().fp64_contents[0].is_nan());
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calibrated_score_is_what_the_verdict_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_models(folder.path());
    config.models.shipped_calibration = true;
    let running = start(config).await;
    let (service, mut asking) = (running.service(), asking(&running).await);
    let (vectors, _) = scored(service, "unusual", 1).await;
    let expected = service.engine.in_force().bundle.score(&vectors[0], Lane(0)).parts.into_iter().find(|part| &*part.model == "unusual");
    let (width, values) = values(service, "unusual", &vectors);
    let answer = asking.model_infer(matrix("unusual", width, &values)).await.unwrap().into_inner();
    let calibrated = answer.outputs.iter().find(|output| output.name == "calibrated").unwrap();
    let (telltale_models::Calibrated::PValue(value) | telltale_models::Calibrated::Probability(value)) = expected.unwrap().calibrated
    else {
        panic!("not calibrated")
    };
    assert_eq!(calibrated.contents.as_ref().unwrap().fp64_contents, [value]);
    assert_eq!(calibrated.parameters["calibration"].parameter_choice, Some(ParameterChoice::StringParam("p_value".to_owned())));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_where_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_models(folder.path());
    config.inference.max_rows = 4;
    config.inference.max_mb = 1;
    let running = start(config).await;
    let mut asking = asking(&running).await;
    let of = |model: &str, version: &str| ModelInferRequest { model_version: version.to_owned(), ..matrix(model, 8, &[0.0; 8]) };
    let cases = [
        (of("", ""), Code::InvalidArgument, "`model_name` is absent"),
        (of("boosted", "two"), Code::InvalidArgument, "`model_version` is `two`; allowed: the number of a version"),
        (of("nobody", ""), Code::NotFound, "model `nobody` is not loaded; loaded: boosted, unusual"),
        (of("unusual", "7"), Code::NotFound, "version 7 is not loaded; loaded: 1, 2"),
        (matrix("boosted", 8, &[0.0; 40]), Code::InvalidArgument, "1 to 4 rows (`inference.max_rows`)"),
        (matrix("boosted", 7, &[0.0; 7]), Code::InvalidArgument, "`inputs[0].shape` is [1, 7]; allowed: [rows, 8]"),
        (matrix("boosted", 8, &vec![0.0; 200_000]), Code::OutOfRange, "too large"),
    ];
    for (request, code, part) in cases {
        let refused = asking.model_infer(request).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(part), "{refused:?} lacks `{part}`");
    }
    running.stop().await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mut config = super::config(folder.path());
    config.inference.enabled = false;
    let running = start(config).await;
    let mut asking = Asking::new(channel(running.scoring).await);
    assert_eq!(asking.server_live(ServerLiveRequest {}).await.unwrap_err().code(), Code::Unimplemented);
    running.stop().await.unwrap();
}
