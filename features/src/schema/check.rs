//! What `telltale features list|explain|check` print, as plain data.

use std::time::Duration;

use super::bytes;
use super::names::closest;
use super::spec::{FeatureSpec, Phase};
use super::{Schema, compile, glossary};
use crate::yaml::Problem;

/// One line of `features list`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureReport {
    /// Name.
    pub name: String,
    /// Definition hash, 16 hexadecimal digits.
    pub hash: String,
    /// Entity type; empty for a feature of the transaction itself.
    pub entity: String,
    /// Aggregation.
    pub aggregation: String,
    /// Over how long.
    pub window: Option<Duration>,
    /// What it says, in plain words.
    pub meaning: String,
}

/// What `features explain` says of one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The line of `features list`.
    pub feature: FeatureReport,
    /// When its events come.
    pub phase: Phase,
    /// What is counted or summed; empty where nothing is.
    pub of: String,
    /// Filter; empty for every event.
    pub filter: String,
    /// What the aggregation says.
    pub definition: &'static str,
    /// How far a reading may be off.
    pub error_bound: &'static str,
    /// Whether the event itself is already counted when the feature is read.
    pub includes_event: bool,
    /// What it is without evidence.
    pub without_evidence: &'static str,
    /// How long until it is warm after it was added.
    pub warm_after: Duration,
}

/// One line of `features check`.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityReport {
    /// Entity type.
    pub entity: String,
    /// Its features.
    pub features: usize,
    /// Filters, values, members and sections in use.
    pub filters: usize,
    /// Values in use.
    pub values: usize,
    /// Members in use.
    pub members: usize,
    /// Sections of its blob.
    pub sections: usize,
    /// Bytes of its largest possible blob.
    pub worst_bytes: usize,
    /// Bytes allowed.
    pub max_bytes: usize,
    /// History that is not touched for this long is forgotten.
    pub ttl: Duration,
}

/// What `features check` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Everything that is wrong; empty when the schema can be used.
    pub problems: Vec<Problem>,
    /// One line an entity type; empty when there are problems.
    pub entities: Vec<EntityReport>,
    /// Number of features.
    pub features: usize,
    /// Digest; empty when there are problems.
    pub digest: String,
}

impl Schema {
    /// All features, in vector order.
    pub fn list(&self) -> Vec<FeatureReport> {
        self.features.iter().map(|spec| self.listed(spec)).collect()
    }

    /// One feature by name.
    ///
    /// # Errors
    /// That there is none of that name, with the closest name.
    pub fn explain(&self, name: &str) -> Result<Explanation, String> {
        let Some(spec) = self.features.iter().find(|spec| spec.name == name) else {
            let near = closest(name, self.features.iter().map(|spec| spec.name.as_str()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(format!("no feature `{name}` among {}{hint}", self.features.len()));
        };
        let kind = spec.aggregation.as_str();
        let entry = glossary::entry(kind, &spec.of);
        Ok(Explanation {
            feature: self.listed(spec),
            phase: spec.phase,
            of: spec.of.clone(),
            filter: spec.filter.clone(),
            definition: entry.definition,
            error_bound: entry.error,
            includes_event: spec.includes_event(),
            without_evidence: if matches!(kind, "count" | "sum" | "rate" | "distinct") { "0" } else { "missing" },
            warm_after: spec.window.unwrap_or_default(),
        })
    }

    /// Compiles files and says how large their state may become, or what is wrong with them.
    pub fn check(files: &[(String, String)]) -> Report {
        match compile::compile(files) {
            Err(error) => Report { problems: error.problems, ..Report::default() },
            Ok(schema) => {
                Report { problems: Vec::new(), entities: schema.sizes(), features: schema.features.len(), digest: schema.digest.clone() }
            }
        }
    }

    /// How large the state of each entity type may become.
    pub fn sizes(&self) -> Vec<EntityReport> {
        let sizes = self.plans.iter().map(|plan| EntityReport {
            entity: plan.name.clone(),
            features: plan.reads.len(),
            filters: plan.filters.len(),
            values: plan.values.len(),
            members: plan.members.len(),
            sections: plan.accumulators.len(),
            worst_bytes: bytes::worst_case(plan),
            max_bytes: plan.max_bytes,
            ttl: plan.ttl,
        });
        sizes.collect()
    }

    fn listed(&self, spec: &FeatureSpec) -> FeatureReport {
        let entity = spec.entity.and_then(|kind| self.entities.get(kind.index()));
        FeatureReport {
            name: spec.name.clone(),
            hash: format!("{:016x}", spec.hash),
            entity: entity.map_or_else(String::new, |entity| entity.name.clone()),
            aggregation: spec.aggregation.clone(),
            window: spec.window,
            meaning: spec.meaning.clone(),
        }
    }
}
