//! Requests of the Open Inference Protocol and their rows: tensors enter, one matrix of numbers leaves, and the other way round for scores.
//!
//! Everything is measured before it is read: what is out of bounds is refused with its place and what is allowed.

use std::collections::BTreeMap;

use bytes::Bytes;
use telltale_models::calibration::Meaning;
use telltale_proto::inference::infer_parameter::ParameterChoice;
use telltale_proto::inference::model_infer_request::InferInputTensor;
use telltale_proto::inference::model_infer_response::InferOutputTensor;
use telltale_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

use super::{ConvertError, shown};

/// Name of the input that has all features, one a column.
pub const FEATURES: &str = "features";
/// Names of the outputs.
pub const OUTPUTS: [&str; 2] = ["raw", "calibrated"];

/// Rows to be scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// How many.
    pub rows: usize,
    /// Their values, row after row; NaN is a missing one.
    pub values: Vec<f64>,
}

/// The scores of some rows; NaN where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inferred {
    /// The version that answered.
    pub version: u32,
    /// The model's own numbers.
    pub raw: Vec<f64>,
    /// What they mean.
    pub calibrated: Vec<f64>,
    /// What kind of meaning that is; `None`: none yet.
    pub meaning: Option<Meaning>,
    /// Rows without a score.
    pub unscored: usize,
    /// Why the first of them has none.
    pub problem: String,
}

/// The values of a tensor where they stand.
enum Numbers<'a> {
    Bytes32(&'a [u8]),
    Bytes64(&'a [u8]),
    Floats(&'a [f32]),
    Doubles(&'a [f64]),
}

impl Numbers<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Bytes32(bytes) => bytes.len() / 4,
            Self::Bytes64(bytes) => bytes.len() / 8,
            Self::Floats(floats) => floats.len(),
            Self::Doubles(doubles) => doubles.len(),
        }
    }

    /// Puts them where they belong: every `step`th cell from `first` on.
    fn put(&self, cells: &mut [f64], (first, step): (usize, usize)) {
        let cells = cells.iter_mut().skip(first).step_by(step.max(1));
        match self {
            Self::Bytes32(bytes) => {
                let numbers = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap_or_default()));
                cells.zip(numbers).for_each(|(cell, number)| *cell = f64::from(number));
            }
            Self::Bytes64(bytes) => {
                let numbers = bytes.chunks_exact(8).map(|eight| f64::from_le_bytes(eight.try_into().unwrap_or_default()));
                cells.zip(numbers).for_each(|(cell, number)| *cell = number);
            }
            Self::Floats(floats) => cells.zip(*floats).for_each(|(cell, number)| *cell = f64::from(*number)),
            Self::Doubles(doubles) => cells.zip(*doubles).for_each(|(cell, number)| *cell = *number),
        }
    }
}

/// The values of a request, measured: as many as its rows need, and where in a row each tensor's belong. Nothing was copied yet.
struct Measured<'a> {
    rows: usize,
    width: usize,
    /// Values, first cell and step between cells.
    parts: Vec<(Numbers<'a>, (usize, usize))>,
}

impl Measured<'_> {
    fn matrix(&self) -> Rows {
        let mut values = vec![f64::NAN; self.rows * self.width];
        for (numbers, place) in &self.parts {
            numbers.put(&mut values, *place);
        }
        Rows { rows: self.rows, values }
    }
}

/// The rows of a request for a model that reads these features; at most so many.
///
/// # Errors
/// The first tensor that is missing, unknown, twice there, or of another shape or type than allowed.
pub fn rows(request: &ModelInferRequest, features: &[&str], most: usize) -> Result<Rows, ConvertError> {
    Ok(measure(request, features, most)?.matrix())
}

fn measure<'a>(request: &'a ModelInferRequest, features: &[&str], most: usize) -> Result<Measured<'a>, ConvertError> {
    let (given, raw) = (request.inputs.len(), request.raw_input_contents.len());
    if raw != 0 && raw != given {
        let allowed = format!("none, or one for each of the {given} `inputs`");
        return Err(ConvertError::new("raw_input_contents", format!("{raw} contents"), allowed));
    }
    let width = features.len();
    match request.inputs.as_slice() {
        [] => Err(ConvertError::absent("inputs", allowed_inputs(features))),
        [input] if input.name == FEATURES => {
            let rows = extent(input, 0, (&[width][..], false), most)?;
            let parts = vec![(numbers(request, input, 0, rows * width)?, (0, 1))];
            Ok(Measured { rows, width, parts })
        }
        [first, ..] => {
            let places = places(&request.inputs, features)?;
            let rows = extent(first, 0, (&[1], true), most)?;
            let mut parts = Vec::with_capacity(width);
            for (at, (input, place)) in request.inputs.iter().zip(places).enumerate() {
                let own = extent(input, at, (&[1], true), most)?;
                if own != rows {
                    let allowed = format!("{rows} rows, as `inputs[0]` has");
                    return Err(ConvertError::new(format!("inputs[{at}].shape"), format!("{own} rows"), allowed));
                }
                parts.push((numbers(request, input, at, rows)?, (place, width)));
            }
            Ok(Measured { rows, width, parts })
        }
    }
}

fn allowed_inputs(features: &[&str]) -> String {
    let width = features.len();
    format!("one tensor `{FEATURES}` of shape [rows, {width}], or each of the {width} features that ModelMetadata lists")
}

/// Which column each tensor is.
fn places(inputs: &[InferInputTensor], features: &[&str]) -> Result<Vec<usize>, ConvertError> {
    let known: BTreeMap<&str, usize> = features.iter().enumerate().map(|(place, name)| (*name, place)).collect();
    let mut given = BTreeMap::new();
    let mut places = Vec::with_capacity(inputs.len().min(features.len()));
    for (at, input) in inputs.iter().enumerate() {
        let path = || format!("inputs[{at}].name");
        let place = known.get(input.name.as_str());
        let place = *place.ok_or_else(|| ConvertError::new(path(), shown(&input.name), allowed_inputs(features)))?;
        if let Some(before) = given.insert(place, at) {
            let found = format!("{}, as `inputs[{before}].name` is", shown(&input.name));
            return Err(ConvertError::new(path(), found, "each feature once"));
        }
        places.push(place);
    }
    match features.iter().enumerate().find(|(place, _)| !given.contains_key(place)) {
        Some((_, name)) => {
            let allowed = "every feature; NaN where a row does not have it";
            Err(ConvertError::new("inputs", format!("without the feature `{name}`"), allowed))
        }
        None => Ok(places),
    }
}

/// The number of rows of a tensor whose other dimensions are these, or may be left out.
fn extent(input: &InferInputTensor, at: usize, (rest, optional): (&[usize], bool), most: usize) -> Result<usize, ConvertError> {
    let is_rest =
        |found: &[i64]| found.len() == rest.len() && found.iter().zip(rest).all(|(found, rest)| usize::try_from(*found) == Ok(*rest));
    let rows = match input.shape.split_first() {
        Some((rows, found)) if is_rest(found) || (optional && found.is_empty()) => usize::try_from(*rows).ok(),
        _ => None,
    };
    rows.filter(|rows| (1..=most).contains(rows)).ok_or_else(|| {
        let rest: String = rest.iter().map(|size| format!(", {size}")).collect();
        let alone = if optional { "[rows] or " } else { "" };
        let shape: Vec<String> = input.shape.iter().take(8).map(i64::to_string).collect();
        let allowed = format!("{alone}[rows{rest}] with 1 to {most} rows (`inference.max_rows`)");
        ConvertError::new(format!("inputs[{at}].shape"), format!("[{}]", shape.join(", ")), allowed)
    })
}

/// The values of a tensor: as many as its shape says, in the one place where they may stand.
fn numbers<'a>(request: &'a ModelInferRequest, input: &'a InferInputTensor, at: usize, count: usize) -> Result<Numbers<'a>, ConvertError> {
    let path = |field: &str| format!("inputs[{at}].{field}");
    let double = match input.datatype.as_str() {
        "FP32" => false,
        "FP64" => true,
        other => return Err(ConvertError::new(path("datatype"), shown(other), "FP32, FP64")),
    };
    if let Some(bytes) = request.raw_input_contents.get(at) {
        if input.contents.is_some() {
            return Err(ConvertError::new(path("contents"), "set beside `raw_input_contents`", "one of them"));
        }
        let size = if double { 8 } else { 4 };
        if bytes.len() != count * size {
            let allowed = format!("{} bytes: {count} values of {}", count * size, input.datatype);
            return Err(ConvertError::new(format!("raw_input_contents[{at}]"), format!("{} bytes long", bytes.len()), allowed));
        }
        return Ok(if double { Numbers::Bytes64(bytes) } else { Numbers::Bytes32(bytes) });
    }
    let field = if double { "fp64_contents" } else { "fp32_contents" };
    let allowed = || format!("{count} values in `{field}`, or `raw_input_contents`");
    let Some(contents) = &input.contents else { return Err(ConvertError::absent(path("contents"), allowed())) };
    let numbers = if double { Numbers::Doubles(&contents.fp64_contents) } else { Numbers::Floats(&contents.fp32_contents) };
    if numbers.len() == count {
        return Ok(numbers);
    }
    Err(ConvertError::new(path(&format!("contents.{field}")), format!("{} values long", numbers.len()), allowed()))
}

/// The outputs that a request wants, as places in [`OUTPUTS`]; all when it names none.
///
/// # Errors
/// A name that is none, or is there twice.
pub fn outputs(request: &ModelInferRequest) -> Result<Vec<usize>, ConvertError> {
    let mut wanted = Vec::with_capacity(OUTPUTS.len());
    for (at, output) in request.outputs.iter().enumerate() {
        let place = OUTPUTS.iter().position(|name| *name == output.name).filter(|place| !wanted.contains(place));
        let allowed = || ConvertError::new(format!("outputs[{at}].name"), shown(&output.name), "raw, calibrated, each once");
        wanted.push(place.ok_or_else(allowed)?);
    }
    Ok(if wanted.is_empty() { (0..OUTPUTS.len()).collect() } else { wanted })
}

/// The answer to a request, with its values where the request had its own: as bytes or in fields.
pub fn response(request: &ModelInferRequest, outputs: &[usize], inferred: &Inferred) -> ModelInferResponse {
    let as_bytes = !request.raw_input_contents.is_empty();
    let mut answer = ModelInferResponse {
        model_name: request.model_name.clone(),
        model_version: inferred.version.to_string(),
        id: request.id.clone(),
        ..ModelInferResponse::default()
    };
    for name in outputs.iter().filter_map(|place| OUTPUTS.get(*place)) {
        let values = if *name == "calibrated" { &inferred.calibrated } else { &inferred.raw };
        let contents = if as_bytes {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            answer.raw_output_contents.push(Bytes::from(bytes));
            None
        } else {
            Some(InferTensorContents { fp64_contents: values.clone(), ..InferTensorContents::default() })
        };
        answer.outputs.push(InferOutputTensor {
            name: (*name).to_owned(),
            datatype: "FP64".to_owned(),
            shape: vec![i64::try_from(values.len()).unwrap_or(i64::MAX)],
            parameters: parameters(name, inferred),
            contents,
        });
    }
    answer
}

/// What is said beside an output.
fn parameters(name: &str, inferred: &Inferred) -> BTreeMap<String, InferParameter> {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let text = |text: &str| parameter(ParameterChoice::StringParam(text.to_owned()));
    let mut parameters = BTreeMap::new();
    if name == "calibrated" {
        let meaning = match inferred.meaning {
            Some(Meaning::Probability) => "probability",
            Some(Meaning::PValue) => "p_value",
            None => "calibrating",
        };
        parameters.insert("calibration".to_owned(), text(meaning));
    }
    if inferred.unscored > 0 {
        let count = i64::try_from(inferred.unscored).unwrap_or(i64::MAX);
        parameters.insert("unscored".to_owned(), parameter(ParameterChoice::Int64Param(count)));
        parameters.insert("problem".to_owned(), text(&inferred.problem));
    }
    parameters
}

#[cfg(test)]
mod tests;
