//! From a decision to the verdict that a gateway reads. Plain assembly: every number was made elsewhere.

use telltale_features::schema::Schema;
use telltale_features::store::Status;
use telltale_features::vector::FeatureVector;
use telltale_models::Calibrated;
use telltale_policy::{Decision, Mitigation};
use telltale_proto::v1;

use crate::convert;
use crate::score::Scored;

/// Where the time of a verdict went, microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Entities and content.
    pub identify_us: f64,
    /// History.
    pub observe_us: f64,
    /// Vector.
    pub extract_us: f64,
    /// Models.
    pub score_us: f64,
    /// Rules and policy state.
    pub decide_us: f64,
    /// All of it.
    pub total_us: f64,
}

/// The verdict without timings and context token: what decisions are compared by.
pub fn verdict(scored: &Scored, schema: &Schema) -> v1::Verdict {
    let decision = &scored.decision;
    v1::Verdict {
        transaction_id: scored.admitted.tx.id.clone(),
        action: convert::action(decision.action).into(),
        would: convert::action(decision.would).into(),
        risk: decision.risk,
        models: models(scored),
        rules: decision.rules.iter().map(rule).collect(),
        reasons: decision.reasons.iter().map(reason).collect(),
        mitigation: mitigation(scored, schema),
        threats: threats(scored, schema),
        versions: Some(versions(scored)),
        features_status: features_status(scored.history.status).into(),
        degraded: degraded(scored),
        timings: None,
        context: Default::default(),
        durability: String::new(),
        combination: scored.force.policy.combination().map(|combination| combination.name().to_owned()).unwrap_or_default(),
        counterfactual: scored.hint.found.as_ref().map(counterfactual),
    }
}

fn counterfactual(found: &telltale_policy::Counterfactual) -> v1::Counterfactual {
    v1::Counterfactual { feature: found.feature.to_string(), value: found.value, allowed_value: found.allowed, words: found.text.clone() }
}

fn versions(scored: &Scored) -> v1::Versions {
    // By the snapshot and not by who scored: whether the two agree can then be seen in every verdict.
    let models = scored.force.bundle.models().map(|(model, version)| format!("{model}:{version}")).collect();
    v1::Versions { models, ..(*scored.force.versions).clone() }
}

/// The wire's timings.
pub fn timings(timings: &Timings) -> v1::Timings {
    v1::Timings {
        identify_us: timings.identify_us,
        observe_us: timings.observe_us,
        extract_us: timings.extract_us,
        score_us: timings.score_us,
        decide_us: timings.decide_us,
        total_us: timings.total_us,
    }
}

/// Digest of a vector's bits; every NaN counts as the same one.
pub fn vector_digest(vector: &FeatureVector) -> [u8; 16] {
    // One pass over one buffer: fed value by value the hash takes several times as long.
    let mut bytes = Vec::with_capacity(vector.values.len() * 8);
    for value in vector.values.iter() {
        let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        bytes.extend_from_slice(&bits.to_le_bytes());
    }
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(blake3::hash(&bytes).as_bytes()) {
        *to = *from;
    }
    digest
}

fn models(scored: &Scored) -> Vec<v1::ModelScore> {
    let contributions = scored.decision.contributions.iter().copied().chain(std::iter::repeat(0.0));
    let combined = &scored.assessed.combined;
    let is_shown = scored.force.policy.combination().is_some();
    let parts = scored.assessed.scores.parts.iter().zip(contributions).enumerate();
    parts
        .map(|(at, (part, contribution))| v1::ModelScore {
            points: combined.points.get(at).copied().filter(|_| is_shown).unwrap_or_default(),
            muted: combined.muted.get(at) == Some(&true),
            model: part.model.to_string(),
            version: part.version,
            raw: part.raw,
            calibrated: match part.calibrated {
                Calibrated::Probability(value) => Some(v1::model_score::Calibrated::Probability(value)),
                Calibrated::PValue(value) => Some(v1::model_score::Calibrated::PValue(value)),
                Calibrated::Calibrating { .. } => None,
            },
            contribution,
            role: part.role.name().to_owned(),
            calibration: match part.calibrated {
                Calibrated::Calibrating { have, need } => format!("calibrating {}/{}", grouped(have), grouped(need)),
                Calibrated::Probability(_) | Calibrated::PValue(_) => String::new(),
            },
        })
        .collect()
}

/// A number with commas between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rule(rule: &telltale_policy::RuleMatch) -> v1::RuleMatch {
    v1::RuleMatch {
        id: rule.id.to_string(),
        name: rule.name.to_string(),
        action: convert::action(rule.action).into(),
        score: rule.score,
        enforced: rule.enforced,
        tags: rule.tags.to_vec(),
    }
}

fn reason(reason: &telltale_policy::Reason) -> v1::Reason {
    v1::Reason {
        feature: reason.feature.to_string(),
        value: reason.value,
        usual: reason.usual,
        contribution: reason.contribution,
        text: reason.text.clone(),
        origin: reason.origin.clone(),
    }
}

fn mitigation(scored: &Scored, schema: &Schema) -> Option<v1::Mitigation> {
    let mitigation = &scored.decision.mitigation;
    (*mitigation != Mitigation::default()).then(|| mitigation_to_proto(mitigation, scored, schema))
}

fn mitigation_to_proto(mitigation: &Mitigation, scored: &Scored, schema: &Schema) -> v1::Mitigation {
    let name = |entity| scored.admitted.subjects.iter().find(|subject| subject.id == entity)?.name.as_deref();
    v1::Mitigation {
        entity: mitigation.entity.map(|entity| convert::entity_to_proto(entity, name(entity), schema)),
        ..bare_mitigation(mitigation)
    }
}

/// A mitigation without its entity.
pub fn bare_mitigation(mitigation: &Mitigation) -> v1::Mitigation {
    v1::Mitigation {
        rate: mitigation.rate,
        period_ms: mitigation.period_ms,
        burst: mitigation.burst,
        retry_after_ms: mitigation.retry_after_ms,
        delay_ms: mitigation.delay_ms,
        status: u32::from(mitigation.status),
        template: mitigation.template.to_string(),
        entity: None,
        until: mitigation.until.map(convert::timestamp_to_proto),
    }
}

fn threats(scored: &Scored, schema: &Schema) -> Vec<v1::ThreatLevel> {
    let threat = |threat: &telltale_policy::Threat| {
        let subject = scored.admitted.subjects.iter().find(|subject| subject.id == threat.entity);
        let name = subject.and_then(|subject| subject.name.as_deref());
        v1::ThreatLevel {
            entity: Some(convert::entity_to_proto(threat.entity, name, schema)),
            level: threat.level,
            origin: threat.origin.to_string(),
        }
    };
    scored.decision.threats.iter().map(threat).collect()
}

const fn features_status(status: Status) -> v1::FeaturesStatus {
    match status {
        Status::Full => v1::FeaturesStatus::Full,
        Status::Stale => v1::FeaturesStatus::Stale,
        Status::Partial => v1::FeaturesStatus::Partial,
        Status::None => v1::FeaturesStatus::None,
    }
}

fn degraded(scored: &Scored) -> Vec<String> {
    let mut degraded = scored.assessed.scores.degraded.clone();
    for failure in scored.force.bundle.failures() {
        degraded.push(format!("model {}: {}", failure.model, failure.reason));
    }
    if scored.assessed.scores.parts.is_empty() {
        degraded.push("no models: rules only".to_owned());
    }
    degraded
}

/// Whether a client feels the decision.
pub fn is_enforced(decision: &Decision) -> bool {
    decision.action.is_enforcing()
}
