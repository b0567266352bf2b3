//! The graph of a model: nodes, tensors, inputs and outputs, each judged while it is read.

use std::collections::{BTreeMap, BTreeSet};

use super::constant::Constants;
use super::tensor::{Tensor, floats, integers, printable, sparse_name, tensor};
use super::wire::{Broken, Fields, Value};
use super::{DOUBLE, FLOAT, Facts, INT64, Limits, Port, PortKind, Rejection, broken};

/// Operators with graphs of their own.
const CONTROL_FLOW: [&str; 4] = ["Loop", "Scan", "If", "SequenceMap"];
/// Operators whose result differs from run to run.
const RANDOM: [&str; 6] = ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];
/// Domains whose operators ONNX itself defines.
const DOMAINS: [&str; 3] = ["", "ai.onnx", "ai.onnx.ml"];
/// Longest name, bytes.
const NAME_BYTES: usize = 256;

/// A graph that is being read.
pub struct Graph<'l> {
    limits: &'l Limits,
    nodes: usize,
    operators: BTreeMap<String, usize>,
    tensors: usize,
    names: usize,
    initialisers: BTreeSet<String>,
    constants: Constants,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl<'l> Graph<'l> {
    /// Reads and judges a `GraphProto`.
    pub fn read(bytes: &[u8], limits: &'l Limits) -> Result<Self, Rejection> {
        let mut graph = Self {
            limits,
            nodes: 0,
            operators: BTreeMap::new(),
            tensors: 0,
            names: 0,
            initialisers: BTreeSet::new(),
            constants: Constants::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut fields = Fields::of(bytes);
        while let Some((number, value)) = fields.next_field().map_err(broken("graph"))? {
            match number {
                1 => graph.node(value)?,
                5 => {
                    let Tensor { name, numbers } = graph.tensor(value, "")?;
                    graph.constants.add(name.clone(), numbers);
                    graph.initialisers.insert(name);
                }
                11 | 12 => {
                    graph.named(1)?;
                    let (what, ports) = if number == 11 { ("an input", &mut graph.inputs) } else { ("an output", &mut graph.outputs) };
                    ports.push(port(value, what)?);
                }
                // What it says of values between, of their quantisation, and of itself.
                13 | 14 | 16 => graph.named(1)?,
                15 => return Err(Rejection::Sparse { tensor: sparse_name(value).map_err(broken("graph"))? }),
                _ => {}
            }
        }
        std::mem::take(&mut graph.constants).judge(limits)?;
        Ok(graph)
    }

    /// Counts names; each costs ONNX Runtime much more than its bytes in the file.
    fn named(&mut self, more: usize) -> Result<(), Rejection> {
        self.names += more;
        let allowed = self.limits.names;
        if self.names > allowed { Err(Rejection::TooManyNames { allowed }) } else { Ok(()) }
    }

    /// Reads, judges and counts a tensor.
    fn tensor(&mut self, value: Value<'_>, node: &str) -> Result<Tensor, Rejection> {
        self.tensors += 1;
        let Limits { tensors: allowed, dimensions, .. } = *self.limits;
        if self.tensors > allowed { Err(Rejection::TooManyTensors { allowed }) } else { tensor(value, node, dimensions) }
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
            if matches!(number, 1 | 2 | 5) {
                self.named(1)?;
            }
            match number {
                1 => inputs.push(value.text()),
                2 if output.is_empty() => output = value.text(),
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
            for numbers in self.attribute(attribute, &node, &op)? {
                self.constants.add(output.clone(), numbers);
            }
        }
        self.constants.node(&node, &op, &inputs, &output);
        *self.operators.entry(printable(&op)).or_default() += 1;
        Ok(())
    }

    /// Judges an attribute; the numbers of a small constant that it holds, in every form that it has.
    fn attribute(&mut self, value: Value<'_>, node: &str, op: &str) -> Result<Vec<Vec<i64>>, Rejection> {
        let (mut held, mut whole, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut fields = Fields::of(value.bytes());
        while let Some((number, value)) = fields.next_field().map_err(broken("attributes"))? {
            match number {
                2 | 7 => floats(value, &mut parts),
                3 | 8 => integers(value, &mut whole).map_err(broken("attributes"))?,
                5 | 10 => held.push(self.tensor(value, node)?.numbers),
                6 | 11 if !self.limits.control_flow => {
                    return Err(Rejection::ControlFlow { node: node.to_string(), op: op.to_string() });
                }
                22 | 23 => return Err(Rejection::Sparse { tensor: node.to_string() }),
                _ => {}
            }
        }
        held.extend([whole, parts]);
        Ok(if op == "Constant" { held } else { Vec::new() })
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
