use telltale_proto::inference::model_infer_request::InferRequestedOutputTensor;

use super::*;

const NAMES: [&str; 2] = ["a.x", "a.y"];

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec(), ..InferInputTensor::default() }
}

fn floats(mut tensor: InferInputTensor, values: &[f32]) -> InferInputTensor {
    tensor.contents = Some(InferTensorContents { fp32_contents: values.to_vec(), ..InferTensorContents::default() });
    tensor
}

fn doubles(mut tensor: InferInputTensor, values: &[f64]) -> InferInputTensor {
    tensor.contents = Some(InferTensorContents { fp64_contents: values.to_vec(), ..InferTensorContents::default() });
    tensor
}

fn of(inputs: Vec<InferInputTensor>) -> ModelInferRequest {
    ModelInferRequest { inputs, ..ModelInferRequest::default() }
}

fn raw(inputs: Vec<InferInputTensor>, contents: Vec<Vec<u8>>) -> ModelInferRequest {
    ModelInferRequest { inputs, raw_input_contents: contents.into_iter().map(Bytes::from).collect(), ..ModelInferRequest::default() }
}

fn bytes32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn bytes64(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn every_form_gives_the_same_rows() {
    let wanted = Rows { rows: 2, values: vec![1.0, 2.0, 3.5, -4.0] };
    let forms = [
        of(vec![floats(tensor("features", "FP32", &[2, 2]), &[1.0, 2.0, 3.5, -4.0])]),
        of(vec![doubles(tensor("features", "FP64", &[2, 2]), &[1.0, 2.0, 3.5, -4.0])]),
        // In any order, in either type and either shape.
        of(vec![doubles(tensor("a.y", "FP64", &[2]), &[2.0, -4.0]), floats(tensor("a.x", "FP32", &[2, 1]), &[1.0, 3.5])]),
        raw(vec![tensor("features", "FP32", &[2, 2])], vec![bytes32(&[1.0, 2.0, 3.5, -4.0])]),
        raw(vec![tensor("features", "FP64", &[2, 2])], vec![bytes64(&[1.0, 2.0, 3.5, -4.0])]),
        raw(vec![tensor("a.y", "FP64", &[2, 1]), tensor("a.x", "FP32", &[2])], vec![bytes64(&[2.0, -4.0]), bytes32(&[1.0, 3.5])]),
    ];
    for form in forms {
        assert_eq!(rows(&form, &NAMES, 4).unwrap(), wanted, "{form:?}");
    }
    let missing = of(vec![doubles(tensor("features", "FP64", &[1, 2]), &[f64::NAN, 2.0])]);
    assert!(rows(&missing, &NAMES, 1).unwrap().values[0].is_nan());
    // A model of one feature that is called as the matrix is: both are the same.
    let one = of(vec![doubles(tensor("features", "FP64", &[2, 1]), &[1.0, 2.0])]);
    assert_eq!(rows(&one, &["features"], 2).unwrap().values, [1.0, 2.0]);
}

#[test]
fn what_is_out_of_bounds_is_refused_with_its_place_and_what_is_allowed() {
    let whole = |shape: &[i64]| floats(tensor("features", "FP32", shape), &[0.0; 4]);
    let column = |name: &str| floats(tensor(name, "FP32", &[2]), &[0.0; 2]);
    let cases: Vec<(ModelInferRequest, &[&str])> = vec![
        (of(vec![]), &["`inputs` is absent", "`features` of shape [rows, 2]", "ModelMetadata"]),
        (of(vec![whole(&[2])]), &["`inputs[0].shape` is [2]", "[rows, 2] with 1 to 4 rows", "inference.max_rows"]),
        (of(vec![whole(&[2, 3])]), &["[2, 3]"]),
        (of(vec![whole(&[0, 2])]), &["[0, 2]", "1 to 4"]),
        (of(vec![whole(&[-1, 2])]), &["[-1, 2]"]),
        (of(vec![whole(&[i64::MAX, 2])]), &["1 to 4"]),
        (of(vec![whole(&[5, 2])]), &["[5, 2]", "1 to 4"]),
        (of(vec![whole(&[1, 2])]), &["`inputs[0].contents.fp32_contents` is 4 values long", "2 values"]),
        (of(vec![tensor("features", "FP32", &[2, 2])]), &["`inputs[0].contents` is absent", "4 values in `fp32_contents`"]),
        (of(vec![floats(tensor("features", "FP64", &[2, 2]), &[0.0; 4])]), &["fp64_contents", "0 values long"]),
        (of(vec![floats(tensor("features", "INT64", &[2, 2]), &[0.0; 4])]), &["`inputs[0].datatype` is `INT64`", "FP32, FP64"]),
        (of(vec![column("a.x")]), &["without the feature `a.y`", "NaN"]),
        (of(vec![column("a.x"), column("a.z")]), &["`inputs[1].name` is `a.z`", "ModelMetadata"]),
        (of(vec![column("a.x"), column("a.x")]), &["`inputs[1].name` is `a.x`, as `inputs[0].name` is", "once"]),
        (of(vec![whole(&[2, 2]), column("a.x")]), &["`inputs[0].name` is `features`"]),
        (of(vec![column("a.x"), floats(tensor("a.y", "FP32", &[3]), &[0.0; 3])]), &["`inputs[1].shape` is 3 rows", "2 rows"]),
        (
            of(vec![column("a.x"), floats(tensor("a.y", "FP32", &[2, 2]), &[0.0; 4])]),
            &["`inputs[1].shape` is [2, 2]", "[rows] or [rows, 1]"],
        ),
        (raw(vec![tensor("features", "FP32", &[2, 2])], vec![vec![0; 15]]), &["raw_input_contents[0]", "15 bytes", "16 bytes: 4 values"]),
        (raw(vec![tensor("features", "FP32", &[2, 2])], vec![vec![], vec![]]), &["`raw_input_contents` is 2 contents", "1 `inputs`"]),
        (raw(vec![whole(&[2, 2])], vec![vec![0; 16]]), &["`inputs[0].contents` is set beside `raw_input_contents`"]),
    ];
    for (request, parts) in cases {
        let error = rows(&request, &NAMES, 4).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{error}` lacks `{part}`");
        }
    }
}

#[test]
fn values_are_counted_before_there_is_a_matrix_of_them() {
    // A few bytes that claim 4,096 rows: what measures them has no matrix yet, in no form.
    let claims = [
        of(vec![floats(tensor("features", "FP32", &[4_096, 2]), &[1.0])]),
        raw(vec![tensor("features", "FP64", &[4_096, 2])], vec![vec![0; 8]]),
        of(vec![tensor("features", "FP32", &[4_096, 2])]),
        of(vec![floats(tensor("a.x", "FP32", &[4_096]), &[1.0]), tensor("a.y", "FP32", &[4_096])]),
        raw(vec![tensor("a.x", "FP32", &[4_096]), tensor("a.y", "FP32", &[4_096])], vec![vec![0; 4], vec![]]),
    ];
    for claim in claims {
        let error = measure(&claim, &NAMES, 4_096).map(|measured| measured.rows).unwrap_err().to_string();
        assert!(error.contains("4096") || error.contains("8192") || error.contains("16384") || error.contains("65536"), "{error}");
    }
}

#[test]
fn outputs_come_as_wanted_in_the_form_of_the_request() {
    let named = |names: &[&str]| ModelInferRequest {
        model_name: "m".to_owned(),
        id: "7".to_owned(),
        outputs: names.iter().map(|name| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() }).collect(),
        ..ModelInferRequest::default()
    };
    assert_eq!(outputs(&named(&[])).unwrap(), [0, 1]);
    assert_eq!(outputs(&named(&["calibrated"])).unwrap(), [1]);
    for wrong in [&["raw", "raw"][..], &["score"]] {
        let error = outputs(&named(wrong)).unwrap_err().to_string();
        assert!(error.contains("allowed: raw, calibrated, each once"), "{error}");
    }
    let inferred = Inferred {
        version: 3,
        raw: vec![0.25, f64::NAN],
        calibrated: vec![0.5, f64::NAN],
        meaning: Some(Meaning::PValue),
        unscored: 1,
        problem: "the score is NaN".to_owned(),
    };
    let mut request = named(&["calibrated"]);
    let typed = response(&request, &[1, 0], &inferred);
    assert_eq!((typed.model_name.as_str(), typed.model_version.as_str(), typed.id.as_str()), ("m", "3", "7"));
    let of = |output: &InferOutputTensor, name: &str| output.parameters.get(name).and_then(|found| found.parameter_choice.clone());
    let [calibrated, raw] = &typed.outputs[..] else { panic!("{typed:?}") };
    assert_eq!((calibrated.name.as_str(), calibrated.datatype.as_str(), &calibrated.shape), ("calibrated", "FP64", &vec![2]));
    assert_eq!(of(calibrated, "calibration"), Some(ParameterChoice::StringParam("p_value".to_owned())));
    assert_eq!(of(raw, "calibration"), None);
    assert_eq!(of(raw, "unscored"), Some(ParameterChoice::Int64Param(1)));
    assert_eq!(of(raw, "problem"), Some(ParameterChoice::StringParam("the score is NaN".to_owned())));
    assert_eq!(raw.contents.as_ref().unwrap().fp64_contents[0], 0.25);
    assert!(typed.raw_output_contents.is_empty());
    request.raw_input_contents = vec![Bytes::new()];
    let bytes = response(&request, &[0], &Inferred { meaning: None, unscored: 0, ..inferred });
    assert_eq!(bytes.raw_output_contents[0][..8], 0.25_f64.to_le_bytes());
    assert!(bytes.outputs[0].contents.is_none() && bytes.outputs[0].parameters.is_empty() && bytes.outputs.len() == 1);
}
