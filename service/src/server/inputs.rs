//! Whether a model in force reads features that have no full window yet: a verdict says so.
//!
//! A snapshot and a moment enter, names leave. Nothing is asked once everything is warm.

use std::sync::Arc;

use parking_lot::Mutex;
use telltale_features::store::Sequence;
use telltale_features::time::Timestamp;
use telltale_proto::v1;

use super::Service;
use crate::in_force::InForce;

/// Names that are told; beyond, how many more there are.
const TOLD: usize = 3;

/// What was found out last.
#[derive(Debug, Default)]
pub struct Inputs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    epoch: Option<Sequence>,
    /// What the models of that epoch read.
    read: Vec<String>,
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
        if known.epoch != Some(force.epoch) {
            (known.epoch, known.read) = (Some(force.epoch), inputs(force));
        }
        let warming = self.warming.warming(now).into_iter().map(|warm| warm.name);
        let read: Vec<String> = warming.filter(|name| known.read.contains(name)).collect();
        known.second = second;
        known.words = (!read.is_empty()).then(|| {
            let told = read.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if read.len() > TOLD { format!(" and {} more", read.len() - TOLD) } else { String::new() };
            format!("features without a full window yet: {told}{more}").into()
        });
        known.words.clone()
    }
}

/// Names of the features that the models in force read.
fn inputs(force: &InForce) -> Vec<String> {
    let Some(loader) = &force.loader else { return Vec::new() };
    let mut read = Vec::new();
    for (model, version) in force.bundle.models() {
        match loader.repository().manifest(model, version) {
            Ok(manifest) => read.extend(manifest.inputs.into_iter().map(|input| input.name)),
            Err(error) => tracing::warn!(%error, model, version, "what it reads is not known"),
        }
    }
    read
}
