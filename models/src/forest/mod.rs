//! Native isolation forest (Liu, Ting, Zhou: Isolation Forest, ICDM 2008): a float32 row enters, an anomaly score in (0, 1] leaves.
//!
//! Trees come as [`Branch`]es (from [`mod@file`] or the trainer) and are laid out flat: eight-byte nodes, siblings side by side, leaves
//! that point to themselves, so that eight trees are walked in step without a branch. Only additions, comparisons and one
//! polynomial are used: scores are bitwise equal on every machine. Never fits: that is the trainer's work.

pub mod file;

use crate::ModelError;

/// Most inputs of a forest: a feature index is one byte and 255 marks a leaf in the file.
pub const MAX_INPUTS: usize = 255;
/// Deepest tree: the paper's height limit for a sample of a million rows.
pub const MAX_DEPTH: usize = 32;
/// Most trees.
pub const MAX_TREES: usize = 4096;
const ROW: usize = 256;
const TOGETHER: usize = 8;

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
    threshold: f32,
    /// Of the tree; the right child follows it. A leaf names itself.
    left: u16,
    input: u8,
}

// A missing node: stays where it is. Never met, since links are checked when a forest is made.
const NOWHERE: Node = Node { threshold: f32::INFINITY, left: 0, input: 0 };

#[derive(Clone, Copy)]
struct Root {
    at: usize,
    depth: usize,
}

/// A forest ready to score.
pub struct Forest {
    inputs: usize,
    nodes: Vec<Node>,
    /// Mean path length of the training rows below each node; at a leaf its path length.
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
        for (to, from) in row.iter_mut().zip(values) {
            *to = *from;
        }
        Self(row)
    }

    /// The same row with one value replaced.
    pub fn with(&self, input: usize, value: f32) -> Self {
        let mut row = self.0;
        if let Some(cell) = row.get_mut(input) {
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
            let mut bases = [0_usize; TOGETHER];
            let mut at = [0_usize; TOGETHER];
            let mut depth = 0;
            for ((base, at), root) in bases.iter_mut().zip(&mut at).zip(roots) {
                (*base, *at, depth) = (root.at, root.at, depth.max(root.depth));
            }
            for _ in 0..depth {
                for (at, base) in at.iter_mut().zip(&bases) {
                    *at = base + self.step(*at, row);
                }
            }
            sum += at.iter().take(roots.len()).map(|at| f64::from(self.length(*at))).sum::<f64>();
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
                let next = root.at + self.step(at, row);
                let input = self.nodes.get(at).map_or(0, |node| node.input);
                if let Some(cell) = shortened.get_mut(usize::from(input)) {
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

    /// Where a row goes from a node, within its tree.
    #[inline(always)]
    fn step(&self, at: usize, row: &Row) -> usize {
        let node = self.nodes.get(at).copied().unwrap_or(NOWHERE);
        let value = row.0.get(usize::from(node.input)).copied().unwrap_or(0.0);
        usize::from(node.left) + usize::from(value > node.threshold)
    }

    fn length(&self, at: usize) -> f32 {
        self.lengths.get(at).copied().unwrap_or(0.0)
    }

    /// Lays one tree out breadth first, so that what every row passes stands together.
    fn plant(&mut self, tree: &Branch, paths: &[f64]) -> Result<(), String> {
        let base = self.nodes.len();
        let mut queue = vec![(tree, 0_usize)];
        let mut head = 0;
        let mut deepest = 0;
        while let Some((branch, depth)) = queue.get(head).copied() {
            let own = u16::try_from(head).map_err(|_| "more than 65535 nodes".to_string())?;
            head += 1;
            deepest = deepest.max(depth);
            if depth > MAX_DEPTH {
                return Err(format!("deeper than {MAX_DEPTH}"));
            }
            let (_, length) = mean_path(branch, depth, paths)?;
            self.lengths.push(length as f32);
            match branch {
                Branch::Leaf { .. } => self.nodes.push(Node { threshold: f32::INFINITY, left: own, input: 0 }),
                Branch::Split { input, threshold, below, above } => {
                    if usize::from(*input) >= self.inputs {
                        return Err(format!("node {own} reads input {input}, allowed are 0 to {}", self.inputs.saturating_sub(1)));
                    }
                    if !threshold.is_finite() {
                        return Err(format!("node {own} has the threshold {threshold}, allowed are finite numbers"));
                    }
                    let left = u16::try_from(queue.len()).map_err(|_| "more than 65535 nodes".to_string())?;
                    self.nodes.push(Node { threshold: *threshold, left, input: *input });
                    queue.push((below, depth + 1));
                    queue.push((above, depth + 1));
                }
            }
        }
        self.roots.push(Root { at: base, depth: deepest });
        Ok(())
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
fn half_to_the(x: f64) -> f64 {
    let whole = x.floor().clamp(0.0, 1000.0);
    let rest = (whole - x) * std::f64::consts::LN_2;
    // Taylor series of e^rest for rest in (−0.7, 0]: the 19th term is below 1e-20.
    let fraction = (1..=18).rev().fold(1.0, |sum, n| 1.0 + rest / f64::from(n) * sum);
    (0..whole as u32).fold(fraction, |value, _| value * 0.5)
}

#[cfg(test)]
mod tests;
