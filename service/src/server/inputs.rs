//! Whether a model in force reads features that have no full window yet: a verdict says so.
//!
//! A snapshot and a moment enter, names leave. Nothing is asked once everything is warm.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use telltale_features::store::Sequence;
use telltale_features::time::Timestamp;
use telltale_proto::v1;

use super::Service;
use crate::in_force::InForce;
use crate::warming::some;

/// What was found out last.
#[derive(Debug, Default)]
pub struct Inputs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    epoch: Option<Sequence>,
    /// For which second the words were made.
    second: i64,
    words: Option<Arc<str>>,
}

impl Service {
    /// Says in a verdict what warms. Not part of the decision: a replay knows nothing of it.
    pub(super) fn tell_warming(&self, force: &InForce, verdict: &mut v1::Verdict, now: Timestamp) {
        if !self.warming.is_any(now) {
            return;
        }
        let Some(words) = self.warming_inputs(force, now) else { return };
        verdict.degraded.push(words.to_string());
        if verdict.features_status() == v1::FeaturesStatus::Full {
            verdict.features_status = v1::FeaturesStatus::Warming.into();
        }
    }

    fn warming_inputs(&self, force: &InForce, now: Timestamp) -> Option<Arc<str>> {
        let mut known = self.inputs.0.lock();
        let second = now.micros().div_euclid(1_000_000);
        if known.epoch == Some(force.epoch) && known.second == second {
            return known.words.clone();
        }
        let features = self.engine.schema.features();
        let read: BTreeSet<&str> = force.bundle.inputs().filter_map(|id| Some(&*features.get(id.index())?.name)).collect();
        let warming = self.warming.warming(now);
        let warming: Vec<&str> = warming.iter().map(|warm| warm.name.as_str()).filter(|name| read.contains(name)).collect();
        (known.epoch, known.second) = (Some(force.epoch), second);
        known.words = (!warming.is_empty()).then(|| format!("features without a full window yet: {}", some(&warming)).into());
        known.words.clone()
    }
}
