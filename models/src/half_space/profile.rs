//! What half-space trees learn: rows of a window enter, how many of them each node held leaves.

use super::{Cuts, Shape};
use crate::ModelError;

/// How many rows of one window each node held that a walk can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Rows of the window.
    pub rows: u32,
    /// Rows at each node, tree after tree, depth first: under a node at which a walk ends stands nothing.
    pub masses: Vec<u32>,
}

impl Profile {
    /// The profile of these rows.
    ///
    /// # Errors
    /// [`ModelError::Data`] for a wrong shape, no rows or more than a window.
    pub fn of<R: AsRef<[f32]>>(shape: &Shape, rows: &[R]) -> Result<Self, ModelError> {
        shape.check().map_err(ModelError::Data)?;
        let count = counted(rows.len(), shape).map_err(ModelError::Data)?;
        let scaled: Vec<Vec<f64>> = rows.iter().map(|row| shape.scaled(row.as_ref()).collect()).collect();
        let all: Vec<&[f64]> = scaled.iter().map(Vec::as_slice).collect();
        let mut masses = Vec::new();
        for tree in 0..shape.trees {
            weigh(&mut Cuts::new(shape, tree), (1, 0), &all, (count, &mut masses));
        }
        Ok(Self { rows: count, masses })
    }

    /// That the masses are those of the shape's trees: each node's children hold together what it holds.
    pub(super) fn check(&self, shape: &Shape) -> Result<(), String> {
        counted(self.rows as usize, shape)?;
        let mut masses = self.masses.iter().copied();
        for tree in 0..shape.trees {
            let root = below(shape, self.rows, 0, &mut masses).map_err(|problem| format!("tree {tree}: {problem}"))?;
            if root != self.rows {
                return Err(format!("tree {tree}: its root held {root} rows, the window has {}", self.rows));
            }
        }
        match masses.len() {
            0 => Ok(()),
            more => Err(format!("{more} masses follow the last tree")),
        }
    }
}

fn counted(rows: usize, shape: &Shape) -> Result<u32, String> {
    let count = u32::try_from(rows).ok().filter(|count| (1..=shape.window).contains(count));
    count.ok_or_else(|| format!("a profile of {rows} rows, allowed are 1 to {}", shape.window))
}

fn weigh(cuts: &mut Cuts<'_>, (node, depth): (u64, u8), rows: &[&[f64]], (all, masses): (u32, &mut Vec<u32>)) {
    // No more rows than `all`.
    let mass = rows.len() as u32;
    masses.push(mass);
    if cuts.shape.ends(mass, all, depth) {
        return;
    }
    let (input, threshold) = cuts.at(node);
    let is_below = |row: &&[f64]| row.get(input).is_some_and(|value| *value < threshold);
    let (below, above): (Vec<&[f64]>, Vec<&[f64]>) = rows.iter().copied().partition(is_below);
    cuts.within(input, |(low, _)| (low, threshold), |cuts| weigh(cuts, (node * 2, depth + 1), &below, (all, masses)));
    cuts.within(input, |(_, high)| (threshold, high), |cuts| weigh(cuts, (node * 2 + 1, depth + 1), &above, (all, masses)));
}

/// The mass of the next node, once all below it was checked.
fn below(shape: &Shape, rows: u32, depth: u8, masses: &mut impl Iterator<Item = u32>) -> Result<u32, String> {
    let mass = masses.next().ok_or("masses are missing")?;
    if mass > rows {
        return Err(format!("a node held {mass} rows, the window has {rows}"));
    }
    if !shape.ends(mass, rows, depth) {
        let (left, right) = (below(shape, rows, depth + 1, masses)?, below(shape, rows, depth + 1, masses)?);
        if u64::from(left) + u64::from(right) != u64::from(mass) {
            return Err(format!("a node held {mass} rows, the two below it {left} and {right}"));
        }
    }
    Ok(mass)
}
