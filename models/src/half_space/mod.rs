//! Streaming half-space trees (Tan, Ting, Liu: Fast Anomaly Detection for Streaming Data, IJCAI 2011): a float32 row enters, an anomaly
//! score in (0, 1] leaves.
//!
//! The trees are drawn by a seed before any row is seen ([`Shape`]); all that is learnt is how many rows of one window each node held
//! ([`Profile`]). So a profile can be made anew from any window of rows, at once and without fitting. The paper ends a walk at a node
//! that held at most a tenth of the window: nothing below such a node is ever read, so a profile keeps none of it and is a few
//! kilobytes. Scores are bitwise equal on every machine.

pub mod file;
mod profile;
mod windows;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ModelError;
use crate::scale::{MAX_INPUTS, Scale};
use crate::slot::stirred;

pub use profile::Profile;
pub use windows::{Renewed, Windows, digest};

/// Most trees.
pub const MAX_TREES: u16 = 1024;
/// Deepest tree; 15 in the paper.
pub const MAX_DEPTH: u8 = 32;
/// Smallest and largest window, rows; 250 in the paper.
pub const WINDOWS: std::ops::RangeInclusive<u32> = 16..=65_536;
/// Most numbers of a window, which are kept until it is full, and most walks of its rows when a profile is made of it.
const MOST_OF_WINDOW: u64 = 16 << 20;
/// A walk ends at a node that held at most this part of the window: 0.1 in the paper.
const ENOUGH: u64 = 10;

/// What the trees are drawn from: never changes within a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// One scale an input: what ordinary rows hold becomes 0 to 1.
    pub scales: Vec<Scale>,
    /// Of every random choice.
    pub seed: u64,
    /// 1 to [`MAX_TREES`].
    pub trees: u16,
    /// Splits on the longest walk, 1 to [`MAX_DEPTH`].
    pub depth: u8,
    /// Rows of a full window, within [`WINDOWS`].
    pub window: u32,
}

impl Shape {
    fn check(&self) -> Result<(), String> {
        let inputs = self.scales.len();
        if !(1..=MAX_INPUTS).contains(&inputs) {
            return Err(format!("{inputs} inputs, allowed are 1 to {MAX_INPUTS}"));
        }
        if !(1..=MAX_TREES).contains(&self.trees) || !(1..=MAX_DEPTH).contains(&self.depth) {
            let Self { trees, depth, .. } = self;
            return Err(format!("{trees} trees of depth {depth}, allowed are 1 to {MAX_TREES} of 1 to {MAX_DEPTH}"));
        }
        if !WINDOWS.contains(&self.window) {
            return Err(format!("a window of {} rows, allowed are {} to {}", self.window, WINDOWS.start(), WINDOWS.end()));
        }
        for (what, count) in [("inputs", inputs as u64), ("trees", u64::from(self.trees))] {
            let most = MOST_OF_WINDOW / u64::from(self.window);
            if count > most {
                return Err(format!("{count} {what} with a window of {} rows, allowed are {most}", self.window));
            }
        }
        self.scales.iter().enumerate().try_for_each(|(input, scale)| scale.check(input))
    }

    fn scaled<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let cells = row.iter().copied().chain(std::iter::repeat(0.0));
        self.scales.iter().zip(cells).map(|(scale, value)| scale.apply(value))
    }

    /// Whether a walk ends at a node that held so many of the rows.
    fn ends(&self, mass: u32, rows: u32, depth: u8) -> bool {
        u64::from(mass) * ENOUGH <= u64::from(rows) || depth >= self.depth
    }
}

/// The cuts of one tree: which half of which input's range a node looks at.
struct Cuts<'a> {
    shape: &'a Shape,
    tree: u64,
    /// What is left of each input's work range at the node.
    ranges: Vec<(f64, f64)>,
}

impl<'a> Cuts<'a> {
    /// At the root: the paper's work ranges, `s ± 2·max(s, 1 − s)` with a random s in [0, 1).
    fn new(shape: &'a Shape, tree: u16) -> Self {
        let tree = u64::from(tree);
        let range = |input: usize| {
            // The odd numbers are those of inputs, the even ones those of nodes.
            let drawn = drawn(shape.seed, tree, ((input as u64) << 1) | 1);
            // 53 bits are a double's mantissa.
            let start = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
            let width = 2.0 * start.max(1.0 - start);
            (start - width, start + width)
        };
        Self { shape, tree, ranges: (0..shape.scales.len()).map(range).collect() }
    }

    /// Input and threshold of a node, by its number: the root is 1, the children of n are 2n and 2n + 1.
    fn at(&self, node: u64) -> (usize, f64) {
        let input = (drawn(self.shape.seed, self.tree, node << 1) % self.ranges.len().max(1) as u64) as usize;
        let (low, high) = self.ranges.get(input).copied().unwrap_or_default();
        (input, (low + high) / 2.0)
    }

    /// Goes to a child, whose range of the input ends or begins at the threshold, and comes back.
    fn within<T>(&mut self, input: usize, range: impl FnOnce((f64, f64)) -> (f64, f64), below: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.ranges.get(input).copied().unwrap_or_default();
        if let Some(cell) = self.ranges.get_mut(input) {
            *cell = range(before);
        }
        let result = below(self);
        if let Some(cell) = self.ranges.get_mut(input) {
            *cell = before;
        }
        result
    }
}

/// A random number of its own for everything that is drawn: SplitMix64, once for each part.
fn drawn(seed: u64, tree: u64, number: u64) -> u64 {
    [tree, number].into_iter().fold(seed, |state, part| stirred((state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

#[derive(Clone, Copy)]
struct Node {
    /// The threshold; at an end `mass · 2^depth`.
    value: f64,
    /// The left child, of which the right one is the next; 0: the walk ends here.
    left: u32,
    input: u16,
}

// A missing node. Never met, since links are made here.
const NOWHERE: Node = Node { value: 0.0, left: 0, input: 0 };

/// Trees with a profile, ready to score.
pub struct HalfSpace {
    shape: Arc<Shape>,
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// Rows of the profile times trees: with it, a mean density of 1 is that of a window spread evenly.
    whole: f64,
}

impl HalfSpace {
    /// Checks shape and profile and lays the trees out.
    ///
    /// # Errors
    /// [`ModelError::Data`] that says what is wrong and what is allowed.
    pub fn new(shape: Arc<Shape>, profile: &Profile) -> Result<Self, ModelError> {
        shape.check().map_err(ModelError::Data)?;
        let whole = f64::from(profile.rows) * f64::from(shape.trees);
        let mut made = Self { shape: Arc::clone(&shape), nodes: Vec::new(), roots: Vec::new(), whole };
        profile.check(&shape).map_err(ModelError::Data)?;
        let mut masses = profile.masses.iter().copied();
        for tree in 0..shape.trees {
            let root = made.nodes.len();
            made.nodes.push(NOWHERE);
            made.roots.push(root as u32);
            made.plant(&mut Cuts::new(&shape, tree), (root, 1, 0), profile.rows, &mut masses);
        }
        Ok(made)
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.shape.scales.len()
    }

    /// The same trees with another profile.
    ///
    /// # Errors
    /// [`ModelError::Data`] when the bytes are no profile of these trees.
    pub fn with(&self, profile: &[u8]) -> Result<Self, ModelError> {
        let profile = file::decode_profile(&self.shape, profile).map_err(ModelError::Data)?;
        Self::new(Arc::clone(&self.shape), &profile)
    }

    /// What the trees are drawn from.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// `1 / (1 + d)` with the mean density d that the window had where the row ends: the paper's `mass · 2^depth`, as a share of the window.
    /// 1 is where no row of the window was, a half where as many were as if they were spread evenly; ordinary rows are far below.
    pub fn score(&self, row: &[f32]) -> f64 {
        let scaled: SmallVec<[f64; 128]> = self.shape.scaled(row).collect();
        let mass: f64 = self.roots.iter().map(|root| self.walk(*root, &scaled)).sum();
        1.0 / (1.0 + mass / self.whole)
    }

    fn walk(&self, root: u32, scaled: &[f64]) -> f64 {
        let mut node = self.node(root as usize);
        while node.left != 0 {
            let value = scaled.get(usize::from(node.input)).copied().unwrap_or(0.0);
            node = self.node(node.left as usize + usize::from(value >= node.value));
        }
        node.value
    }

    #[inline(always)]
    fn node(&self, at: usize) -> Node {
        self.nodes.get(at).copied().unwrap_or(NOWHERE)
    }

    /// Lays a node and what is below it out; masses come depth first.
    fn plant(&mut self, cuts: &mut Cuts<'_>, place: (usize, u64, u8), rows: u32, masses: &mut impl Iterator<Item = u32>) {
        let (at, number, depth) = place;
        let mass = masses.next().unwrap_or(0);
        let node = if self.shape.ends(mass, rows, depth) {
            Node { value: f64::from(mass) * (1_u64 << depth) as f64, left: 0, input: 0 }
        } else {
            let (input, threshold) = cuts.at(number);
            let left = self.nodes.len();
            self.nodes.extend([NOWHERE; 2]);
            cuts.within(input, |(low, _)| (low, threshold), |cuts| self.plant(cuts, (left, number * 2, depth + 1), rows, masses));
            cuts.within(
                input,
                |(_, high)| (threshold, high),
                |cuts| {
                    self.plant(cuts, (left + 1, number * 2 + 1, depth + 1), rows, masses);
                },
            );
            // At most 1024 trees · 32 levels · 18 nodes, and 4096 inputs: both fit.
            Node { value: threshold, left: left as u32, input: input as u16 }
        };
        if let Some(cell) = self.nodes.get_mut(at) {
            *cell = node;
        }
    }
}

#[cfg(test)]
mod tests;
