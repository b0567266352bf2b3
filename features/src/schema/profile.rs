//! Which feature each read of an entity type is: for whoever looks at one entity and not at a transaction.

use super::{FeatureSpec, Schema};
use crate::entity::EntityType;

impl Schema {
    /// The features of an entity type in the order of its plan's reads, each with the factor from what is read to what it says.
    pub fn features_of(&self, kind: EntityType) -> impl Iterator<Item = (&FeatureSpec, f64)> {
        let inputs = self.inputs.get(kind.index());
        let reads = inputs.into_iter().flat_map(|inputs| &inputs.reads);
        reads.filter_map(|(feature, factor)| Some((self.features.get(*feature)?, *factor)))
    }
}
