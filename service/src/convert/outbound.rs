//! Small values on their way out: actions, times, entities, and the digest by which decisions are compared.

use prost::Message;
use telltale_features::entity::EntityId;
use telltale_features::schema::Schema;
use telltale_features::time::Timestamp;
use telltale_policy::Action;
use telltale_proto::v1;

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
pub fn decision_digest(verdict: &v1::Verdict) -> [u8; 16] {
    let mut bare = verdict.clone();
    bare.timings = None;
    bare.context = Default::default();
    for model in &mut bare.models {
        model.calibration.clear();
    }
    if let Some(versions) = &mut bare.versions {
        versions.telltale.clear();
    }
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(blake3::hash(&bare.encode_to_vec()).as_bytes()) {
        *to = *from;
    }
    digest
}
