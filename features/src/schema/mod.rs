//! The schema: YAML enters, a compiled description of entities, fields and features leaves.
//!
//! It says who acts in a transaction, what is counted of them, and how a vector is put together. It is immutable, holds no state
//! of any entity, and never looks at raw bytes: that is the door's work.

mod aggregations;
mod arguments;
mod builder;
mod bytes;
mod check;
mod compile;
mod declare;
mod derived;
mod duration;
mod events;
mod fields;
mod glossary;
mod layout;
mod learned;
mod names;
mod places;
mod profile;
mod routes;
mod source;
mod spec;
#[cfg(test)]
mod tests;
mod views;

use std::sync::Arc;

use crate::domain::{Context, Value};
use crate::door::Admitted;
use crate::entity::EntityType;
use crate::expr::{Row, Scope};
use crate::kernel::plan::EntityPlan;
use crate::store::History;
use crate::time::Timestamp;
use crate::vector::{FeatureId, FeatureVector};
use crate::yaml::Problems;
use compile::{Filter, Member};
use layout::Layout;
use views::{Inputs, Own};

pub use bytes::worst_case;
pub use check::{EntityReport, Explanation, FeatureReport, Report};
pub use compile::Secrets;
pub use fields::{Fields, RowBuffers};
pub use learned::{Template, TemplateError, Templates};
pub(crate) use names::closest;
pub(crate) use places::vouched;
pub use routes::Routes;
pub(crate) use routes::segment_of;
pub use spec::{EntityTypeSpec, FeatureSpec, FieldKind, FieldSpec, Normalization, Phase, Place, Selector};

/// The built-in schemas: file name and text.
pub const SHIPPED_HTTP: (&str, &str) = ("http.yaml", include_str!("../../schemas/http.yaml"));
/// The built-in schema for card payments without HTTP.
pub const SHIPPED_PAYMENTS: (&str, &str) = ("payments.yaml", include_str!("../../schemas/payments.yaml"));

/// A compiled schema. Immutable; shared as `Arc<Schema>`.
pub struct Schema {
    digest: String,
    entities: Vec<EntityTypeSpec>,
    declared: Vec<FieldSpec>,
    features: Vec<FeatureSpec>,
    plans: Arc<[EntityPlan]>,
    inputs: Vec<Inputs>,
    own: Vec<(usize, Own)>,
    /// Reads that no vector shows; they follow on the features while it is put together.
    hidden: usize,
    layout: Layout,
    filters: Vec<Filter>,
    members: Vec<Member>,
    routes: Routes,
    secrets: Secrets,
    proofs: Vec<Option<usize>>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema({}, {} entity types, {} features)", self.digest, self.entities.len(), self.features.len())
    }
}

impl Schema {
    /// The schema for HTTP APIs that is built in.
    pub fn shipped() -> Self {
        Self::built_in(SHIPPED_HTTP)
    }

    /// The schema for card payments that is built in.
    pub fn payments() -> Self {
        Self::built_in(SHIPPED_PAYMENTS)
    }

    #[expect(clippy::panic, reason = "the text is a constant of this crate and a test compiles it")]
    fn built_in((name, text): (&str, &str)) -> Self {
        match Self::from_sources(&[(name.to_owned(), text.to_owned())]) {
            Ok(schema) => schema,
            Err(error) => panic!("the built-in schema is wrong: {error}"),
        }
    }

    /// A schema of several files, each given with its name; later files add to earlier ones.
    ///
    /// # Errors
    /// Everything that is wrong, with file and line.
    pub fn from_sources(files: &[(String, String)]) -> Result<Self, Problems> {
        compile::compile(files)
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

    /// Route templates and operations.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What the door replaces by tokens.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What rules may name: event fields (`http.*`, `source.*`, `content.*`, `attributes.*`), then every feature. Whoever adds
    /// names after these appends their values to [`RowBuffers`] in the same order.
    pub fn scope(&self) -> Scope {
        let mut scope = self.layout.request.clone();
        for feature in &self.features {
            scope.number(&feature.name);
        }
        scope
    }

    /// The names of the event fields alone: the first of [`Self::scope`]; [`Fields::row`] has their values.
    pub fn event_scope(&self) -> &Scope {
        &self.layout.request
    }

    /// The event fields of a transaction, as values of [`Self::scope`].
    pub fn fields<'a>(&'a self, admitted: &'a Admitted) -> Fields<'a> {
        Fields::of_request(admitted, &self.declared, &self.routes)
    }

    /// Fills the buffers with event numbers and features and with event flags, in the order of [`Self::scope`].
    pub fn fill(&self, fields: &Fields<'_>, vector: &FeatureVector, buffers: &mut RowBuffers) {
        buffers.numbers.clear();
        // Room for what the policy appends, so that nothing is copied to grow.
        buffers.numbers.reserve(fields.numbers.len() + vector.values.len() + 64);
        buffers.numbers.extend_from_slice(&fields.numbers);
        buffers.numbers.extend_from_slice(&vector.values);
        buffers.flags.clear();
        buffers.flags.reserve(fields.flags.len() + 64);
        buffers.flags.extend_from_slice(&fields.flags);
    }

    /// A row of [`Self::scope`].
    pub fn row<'a>(&self, fields: &'a Fields<'_>, vector: &FeatureVector, buffers: &'a mut RowBuffers) -> Row<'a> {
        self.fill(fields, vector, buffers);
        buffers.row(fields)
    }

    /// The vector of a transaction after its history was read.
    pub fn extract(&self, admitted: &Admitted, history: &History) -> FeatureVector {
        self.extract_of(&self.fields(admitted), history)
    }

    /// The same with fields that are at hand.
    pub fn extract_of(&self, fields: &Fields<'_>, history: &History) -> FeatureVector {
        let mut values = vec![f64::NAN; self.features.len() + self.hidden];
        let mut lateness: f64 = 0.0;
        for entity in &history.entities {
            lateness = lateness.max(entity.lateness);
            let Some(inputs) = self.inputs.get(entity.entity.kind.index()) else { continue };
            for ((feature, factor), read) in inputs.reads.iter().zip(&entity.reads) {
                if let Some(value) = values.get_mut(*feature) {
                    *value = read * factor;
                }
            }
        }
        let at = |values: &[f64], place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        for (feature, own) in &self.own {
            let read = match *own {
                Own::Number(place) => fields.numbers.get(place).copied().unwrap_or(f64::NAN),
                Own::Flag(place) => fields.flags.get(place).map_or(f64::NAN, |flag| f64::from(u8::from(*flag))),
                Own::Holds(filter) => self.holds(filter, fields),
                Own::Lateness => lateness,
                Own::Quotient(of, by) => at(&values, of) / at(&values, by),
                Own::Difference(of, less) => at(&values, of) - at(&values, less),
                Own::Zscore { of, middle, spread } => (at(&values, of) - at(&values, middle)) / at(&values, spread),
            };
            if let Some(value) = values.get_mut(*feature) {
                *value = read;
            }
        }
        values.truncate(self.features.len());
        for value in &mut values {
            if value.is_infinite() {
                *value = f64::NAN;
            }
        }
        FeatureVector { values: values.into() }
    }

    fn holds(&self, filter: usize, fields: &Fields<'_>) -> f64 {
        let predicate = self.filters.get(filter).and_then(|filter| filter.predicate.as_ref());
        predicate.map_or(f64::NAN, |predicate| f64::from(u8::from(predicate.holds(&fields.row()))))
    }

    /// What a later outcome or label needs of a transaction.
    pub fn context(&self, admitted: &Admitted, event_time: Timestamp) -> Context {
        let declared = self.declared.iter().filter(|field| field.carried);
        let mut carried: crate::domain::Values =
            declared.filter_map(|field| Some((field.name.clone(), admitted.fields.get(&field.name)?.clone()))).collect();
        if let Some(http) = &admitted.tx.http {
            carried.insert(names::CARRIED_METHOD.to_owned(), Value::Text(http.method.clone()));
        }
        let subjects = admitted.subjects.clone();
        Context { transaction_id: admitted.tx.id.clone(), event_time, subjects, route: admitted.route.clone(), carried }
    }

    /// How enforcement points find entities in a request without its body.
    pub fn selectors(&self) -> Vec<Selector> {
        let readable = |place: &&Place| matches!(place, Place::Address | Place::Header(_) | Place::Cookie(_) | Place::Query(_));
        let selectors = self.entities.iter().map(|spec| Selector {
            entity: spec.name.clone(),
            places: spec.places.iter().filter(readable).cloned().collect(),
            normalization: spec.normalization,
        });
        selectors.filter(|selector| !selector.places.is_empty() && selector.normalization != Normalization::Digits).collect()
    }
}
