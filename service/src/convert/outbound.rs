//! Small values on their way out: actions, times, entities, and the digest by which decisions are compared.

use prost::Message;
use telltale_features::entity::{EntityId, EntityKey, EntityType};
use telltale_features::schema::Schema;
use telltale_features::time::Timestamp;
use telltale_policy::{Action, Override, Ruling};
use telltale_proto::v1;

use super::ConvertError;

/// The wire's action.
pub const fn action(action: Action) -> v1::Action {
    match action {
        Action::Allow => v1::Action::Allow,
        Action::Log => v1::Action::Log,
        Action::RateLimit => v1::Action::RateLimit,
        Action::Challenge => v1::Action::Challenge,
        Action::Deceive => v1::Action::Deceive,
        Action::Block => v1::Action::Block,
    }
}

/// The policy's action; `None` when it is not said or not known.
pub fn action_from_proto(wire: i32) -> Option<Action> {
    match v1::Action::try_from(wire) {
        Ok(v1::Action::Allow) => Some(Action::Allow),
        Ok(v1::Action::Log) => Some(Action::Log),
        Ok(v1::Action::RateLimit) => Some(Action::RateLimit),
        Ok(v1::Action::Challenge) => Some(Action::Challenge),
        Ok(v1::Action::Deceive) => Some(Action::Deceive),
        Ok(v1::Action::Block) => Some(Action::Block),
        Ok(v1::Action::Unspecified) | Err(_) => None,
    }
}

/// The wire's time.
pub fn timestamp_to_proto(time: Timestamp) -> pbjson_types::Timestamp {
    let micros = time.micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    pbjson_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// The wire's entity: type name and key; `name` where the schema keeps it.
pub fn entity_to_proto(entity: EntityId, name: Option<&str>, schema: &Schema) -> v1::Entity {
    v1::Entity {
        r#type: schema.entity_types().get(entity.kind.index()).map(|spec| spec.name.clone()).unwrap_or_default(),
        key: entity.key.0.to_vec().into(),
        id: name.unwrap_or_default().to_owned(),
    }
}

/// Digest of a verdict without what may differ between live and replay: timings, token, calibration progress, build.
pub fn decision_digest(verdict: &mut v1::Verdict) -> [u8; 16] {
    // Taken out for the moment of encoding and put back: a copy of the whole verdict would cost more than its digest.
    let (timings, context) = (verdict.timings.take(), std::mem::take(&mut verdict.context));
    let calibrations: Vec<String> = verdict.models.iter_mut().map(|model| std::mem::take(&mut model.calibration)).collect();
    let build = verdict.versions.as_mut().map(|versions| std::mem::take(&mut versions.telltale));
    let digest = blake3::hash(&verdict.encode_to_vec());
    (verdict.timings, verdict.context) = (timings, context);
    for (model, calibration) in verdict.models.iter_mut().zip(calibrations) {
        model.calibration = calibration;
    }
    if let (Some(versions), Some(build)) = (&mut verdict.versions, build) {
        versions.telltale = build;
    }
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    short
}

/// A person's override as a standing decision.
pub fn override_to_proto(ruling: &Override, name: Option<&str>, schema: &Schema) -> v1::Decision {
    let entity = entity_to_proto(ruling.entity, name, schema);
    v1::Decision {
        id: override_id(&entity),
        entity: Some(entity),
        action: match ruling.ruling {
            Ruling::Deny => v1::Action::Block,
            Ruling::Allow => v1::Action::Allow,
        }
        .into(),
        mitigation: None,
        until: ruling.until.map(timestamp_to_proto),
        reason: ruling.reason.to_string(),
        origin: v1::DecisionOrigin::Override.into(),
        author: ruling.author.to_string(),
        created: Some(timestamp_to_proto(ruling.created)),
    }
}

/// Identifier of the one override that an entity can have.
pub fn override_id(entity: &v1::Entity) -> String {
    format!("override/{}/{}", entity.r#type, hex(&entity.key))
}

/// A standing decision of a person, from the journal or a saved table.
///
/// # Errors
/// When it names an entity type that the schema does not have, or is damaged.
pub fn override_from_proto(decision: &v1::Decision, schema: &Schema) -> Result<Override, ConvertError> {
    let entity = decision.entity.as_ref().ok_or_else(|| ConvertError::absent("decision.entity", "an entity"))?;
    let micros = |time: &pbjson_types::Timestamp| Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000);
    Ok(Override {
        entity: entity_from_proto(entity, "decision.entity", schema)?,
        ruling: if decision.action == v1::Action::Allow as i32 { Ruling::Allow } else { Ruling::Deny },
        until: decision.until.as_ref().map(micros),
        reason: decision.reason.as_str().into(),
        author: decision.author.as_str().into(),
        created: decision.created.as_ref().map(micros).unwrap_or_default(),
    })
}

/// An entity by type name and key.
///
/// # Errors
/// When the schema has no such type or the key is not 16 bytes long.
pub fn entity_from_proto(entity: &v1::Entity, path: &str, schema: &Schema) -> Result<EntityId, ConvertError> {
    let kind = entity_type(entity, path, schema)?;
    let key = <[u8; 16]>::try_from(entity.key.as_ref())
        .map_err(|_| ConvertError::new(format!("{path}.key"), format!("{} bytes long", entity.key.len()), "16 bytes, or `id` instead"))?;
    Ok(EntityId { kind, key: EntityKey(key) })
}

/// The type of an entity by name.
///
/// # Errors
/// When the schema has no such type.
pub fn entity_type(entity: &v1::Entity, path: &str, schema: &Schema) -> Result<EntityType, ConvertError> {
    schema.entity_type(&entity.r#type).ok_or_else(|| {
        let names: Vec<&str> = schema.entity_types().iter().map(|spec| spec.name.as_str()).collect();
        ConvertError::new(format!("{path}.type"), super::shown(&entity.r#type), names.join(", "))
    })
}

/// The bytes of hexadecimal digits; `None` for anything else.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    pairs.collect()
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        text.write_fmt(format_args!("{byte:02x}")).ok();
        text
    })
}
