//! Looks at the object store of a configuration again and again; the models' thread follows what comes into the folder that mirrors it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::{Config, Models};
use crate::mirror::{self, MirrorError, Pulled};
use crate::server::Service;

use super::yield_to_scoring;

/// How soon it is noticed that the server drains.
const STEP: Duration = Duration::from_millis(250);

/// Starts the thread, if the configuration names an object store; one that this program cannot follow was refused before.
///
/// # Errors
/// When the system gives no thread.
pub fn start(service: &Arc<Service>, config: &Config) -> std::io::Result<()> {
    if config.models.repository.is_some() {
        let (own, models, folder) = (Arc::downgrade(service), config.models.clone(), mirror::mirrored(config));
        std::thread::Builder::new().name("mirror".to_owned()).spawn(move || run(&own, &models, &folder))?;
    }
    Ok(())
}

fn run(service: &Weak<Service>, models: &Models, folder: &Path) {
    yield_to_scoring(10);
    let Some(url) = models.repository.as_deref() else { return };
    let every = Duration::from_secs(models.repository_seconds);
    let (mut passed, mut said) = (Duration::ZERO, BTreeSet::new());
    loop {
        std::thread::sleep(STEP);
        passed += STEP;
        let Some(service) = service.upgrade() else { return };
        if *service.draining.borrow() {
            return;
        }
        if passed < every {
            continue;
        }
        passed = Duration::ZERO;
        let changes = service.metrics.model_changes.clone();
        // The server must not wait for a store that does not answer.
        drop(service);
        let pulled = mirror::pull(url, models.repository_options.as_deref(), folder);
        let result = if pulled.as_ref().is_ok_and(|pulled| pulled.refused.is_empty()) { "changed" } else { "refused" };
        if result == "refused" || pulled.as_ref().is_ok_and(|pulled| !pulled.brought.is_empty()) {
            changes.with_label_values(&["store", result]).inc();
        }
        said = say(pulled, &said);
    }
}

/// Logs what is new; what was said at the last look and still holds is not said again. Returns what holds.
fn say(pulled: Result<Pulled, MirrorError>, said: &BTreeSet<String>) -> BTreeSet<String> {
    match pulled {
        Err(error) => {
            let error = error.to_string();
            if !said.contains(&error) {
                tracing::warn!(error, "the object store cannot be followed; what is here serves");
            }
            BTreeSet::from([error])
        }
        Ok(pulled) => {
            pulled.brought.iter().for_each(|what| tracing::info!(what, "brought from the object store"));
            for what in pulled.refused.iter().filter(|what| !said.contains(*what)) {
                tracing::warn!(what, "wrong in the object store; what is here serves");
            }
            for what in pulled.waiting.iter().filter(|what| !said.contains(*what)) {
                tracing::info!(what, "not complete in the object store yet");
            }
            pulled.refused.into_iter().chain(pulled.waiting).collect()
        }
    }
}
