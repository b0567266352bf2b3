//! A model repository in an object store: its address enters, a local folder that follows it leaves.
//!
//! The rest of the program knows only the folder. Object stores are a feature of the build; without it an address is a clear error.

#[cfg(not(feature = "object-store"))]
mod absent;
#[cfg(feature = "object-store")]
mod objects;
#[cfg(feature = "object-store")]
mod pull;
#[cfg(feature = "object-store")]
mod push;
#[cfg(feature = "object-store")]
mod seen;
#[cfg(all(test, feature = "object-store"))]
pub(crate) mod tests;

use std::path::PathBuf;

use telltale_models::{ModelError, Repository};

use crate::config::Config;

#[cfg(not(feature = "object-store"))]
use absent::pull_at_start;
#[cfg(not(feature = "object-store"))]
pub use absent::{pull, push};
#[cfg(feature = "object-store")]
use pull::pull_at_start;
#[cfg(feature = "object-store")]
pub use pull::{Mirror, pull};
#[cfg(feature = "object-store")]
pub use push::push;

/// How long a start waits for a store when there is something here that can serve, seconds.
const START_SECONDS: u64 = 10;

/// What one look at a store found, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pulled {
    /// What was brought.
    pub brought: Vec<String>,
    /// What is not complete there yet.
    pub waiting: Vec<String>,
    /// What is wrong there, and why; each fails alone.
    pub refused: Vec<String>,
}

/// Why a repository in an object store cannot be followed or changed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// This program knows no object stores.
    #[error(
        "`{0}`: this program was built without object stores; build one with `cargo build --release -p telltale-service --features \
         object-store`, or copy the repository into a folder and set `models.path`"
    )]
    NotBuilt(String),
    /// The address or the options are wrong.
    #[error("`{url}`: {problem}; allowed: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///folder")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store does not answer, or refuses.
    #[error("object store, {what}: {problem}")]
    Store {
        /// What was tried.
        what: String,
        /// What the store said.
        problem: String,
    },
    /// Another process brings models into the same folder.
    #[error("another process brings models into `{}` at this moment; try again", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// What stands there, or here, is wrong.
    #[error("{0}")]
    Model(#[from] ModelError),
}

/// Where the models of a configuration stand on this machine; a repository in an object store is brought there first. An unreachable store is
/// no reason not to serve what was brought before.
///
/// # Errors
/// [`MirrorError`] when there is nothing to serve.
pub fn folder(config: &Config) -> Result<Option<PathBuf>, MirrorError> {
    let Some(url) = &config.models.repository else { return Ok(config.models.path.clone()) };
    let folder = mirrored(config);
    let known = || Repository::open(&folder).is_ok_and(|known| known.models().is_ok_and(|models| !models.is_empty()));
    let serves = known();
    let deadline = serves.then(|| std::time::Duration::from_secs(START_SECONDS));
    match pull_at_start(url, config.models.repository_options.as_deref(), &folder, deadline) {
        Ok(pulled) => {
            pulled.brought.iter().for_each(|what| tracing::info!(what, "brought from the object store"));
            pulled.waiting.iter().for_each(|what| tracing::warn!(what, "not complete in the object store yet"));
            pulled.refused.iter().for_each(|what| tracing::warn!(what, "wrong in the object store"));
            match pulled.refused.into_iter().next() {
                Some(problem) if !known() => Err(MirrorError::Model(ModelError::Data(problem))),
                _ => Ok(Some(folder)),
            }
        }
        Err(error @ (MirrorError::Store { .. } | MirrorError::Busy { .. } | MirrorError::Model(_))) if serves => {
            tracing::warn!(%error, "the object store could not be looked at; what is here serves");
            Ok(Some(folder))
        }
        Err(error) => Err(error),
    }
}

/// An address without what may be a secret.
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// The folder that follows a repository in an object store.
pub fn mirrored(config: &Config) -> PathBuf {
    config.data.join("models")
}
