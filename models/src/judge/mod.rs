//! Judges a foreign ONNX file before ONNX Runtime sees it: bytes enter, facts about the model or a [`Rejection`] leave.
//!
//! The file is walked as protobuf, field by field, and never trusted: sizes are checked against the bytes that are there, nothing is
//! followed to another file, nothing is allocated by what the file claims. Field numbers: `onnx/onnx.proto` of ONNX 1.20.

mod constant;
mod graph;
mod rejection;
mod tensor;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use graph::Graph;
use wire::{Broken, Fields, Value};

pub use rejection::Rejection;

/// What a foreign model may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Initialisers of the graph.
    pub tensors: usize,
    /// Dimensions of a tensor.
    pub dimensions: usize,
    /// Names in the graph: inputs, outputs and attributes of its nodes, its own, and what it says of values between.
    pub names: usize,
    /// Elements of a tensor that a node makes by itself.
    pub elements: u64,
    /// Whether Loop, Scan and If are allowed.
    pub control_flow: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let (nodes, tensors, names) = (5_000, 10_000, 100_000);
        Self { bytes: 64 << 20, nodes, tensors, dimensions: 16, names, elements: 4 << 20, control_flow: false }
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// What comes in or out.
    pub kind: PortKind,
}

/// What an input or output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A tensor: element type by ONNX's number, dimensions (`None`: any).
    Tensor(u64, Vec<Option<u64>>),
    /// A sequence, such as the maps that a ZipMap makes.
    Sequence,
    /// Something else.
    Other,
}

/// ONNX's number of float32.
pub const FLOAT: u64 = 1;
/// ONNX's number of int64.
pub const INT64: u64 = 7;
/// ONNX's number of float64.
pub const DOUBLE: u64 = 11;

/// What is known of a model that passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What exported it.
    pub producer: String,
    /// Keys and values that its author wrote into it.
    pub metadata: BTreeMap<String, String>,
    /// Its inputs.
    pub inputs: Vec<Port>,
    /// Its outputs.
    pub outputs: Vec<Port>,
    /// Operators with how often they stand in the graph.
    pub operators: BTreeMap<String, usize>,
}

/// Judges a file.
///
/// # Errors
/// The first reason against it.
pub fn judge(bytes: &[u8], limits: &Limits) -> Result<Facts, Rejection> {
    if bytes.len() as u64 > limits.bytes {
        return Err(Rejection::TooLarge { bytes: bytes.len() as u64, allowed: limits.bytes });
    }
    if let Some(found) = other_kind(bytes) {
        return Err(Rejection::Mislabelled { found });
    }
    let (mut facts, mut graph, mut functions, mut training, mut versions) = (Facts::default(), None, 0, 0, 0);
    let mut fields = Fields::of(bytes);
    while let Some((number, value)) = fields.next_field().map_err(broken("model"))? {
        match number {
            2 => facts.producer = value.text(),
            // Protobuf would merge the two: what is judged must be all that runs.
            7 if graph.is_some() => return Err(Rejection::Broken { part: "model", at: fields.at(), what: "a second graph" }),
            7 => graph = Some(value.bytes()),
            8 => versions += 1,
            14 => {
                let (key, text) = entry(value).map_err(broken("metadata"))?;
                facts.metadata.insert(key, text);
            }
            20 => training += 1,
            25 => functions += 1,
            _ => {}
        }
    }
    if versions > limits.names || facts.metadata.len() > limits.names {
        return Err(Rejection::TooManyNames { allowed: limits.names });
    }
    if functions > 0 {
        return Err(Rejection::Functions { count: functions });
    }
    if training > 0 {
        return Err(Rejection::Training { count: training });
    }
    let graph = graph.filter(|graph| !graph.is_empty()).ok_or(Rejection::Empty { what: "graph" })?;
    // It stands behind the graph: a file that was cut between two fields lacks it.
    if versions == 0 {
        return Err(Rejection::Empty { what: "operator set" });
    }
    Graph::read(graph, limits)?.into_facts(facts)
}

/// What a file is, when its first bytes say that it is no protobuf of ONNX.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 8] = [
        (b"\x80\x02", "a Python pickle"),
        (b"\x80\x03", "a Python pickle"),
        (b"\x80\x04", "a Python pickle"),
        (b"\x80\x05", "a Python pickle"),
        (b"PK\x03\x04", "a zip archive (PyTorch, Keras or scikit-learn save such files)"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x7fELF", "a program"),
        (b"tree\n", "a LightGBM text model"),
    ];
    if bytes.is_empty() {
        return Some("empty");
    }
    KINDS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
}

/// Key and value of a `StringStringEntryProto`.
fn entry(value: Value<'_>) -> Result<(String, String), Broken> {
    let (mut key, mut text) = (String::new(), String::new());
    let mut fields = Fields::of(value.bytes());
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => key = value.text(),
            2 => text = value.text(),
            _ => {}
        }
    }
    Ok((key, text))
}

fn broken(part: &'static str) -> impl FnOnce(Broken) -> Rejection {
    move |Broken { at, what }| Rejection::Broken { part, at, what }
}
