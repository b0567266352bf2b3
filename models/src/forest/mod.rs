//! Native isolation forest (Liu, Ting, Zhou: Isolation Forest, ICDM 2008): a float32 row enters, an anomaly score in (0, 1] leaves.
//!
//! Trees come as [`Branch`]es (from [`mod@file`] or the trainer) and are laid out flat: eight-byte nodes, siblings side by side, leaves
//! that point to themselves, so that several trees are walked in step without a branch. A pair of siblings is followed by the
//! children of the one that more training rows passed: an ordinary row walks down memory in a straight line and meets few cache
//! lines. Only additions, comparisons and one polynomial are used: scores are bitwise equal on every machine. Never fits: that is
//! the trainer's work.

pub mod file;

use crate::ModelError;

/// Most inputs of a forest: a feature index is one byte and 255 marks a leaf in the file.
pub const MAX_INPUTS: usize = 255;
/// Deepest tree: the paper's height limit for a sample of a million rows.
pub const MAX_DEPTH: usize = 32;
/// Most trees.
pub const MAX_TREES: usize = 4096;
const ROW: usize = 256;
/// The input of leaves: no tree has it, and its value is less than everything.
const NO_INPUT: u8 = 255;
/// Trees that are walked in step.
const TOGETHER: usize = 8;
/// Most nodes: their number takes the upper 24 bits of a link.
const MAX_NODES: usize = 1 << 24;

/// A tree, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Branch {
    /// Rows with `value <= threshold` go `below`, the others `above`.
    Split {
        /// Index of the input.
        input: u8,
        /// Finite.
        threshold: f32,
        /// At most the threshold.
        below: Box<Branch>,
        /// More than the threshold.
        above: Box<Branch>,
    },
    /// Rows of the training sample that ended here, at least one.
    Leaf {
        /// How many.
        rows: u32,
    },
}

/// What a forest is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Trees {
    /// Number of inputs, at most [`MAX_INPUTS`].
    pub inputs: usize,
    /// Rows that each tree was grown on.
    pub sample: u32,
    /// The trees.
    pub trees: Vec<Branch>,
}

#[derive(Clone, Copy)]
struct Node {
    /// At a leaf its path length.
    threshold: f32,
    /// Number of the left child, of which the right one is the next, in the upper 24 bits; the input in the lower 8. A leaf names
    /// itself and [`NO_INPUT`].
    link: u32,
}

impl Node {
    const fn new(threshold: f32, left: u32, input: u8) -> Self {
        Self { threshold, link: left << 8 | input as u32 }
    }

    const fn input(self) -> u8 {
        self.link as u8
    }
}

// A missing node. Never met, since links are checked when a forest is made.
const NOWHERE: Node = Node::new(0.0, 0, NO_INPUT);

#[derive(Clone, Copy)]
struct Root {
    at: usize,
    depth: usize,
}

/// A forest ready to score.
pub struct Forest {
    inputs: usize,
    nodes: Vec<Node>,
    /// Mean path length of the training rows below each node: for attributions.
    lengths: Vec<f32>,
    roots: Vec<Root>,
    /// Mean path length in a random tree of `sample` rows.
    normal: f64,
}

/// A row padded to the width that the walk needs.
pub struct Row([f32; ROW]);

impl Row {
    /// Of the first values given; the rest is 0.
    pub fn new(values: &[f32]) -> Self {
        let mut row = [0.0; ROW];
        for (to, from) in row.iter_mut().take(MAX_INPUTS).zip(values) {
            *to = *from;
        }
        if let Some(cell) = row.get_mut(usize::from(NO_INPUT)) {
            *cell = f32::NEG_INFINITY;
        }
        Self(row)
    }

    /// The same row with one value replaced.
    pub fn with(&self, input: usize, value: f32) -> Self {
        let mut row = self.0;
        if let Some(cell) = row.iter_mut().take(MAX_INPUTS).nth(input) {
            *cell = value;
        }
        Self(row)
    }
}

impl Forest {
    /// Checks the trees and lays them out.
    ///
    /// # Errors
    /// [`ModelError::Data`] that says which tree is wrong and what is allowed.
    pub fn new(trees: &Trees) -> Result<Self, ModelError> {
        let refuse = |problem: String| Err(ModelError::Data(problem));
        if !(1..=MAX_INPUTS).contains(&trees.inputs) {
            return refuse(format!("the forest has {} inputs, allowed are 1 to {MAX_INPUTS}", trees.inputs));
        }
        if !(1..=MAX_TREES).contains(&trees.trees.len()) {
            return refuse(format!("the forest has {} trees, allowed are 1 to {MAX_TREES}", trees.trees.len()));
        }
        if !(2..=65_536).contains(&trees.sample) {
            return refuse(format!("the forest was grown on {} rows a tree, allowed are 2 to 65536", trees.sample));
        }
        let paths = random_paths(trees.sample);
        let normal = paths.get(trees.sample as usize).copied().unwrap_or(1.0);
        let mut forest = Self { inputs: trees.inputs, nodes: Vec::new(), lengths: Vec::new(), roots: Vec::new(), normal };
        for (number, tree) in trees.trees.iter().enumerate() {
            forest.plant(tree, &paths).map_err(|problem| ModelError::Data(format!("tree {number}: {problem}")))?;
        }
        Ok(forest)
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The anomaly score `2^(−E[h]/c)`: about 0.5 and below is ordinary, towards 1 is isolated.
    pub fn score(&self, row: &Row) -> f64 {
        let mut sum = 0.0;
        for roots in self.roots.chunks(TOGETHER) {
            let mut at = [0_usize; TOGETHER];
            let mut depth = 0;
            for (at, root) in at.iter_mut().zip(roots) {
                (*at, depth) = (root.at, depth.max(root.depth));
            }
            for _ in 0..depth {
                at.iter_mut().for_each(|at| *at = self.step(*at, row));
            }
            sum += at.iter().take(roots.len()).map(|at| f64::from(self.node(*at).threshold)).sum::<f64>();
        }
        let mean = sum / self.roots.len() as f64;
        half_to_the(mean / self.normal)
    }

    /// By how much each input shortened this row's path below what the training rows had at the same node, summed over the trees.
    pub fn attribution(&self, row: &Row) -> Vec<f64> {
        let mut shortened = vec![0.0; self.inputs];
        for root in &self.roots {
            let mut at = root.at;
            for _ in 0..root.depth {
                let next = self.step(at, row);
                if let Some(cell) = shortened.get_mut(usize::from(self.node(at).input())) {
                    *cell += f64::from(self.length(at)) - f64::from(self.length(next));
                }
                if next == at {
                    break;
                }
                at = next;
            }
        }
        shortened
    }

    #[inline(always)]
    fn node(&self, at: usize) -> Node {
        self.nodes.get(at).copied().unwrap_or(NOWHERE)
    }

    /// Where a row goes from a node.
    #[inline(always)]
    fn step(&self, at: usize, row: &Row) -> usize {
        let node = self.node(at);
        let value = row.0.get(usize::from(node.input())).copied().unwrap_or(f32::NEG_INFINITY);
        (node.link >> 8) as usize + usize::from(value > node.threshold)
    }

    fn length(&self, at: usize) -> f32 {
        self.lengths.get(at).copied().unwrap_or(0.0)
    }

    /// Lays one tree out: the root, then pairs of siblings, each followed by the children of the heavier sibling.
    fn plant(&mut self, tree: &Branch, paths: &[f64]) -> Result<(), String> {
        let base = self.nodes.len();
        let mut deepest = 0;
        // Beside the root stands nobody, so that a pair never straddles two cache lines.
        self.room()?;
        let mut waiting = vec![(tree, base, 0_usize)];
        while let Some((branch, at, depth)) = waiting.pop() {
            deepest = deepest.max(depth);
            let (_, length) = mean_path(branch, depth, paths)?;
            let (node, pair) = match branch {
                Branch::Leaf { .. } => (Node::new(length as f32, at as u32, NO_INPUT), None),
                Branch::Split { input, threshold, below, above } => {
                    if usize::from(*input) >= self.inputs {
                        let last = self.inputs.saturating_sub(1);
                        return Err(format!("node {} reads input {input}, allowed are 0 to {last}", at - base));
                    }
                    if !threshold.is_finite() {
                        return Err(format!("node {} has the threshold {threshold}, allowed are finite numbers", at - base));
                    }
                    let left = self.room()?;
                    (Node::new(*threshold, left as u32, *input), Some([(below, left), (above, left + 1)]))
                }
            };
            if let (Some(known), Some(mean)) = (self.nodes.get_mut(at), self.lengths.get_mut(at)) {
                (*known, *mean) = (node, length as f32);
            }
            if let Some([(below, left), (above, right)]) = pair {
                let heavy = weight(below) >= weight(above);
                let (below, above) = ((below.as_ref(), left, depth + 1), (above.as_ref(), right, depth + 1));
                // The last one in is the next one out.
                waiting.extend(if heavy { [above, below] } else { [below, above] });
            }
        }
        self.roots.push(Root { at: base, depth: deepest });
        Ok(())
    }

    /// Room for two more nodes: the number of the first.
    fn room(&mut self) -> Result<usize, String> {
        let at = self.nodes.len();
        if at + 2 > MAX_NODES {
            return Err(format!("all trees together have more than {MAX_NODES} nodes"));
        }
        self.nodes.extend([NOWHERE; 2]);
        self.lengths.extend([0.0; 2]);
        Ok(at)
    }
}

/// Training rows below a branch.
fn weight(branch: &Branch) -> u64 {
    match branch {
        Branch::Leaf { rows } => u64::from(*rows),
        Branch::Split { below, above, .. } => weight(below) + weight(above),
    }
}

/// Rows below a branch and the mean length of their paths.
fn mean_path(branch: &Branch, depth: usize, paths: &[f64]) -> Result<(f64, f64), String> {
    if depth > MAX_DEPTH {
        return Err(format!("deeper than {MAX_DEPTH}"));
    }
    match branch {
        Branch::Leaf { rows } => {
            let rest = paths.get(*rows as usize).filter(|_| *rows > 0);
            let rest = rest.ok_or_else(|| format!("a leaf has {rows} rows, allowed are 1 to {}", paths.len().saturating_sub(1)))?;
            Ok((f64::from(*rows), depth as f64 + rest))
        }
        Branch::Split { below, above, .. } => {
            let (few, short) = mean_path(below, depth + 1, paths)?;
            let (more, long) = mean_path(above, depth + 1, paths)?;
            Ok((few + more, (few * short + more * long) / (few + more)))
        }
    }
}

/// Mean path length c(n) in a random tree of n rows, for n from 0 to `most`: 2·H(n−1) − 2·(n−1)/n, with the exact harmonic number.
fn random_paths(most: u32) -> Vec<f64> {
    let mut harmonic = 0.0;
    (0..=most)
        .map(|n| {
            if n < 2 {
                return 0.0;
            }
            let before = f64::from(n - 1);
            harmonic += 1.0 / before;
            2.0 * harmonic - 2.0 * before / f64::from(n)
        })
        .collect()
}

/// 2^(−x) for x ≥ 0, the same bits everywhere: the system's `exp2` may differ in its last digit between C libraries.
pub(crate) fn half_to_the(x: f64) -> f64 {
    let whole = x.floor().clamp(0.0, 1000.0);
    let rest = (whole - x) * std::f64::consts::LN_2;
    // Taylor series of e^rest for rest in (−0.7, 0]: the 19th term is below 1e-20.
    let fraction = (1..=18).rev().fold(1.0, |sum, n| 1.0 + rest / f64::from(n) * sum);
    (0..whole as u32).fold(fraction, |value, _| value * 0.5)
}

#[cfg(test)]
mod tests;
