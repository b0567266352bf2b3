//! Follows the repository: a policy that somebody changed by hand, a model that appeared or went. A bad one changes nothing and is said once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use telltale_models::{ModelError, ModelState};

use super::change::{audit, flip};
use super::{Asker, loader};
use crate::server::Service;
use crate::server::errors::CallError;

/// Time and size of a file; `None` when it is not there.
type Stamp = Option<(Option<SystemTime>, u64)>;

/// What was seen of the repository at the last look.
#[derive(Default)]
pub struct Follow {
    seen: BTreeMap<String, Stamp>,
}

impl Follow {
    /// Looks once. The first look compares every model with what is in force: files may have changed since it was loaded.
    pub fn look(&mut self, service: &Service) {
        // A repository that cannot be read for a moment takes no model away.
        let Some(now) = stamps(service) else { return };
        let gone = self.seen.keys().filter(|name| !now.contains_key(*name)).cloned();
        let changed = now.iter().filter(|(name, stamp)| self.seen.get(*name) != Some(stamp)).map(|(name, _)| name.clone());
        let names: Vec<String> = gone.chain(changed).collect();
        self.seen = now;
        for name in names {
            if let Err(error) = follow(service, &name) {
                tracing::error!(model = name, %error, "the repository's change is not followed; what was in force stays");
                service.metrics.model_changes.with_label_values(&["file", "refused"]).inc();
            }
        }
    }
}

fn follow(service: &Service, model: &str) -> Result<(), CallError> {
    let loader = loader(service)?;
    let there = loader.repository().root().join(model).join("policy.toml").is_file();
    let state = if there { loader.state(model)? } else { ModelState::default() };
    let bundle = service.engine.in_force().bundle.clone();
    if bundle.policy(model).cloned().unwrap_or_default() == state.policy {
        return Ok(());
    }
    let built = loader.apply(&bundle, model, &state)?;
    let asker = Asker { who: "file change".to_owned(), role: "operator", why: format!("revision {}", state.policy.revision) };
    flip(service, &loader, &built, model, (&state, &asker.who));
    service.metrics.model_changes.with_label_values(&["file", "changed"]).inc();
    audit(service, &asker, "model", model);
    Ok(())
}

fn stamps(service: &Service) -> Option<BTreeMap<String, Stamp>> {
    let repository = loader(service).ok()?.repository().clone();
    let names = repository.models().inspect_err(|error| tracing::warn!(%error, "the model repository cannot be looked at")).ok()?;
    Some(names.into_iter().map(|name| (name.clone(), stamp(&repository.root().join(name).join("policy.toml")))).collect())
}

fn stamp(path: &Path) -> Stamp {
    let metadata = path.metadata().map_err(ModelError::io("read", path)).ok()?;
    Some((metadata.modified().ok(), metadata.len()))
}
