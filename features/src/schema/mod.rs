//! The schema: YAML enters, a compiled description of entities, fields and features leaves.
//!
//! It says who acts in a transaction, what is counted of them, and how a vector is put together. It is immutable, holds no state
//! of any entity, and never looks at raw bytes: that is the door's work.

mod error;
mod fields;
mod spec;

use std::sync::Arc;

use crate::domain::{Context, Label};
use crate::door::{Admitted, AdmittedOutcome};
use crate::entity::EntityType;
use crate::event::EntityEvents;
use crate::kernel::plan::EntityPlan;
use crate::store::History;
use crate::time::Timestamp;
use crate::vector::{FeatureId, FeatureVector};

pub use error::{Problem, SchemaError};
pub use fields::{Fields, RowBuffers};
pub use spec::{EntityTypeSpec, FeatureSpec, FieldKind, FieldSpec, Normalization, Phase, Place, Selector};

/// A compiled schema. Immutable; shared as `Arc<Schema>`.
pub struct Schema {
    digest: String,
    entities: Vec<EntityTypeSpec>,
    declared: Vec<FieldSpec>,
    features: Vec<FeatureSpec>,
    plans: Arc<[EntityPlan]>,
}

impl Schema {
    /// The schema for HTTP APIs that is built in.
    pub fn shipped() -> Self {
        Self { digest: String::new(), entities: Vec::new(), declared: Vec::new(), features: Vec::new(), plans: Arc::new([]) }
    }

    /// A schema of several files, each given with its name; later files add to earlier ones.
    ///
    /// # Errors
    /// Everything that is wrong, with file and line.
    pub fn from_sources(files: &[(String, String)]) -> Result<Self, SchemaError> {
        let _ = files;
        Ok(Self::shipped())
    }

    /// 16 hexadecimal digits over everything that changes a vector.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The entity types; the index is the [`EntityType`].
    pub fn entity_types(&self) -> &[EntityTypeSpec] {
        &self.entities
    }

    /// The entity type of that name.
    pub fn entity_type(&self, name: &str) -> Option<EntityType> {
        let index = self.entities.iter().position(|spec| spec.name == name)?;
        u8::try_from(index).ok().map(EntityType)
    }

    /// The declared fields.
    pub fn declared_fields(&self) -> &[FieldSpec] {
        &self.declared
    }

    /// What a store is built with; the index is the [`EntityType`].
    pub fn plans(&self) -> Arc<[EntityPlan]> {
        Arc::clone(&self.plans)
    }

    /// The features; the index is the [`FeatureId`].
    pub fn features(&self) -> &[FeatureSpec] {
        &self.features
    }

    /// The feature of that name.
    pub fn feature(&self, name: &str) -> Option<FeatureId> {
        let index = self.features.iter().position(|spec| spec.name == name)?;
        u16::try_from(index).ok().map(FeatureId)
    }

    /// The event fields of a transaction, as values of [`Self::scope`].
    pub fn fields<'a>(&self, admitted: &'a Admitted) -> Fields<'a> {
        let _ = admitted;
        Fields::default()
    }

    /// Fills the buffers with event numbers and features and with event flags, in the order of [`Self::scope`].
    pub fn fill(&self, fields: &Fields<'_>, vector: &FeatureVector, buffers: &mut RowBuffers) {
        buffers.numbers.clear();
        buffers.numbers.extend_from_slice(&fields.numbers);
        buffers.numbers.extend_from_slice(&vector.values);
        buffers.flags.clear();
        buffers.flags.extend_from_slice(&fields.flags);
    }

    /// The events of a transaction, one an entity.
    pub fn events(&self, admitted: &Admitted) -> EntityEvents {
        let _ = admitted;
        EntityEvents::default()
    }

    /// The events of an outcome, one an entity of its transaction or of what it revealed.
    pub fn outcome_events(&self, context: &Context, outcome: &AdmittedOutcome) -> EntityEvents {
        let _ = (context, outcome);
        EntityEvents::default()
    }

    /// The events of a label, one an entity of its transaction.
    pub fn label_events(&self, context: &Context, label: &Label) -> EntityEvents {
        let _ = (context, label);
        EntityEvents::default()
    }

    /// The vector of a transaction after its history was read.
    pub fn extract(&self, admitted: &Admitted, history: &History) -> FeatureVector {
        let _ = (admitted, history);
        FeatureVector { values: Arc::new([]) }
    }

    /// What a later outcome or label needs of a transaction.
    pub fn context(&self, admitted: &Admitted, event_time: Timestamp) -> Context {
        Context {
            transaction_id: admitted.tx.id.clone(),
            event_time,
            subjects: admitted.subjects.clone(),
            route: admitted.route.clone(),
            carried: crate::domain::Values::new(),
        }
    }

    /// How enforcement points find entities in a request without its body.
    pub fn selectors(&self) -> Vec<Selector> {
        Vec::new()
    }
}
