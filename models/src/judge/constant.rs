//! Small constants of a graph and what it makes of them: how large the tensors become that nodes make by themselves.
//!
//! A shape may stand in an initialiser, in any form of `Constant`, and behind nodes that pass it on. What is computed in other ways is left
//! to the limits of the worker.

use std::collections::BTreeMap;

use super::tensor::SHAPE_NUMBERS;
use super::{Limits, Rejection};

/// Operators that make a tensor as large as an input of theirs says.
const MAKERS: [&str; 7] = ["ConstantOfShape", "Expand", "Tile", "Resize", "Upsample", "Pad", "OneHot"];
/// Those of them that make their first input larger by a factor: one behind the other the factors multiply.
const FACTORS: [&str; 3] = ["Tile", "Resize", "Upsample"];
/// Operators that pass the numbers of their first input on, but for sign and fractions.
const PASSING: [&str; 10] = ["Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Neg", "Abs", "Floor", "Ceil"];

/// A node that matters here.
struct Node {
    name: String,
    op: String,
    inputs: Vec<String>,
    output: String,
}

/// Constants by name, and the nodes that pass them on or make tensors of them.
#[derive(Default)]
pub struct Constants {
    numbers: BTreeMap<String, Vec<i64>>,
    passing: Vec<Node>,
    makers: Vec<Node>,
}

impl Constants {
    /// Adds a constant. Of several under one name the largest counts: parsers may differ in which one they take.
    pub fn add(&mut self, name: String, numbers: Vec<i64>) {
        let known = self.numbers.entry(name).or_default();
        if product(&numbers) >= product(known) {
            *known = numbers;
        }
    }

    /// Adds a node, if it passes constants on or makes a tensor.
    pub fn node(&mut self, name: &str, op: &str, inputs: &[String], output: &str) {
        let node = || Node { name: name.to_string(), op: op.to_string(), inputs: inputs.to_vec(), output: output.to_string() };
        if MAKERS.contains(&op) {
            self.makers.push(node());
        } else if op == "Concat" || PASSING.contains(&op) {
            self.passing.push(node());
        }
    }

    /// Refuses a graph in which a node makes a huge tensor out of a small constant.
    pub fn judge(mut self, limits: &Limits) -> Result<(), Rejection> {
        self.pass_on();
        let mut factor = 1_u128;
        for maker in &self.makers {
            // The first input of these is data; what follows says how large the result is.
            let says_size = if maker.op == "ConstantOfShape" { 0 } else { 1 };
            for numbers in maker.inputs.iter().skip(says_size).filter_map(|input| self.numbers.get(input)) {
                let mut elements = product(numbers);
                if FACTORS.contains(&maker.op.as_str()) {
                    factor = factor.saturating_mul(elements);
                    elements = factor;
                }
                if elements > u128::from(limits.elements) {
                    let (node, op) = (maker.name.clone(), maker.op.clone());
                    return Err(Rejection::HugeTensor { node, op, elements, allowed: limits.elements });
                }
            }
        }
        Ok(())
    }

    /// Follows constants through the nodes that pass them on, in whatever order these stand in the file.
    fn pass_on(&mut self) {
        let mut waiting = std::mem::take(&mut self.passing);
        loop {
            let before = waiting.len();
            waiting.retain(|node| match self.passed(node) {
                Some(numbers) => {
                    self.add(node.output.clone(), numbers);
                    false
                }
                None => true,
            });
            if waiting.len() == before {
                return;
            }
        }
    }

    /// The numbers that leave a node; `None` when they are not known.
    fn passed(&self, node: &Node) -> Option<Vec<i64>> {
        let inputs = if node.op == "Concat" { node.inputs.as_slice() } else { node.inputs.get(..1)? };
        let mut numbers = Vec::new();
        for input in inputs {
            let room = (SHAPE_NUMBERS + 1).saturating_sub(numbers.len());
            numbers.extend(self.numbers.get(input)?.iter().take(room));
        }
        Some(numbers)
    }
}

/// Elements of a tensor of that shape, taken by its size; what is longer than a shape has no bound.
fn product(numbers: &[i64]) -> u128 {
    if numbers.len() > SHAPE_NUMBERS {
        return u128::MAX;
    }
    numbers.iter().fold(1_u128, |product, number| product.saturating_mul(u128::from(number.unsigned_abs().max(1))))
}
