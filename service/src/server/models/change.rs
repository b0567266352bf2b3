//! One change of which versions play which part: built aside, put in force by one pointer store, journalled, saved, audited.
//!
//! A change that brings something new is saved before it is in force, one that takes something back afterwards: what hurts must go at
//! once, even where nothing can be saved any more, and what serves must survive a crash.

use std::sync::Arc;
use std::time::Duration;

use telltale_models::repository::{AuditLine, ModelPolicy, Step};
use telltale_models::{Bundle, Loader, ModelError, ModelState};

use super::{Asker, loader};
use crate::in_force::model_record;
use crate::server::Service;
use crate::server::api::present;
use crate::server::audit::Change;
use crate::server::errors::CallError;
use crate::verdict::grouped;

/// What a change came to.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// Sequence of the change.
    pub epoch: u64,
    /// From the beginning of the change until it was in force.
    pub took: Duration,
}

/// Takes one step of a model's policy.
///
/// # Errors
/// Why it cannot be taken; then everything stays as it was.
pub fn step(service: &Service, model: &str, step: Step, uncalibrated: bool, asker: &Asker) -> Result<Changed, CallError> {
    let result = try_step(service, model, step, uncalibrated, asker);
    let label = if result.is_ok() { "changed" } else { "refused" };
    service.metrics.model_changes.with_label_values(&[step.name(), label]).inc();
    result
}

fn try_step(service: &Service, model: &str, step: Step, uncalibrated: bool, asker: &Asker) -> Result<Changed, CallError> {
    let started = present();
    let loader = loader(service)?;
    let before = loader.repository().policy(model)?;
    let next = before.after(step).map_err(|problem| ModelError::Data(format!("model `{model}`: {problem}")))?;
    let state = loader.state_of(model, next.clone())?;
    let built = loader.apply(&service.engine.in_force().bundle, model, &state)?;
    may_count(service, (&before, &built), model, step, uncalibrated)?;
    may_read(service, &loader, model, step)?;
    let save = || -> Result<(), CallError> {
        let unchanged = |current: &ModelPolicy| {
            if *current == before {
                Ok(next.clone())
            } else {
                Err("its policy was changed by somebody else in the meantime; try again".to_owned())
            }
        };
        loader.repository().change(model, unchanged)?;
        let line = AuditLine::new(&asker.author(service), step.name(), model, step.version());
        Ok(loader.repository().record(&AuditLine { policy: Some(next.clone()), ..line })?)
    };
    let flip = || {
        let epoch = flip(service, &loader, &built, model, (&state, &asker.who));
        Changed { epoch, took: started.elapsed() }
    };
    let (changed, saved) = if step.takes_back() {
        let changed = flip();
        let name = step.name();
        let unsaved = |error| CallError::Unsaved(format!("`{name}` of model `{model}` is in force, but only until a restart: {error}"));
        (changed, save().map_err(unsaved))
    } else {
        save()?;
        (flip(), Ok(()))
    };
    audit(service, asker, step.name(), &format!("{model}{}", step.version().map_or(String::new(), |version| format!(":{version}"))));
    saved.map(|()| changed)
}

/// Puts what was built aside in force. Returns the epoch.
pub fn flip(service: &Service, loader: &Arc<Loader>, built: &Bundle, model: &str, (state, who): (&ModelState, &str)) -> u64 {
    let engine = &service.engine;
    let record = model_record(model, state, who);
    let epoch = engine.change(engine.live(), |force, _| Some((force.with_bundle(force.bundle.adopting(built, model)), record)));
    let bundle = Arc::clone(&engine.in_force().bundle);
    engine.restart_calibration();
    service.models.shadows.follow(&bundle, |_| true);
    super::drift::follow(service);
    loader.settle(&bundle);
    epoch.map_or(0, |epoch| epoch.0)
}

/// Has a version taken back by the models' thread: its trial ends, or the version before it comes back.
pub fn take_back(service: &Service, (model, version): (Arc<str>, u32), why: String) {
    tracing::warn!(model = &*model, version, why, "a version is taken back");
    let taken = (Arc::clone(&model), version);
    let left = service.models.leave(move |service| {
        let bundle = service.engine.in_force().bundle.clone();
        let taken = (Arc::clone(&model), version);
        let Some(policy) = bundle.policy(&model) else { return };
        let back = if policy.canary.is_some_and(|canary| canary.version == version) {
            Step::Canary(version, 0.0)
        } else if policy.aliases.champion == Some(version) && policy.aliases.previous.is_some() {
            Step::Rollback
        } else {
            return;
        };
        let asker = Asker { who: "guard".to_owned(), role: "operator", why };
        if let Err(error) = step(service, &model, back, false, &asker) {
            tracing::error!(model = &*model, version, %error, "a version could not be taken back");
            service.models.shadows.stays(&taken);
        }
    });
    if !left {
        tracing::error!("a version could not be taken back: too many changes of models wait");
        service.models.shadows.stays(&taken);
    }
}

/// One line in the server's own audit.
pub fn audit(service: &Service, asker: &Asker, what: &str, subject: &str) {
    service.audit.write(&Change {
        time_us: service.engine.clock().now().micros(),
        caller: &asker.who,
        role: asker.role,
        what,
        subject,
        detail: &asker.why,
    });
}

/// A version that reads features without a full window would score something else than it learnt.
fn may_read(service: &Service, loader: &Loader, model: &str, step: Step) -> Result<(), CallError> {
    let version = match step {
        Step::Promote(version) => version,
        Step::Canary(version, percent) if percent > 0.0 => version,
        _ => return Ok(()),
    };
    let manifest = loader.repository().manifest(model, version)?;
    let inputs = manifest.inputs.iter().map(|input| input.name.as_str());
    match service.warming.refusal(inputs, service.engine.clock().now()) {
        None => Ok(()),
        Some(why) => Err(ModelError::Data(format!("model `{model}` version {version}: {why}")).into()),
    }
}

/// A version that is not calibrated on this site does not count, so it must not take the place of one that does.
fn may_count(
    service: &Service,
    (before, built): (&ModelPolicy, &Bundle),
    model: &str,
    step: Step,
    uncalibrated: bool,
) -> Result<(), CallError> {
    let version = match step {
        Step::Promote(version) if before.aliases.champion.is_some() && !uncalibrated => version,
        Step::Canary(version, percent) if percent > 0.0 => version,
        _ => return Ok(()),
    };
    if built.is_calibrated(model, version) == Some(true) {
        return Ok(());
    }
    let progress = service.models.shadows.progress(model, version);
    let (how_far, what) = progress
        .map_or((String::new(), "put it in shadow and wait"), |(have, need)| (format!(" ({}/{})", grouped(have), grouped(need)), "wait"));
    let text =
        format!("model `{model}` version {version} is not calibrated on this site yet{how_far}: its score would count for nothing; {what}");
    Err(ModelError::Data(text).into())
}
