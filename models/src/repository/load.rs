//! From a version's folder to a model ready to score: every digest, feature hash and golden row is checked on the way.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use telltale_features::schema::Schema;
use telltale_features::vector::FeatureId;

use super::manifest::{CALIBRATION, GOLDEN, Kind, MANIFEST, Manifest, PROFILE};
use crate::bundle::{Engine, Input, Model};
use crate::calibration::CalibrationTable;
use crate::contain::{Contained, Spec};
use crate::forest::{self, Forest};
use crate::half_space::{self, HalfSpace};
use crate::intake::as_taken;
use crate::judge::judge;
use crate::linear::{self, Linear};
use crate::onnx::{Onnx, exported};
use crate::profile::Profile;
use crate::score::Lane;
use crate::table::Table;
use crate::trust::{MOST_BYTES, SIGNATURE, Signature, Signer, Signs};
use crate::{ModelError, RuntimeOptions, Which};

/// Name of the golden rows' column with the raw score.
pub const RAW: &str = "raw";
/// How far an ONNX model may be from its golden rows, absolutely and as a share of them; a native model not at all. Another processor
/// rounds otherwise, and float32 has seven digits of a large number too.
const TOLERANCE: f64 = 1e-5;
/// Largest file of a version.
const MAX_FILE: u64 = 64 << 20;

/// What models need to know of a schema: where a feature stands and what it means.
#[derive(Clone, Debug, Default)]
pub struct FeatureIndex(HashMap<String, (FeatureId, u64)>);

impl FeatureIndex {
    /// From names and definition hashes in the vector's order.
    pub fn new<'a>(features: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let places = (0..=u16::MAX).map(FeatureId);
        Self(features.into_iter().zip(places).map(|((name, hash), id)| (name.to_string(), (id, hash))).collect())
    }

    /// The features of a schema.
    pub fn of(schema: &Schema) -> Self {
        Self::new(schema.features().iter().map(|feature| (feature.name.as_str(), feature.hash)))
    }

    /// Names of the features, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The definition hash of a feature.
    ///
    /// # Errors
    /// That there is no such feature, and which one was perhaps meant.
    pub fn hash(&self, name: &str) -> Result<String, String> {
        match self.0.get(name) {
            Some((_, hash)) => Ok(format!("{hash:016x}")),
            None => Err(self.absent(name)),
        }
    }

    /// The feature that an input of this name means: the feature itself, or the only one that exporters would call so.
    pub fn meant<'a>(&'a self, name: &'a str) -> &'a str {
        if self.0.contains_key(name) {
            return name;
        }
        let mut alike = self.0.keys().filter(|feature| exported(feature) == name);
        match (alike.next(), alike.next()) {
            (Some(feature), None) => feature,
            _ => name,
        }
    }

    fn absent(&self, name: &str) -> String {
        format!("input `{name}` is no feature of the schema{}: declare it or retrain the model", self.closest(name))
    }

    fn find(&self, name: &str, hash: &str) -> Result<FeatureId, String> {
        match self.0.get(name) {
            None => Err(self.absent(name)),
            Some((id, known)) if format!("{known:016x}") == hash => Ok(*id),
            Some((_, known)) => Err(format!(
                "input `{name}` was trained with the definition {hash}, the schema's is {known:016x}: restore the definition or retrain the model"
            )),
        }
    }

    fn closest(&self, name: &str) -> String {
        let common = |other: &str| other.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let best = self.0.keys().max_by_key(|other| (common(other), std::cmp::Reverse((*other).clone())));
        best.filter(|other| common(other) > 3).map_or(String::new(), |other| format!(" (closest: `{other}`)"))
    }
}

/// The files of a version, each of which has the digest that its manifest says.
pub struct Files {
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest's own bytes, which are what is signed.
    text: String,
    bytes: HashMap<String, Vec<u8>>,
}

impl Files {
    /// Size of the model's file.
    pub fn model_bytes(&self) -> u64 {
        self.model().len() as u64
    }

    /// How the rows of the training window were distributed.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] when that is not told of the manifest's inputs.
    pub fn profile(&self, folder: &Path) -> Result<Option<Profile>, ModelError> {
        let profile = self.bytes.get(PROFILE).map(|bytes| Profile::parse(bytes, &self.manifest));
        profile.transpose().map_err(|problem| ModelError::invalid(folder.join(PROFILE), problem))
    }

    /// The bytes of the manifest.
    pub const fn manifest_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Names and bytes of all files, the manifest last.
    pub fn into_parts(self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = self.bytes.into_iter().collect();
        files.sort();
        files.push((MANIFEST.to_owned(), self.text.into_bytes()));
        files
    }

    fn model(&self) -> &[u8] {
        self.bytes.get(self.manifest.kind.file()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The calibration that came with the version.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] when it is none.
    pub fn calibration(&self, folder: &Path) -> Result<Option<CalibrationTable>, ModelError> {
        let table = self.bytes.get(CALIBRATION).map(|bytes| {
            CalibrationTable::from_json(&String::from_utf8_lossy(bytes))
                .map_err(|error| ModelError::invalid(folder.join(CALIBRATION), error.to_string()))
        });
        table.transpose()
    }
}

/// Reads a version's files and checks manifest and digests.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn files(folder: &Path) -> Result<Files, ModelError> {
    let path = folder.join("manifest.toml");
    let text = std::fs::read_to_string(&path).map_err(ModelError::io("read", &path))?;
    let manifest = Manifest::parse(&path, &text)?;
    let mut bytes = HashMap::new();
    for (name, digest) in &manifest.files {
        bytes.insert(name.clone(), checked(&folder.join(name), digest)?);
    }
    Ok(Files { manifest, text, bytes })
}

/// Who signed a version.
///
/// # Errors
/// Why its signature, or that it has none, is not accepted.
pub fn signer(folder: &Path, (model, files): (&str, &Files), index: &FeatureIndex, options: &RuntimeOptions) -> Result<Signer, ModelError> {
    let path = folder.join(SIGNATURE);
    let invalid = |problem: String| ModelError::invalid(&path, problem);
    let mut stored = Vec::new();
    // However long it is, no more is read than tells that it is too long.
    let read = File::open(&path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut stored));
    let signature = match read {
        Ok(_) => Some(Signature::parse(&stored).map_err(invalid)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(ModelError::io("read", path)(error)),
    };
    let digest = blake3::hash(files.manifest_bytes()).to_hex();
    let signer = options.trust.version(model, (&files.manifest, digest.as_str()), signature.as_ref()).map_err(invalid)?;
    if signature.is_some_and(|signature| signature.signs == Signs::File) {
        as_taken(&files.manifest, files.model(), index, options).map_err(invalid)?;
    }
    Ok(signer)
}

/// Where a version's inputs come from.
///
/// # Errors
/// The first input that the schema does not have, or has with another definition.
pub fn inputs(folder: &Path, manifest: &Manifest, index: &FeatureIndex) -> Result<Vec<Input>, ModelError> {
    let path = folder.join("manifest.toml");
    let inputs = manifest.inputs.iter().map(|input| {
        let feature = index.find(&input.name, &input.hash).map_err(|problem| ModelError::invalid(&path, problem))?;
        Ok(Input { feature, usual: input.usual, spread: input.spread, fill: input.fill() })
    });
    inputs.collect()
}

/// Builds what runs the version and checks its golden rows.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn model(folder: &Path, files: &Files, inputs: Vec<Input>, options: &RuntimeOptions) -> Result<Model, ModelError> {
    let manifest = &files.manifest;
    let model_path = folder.join(manifest.kind.file());
    let engine = engine(manifest, files.model(), inputs.len(), options).map_err(|error| match error {
        ModelError::Runtime(_) => error,
        other => ModelError::invalid(&model_path, other.to_string()),
    })?;
    let model = Model { engine, inputs };
    golden(&folder.join(GOLDEN), manifest, &model)?;
    Ok(model)
}

/// Lets every session of a model score once, so that no transaction pays for what the first run costs.
///
/// # Errors
/// What a session said.
pub fn warm(model: &Model, lanes: usize) -> Result<(), String> {
    let usual = model.fill(model.inputs.iter().map(|input| input.usual));
    (0..lanes.max(1)).try_for_each(|lane| model.engine.raw(&usual, Lane(lane)).map(|_| ()))
}

/// The bytes of a file whose digest is right.
fn checked(path: &Path, digest: &str) -> Result<Vec<u8>, ModelError> {
    let size = std::fs::metadata(path).map_err(ModelError::io("read", path))?.len();
    if size > MAX_FILE {
        return Err(ModelError::invalid(path, format!("{size} bytes, allowed are {MAX_FILE}")));
    }
    let bytes = std::fs::read(path).map_err(ModelError::io("read", path))?;
    let found = blake3::hash(&bytes).to_hex();
    if found.as_str() != digest {
        return Err(ModelError::invalid(
            path,
            format!("its digest is {found}, the manifest says {digest}: the file is damaged or was changed"),
        ));
    }
    Ok(bytes)
}

fn engine(manifest: &Manifest, bytes: &[u8], inputs: usize, options: &RuntimeOptions) -> Result<Engine, ModelError> {
    let (engine, width) = match manifest.kind {
        Kind::Forest => {
            let forest = Forest::new(&forest::file::decode(bytes).map_err(ModelError::Data)?)?;
            let width = forest.inputs();
            (Engine::Forest(Arc::new(forest)), width)
        }
        Kind::Pca | Kind::Gmm | Kind::Kmeans | Kind::Logistic => {
            let linear = Linear::new(linear::file::decode(bytes).map_err(ModelError::Data)?)?;
            let (named, width) = (manifest.kind.name(), linear.inputs());
            if linear.name() != named {
                return Err(ModelError::Data(format!("the file holds a {} model, the manifest says {named}", linear.name())));
            }
            (Engine::Linear(Arc::new(linear)), width)
        }
        Kind::HalfSpace => {
            let (shape, profile) = half_space::file::decode(bytes).map_err(ModelError::Data)?;
            let trees = HalfSpace::new(Arc::new(shape), &profile)?;
            let width = trees.inputs();
            (Engine::HalfSpace(Arc::new(trees)), width)
        }
        Kind::Onnx => (onnx(manifest, bytes, options)?, inputs),
    };
    if width != inputs {
        return Err(ModelError::Data(format!("the model reads {width} inputs, the manifest names {inputs}")));
    }
    Ok(engine)
}

/// An ONNX model: what was made here runs in this process, what was not is judged and runs contained.
///
/// # Errors
/// What is wrong with it.
pub fn onnx(manifest: &Manifest, bytes: &[u8], options: &RuntimeOptions) -> Result<Engine, ModelError> {
    if !manifest.origin.is_own() {
        judge(bytes, &options.limits).map_err(|rejection| ModelError::Data(rejection.to_string()))?;
    }
    let names: Vec<String> = manifest.inputs.iter().map(|input| input.name.clone()).collect();
    let contained = match options.contained {
        Which::All => true,
        Which::Foreign => !manifest.origin.is_own(),
        Which::None => false,
    };
    if !contained {
        return Ok(Engine::Onnx(Arc::new(Onnx::load(bytes, &names, &manifest.output, options)?)));
    }
    let containment = options.containment.clone().ok_or_else(|| {
        ModelError::Runtime("a foreign model runs only in a worker process, and this program starts none (`models.contain`)".to_string())
    })?;
    let spec = Spec { inputs: names, output: manifest.output.clone() };
    let contained = Contained::start(bytes.to_vec(), spec, options.lanes, options.library.clone(), containment);
    Ok(Engine::Contained(Arc::new(contained.map_err(ModelError::Data)?)))
}

/// Scores every golden row again.
fn golden(path: &Path, manifest: &Manifest, model: &Model) -> Result<(), ModelError> {
    let table = Table::open(path)?;
    let columns = manifest.inputs.iter().map(|input| table.numbers(&input.name)).collect::<Result<Vec<_>, _>>()?;
    let expected = table.numbers(RAW)?;
    if expected.is_empty() {
        return Err(ModelError::invalid(path, "no golden rows: at least 1 is needed"));
    }
    for (at, expected) in expected.iter().enumerate() {
        let values = columns.iter().map(|column| column.get(at).copied().unwrap_or(f64::NAN));
        let row = model.fill(values);
        let raw = model.engine.raw(&row, Lane(0)).map_err(ModelError::Runtime)?;
        let (holds, allowed) = if manifest.kind.is_native() {
            (raw.to_bits() == expected.to_bits(), "none".to_string())
        } else {
            (is_close(raw, *expected), format!("{TOLERANCE:e} and that share of it"))
        };
        if !holds {
            return Err(ModelError::invalid(
                path,
                format!("row {at}: the model scores {raw}, the golden row says {expected}; allowed difference: {allowed}"),
            ));
        }
    }
    Ok(())
}

/// Whether an ONNX model reproduces a golden row.
fn is_close(raw: f64, expected: f64) -> bool {
    (raw - expected).abs() <= TOLERANCE + TOLERANCE * expected.abs()
}

#[cfg(test)]
mod tests {
    use super::is_close;

    #[test]
    fn a_golden_row_holds_within_a_share_of_it_too() {
        assert!(is_close(0.500_009, 0.5) && !is_close(0.500_02, 0.5));
        // A decision score of a thousand has an error of its own size; one of a hundred-thousandth must not be anything.
        assert!(is_close(1_234.567, 1_234.570) && !is_close(1_234.567, 1_234.7));
        assert!(is_close(0.0, 1e-5) && !is_close(0.0, 2.1e-5) && !is_close(f64::NAN, 1.0));
    }
}
