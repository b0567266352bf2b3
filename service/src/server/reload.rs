//! Hot reload of the policy and of the databases of places: on SIGHUP and when their files change. A bad one leaves the old in force
//! and the log says why.

use std::path::PathBuf;
use std::sync::Arc;

use super::Service;
use super::audit::Change;
use crate::in_force::{PolicySource, policy_record};
use crate::stamp::{Stamp, stamps};

/// Watches a policy's files by time and size, then by content.
pub struct PolicyWatch {
    path: Option<PathBuf>,
    mode: Option<String>,
    seen: Vec<Stamp>,
}

impl PolicyWatch {
    /// Watches what the configuration names; nothing to watch for the built-in pack.
    pub fn new(path: Option<PathBuf>, mode: Option<String>) -> Self {
        let seen = path.as_deref().map(stamps).unwrap_or_default();
        Self { path, mode, seen }
    }

    /// Whether files have changed since the last look.
    pub fn has_changed(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let now = stamps(path);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }

    /// Reads and compiles the policy anew and puts it in force if it differs.
    pub fn reload(&self, service: &Service, author: &str) {
        let result = self.try_reload(service, author);
        let label = match &result {
            Ok(true) => "changed",
            Ok(false) => "unchanged",
            Err(problem) => {
                tracing::error!(%problem, "the new policy is not used; the old one stays in force");
                "refused"
            }
        };
        service.metrics.reloads.with_label_values(&[label]).inc();
    }

    fn try_reload(&self, service: &Service, author: &str) -> Result<bool, String> {
        let engine = &service.engine;
        let source = PolicySource::read(self.path.as_deref(), self.mode.as_deref()).map_err(|error| error.to_string())?;
        let policy = Arc::new(source.compile(&engine.schema).map_err(|error| error.to_string())?);
        if policy.digest() == engine.in_force().policy.digest() {
            return Ok(false);
        }
        let source = Arc::new(source);
        let record = policy_record(&policy, &source, author);
        let digest = policy.digest().to_owned();
        engine.change(engine.live(), |force, _| Some((force.with_policy(policy, source), record)));
        engine.in_force().warn_of_unknown_models();
        service.audit.write(&Change {
            time_us: engine.clock().now().micros(),
            caller: author,
            role: "operator",
            what: "policy",
            subject: &digest,
            detail: "reloaded",
        });
        Ok(true)
    }
}

/// Reads the databases of places anew, aside: a large one takes seconds.
pub fn reload_geo(service: &Arc<Service>) {
    let service = Arc::clone(service);
    tokio::task::spawn_blocking(move || {
        let Some(geo) = service.engine.geo() else { return };
        let result = match geo.reload() {
            Ok(()) => "changed",
            Err(error) => {
                tracing::error!(%error, "the new database of places is not used; the old ones stay in force");
                "refused"
            }
        };
        service.metrics.geo_reloads.with_label_values(&[result]).inc();
    });
}
