//! The graph of a model: nodes, tensors, inputs and outputs, each judged while it is read.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Broken, Fields, Value};
use super::{DOUBLE, FLOAT, Facts, INT64, Limits, Port, PortKind, Rejection, broken, entry};

/// Operators with graphs of their own.
const CONTROL_FLOW: [&str; 4] = ["Loop", "Scan", "If", "SequenceMap"];
/// Operators whose result differs from run to run.
const RANDOM: [&str; 6] = ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];
/// Operators that make a tensor as large as an input of theirs says.
const MAKERS: [&str; 7] = ["ConstantOfShape", "Expand", "Tile", "Resize", "Upsample", "Pad", "OneHot"];
/// Domains whose operators ONNX itself defines.
const DOMAINS: [&str; 3] = ["", "ai.onnx", "ai.onnx.ml"];
/// Longest name, bytes.
const NAME_BYTES: usize = 256;
/// Most numbers of a constant that are kept: shapes have fewer.
const SHAPE_NUMBERS: usize = 64;

/// A node that makes a tensor, with the constants that may say how large.
struct Maker {
    node: String,
    op: String,
    inputs: Vec<String>,
}

/// A graph that is being read.
pub struct Graph<'l> {
    limits: &'l Limits,
    nodes: usize,
    operators: BTreeMap<String, usize>,
    initialisers: BTreeSet<String>,
    /// Small integer constants by name: shapes.
    constants: BTreeMap<String, Vec<i64>>,
    makers: Vec<Maker>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// A tensor, as far as it matters.
struct Tensor {
    name: String,
    numbers: Vec<i64>,
}

impl<'l> Graph<'l> {
    /// Reads and judges a `GraphProto`.
    pub fn read(bytes: &[u8], limits: &'l Limits) -> Result<Self, Rejection> {
        let mut graph = Self {
            limits,
            nodes: 0,
            operators: BTreeMap::new(),
            initialisers: BTreeSet::new(),
            constants: BTreeMap::new(),
            makers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut fields = Fields::of(bytes);
        while let Some((number, value)) = fields.next_field().map_err(broken("graph"))? {
            match number {
                1 => graph.node(value)?,
                5 => {
                    let Tensor { name, numbers } = tensor(value, "")?;
                    graph.constants.insert(name.clone(), numbers);
                    graph.initialisers.insert(name);
                }
                11 => graph.inputs.push(port(value, "an input")?),
                12 => graph.outputs.push(port(value, "an output")?),
                15 => return Err(Rejection::Sparse { tensor: sparse_name(value).map_err(broken("graph"))? }),
                _ => {}
            }
        }
        graph.makers.iter().try_for_each(|maker| graph.bounded(maker))?;
        Ok(graph)
    }

    /// What is known of the model, its inputs and outputs checked.
    pub fn into_facts(mut self, facts: Facts) -> Result<Facts, Rejection> {
        // Models of old export every weight as an input with a default as well.
        self.inputs.retain(|input| !self.initialisers.contains(&input.name));
        for (what, empty) in [("input", self.inputs.is_empty()), ("output", self.outputs.is_empty()), ("node", self.nodes == 0)] {
            if empty {
                return Err(Rejection::Empty { what });
            }
        }
        for input in &self.inputs {
            let found = match &input.kind {
                PortKind::Tensor(FLOAT | DOUBLE, dims) if (1..=2).contains(&dims.len()) => continue,
                PortKind::Tensor(FLOAT | DOUBLE, dims) => format!("a tensor of {} dimensions", dims.len()),
                PortKind::Tensor(element, _) => format!("a tensor of {}", element_name(*element)),
                PortKind::Sequence => "a sequence".to_string(),
                PortKind::Other => "no tensor".to_string(),
            };
            return Err(Rejection::Input { input: input.name.clone(), found });
        }
        Ok(Facts { inputs: self.inputs, outputs: self.outputs, operators: self.operators, ..facts })
    }

    fn node(&mut self, value: Value<'_>) -> Result<(), Rejection> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(Rejection::TooManyNodes { allowed: self.limits.nodes });
        }
        let (mut name, mut op, mut domain) = (String::new(), String::new(), String::new());
        let (mut inputs, mut output, mut attributes) = (Vec::new(), String::new(), Vec::new());
        let mut fields = Fields::of(value.bytes());
        while let Some((number, value)) = fields.next_field().map_err(broken("nodes"))? {
            match number {
                1 => inputs.push(value.text()),
                2 => output = value.text(),
                3 => name = value.text(),
                4 => op = value.text(),
                5 => attributes.push(value),
                7 => domain = value.text(),
                _ => {}
            }
        }
        let node = if name.is_empty() { format!("number {}", self.nodes) } else { printable(&name) };
        if !DOMAINS.contains(&domain.as_str()) {
            return Err(Rejection::CustomOperator { node, domain: printable(&domain), op: printable(&op) });
        }
        if CONTROL_FLOW.contains(&op.as_str()) && !self.limits.control_flow {
            return Err(Rejection::ControlFlow { node, op });
        }
        if RANDOM.contains(&op.as_str()) {
            return Err(Rejection::Random { node, op });
        }
        for attribute in attributes {
            if let Some(numbers) = self.attribute(attribute, &node, &op)? {
                self.constants.insert(output.clone(), numbers);
            }
        }
        *self.operators.entry(printable(&op)).or_default() += 1;
        if MAKERS.contains(&op.as_str()) {
            self.makers.push(Maker { node, op, inputs });
        }
        Ok(())
    }

    /// Judges an attribute; the numbers of a small constant that it holds.
    fn attribute(&self, value: Value<'_>, node: &str, op: &str) -> Result<Option<Vec<i64>>, Rejection> {
        let mut numbers = None;
        let mut fields = Fields::of(value.bytes());
        while let Some((number, value)) = fields.next_field().map_err(broken("attributes"))? {
            match number {
                5 | 10 => numbers = Some(tensor(value, node)?.numbers),
                6 | 11 if !self.limits.control_flow => {
                    return Err(Rejection::ControlFlow { node: node.to_string(), op: op.to_string() });
                }
                22 | 23 => return Err(Rejection::Sparse { tensor: node.to_string() }),
                _ => {}
            }
        }
        Ok(numbers.filter(|_| op == "Constant"))
    }

    /// A node must not make a huge tensor out of a small constant.
    fn bounded(&self, maker: &Maker) -> Result<(), Rejection> {
        // The first input of these is data; what follows says how large the result is.
        let says_size = if maker.op == "ConstantOfShape" { 0 } else { 1 };
        let constants = maker.inputs.iter().skip(says_size).filter_map(|input| self.constants.get(input));
        for numbers in constants.filter(|numbers| !numbers.is_empty()) {
            let elements = numbers.iter().map(|number| u128::from(number.unsigned_abs().max(1))).try_fold(1_u128, u128::checked_mul);
            let elements = elements.unwrap_or(u128::MAX);
            if elements > u128::from(self.limits.elements) {
                let (node, op) = (maker.node.clone(), maker.op.clone());
                return Err(Rejection::HugeTensor { node, op, elements, allowed: self.limits.elements });
            }
        }
        Ok(())
    }
}

/// Reads and judges a `TensorProto`: its data must be in it and be as much as its shape says.
fn tensor(value: Value<'_>, node: &str) -> Result<Tensor, Rejection> {
    let (mut name, mut shape, mut element) = (node.to_string(), Vec::new(), 0);
    let (mut raw, mut typed, mut external, mut location) = (None, 0_u64, false, String::new());
    let mut numbers = Vec::new();
    let mut fields = Fields::of(value.bytes());
    let at = broken("tensors");
    let mut read = || -> Result<(), Broken> {
        while let Some((number, value)) = fields.next_field()? {
            match (number, value) {
                (1, value) => integers(value, &mut shape)?,
                (2, value) => element = value.number(),
                (4 | 5 | 10 | 11, value) => typed += packed(value, number)?,
                (6, _) => typed += 1,
                (7, value) => {
                    typed += packed(value, number)?;
                    integers(value, &mut numbers)?;
                }
                (8, value) => name = printable(&value.text()),
                (9, value) => raw = Some(value.bytes()),
                (13, value) => {
                    external = true;
                    let (key, text) = entry(value)?;
                    if key == "location" {
                        location = printable(&text);
                    }
                }
                (14, value) => external |= value.number() == 1,
                _ => {}
            }
        }
        Ok(())
    };
    read().map_err(at)?;
    if external {
        return Err(Rejection::ExternalData { tensor: name, location });
    }
    let elements = shape.iter().try_fold(1_u64, |product, dim| product.checked_mul(u64::try_from(*dim).ok()?));
    let bytes = raw.map_or(0, |raw| raw.len() as u64);
    let fits = match (elements, raw, element_bytes(element)) {
        (Some(elements), Some(raw), Some(each)) => elements.checked_mul(each) == Some(raw.len() as u64),
        (Some(elements), None, _) => elements == typed,
        _ => false,
    };
    if !fits {
        return Err(Rejection::TensorShape { tensor: name, shape, bytes: bytes.max(typed) });
    }
    if let Some(raw) = raw.filter(|_| element == INT64) {
        let words = raw.chunks_exact(8).take(SHAPE_NUMBERS).filter_map(|word| Some(i64::from_le_bytes(word.try_into().ok()?)));
        numbers = words.collect();
    }
    // Longer ones are data and no shape.
    if elements.is_some_and(|elements| elements > SHAPE_NUMBERS as u64) {
        numbers.clear();
    }
    Ok(Tensor { name, numbers })
}

/// Adds the integers of a repeated field, packed or not; a few more than shapes have are enough.
fn integers(value: Value<'_>, to: &mut Vec<i64>) -> Result<(), Broken> {
    match value {
        Value::Bytes(bytes) => {
            let mut fields = Fields::of(bytes);
            while let Some(number) = fields.next_varint()? {
                if to.len() <= SHAPE_NUMBERS {
                    to.push(number.cast_signed());
                }
            }
        }
        other if to.len() <= SHAPE_NUMBERS => to.push(other.number().cast_signed()),
        _ => {}
    }
    Ok(())
}

/// How many numbers a repeated field brings.
fn packed(value: Value<'_>, field: u64) -> Result<u64, Broken> {
    let Value::Bytes(bytes) = value else { return Ok(1) };
    match field {
        4 => Ok(bytes.len() as u64 / 4),
        10 => Ok(bytes.len() as u64 / 8),
        // A variable number ends with the byte that has no top bit.
        _ => Ok(bytes.iter().filter(|byte| **byte & 0x80 == 0).count() as u64),
    }
}

const fn element_bytes(element: u64) -> Option<u64> {
    match element {
        2 | 3 | 9 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 => Some(8),
        _ => None,
    }
}

const fn element_name(element: u64) -> &'static str {
    match element {
        INT64 => "int64",
        6 => "int32",
        8 => "text",
        9 => "bool",
        10 => "float16",
        _ => "another type",
    }
}

fn port(value: Value<'_>, what: &'static str) -> Result<Port, Rejection> {
    let (mut name, mut kind) = (String::new(), PortKind::Other);
    let mut fields = Fields::of(value.bytes());
    while let Some((number, value)) = fields.next_field().map_err(broken("inputs and outputs"))? {
        match number {
            1 => name = value.text(),
            2 => kind = port_kind(value).map_err(broken("inputs and outputs"))?,
            _ => {}
        }
    }
    let plain = !name.contains("..") && !name.starts_with('/') && !name.chars().any(char::is_control);
    if name.is_empty() || name.len() > NAME_BYTES || !plain {
        return Err(Rejection::Name { what, name: printable(&name) });
    }
    Ok(Port { name, kind })
}

/// A `TypeProto`.
fn port_kind(value: Value<'_>) -> Result<PortKind, Broken> {
    let mut fields = Fields::of(value.bytes());
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => return tensor_kind(value),
            4 => return Ok(PortKind::Sequence),
            _ => {}
        }
    }
    Ok(PortKind::Other)
}

fn tensor_kind(value: Value<'_>) -> Result<PortKind, Broken> {
    let (mut element, mut dims) = (0, Vec::new());
    let mut fields = Fields::of(value.bytes());
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => element = value.number(),
            2 => {
                let mut shape = Fields::of(value.bytes());
                while let Some((_, dim)) = shape.next_field()? {
                    let mut parts = Fields::of(dim.bytes());
                    let mut fixed = None;
                    while let Some((number, value)) = parts.next_field()? {
                        fixed = (number == 1).then(|| value.number()).or(fixed);
                    }
                    dims.push(fixed.filter(|dim| *dim > 0));
                }
            }
            _ => {}
        }
    }
    Ok(PortKind::Tensor(element, dims))
}

/// The name of a `SparseTensorProto`: that of its values.
fn sparse_name(value: Value<'_>) -> Result<String, Broken> {
    let mut fields = Fields::of(value.bytes());
    while let Some((number, value)) = fields.next_field()? {
        if number == 1 {
            let mut values = Fields::of(value.bytes());
            while let Some((number, value)) = values.next_field()? {
                if number == 8 {
                    return Ok(printable(&value.text()));
                }
            }
        }
    }
    Ok(String::new())
}

/// A foreign name that can be shown: short, without control characters.
fn printable(name: &str) -> String {
    name.chars().take(80).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
