//! What is known of entities: one with all its features, or those of a type that have the most of one.
//!
//! Requests of people enter, copies of state are read, answers leave. Nothing is changed, and scoring is never held up for longer than
//! a look at a few entities takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use telltale_features::entity::{EntityId, EntityType};
use telltale_features::kernel::slots::{PROVED, Slot};
use telltale_features::kernel::{EntityState, Layout};
use telltale_features::schema::Schema;
use telltale_features::time::Timestamp;
use telltale_proto::v1;

use super::Service;
use super::errors::CallError;
use super::overrides::entity;
use crate::convert;

/// Longest list, and the one that is given unasked.
const MOST: usize = 1_000;
const USUAL: usize = 10;

/// Everything that is held of one entity.
///
/// # Errors
/// When the request names no entity of this schema.
pub async fn get(service: &Service, request: v1::GetEntityRequest) -> Result<v1::GetEntityResponse, CallError> {
    let wire = request.entity.ok_or(CallError::Empty("entity"))?;
    let schema = &service.engine.schema;
    let entity = entity(service, schema, &wire)?;
    let now = service.engine.clock().now();
    let name = (!wire.id.is_empty()).then_some(wire.id).or_else(|| service.names.of(entity));
    let told = convert::entity_to_proto(entity, name.as_deref(), schema);
    let decisions = service
        .decisions
        .list()
        .into_iter()
        .filter(|decision| decision.entity.as_ref().is_some_and(|of| (&of.key, &of.r#type) == (&told.key, &told.r#type)));
    let mut answer = v1::GetEntityResponse { decisions: decisions.collect(), entity: Some(told), ..Default::default() };
    let layout = schema.plans().get(entity.kind.index()).cloned().map(Layout::new);
    let (Some(state), Some(layout)) = (service.engine.store.look(entity).await, layout) else { return Ok(answer) };
    answer.known = state.high_water().is_some();
    answer.last_seen = state.high_water().map(convert::timestamp_to_proto);
    answer.forgotten = state.tombstone().map(convert::timestamp_to_proto);
    answer.bytes = state.encode(&layout).len() as u64;
    answer.proved = matches!(state.slot(PROVED), Some(Slot::Mark { until }) if until > now);
    (answer.level, answer.targeted) = telltale_policy::standing_levels(state.slots(), now);
    answer.features = features(schema, (entity.kind, &layout), &state, now);
    Ok(answer)
}

fn features(schema: &Schema, (kind, layout): (EntityType, &Layout), state: &EntityState, now: Timestamp) -> Vec<v1::EntityFeature> {
    let values = state.read(layout, None, now);
    let told = schema.features_of(kind).filter_map(|(place, feature, factor)| {
        let (read, value) = (layout.plan().reads.get(place)?, values.get(place)?);
        Some(v1::EntityFeature {
            name: feature.name.clone(),
            value: Some(value * factor).filter(|value| value.is_finite()),
            window_seconds: feature.window.map_or(0, |window| window.as_secs()),
            tiles: state.series(layout, *read, now).map_or_else(Vec::new, |tiles| tiles.map(|tile| tile * factor).to_vec()),
            meaning: feature.meaning.clone(),
        })
    });
    told.collect()
}

/// The entities of a type with the greatest value of a feature.
///
/// # Errors
/// When the request names no type or no feature of this schema, or wants more than there can be.
pub async fn top(service: &Arc<Service>, request: v1::TopEntitiesRequest) -> Result<v1::TopEntitiesResponse, CallError> {
    let schema = Arc::clone(&service.engine.schema);
    let wire = v1::Entity { r#type: request.r#type.clone(), ..Default::default() };
    let kind = convert::entity_type(&wire, "entity", &schema)?;
    let limit = match request.limit as usize {
        0 => USUAL,
        limit if limit <= MOST => limit,
        limit => return Err(CallError::Override(format!("`limit` is {limit}; allowed: at most {MOST}"))),
    };
    let by = feature(&schema, kind, &request)?;
    let looking = Arc::clone(service);
    let looked = tokio::task::spawn_blocking(move || rank(&looking, kind, by, limit)).await;
    let (best, looked_at) = looked.map_err(|error| CallError::Save(std::io::Error::other(error)))?;
    let told = best.into_iter().map(|(value, id)| v1::RankedEntity {
        entity: Some(convert::entity_to_proto(id, service.names.of(id).as_deref(), &schema)),
        value,
    });
    Ok(v1::TopEntitiesResponse { entities: told.collect(), looked_at, partial: service.engine.store.redis().is_some() })
}

/// Place among the reads of its type, and factor; `None` for the size of the state.
fn feature(schema: &Schema, kind: EntityType, request: &v1::TopEntitiesRequest) -> Result<Option<(usize, f64)>, CallError> {
    if request.feature.is_empty() {
        return Ok(None);
    }
    let wanted = |name: &str| name == request.feature || name.split_once('.').is_some_and(|(_, short)| short == request.feature);
    let found = schema.features_of(kind).find(|(_, feature, _)| wanted(&feature.name));
    let (place, _, factor) = found.ok_or_else(|| {
        let names: Vec<&str> = schema.features_of(kind).map(|(_, feature, _)| feature.name.as_str()).collect();
        let text = format!("`feature` is `{}`, which `{}` does not have; allowed: {}", request.feature, request.r#type, names.join(", "));
        CallError::Override(text)
    })?;
    Ok(Some((place, factor)))
}

/// A value in the order of numbers.
#[derive(Clone, Copy, PartialEq)]
struct Ranked(f64, EntityId);

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then_with(|| other.1.cmp(&self.1))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn rank(service: &Service, kind: EntityType, by: Option<(usize, f64)>, limit: usize) -> (Vec<(f64, EntityId)>, u64) {
    let Some(layout) = service.engine.schema.plans().get(kind.index()).cloned().map(Layout::new) else { return (Vec::new(), 0) };
    let now = service.engine.clock().now();
    let mut best: BinaryHeap<Reverse<Ranked>> = BinaryHeap::with_capacity(limit + 1);
    let mut looked_at = 0;
    service.engine.store.visit(kind, |id, state| {
        looked_at += 1;
        let value = match by {
            Some((place, factor)) => state.read(&layout, None, now).get(place).map_or(f64::NAN, |value| value * factor),
            None => state.bytes(&layout) as f64,
        };
        if value.is_finite() {
            best.push(Reverse(Ranked(value, id)));
            if best.len() > limit {
                best.pop();
            }
        }
    });
    let sorted = best.into_sorted_vec().into_iter().map(|Reverse(Ranked(value, id))| (value, id));
    (sorted.collect(), looked_at)
}
