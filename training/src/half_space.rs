//! Half-space trees (Tan, Ting, Liu, IJCAI 2011): float32 rows and a seed enter; what the trees are drawn from and a first profile leave.

use telltale_models::ModelError;
use telltale_models::half_space::{Profile, Shape};

use crate::scaled::{MOST_ROWS, drawn, ranges};

/// How half-space trees are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfSpaceOptions {
    /// Trees, 1 to 1024; 25 in the paper.
    pub trees: u16,
    /// Splits on the longest walk, 1 to 32; 15 in the paper.
    pub depth: u8,
    /// Rows of a window, 16 to 65,536. 250 in the paper, whose streams begin with them; here a profile may be in force for days.
    pub window: u32,
    /// Seed of every random choice.
    pub seed: u64,
}

impl Default for HalfSpaceOptions {
    fn default() -> Self {
        Self { trees: 50, depth: 15, window: 4096, seed: 20_260_102 }
    }
}

/// Makes trees for ordinary rows of equal width, with the profile of a window of them drawn at random.
///
/// # Errors
/// [`ModelError::Data`] for options out of bounds.
pub fn fit(rows: &[Vec<f32>], options: &HalfSpaceOptions) -> Result<(Shape, Profile), ModelError> {
    let chosen = drawn(rows.len(), MOST_ROWS, options.seed);
    let chosen: Vec<&[f32]> = chosen.iter().filter_map(|row| rows.get(*row).map(Vec::as_slice)).collect();
    let HalfSpaceOptions { trees, depth, window, seed } = *options;
    let shape = Shape { scales: ranges(&chosen), seed, trees, depth, window };
    let held = chosen.get(..chosen.len().min(window as usize)).unwrap_or_default();
    let profile = Profile::of(&shape, held)?;
    Ok((shape, profile))
}
