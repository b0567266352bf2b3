//! Outcomes, labels and aggregates from the wire into the domain.

use telltale_features::domain::{Aggregate, Label, LabelKind, Outcome, Success};
use telltale_proto::v1;

use super::inbound::{identifier, identity, response, time, transaction, values};
use super::journal::{response_to_proto, values_to_proto};
use super::outbound::timestamp_to_proto;
use super::{Clamps, ConvertError, cut};

/// Longest detail of a label, bytes.
const DETAIL_BYTES: usize = 256;
/// Greatest weight of an aggregate: more is a mistake, or an attempt to drown history.
const AGGREGATE_COUNT: u32 = 10_000_000;

/// The domain's outcome, what had to be cut, and the context token that came with it.
///
/// # Errors
/// When a field is out of bounds.
pub fn outcome(wire: v1::Outcome, at: &str) -> Result<(Outcome, Clamps), ConvertError> {
    let mut clamps = Clamps::default();
    let outcome = checked_outcome(wire, &mut clamps).map_err(|error| error.below(at))?;
    Ok((outcome, clamps))
}

fn checked_outcome(wire: v1::Outcome, clamps: &mut Clamps) -> Result<Outcome, ConvertError> {
    let success = match v1::Success::try_from(wire.success) {
        Ok(v1::Success::Unspecified) => Success::Unknown,
        Ok(v1::Success::Ok) => Success::Ok,
        Ok(v1::Success::Failed) => Success::Failed,
        Err(_) => {
            return Err(ConvertError::new("success", format!("`{}`", wire.success), "0 (not said), 1 (ok) or 2 (failed)"));
        }
    };
    Ok(Outcome {
        transaction_id: identifier(wire.transaction_id, "transaction_id")?,
        time: time(wire.time.as_ref(), "time")?,
        response: wire.response.map(|answer| response(answer, clamps)).transpose().map_err(|error| error.below("response"))?,
        success,
        attributes: values(wire.attributes, "attributes")?,
        identity: identity(wire.identity.unwrap_or_default()).map_err(|error| error.below("identity"))?,
    })
}

/// The wire's outcome, for the journal.
pub fn outcome_to_proto(outcome: &Outcome) -> v1::Outcome {
    v1::Outcome {
        transaction_id: outcome.transaction_id.clone(),
        context: Default::default(),
        time: Some(timestamp_to_proto(outcome.time)),
        response: outcome.response.as_ref().map(response_to_proto),
        success: match outcome.success {
            Success::Unknown => v1::Success::Unspecified,
            Success::Ok => v1::Success::Ok,
            Success::Failed => v1::Success::Failed,
        }
        .into(),
        enforced: 0,
        attributes: values_to_proto(&outcome.attributes),
        identity: None,
    }
}

/// The domain's label.
///
/// # Errors
/// When the identifier or the kind is missing, or the time is out of bounds.
pub fn label(wire: v1::Label, at: &str) -> Result<Label, ConvertError> {
    checked_label(wire).map_err(|error| error.below(at))
}

fn checked_label(wire: v1::Label) -> Result<Label, ConvertError> {
    let kind =
        label_kind(wire.kind).ok_or_else(|| ConvertError::new("kind", format!("`{}`", wire.kind), "1 (benign), 2 (fraud) or 3 (abuse)"))?;
    let replaces = match wire.replaces {
        0 => None,
        other => Some(
            label_kind(other)
                .ok_or_else(|| ConvertError::new("replaces", format!("`{other}`"), "0 (none), 1 (benign), 2 (fraud) or 3 (abuse)"))?,
        ),
    };
    let mut detail = wire.detail;
    cut(&mut detail, DETAIL_BYTES);
    Ok(Label {
        transaction_id: identifier(wire.transaction_id, "transaction_id")?,
        time: time(wire.time.as_ref(), "time")?,
        kind,
        detail,
        replaces,
    })
}

/// A label's kind; `None` when it is not said or not known.
pub fn label_kind(wire: i32) -> Option<LabelKind> {
    match v1::LabelKind::try_from(wire) {
        Ok(v1::LabelKind::Benign) => Some(LabelKind::Benign),
        Ok(v1::LabelKind::Fraud) => Some(LabelKind::Fraud),
        Ok(v1::LabelKind::Abuse) => Some(LabelKind::Abuse),
        Ok(v1::LabelKind::Unspecified) | Err(_) => None,
    }
}

/// The domain's aggregate.
///
/// # Errors
/// When its sample is missing or wrong, or its count is out of bounds.
pub fn aggregate(wire: v1::Aggregate, at: &str) -> Result<(Aggregate, Clamps), ConvertError> {
    checked_aggregate(wire).map_err(|error| error.below(at))
}

fn checked_aggregate(wire: v1::Aggregate) -> Result<(Aggregate, Clamps), ConvertError> {
    let id = identifier(wire.id, "id")?;
    if wire.count == 0 || wire.count > AGGREGATE_COUNT {
        return Err(ConvertError::new("count", format!("`{}`", wire.count), "1 to 10,000,000"));
    }
    let Some(mut sample) = wire.sample else {
        return Err(ConvertError::absent("sample", "a transaction that stands for all of them"));
    };
    if sample.id.is_empty() {
        sample.id.clone_from(&id);
    }
    let (sample, clamps) = transaction(sample, "sample")?;
    let first = match wire.first {
        Some(first) => time(Some(&first), "first")?.min(sample.time),
        None => sample.time,
    };
    Ok((Aggregate { id, sample, count: wire.count, first }, clamps))
}
