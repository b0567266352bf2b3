//! What stands behind the door, to and from the journal: nothing is lost on the way, nothing is looked up again.

use telltale_features::domain::{
    Context, Header, HttpRequest, HttpResponse, Identity, Label, LabelKind, Source, Tls, Transaction, Value, Values,
};
use telltale_features::door::{Admitted, AdmittedOutcome, Signals};
use telltale_features::entity::{EntityId, EntityKey, Subject, Subjects};
use telltale_features::schema::Schema;
use telltale_features::time::Timestamp;
use telltale_models::Absent;
use telltale_proto::journal::v1 as wire;
use telltale_proto::v1;

use super::ConvertError;
use super::outbound::timestamp_to_proto;
use super::outcome::outcome_to_proto;

/// Versions that gave no score, as the journal keeps them.
pub fn absent_to_journal(absent: &[Absent]) -> Vec<wire::ModelAbsent> {
    let one =
        |absent: &Absent| wire::ModelAbsent { model: absent.model.to_string(), version: absent.version, problem: absent.problem.clone() };
    absent.iter().map(one).collect()
}

/// The same, from the journal.
pub fn absent_from_journal(absent: &[wire::ModelAbsent]) -> Vec<Absent> {
    let one = |absent: &wire::ModelAbsent| Absent {
        model: absent.model.as_str().into(),
        version: absent.version,
        problem: absent.problem.clone(),
    };
    absent.iter().map(one).collect()
}

/// A transaction behind the door as the journal keeps it.
pub fn observed(admitted: &Admitted, event_time: Timestamp, schema: &Schema) -> wire::Observed {
    let time = Some(timestamp_to_proto(event_time));
    wire::Observed {
        transaction: Some(v1::Transaction { time, ..transaction_to_proto(&admitted.tx) }),
        event_time_us: event_time.micros(),
        subjects: subjects_to_proto(&admitted.subjects, schema),
        signals: admitted.signals.as_slice().to_vec(),
        fields: values_to_proto(&admitted.fields),
        count: 1,
        route: admitted.route.clone(),
        first_us: 0,
    }
}

/// A transaction behind the door, from the journal. Its time is the event time: it was clamped already.
///
/// # Errors
/// When the record names an entity type that the schema does not have, or is damaged.
pub fn admitted(record: wire::Observed, schema: &Schema) -> Result<Admitted, ConvertError> {
    let Some(transaction) = record.transaction else {
        return Err(ConvertError::absent("observed.transaction", "a transaction"));
    };
    let mut tx = transaction_from_journal(transaction);
    tx.time = Timestamp::from_micros(record.event_time_us);
    Ok(Admitted {
        tx,
        subjects: subjects_from_proto(record.subjects, schema)?,
        route: record.route,
        signals: Signals::from_slice(&record.signals),
        fields: values_from_journal(record.fields),
    })
}

/// An outcome as applied.
pub fn outcome_applied(context: &Context, outcome: &AdmittedOutcome, schema: &Schema) -> wire::OutcomeApplied {
    wire::OutcomeApplied {
        outcome: Some(outcome_to_proto(&outcome.outcome)),
        context: Some(context_to_proto(context, schema)),
        revealed: subjects_to_proto(&outcome.revealed, schema),
    }
}

/// An outcome and its context, from the journal.
///
/// # Errors
/// As [`admitted`].
pub fn outcome_from_journal(record: wire::OutcomeApplied, schema: &Schema) -> Result<(Context, AdmittedOutcome), ConvertError> {
    let outcome = record.outcome.ok_or_else(|| ConvertError::absent("outcome.outcome", "an outcome"))?;
    let context = record.context.ok_or_else(|| ConvertError::absent("outcome.context", "a context"))?;
    let (outcome, _) = super::outcome(outcome, "outcome.outcome")?;
    let revealed = subjects_from_proto(record.revealed, schema)?;
    Ok((context_from_proto(context, schema)?, AdmittedOutcome { outcome, revealed }))
}

/// A label as applied.
pub fn label_applied(context: &Context, label: &Label, schema: &Schema) -> wire::LabelApplied {
    let kind = |kind: LabelKind| match kind {
        LabelKind::Benign => v1::LabelKind::Benign,
        LabelKind::Fraud => v1::LabelKind::Fraud,
        LabelKind::Abuse => v1::LabelKind::Abuse,
    };
    let label = v1::Label {
        transaction_id: label.transaction_id.clone(),
        context: Default::default(),
        time: Some(timestamp_to_proto(label.time)),
        kind: kind(label.kind).into(),
        detail: label.detail.clone(),
        replaces: label.replaces.map_or(0, |replaced| kind(replaced).into()),
    };
    wire::LabelApplied { label: Some(label), context: Some(context_to_proto(context, schema)) }
}

/// A label and its context, from the journal.
///
/// # Errors
/// As [`admitted`].
pub fn label_from_journal(record: wire::LabelApplied, schema: &Schema) -> Result<(Context, Label), ConvertError> {
    let label = record.label.ok_or_else(|| ConvertError::absent("label.label", "a label"))?;
    let context = record.context.ok_or_else(|| ConvertError::absent("label.context", "a context"))?;
    Ok((context_from_proto(context, schema)?, super::label(label, "label.label")?))
}

/// The content of a context token.
pub fn context_to_proto(context: &Context, schema: &Schema) -> wire::Context {
    wire::Context {
        transaction_id: context.transaction_id.clone(),
        event_time_us: context.event_time.micros(),
        subjects: subjects_to_proto(&context.subjects, schema),
        route: context.route.clone(),
        carried: values_to_proto(&context.carried),
        action: 0,
    }
}

/// The domain's context.
///
/// # Errors
/// When it names an entity type that the schema does not have.
pub fn context_from_proto(context: wire::Context, schema: &Schema) -> Result<Context, ConvertError> {
    Ok(Context {
        transaction_id: context.transaction_id,
        event_time: Timestamp::from_micros(context.event_time_us),
        subjects: subjects_from_proto(context.subjects, schema)?,
        route: context.route,
        carried: values_from_journal(context.carried),
    })
}

fn subjects_to_proto(subjects: &Subjects, schema: &Schema) -> Vec<wire::Subject> {
    let name_of = |subject: &Subject| schema.entity_types().get(subject.id.kind.index()).map(|spec| spec.name.clone()).unwrap_or_default();
    subjects
        .iter()
        .map(|subject| wire::Subject {
            r#type: name_of(subject),
            key: subject.id.key.0.to_vec().into(),
            verified: subject.verified,
            name: subject.name.as_deref().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Subjects by type name and key.
///
/// # Errors
/// When the schema has no such type or a key is not 16 bytes long.
pub fn subjects_from_proto(subjects: Vec<wire::Subject>, schema: &Schema) -> Result<Subjects, ConvertError> {
    let mut known = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let Some(kind) = schema.entity_type(&subject.r#type) else {
            let names: Vec<&str> = schema.entity_types().iter().map(|spec| spec.name.as_str()).collect();
            return Err(ConvertError::new("subjects.type", super::shown(&subject.r#type), names.join(", ")));
        };
        let key = <[u8; 16]>::try_from(subject.key.as_ref())
            .map_err(|_| ConvertError::new("subjects.key", format!("{} bytes long", subject.key.len()), "16 bytes"))?;
        known.push(Subject {
            id: EntityId { kind, key: EntityKey(key) },
            verified: subject.verified,
            name: (!subject.name.is_empty()).then(|| subject.name.into_boxed_str()),
        });
    }
    Ok(Subjects::new(known))
}

/// A transaction as the wire has it.
pub fn transaction_to_proto(tx: &Transaction) -> v1::Transaction {
    v1::Transaction {
        id: tx.id.clone(),
        time: Some(timestamp_to_proto(tx.time)),
        source: Some(v1::Source {
            ip: tx.source.ip.clone(),
            port: u32::from(tx.source.port),
            country: tx.source.country.clone(),
            asn: tx.source.asn,
            tls: tx.source.tls.as_ref().map(|tls| v1::Tls { ja3: tls.ja3.clone(), ja4: tls.ja4.clone(), sni: tls.sni.clone() }),
        }),
        http: tx.http.as_ref().map(request_to_proto),
        response: tx.response.as_ref().map(response_to_proto),
        identity: identity_to_proto(&tx.identity),
        attributes: values_to_proto(&tx.attributes),
        tenant: tx.tenant.clone(),
        service: tx.service.clone(),
    }
}

fn identity_to_proto(identity: &Identity) -> Option<v1::Identity> {
    (*identity != Identity::default()).then(|| v1::Identity {
        session: identity.session.clone(),
        user: identity.user.clone(),
        fingerprint: identity.fingerprint.clone(),
        credential_hash: identity.credential_hash.clone(),
        fields: identity.fields.clone(),
        verified: identity.verified,
    })
}

fn request_to_proto(http: &HttpRequest) -> v1::HttpRequest {
    v1::HttpRequest {
        method: http.method.clone(),
        scheme: http.scheme.clone(),
        host: http.host.clone(),
        path: http.path.clone(),
        query: http.query.clone(),
        route: http.route.clone(),
        headers: headers_to_proto(&http.headers),
        body: http.body.clone().into(),
        body_size: http.body_size,
        truncated: http.truncated,
        version: http.version.clone(),
    }
}

/// An answer as the wire has it.
pub(super) fn response_to_proto(response: &HttpResponse) -> v1::HttpResponse {
    v1::HttpResponse {
        status: u32::from(response.status),
        body_size: response.body_size,
        duration_us: response.duration_us,
        headers: headers_to_proto(&response.headers),
    }
}

fn headers_to_proto(headers: &[Header]) -> Vec<v1::Header> {
    headers.iter().map(|header| v1::Header { name: header.name.clone(), value: header.value.clone() }).collect()
}

/// Typed values as the wire has them.
pub(super) fn values_to_proto(values: &Values) -> std::collections::BTreeMap<String, v1::Value> {
    values.iter().map(|(name, value)| (name.clone(), value_to_proto(value))).collect()
}

/// One typed value as the wire has it.
pub fn value_to_proto(value: &Value) -> v1::Value {
    let kind = match value {
        Value::Number(number) => v1::value::Kind::Number(*number),
        Value::Text(text) => v1::value::Kind::Text(text.clone()),
        Value::Flag(flag) => v1::value::Kind::Flag(*flag),
    };
    v1::Value { kind: Some(kind) }
}

/// Values that were checked before they were journalled; one without a kind is left out.
fn values_from_journal(values: std::collections::BTreeMap<String, v1::Value>) -> Values {
    let value = |value: v1::Value| {
        Some(match value.kind? {
            v1::value::Kind::Number(number) => Value::Number(number),
            v1::value::Kind::Text(text) => Value::Text(text),
            v1::value::Kind::Flag(flag) => Value::Flag(flag),
        })
    };
    values.into_iter().filter_map(|(name, kind)| Some((name, value(kind)?))).collect()
}

/// The transaction exactly as it was journalled: it was checked before, and redaction may have made it longer.
fn transaction_from_journal(wire: v1::Transaction) -> Transaction {
    let source = wire.source.unwrap_or_default();
    let identity = wire.identity.unwrap_or_default();
    Transaction {
        id: wire.id,
        time: Timestamp::default(),
        source: Source {
            ip: source.ip,
            port: u16::try_from(source.port).unwrap_or_default(),
            country: source.country,
            asn: source.asn,
            tls: source.tls.map(|tls| Tls { ja3: tls.ja3, ja4: tls.ja4, sni: tls.sni }),
        },
        http: wire.http.map(request_from_journal),
        response: wire.response.map(response_from_journal),
        identity: Identity {
            session: identity.session,
            user: identity.user,
            fingerprint: identity.fingerprint,
            credential_hash: identity.credential_hash,
            fields: identity.fields,
            verified: identity.verified,
        },
        attributes: values_from_journal(wire.attributes),
        tenant: wire.tenant,
        service: wire.service,
    }
}

fn request_from_journal(wire: v1::HttpRequest) -> HttpRequest {
    HttpRequest {
        method: wire.method,
        scheme: wire.scheme,
        host: wire.host,
        path: wire.path,
        query: wire.query,
        route: wire.route,
        headers: headers_from_journal(wire.headers),
        body: wire.body.into(),
        body_size: wire.body_size,
        truncated: wire.truncated,
        version: wire.version,
    }
}

fn response_from_journal(wire: v1::HttpResponse) -> HttpResponse {
    HttpResponse {
        status: u16::try_from(wire.status).unwrap_or_default(),
        body_size: wire.body_size,
        duration_us: wire.duration_us,
        headers: headers_from_journal(wire.headers),
    }
}

fn headers_from_journal(wire: Vec<v1::Header>) -> Vec<Header> {
    wire.into_iter().map(|header| Header { name: header.name, value: header.value }).collect()
}
