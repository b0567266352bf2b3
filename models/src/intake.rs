//! Takes in a bare ONNX file of somebody else: bytes enter, a version ready to be published leaves, or the reason why not.
//!
//! The file is judged first; then its manifest is made from its own metadata and names, it is started in contained workers, and scores
//! rows that become its golden rows. Nothing that the author wrote decides where it runs.

use rand::{RngExt, SeedableRng};

use crate::bundle::Model;
use crate::judge::{Facts, INT64, PortKind, judge};
use crate::repository::{
    CALIBRATION, Draft, FeatureIndex, Form, GoldenRows, Input, Kind, Manifest, Missing, Named, Origin, Output, PROFILE, Training, load,
};
use crate::score::Lane;
use crate::{ModelError, RuntimeOptions};

/// Rows that are scored and kept as golden rows.
const ROWS: usize = 24;
/// Keys that a model's author may set, with `onnx.helper.set_model_props`.
const INPUTS: &str = "telltale.inputs";
const OUTPUT: &str = "telltale.output";
const MISSING: &str = "telltale.missing";
const USUAL: &str = "telltale.usual";

/// Why a file was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A class, for counting: a guard's, or `inputs`, `outputs`, `run`.
    pub class: &'static str,
    /// What its author has to change.
    pub reason: String,
    /// Whether the file may only not have been copied completely.
    pub maybe_incomplete: bool,
}

impl Refusal {
    fn new(class: &'static str, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), maybe_incomplete: false }
    }
}

/// A version made of a bare file.
///
/// # Errors
/// Why it is not taken.
pub fn draft(bytes: Vec<u8>, origin: Origin, index: &FeatureIndex, options: &RuntimeOptions) -> Result<Draft, Refusal> {
    let (manifest, facts) = manifest(&bytes, origin, index, options)?;
    let golden = probe(&manifest, &bytes, index, options)?;
    let report = serde_json::json!({ "producer": facts.producer, "operators": facts.operators, "metadata": facts.metadata });
    Ok(Draft { manifest, model: bytes, calibration: None, golden, report: report.to_string(), profile: None, signature: None })
}

/// Refuses a manifest that is not the one made of its file: what a signature over the file alone vouches for. Words are its own affair.
///
/// # Errors
/// Which part is another.
pub(crate) fn as_taken(known: &Manifest, bytes: &[u8], index: &FeatureIndex, options: &RuntimeOptions) -> Result<(), String> {
    let (made, _) = manifest(bytes, known.origin, index, options).map_err(|refusal| format!("{}: {}", refusal.class, refusal.reason))?;
    let parts = [
        ("origin", !known.origin.is_own()),
        ("kind", known.kind == made.kind),
        ("output", known.output == made.output),
        ("inputs", known.inputs == made.inputs),
        ("files", ![CALIBRATION, PROFILE].iter().any(|name| known.files.contains_key(*name))),
    ];
    match parts.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((part, _)) => Err(format!(
            "only the model's file is signed, and `{part}` of the manifest is not what is made of that file: publish the file again, or sign the version"
        )),
    }
}

/// The manifest of a bare file, and what was found in the file.
fn manifest(bytes: &[u8], origin: Origin, index: &FeatureIndex, options: &RuntimeOptions) -> Result<(Manifest, Facts), Refusal> {
    let facts = judge(bytes, &options.limits).map_err(|rejection| Refusal {
        class: rejection.class(),
        reason: rejection.to_string(),
        maybe_incomplete: matches!(rejection.class(), "broken" | "empty" | "mislabelled"),
    })?;
    let names = names(&facts, index)?;
    let inputs = inputs(&facts, &names, index)?;
    let manifest = Manifest {
        kind: Kind::Onnx,
        description: said(&facts, &["telltale.description", "description"])
            .unwrap_or_else(|| format!("an ONNX model by {}", facts.producer)),
        licence: said(&facts, &["licence", "license"]).unwrap_or_else(|| "LicenseRef-unknown".to_string()),
        origin,
        output: output(&facts, names.len())?,
        training: Training::default(),
        files: Default::default(),
        metrics: Default::default(),
        inputs,
    };
    Ok((manifest, facts))
}

/// What the author says under one of these keys, shortened to a line.
fn said(facts: &Facts, keys: &[&str]) -> Option<String> {
    let text = keys.iter().find_map(|key| facts.metadata.get(*key))?;
    let line: String = text.chars().filter(|letter| !letter.is_control()).take(200).collect();
    (!line.trim().is_empty()).then(|| line.trim().to_string())
}

/// The features that the model reads, in the order of a row.
fn names(facts: &Facts, index: &FeatureIndex) -> Result<Vec<String>, Refusal> {
    let listed = facts.metadata.get(INPUTS).map(|text| list(text));
    let [input] = facts.inputs.as_slice() else {
        return Ok(facts.inputs.iter().map(|input| index.meant(&input.name).to_string()).collect());
    };
    let width = match &input.kind {
        PortKind::Tensor(_, dims) => dims.get(1).copied().flatten(),
        PortKind::Sequence | PortKind::Other => None,
    };
    let names = match (listed, width) {
        (Some(names), _) => names,
        (None, Some(1)) => vec![index.meant(&input.name).to_string()],
        (None, width) => {
            let columns = width.map_or("any number of".to_string(), |width| width.to_string());
            let how = "onnx.helper.set_model_props(model, {\"telltale.inputs\": \"address.requests_1m,user.age_days,…\"})";
            let text = format!(
                "input `{}` is one matrix of {columns} columns, and the model does not say which features they are: {how}",
                input.name
            );
            return Err(Refusal::new("inputs", text));
        }
    };
    match width {
        Some(width) if width != names.len() as u64 => {
            let text = format!("`{INPUTS}` names {} features, input `{}` has {width} columns", names.len(), input.name);
            Err(Refusal::new("inputs", text))
        }
        _ => Ok(names),
    }
}

/// A list as JSON or between commas.
fn list(text: &str) -> Vec<String> {
    let json: Option<Vec<String>> = serde_json::from_str(text).ok();
    json.unwrap_or_else(|| text.split(',').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect())
}

fn inputs(facts: &Facts, names: &[String], index: &FeatureIndex) -> Result<Vec<Input>, Refusal> {
    let usual = facts.metadata.get(USUAL).map(|text| list(text)).unwrap_or_default();
    let missing = missing(facts)?;
    let input = |(at, name): (usize, &String)| {
        let hash = index.hash(name).map_err(|problem| Refusal::new("inputs", problem))?;
        let usual = usual.get(at).map_or(Ok(0.0), |text| text.parse::<f64>().map_err(|_| text));
        let usual = usual.ok().filter(|usual| usual.is_finite());
        let usual = usual.ok_or_else(|| Refusal::new("inputs", format!("`{USUAL}`: the value of `{name}` is no finite number")))?;
        Ok(Input { name: name.clone(), hash, usual, spread: 0.0, missing })
    };
    names.iter().enumerate().map(input).collect()
}

/// What stands for a missing value: trees take NaN, everything else gets 0 unless its author says more.
fn missing(facts: &Facts) -> Result<Missing, Refusal> {
    match facts.metadata.get(MISSING).map(|text| text.trim()) {
        Some("nan") => Ok(Missing::Named(Named::Nan)),
        Some("usual") => Ok(Missing::Named(Named::Usual)),
        Some(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Missing::Value(value)),
            _ => Err(Refusal::new("inputs", format!("`{MISSING}` is `{text}`, allowed are `nan`, `usual` or a finite number"))),
        },
        None if facts.operators.keys().any(|op| op.starts_with("TreeEnsemble")) => Ok(Missing::Named(Named::Nan)),
        None => Ok(Missing::Value(0.0)),
    }
}

/// Which output is the score, and how: as the author says, else by what exporters write.
fn output(facts: &Facts, width: usize) -> Result<Output, Refusal> {
    let direct = Output::default();
    match facts.metadata.get(OUTPUT).map(|text| text.trim()) {
        Some("probability" | "score") => return Ok(direct),
        Some("-score") => return Ok(Output { negate: true, ..direct }),
        Some("reconstruction") => return Ok(Output { form: Form::Reconstruction, ..direct }),
        Some(other) => {
            let text =
                format!("`{OUTPUT}` is `{other}`, allowed are probability, score (higher is more suspicious), -score, reconstruction");
            return Err(Refusal::new("outputs", text));
        }
        None => {}
    }
    let labelled = facts.outputs.iter().any(|output| matches!(output.kind, PortKind::Tensor(INT64, _)));
    let named = |name: &str| facts.outputs.iter().any(|output| output.name == name);
    // skl2onnx gives outlier detectors a label and `scores`, the decision function: lower is more unusual.
    if labelled && named("scores") {
        return Ok(Output { name: Some("scores".to_string()), negate: true, ..direct });
    }
    let rebuilt = match facts.outputs.as_slice() {
        [output] if width > 2 => matches!(&output.kind, PortKind::Tensor(_, dims) if dims.get(1) == Some(&Some(width as u64))),
        _ => false,
    };
    Ok(if rebuilt { Output { form: Form::Reconstruction, ..direct } } else { direct })
}

/// Starts the model as it will run, and has it score rows of all sizes, each twice.
fn probe(manifest: &Manifest, bytes: &[u8], index: &FeatureIndex, options: &RuntimeOptions) -> Result<GoldenRows, Refusal> {
    let said = |error: ModelError| Refusal::new("run", error.to_string());
    let inputs = load::inputs(std::path::Path::new(""), manifest, index).map_err(said)?;
    let mut one = RuntimeOptions { lanes: 1, ..options.clone() };
    // Scoring must not notice that a model is looked at.
    one.containment.iter_mut().for_each(|containment| containment.aside = true);
    let model = Model { engine: load::onnx(manifest, bytes, &one).map_err(said)?, inputs };
    let mut golden = GoldenRows { inputs: vec![Vec::with_capacity(ROWS); manifest.inputs.len()], raw: Vec::with_capacity(ROWS) };
    for (at, row) in rows(manifest, bytes).into_iter().enumerate() {
        let values = model.fill(row.iter().copied());
        let score = || model.engine.raw(&values, Lane(0)).map_err(|problem| Refusal::new("run", format!("probing row {at}: {problem}")));
        let (first, second) = (score()?, score()?);
        if first.to_bits() != second.to_bits() {
            let text = format!("probing row {at}: the same row scores {first} and then {second}; a model must score it the same each time");
            return Err(Refusal::new("run", text));
        }
        golden.inputs.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        golden.raw.push(first);
    }
    Ok(golden)
}

/// Usual, empty, small, large and missing values; always the same for the same file.
fn rows(manifest: &Manifest, bytes: &[u8]) -> Vec<Vec<f64>> {
    let mut rng = rand_chacha::ChaCha8Rng::from_seed(*blake3::hash(bytes).as_bytes());
    let width = manifest.inputs.len();
    let mut rows = vec![
        manifest.inputs.iter().map(|input| input.usual).collect(),
        vec![0.0; width],
        vec![f64::NAN; width],
        vec![1e9; width],
        vec![-1e9; width],
    ];
    while rows.len() < ROWS {
        let value = |rng: &mut rand_chacha::ChaCha8Rng| {
            let size = 10_f64.powf(rng.random_range(-3.0..6.0));
            if rng.random_range(0..8) == 0 { f64::NAN } else { size * rng.random_range(0.0..1.0) }
        };
        rows.push((0..width).map(|_| value(&mut rng)).collect());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{DOUBLE, FLOAT, Port};

    fn facts(inputs: &[(&str, u64, u64)], outputs: &[(&str, u64, u64)], metadata: &[(&str, &str)]) -> Facts {
        let port = |(name, element, width): &(&str, u64, u64)| Port {
            name: name.to_string(),
            kind: PortKind::Tensor(*element, vec![None, (*width > 0).then_some(*width)]),
        };
        Facts {
            inputs: inputs.iter().map(port).collect(),
            outputs: outputs.iter().map(port).collect(),
            metadata: metadata.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect(),
            ..Facts::default()
        }
    }

    fn index() -> FeatureIndex {
        FeatureIndex::new([("address.requests_1m", 1), ("user.age_days", 2), ("session.paths_10m", 3)])
    }

    #[test]
    fn inputs_come_as_a_named_matrix_or_as_columns_in_any_order() {
        let matrix = [("x", FLOAT, 2)];
        let listed = facts(&matrix, &[], &[("telltale.inputs", "user.age_days, address.requests_1m")]);
        assert_eq!(names(&listed, &index()).unwrap(), ["user.age_days", "address.requests_1m"]);
        let json = facts(&matrix, &[], &[("telltale.inputs", r#"["user.age_days", "session.paths_10m"]"#)]);
        assert_eq!(names(&json, &index()).unwrap(), ["user.age_days", "session.paths_10m"]);
        let columns = facts(&[("session.paths_10m", DOUBLE, 1), ("user.age_days", DOUBLE, 1)], &[], &[]);
        assert_eq!(names(&columns, &index()).unwrap(), ["session.paths_10m", "user.age_days"]);
        assert_eq!(names(&facts(&[("user.age_days", FLOAT, 1)], &[], &[]), &index()).unwrap(), ["user.age_days"]);
        let renamed = facts(&[("session_paths_10m", DOUBLE, 1), ("user_age_days", DOUBLE, 1), ("odd_one", DOUBLE, 1)], &[], &[]);
        assert_eq!(names(&renamed, &index()).unwrap(), ["session.paths_10m", "user.age_days", "odd_one"]);
        let unnamed = names(&facts(&matrix, &[], &[]), &index()).unwrap_err();
        assert!(unnamed.class == "inputs" && unnamed.reason.contains("set_model_props"), "{unnamed:?}");
        let short = names(&facts(&matrix, &[], &[("telltale.inputs", "user.age_days")]), &index()).unwrap_err();
        assert!(short.reason.contains("names 1 features, input `x` has 2 columns"), "{short:?}");
    }

    #[test]
    fn the_manifest_takes_hashes_from_the_schema_and_words_from_the_author() {
        let told = facts(&[], &[], &[("telltale.usual", "3,4.5"), ("telltale.missing", "usual")]);
        let made = inputs(&told, &["user.age_days".to_string(), "address.requests_1m".to_string()], &index()).unwrap();
        assert_eq!((made[0].hash.as_str(), made[0].usual, made[1].usual), ("0000000000000002", 3.0, 4.5));
        assert_eq!(made[0].missing, Missing::Named(Named::Usual));
        let unknown = inputs(&told, &["user.age".to_string()], &index()).unwrap_err();
        assert!(unknown.reason.contains("no feature of the schema (closest: `user.age_days`)"), "{unknown:?}");
        let wrong = inputs(&facts(&[], &[], &[("telltale.missing", "inf")]), &[], &index()).unwrap_err();
        assert!(wrong.reason.contains("allowed are `nan`, `usual` or a finite number"), "{wrong:?}");
        let mut trees = facts(&[], &[], &[]);
        assert_eq!(missing(&trees).unwrap(), Missing::Value(0.0));
        trees.operators.insert("TreeEnsembleClassifier".to_string(), 1);
        assert_eq!(missing(&trees).unwrap(), Missing::Named(Named::Nan));
    }

    #[test]
    fn outputs_are_read_as_their_exporters_mean_them() {
        let direct = Output::default();
        let class = facts(&[], &[("label", INT64, 0), ("probabilities", FLOAT, 2)], &[]);
        assert_eq!(output(&class, 3).unwrap(), direct);
        let forest = output(&facts(&[], &[("label", INT64, 0), ("scores", FLOAT, 1)], &[]), 3).unwrap();
        assert!(forest.negate && forest.name.as_deref() == Some("scores"), "{forest:?}");
        let rebuilt = facts(&[], &[("decoded", FLOAT, 3)], &[]);
        assert_eq!(output(&rebuilt, 3).unwrap().form, Form::Reconstruction);
        assert_eq!(output(&rebuilt, 4).unwrap().form, Form::Direct);
        let said = |text| output(&facts(&[], &[("y", FLOAT, 1)], &[("telltale.output", text)]), 3);
        assert!(said("-score").unwrap().negate && !said("score").unwrap().negate);
        assert!(said("odds").unwrap_err().reason.contains("allowed are probability, score"), "{:?}", said("odds"));
    }
}
