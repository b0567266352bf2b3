//! One row of numbers: the value of every feature of the schema for one transaction.

use std::sync::Arc;

/// Index of a feature in its schema and in every vector made with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureId(pub u16);

impl FeatureId {
    /// Index into a vector.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The row. NaN stands for a feature without evidence; never infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureVector {
    /// One value a feature, in the schema's order.
    pub values: Arc<[f64]>,
}

impl FeatureVector {
    /// The value of a feature; NaN when it has none.
    pub fn get(&self, feature: FeatureId) -> f64 {
        self.values.get(feature.index()).copied().unwrap_or(f64::NAN)
    }
}
