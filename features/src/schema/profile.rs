//! Which feature each read of an entity type is: for whoever looks at one entity and not at a transaction.

use super::{FeatureSpec, Schema};
use crate::entity::EntityType;

impl Schema {
    /// The features of an entity type: the place among its plan's reads, the feature, and the factor from what is read to what it says.
    pub fn features_of(&self, kind: EntityType) -> impl Iterator<Item = (usize, &FeatureSpec, f64)> {
        let inputs = self.inputs.get(kind.index());
        let reads = inputs.into_iter().flat_map(|inputs| inputs.reads.iter().enumerate());
        // A read that is no feature itself serves those across entities.
        reads.filter_map(|(place, (feature, factor))| Some((place, self.features.get(*feature)?, *factor)))
    }
}
