//! One override: checked, put in force, journalled, saved, pushed, audited. In this order, so that what is answered holds.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use telltale_features::entity::EntityId;
use telltale_features::schema::{Normalization, Schema};
use telltale_features::time::Timestamp;
use telltale_policy::{Override, Ruling};
use telltale_proto::journal::v1::{DecisionChanged, journal_record::Kind};
use telltale_proto::v1;

use super::Service;
use super::access::Caller;
use super::audit::Change;
use super::errors::CallError;
use crate::convert;

/// Longest reason, bytes.
pub(super) const REASON_BYTES: usize = 512;

/// Sets or removes an override.
///
/// # Errors
/// When the request is wrong, or the table cannot be saved.
pub fn change(service: &Service, caller: &Caller, request: v1::OverrideRequest) -> Result<Option<v1::Decision>, CallError> {
    let wire = request.entity.ok_or(CallError::Empty("entity"))?;
    let schema = Arc::clone(&service.engine.schema);
    let entity = entity(service, &schema, &wire)?;
    if request.reason.len() > REASON_BYTES {
        return Err(CallError::Override(format!("`reason` is {} bytes long; allowed: at most 512", request.reason.len())));
    }
    let ruling = match v1::Action::try_from(request.action) {
        Ok(v1::Action::Block) => Some(Ruling::Deny),
        Ok(v1::Action::Allow) => Some(Ruling::Allow),
        Ok(v1::Action::Unspecified) => None,
        Ok(_) | Err(_) => {
            let text = format!("`action` is `{}`; allowed: BLOCK (deny), ALLOW (exempt), UNSPECIFIED (remove)", request.action);
            return Err(CallError::Override(text));
        }
    };
    let lasts = request.duration.map(|duration| lasting(&duration)).transpose()?;
    let name = (!wire.id.is_empty()).then_some(wire.id.as_str());
    let mut standing = None;
    service.engine.change(service.engine.live(), |force, now| {
        let (overrides, decision) = match ruling {
            Some(ruling) => {
                let new = new_override(entity, ruling, lasts, (&request.reason, caller), now);
                let decision = convert::override_to_proto(&new, name, &schema);
                (force.overrides.with(new), decision)
            }
            None => {
                let old = force.overrides.get(entity, now)?.clone();
                (force.overrides.without(entity), convert::override_to_proto(&old, name, &schema))
            }
        };
        standing = Some(decision.clone());
        Some((force.with_overrides(overrides), Kind::Decision(DecisionChanged { decision: Some(decision), removed: ruling.is_none() })))
    });
    let Some(decision) = standing else { return Ok(None) };
    let kept = ruling.is_some().then(|| decision.clone());
    service.audit.write(&Change {
        time_us: service.engine.clock().now().micros(),
        caller: &caller.name,
        role: caller.role.map_or("any", super::access::Role::name),
        what: "override",
        subject: &decision.id,
        detail: &format!("{}: {}", ruling_name(ruling), request.reason),
    });
    service.decisions.set(&decision.id, kept.clone())?;
    Ok(kept)
}

fn new_override(entity: EntityId, ruling: Ruling, lasts: Option<Duration>, (reason, caller): (&str, &Caller), now: Timestamp) -> Override {
    Override {
        entity,
        ruling,
        until: lasts.map(|lasts| now.plus(lasts)),
        reason: reason.into(),
        author: Arc::clone(&caller.name),
        created: now,
    }
}

/// By key, or by the identifier in clear, brought to one form and hashed as the door does.
pub(super) fn entity(service: &Service, schema: &Schema, wire: &v1::Entity) -> Result<EntityId, CallError> {
    if !wire.key.is_empty() {
        return Ok(convert::entity_from_proto(wire, "entity", schema)?);
    }
    if wire.id.is_empty() {
        return Err(CallError::Empty("entity.key` or `entity.id"));
    }
    let kind = convert::entity_type(wire, "entity", schema)?;
    let normalization = schema.entity_types().get(kind.index()).map(|spec| spec.normalization).unwrap_or_default();
    let identifier = normalised(&wire.id, normalization).ok_or_else(|| {
        CallError::Override(format!("`entity.id` is `{}`, which is no identifier of type `{}`", wire.id.escape_debug(), wire.r#type))
    })?;
    Ok(EntityId { kind, key: service.engine.hasher.entity(&wire.r#type, &identifier) })
}

/// One form of an identifier, as the door makes it and as enforcement points do.
fn normalised(identifier: &str, normalization: Normalization) -> Option<String> {
    match normalization {
        Normalization::None => Some(identifier.to_owned()),
        Normalization::Lowercase => Some(identifier.trim().to_ascii_lowercase()),
        Normalization::Digits => Some(identifier.chars().filter(char::is_ascii_digit).collect()),
        Normalization::Address => match identifier.trim().parse().ok()? {
            IpAddr::V4(address) => Some(address.to_string()),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => Some(address.to_string()),
                None => Some(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).to_string()),
            },
        },
    }
}

fn lasting(duration: &pbjson_types::Duration) -> Result<Duration, CallError> {
    let seconds = u64::try_from(duration.seconds).ok().filter(|seconds| *seconds <= 10 * 366 * 86_400);
    let nanos = u32::try_from(duration.nanos).ok();
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) if seconds > 0 || nanos > 0 => Ok(Duration::new(seconds, nanos)),
        _ => Err(CallError::Override(format!("`duration` is {} s; allowed: more than 0, at most ten years", duration.seconds))),
    }
}

const fn ruling_name(ruling: Option<Ruling>) -> &'static str {
    match ruling {
        Some(Ruling::Deny) => "deny",
        Some(Ruling::Allow) => "allow",
        None => "removed",
    }
}
