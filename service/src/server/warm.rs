//! History before the doors open: a snapshot and the own journal, or an input given for the purpose; then the journal begins.
//!
//! What changed while the server was down becomes a change like any other, so that the journal stays whole.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use telltale_features::schema::Templates;
use telltale_features::store::any::AnyStore;
use telltale_features::store::{Moment, Order, Sequence, Store};
use telltale_models::Bundle;
use telltale_policy::{Override, Overrides};
use telltale_proto::journal::v1::{Changed, DecisionChanged, TemplateChanged, journal_record::Kind};
use telltale_proto::v1;

use super::{ServeError, ServeOptions, Service, templates};
use crate::config::Config;
use crate::convert;
use crate::in_force::{InForce, calibration_record, model_record, policy_record, profile_record};
use crate::journal::{JournalOptions, files};
use crate::replay::{self, Format, Output, ReplayOptions, Resume};
use crate::score::Engine;

/// History first: the newest snapshot and what the own journal has after it, or the warm-up input where there is none yet; then the journal opens.
pub fn warm(service: &Arc<Service>, config: &Config, options: &ServeOptions) -> Result<(), ServeError> {
    let engine = &service.engine;
    let folder = config.data.join("journal");
    let own = config.journal.enabled && files(&folder).is_ok_and(|files| !files.is_empty());
    let configured = (*engine.in_force()).clone();
    let resume = super::snapshots::restore(service, config, options)?;
    let restored = resume.is_some();
    if own && engine.store.redis().is_some() {
        // Redis holds the state already; what else a journal tells (places in the order, calibrations, verdicts given, sessions) comes
        // from a replay beside it.
        let beside = Arc::new(engine.beside(AnyStore::from(crate::setup::embedded(config, &engine.schema))));
        replay_into(service, &beside, (folder.clone(), Format::Ndjson, None), options)?;
        engine.store.moment(Order::Recorded(beside.store.moment(Order::Live(beside.clock()))));
        engine.put_in_force((*beside.in_force()).clone());
    } else if own {
        let covered = replay_into(service, engine, (folder.clone(), Format::Ndjson, resume), options)?;
        backfill(service, covered, true);
    }
    if config.journal.enabled {
        let opened = engine.journal().open(JournalOptions {
            file_bytes: config.journal.file_mb << 20,
            total_bytes: config.journal.total_mb << 20,
            queue: config.journal.queue,
            sync_every: Duration::from_millis(config.journal.sync_ms),
            ..JournalOptions::in_folder(&folder)
        });
        opened.map_err(|source| ServeError::Data { path: folder.clone(), source })?;
    }
    let overrides = saved_overrides(service);
    if own {
        describe(engine, &engine.in_force());
        bring_up_to_date(engine, &configured, overrides);
        bring_templates_up_to_date(engine, &service.templates.in_force());
    } else {
        let force = configured.with_overrides(overrides).with_templates(service.templates.in_force());
        describe(engine, &force);
        engine.put_in_force(force);
    }
    match &options.warm {
        Some(_) if restored && !own => tracing::info!("a snapshot was read; the warm-up input is not needed"),
        Some(_) if own => tracing::info!("the own journal was replayed; the warm-up input is not needed"),
        Some(input) => {
            engine.journal().set_patient(true);
            let covered = replay_into(service, engine, (input.clone(), options.format, None), options)?;
            backfill(service, covered, false);
            engine.journal().set_patient(false);
        }
        None => {}
    }
    engine.restart_calibration();
    Ok(())
}

fn replay_into(
    service: &Service,
    engine: &Arc<Engine>,
    (input, format, resume): (PathBuf, Format, Option<Resume>),
    options: &ServeOptions,
) -> Result<Option<Moment>, ServeError> {
    let (after, first_file) = resume.as_ref().map_or((0, 0), |resume| (resume.sequence, resume.first_file));
    tracing::info!(input = %input.display(), after, first_file, "replaying");
    let replayed = ReplayOptions {
        input,
        format,
        strict: false,
        threads: crate::cli::threads(0),
        verdicts: None,
        features: None,
        progress: options.progress,
        recorded_policy: true,
    };
    let mut first: Option<Moment> = None;
    let mut remember = |output: Output| {
        service.remember(&output.scored);
        let Moment { sequence, .. } = output.scored.history.moment;
        let now = output.scored.history.event_time;
        first = Some(
            first.map_or(Moment { sequence, now }, |first| Moment { sequence: first.sequence.min(sequence), now: first.now.min(now) }),
        );
        Ok(())
    };
    let summary = match resume {
        Some(resume) => replay::resume(engine, (&replayed, resume), &mut remember)?,
        None => replay::feed(engine, &replayed, &mut remember)?,
    };
    let rate = summary.rate as u64;
    tracing::info!(transactions = summary.transactions, outcomes = summary.outcomes, malformed = summary.malformed, rate, "replayed");
    Ok(first)
}

/// Features have the history that was replayed. Number 1 stands in a journal from which nothing was deleted yet.
fn backfill(service: &Service, first: Option<Moment>, own: bool) {
    if let Some(first) = first {
        service.warming.backfilled(first.now, own && first.sequence == Sequence(1));
    }
}

/// What is in force, at the beginning of a journal file: outside the order, so that a journal whose oldest files are gone still
/// says what its first decisions were made with.
fn describe(engine: &Engine, force: &InForce) {
    let journal = engine.journal();
    let digest = engine.schema.digest().to_owned();
    journal.state(Kind::Changed(Changed { what: "schema".to_owned(), digest, ..Changed::default() }));
    journal.state(policy_record(&force.policy, &force.source, "start"));
    for (model, state) in force.bundle.states() {
        journal.state(model_record(model, state, "start"));
    }
    for (model, version, table) in force.bundle.calibrations() {
        journal.state(calibration_record(model, version, table, "start"));
    }
    for (model, version, profile) in force.bundle.profiles() {
        journal.state(profile_record(model, version, profile, "start"));
    }
    for ruling in force.overrides.iter() {
        let decision = Some(convert::override_to_proto(ruling, None, &engine.schema));
        journal.state(Kind::Decision(DecisionChanged { decision, removed: false }));
    }
    for template in force.templates.iter() {
        let template = Some(convert::template_to_proto(template, v1::TemplateState::InForce));
        journal.state(Kind::Template(TemplateChanged { template }));
    }
    if force.epoch.0 > 0 {
        let name = force.epoch.0.to_string();
        journal.state(Kind::Changed(Changed { what: "epoch".to_owned(), name, ..Changed::default() }));
    }
}

/// What changed while the server was down is a change like any other.
fn bring_up_to_date(engine: &Engine, configured: &InForce, overrides: Overrides) {
    let force = engine.in_force();
    if force.policy.digest() != configured.policy.digest() {
        let record = policy_record(&configured.policy, &configured.source, "start");
        let (policy, source) = (Arc::clone(&configured.policy), Arc::clone(&configured.source));
        engine.change(engine.live(), |force, _| Some((force.with_policy(policy, source), record)));
    }
    bring_models_up_to_date(engine, configured);
    let known = (*force.overrides).clone();
    for ruling in overrides.iter().filter(|ruling| known.iter().all(|other| other != *ruling)) {
        change_override(engine, ruling, false);
    }
    for ruling in known.iter().filter(|ruling| overrides.iter().all(|other| other.entity != ruling.entity)) {
        change_override(engine, ruling, true);
    }
}

/// The repository's policies as they are now hold, over what the journal says of them; the calibrations in the journal stay.
fn bring_models_up_to_date(engine: &Engine, configured: &InForce) {
    let force = engine.in_force();
    let names = |bundle: &Bundle| bundle.states().map(|(name, _)| name.to_owned()).collect::<BTreeSet<String>>();
    for model in &names(&force.bundle) | &names(&configured.bundle) {
        let find = |bundle: &Bundle| bundle.states().find(|(name, _)| *name == model).map(|(_, state)| state.clone());
        let now = find(&configured.bundle);
        if find(&force.bundle) != now {
            let record = model_record(&model, &now.unwrap_or_default(), "start");
            engine.change(engine.live(), |force, _| Some((force.with_bundle(force.bundle.adopting(&configured.bundle, &model)), record)));
        }
    }
    if let Some(loader) = &force.loader {
        loader.settle(&engine.in_force().bundle);
    }
}

/// The saved templates hold, over what the journal says of them.
fn bring_templates_up_to_date(engine: &Engine, saved: &Templates) {
    let known = Arc::clone(&engine.in_force().templates);
    let mut changes = Vec::new();
    for (these, those, state) in [(saved, &*known, v1::TemplateState::InForce), (&*known, saved, v1::TemplateState::Refused)] {
        for template in these.iter().filter(|template| !those.contains(template)) {
            changes.push((template.clone(), convert::template_to_proto(template, state)));
        }
    }
    templates::put(engine, changes);
}

/// Puts an override in force, or out of it, and journals that.
pub(super) fn change_override(engine: &Engine, ruling: &Override, removed: bool) {
    change_overrides(engine, &[(ruling.clone(), removed)]);
}

/// Puts overrides in force, or out of it where the flag says so, together, and journals each.
pub(super) fn change_overrides(engine: &Engine, changes: &[(Override, bool)]) {
    let record = |(ruling, removed): &(Override, bool)| {
        let mut decision = convert::override_to_proto(ruling, None, &engine.schema);
        if *removed {
            // The words are about somebody who may be to be forgotten; that it ended needs none.
            decision.reason.clear();
        }
        Kind::Decision(DecisionChanged { decision: Some(decision), removed: *removed })
    };
    engine.change_all(engine.live(), |force, _| {
        let mut overrides = (*force.overrides).clone();
        for (ruling, removed) in changes {
            overrides = if *removed { overrides.without(ruling.entity) } else { overrides.with(ruling.clone()) };
        }
        (!changes.is_empty()).then(|| (force.with_overrides(overrides), changes.iter().map(record).collect()))
    });
}

fn saved_overrides(service: &Service) -> Overrides {
    let schema = &service.engine.schema;
    let table = service.decisions.list();
    let overrides = table.iter().filter(|decision| decision.origin == v1::DecisionOrigin::Override as i32);
    Overrides::new(overrides.filter_map(|decision| {
        let ruling = convert::override_from_proto(decision, schema);
        ruling.inspect_err(|error| tracing::error!(%error, id = %decision.id, "a saved override cannot be used")).ok()
    }))
}
