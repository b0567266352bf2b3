//! A model repository in an object store: its address enters, a local folder that follows it leaves.
//!
//! The rest of the program knows only the folder. Object stores are a feature of the build; without it an address is a clear error.

#[cfg(feature = "object-store")]
mod store;
#[cfg(all(test, feature = "object-store"))]
mod tests;

use std::path::{Path, PathBuf};

use crate::config::Config;

#[cfg(feature = "object-store")]
pub use store::Mirror;

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
    #[error(
        "`{url}`: {problem}; allowed: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, https://host/prefix, file:///folder"
    )]
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
    /// What stands there, or here, is wrong.
    #[error("{0}")]
    Model(#[from] telltale_models::ModelError),
}

/// Where the models of a configuration stand on this machine; a repository in an object store is brought there first. An unreachable store is
/// no reason not to serve what was brought before.
///
/// # Errors
/// [`MirrorError`] when there is nothing to serve.
pub fn folder(config: &Config) -> Result<Option<PathBuf>, MirrorError> {
    match &config.models.repository {
        Some(url) => {
            let folder = config.data.join("models");
            bring(url, config.models.repository_options.as_deref(), &folder)?;
            Ok(Some(folder))
        }
        None => Ok(config.models.path.clone()),
    }
}

/// Starts the thread that looks at the object store of a configuration, if it names one.
///
/// # Errors
/// When the system gives no thread.
#[cfg(feature = "object-store")]
pub fn start(service: &std::sync::Arc<crate::server::Service>, config: &Config) -> std::io::Result<()> {
    if config.models.repository.is_some() {
        let (own, models, folder) = (std::sync::Arc::downgrade(service), config.models.clone(), config.data.join("models"));
        std::thread::Builder::new().name("mirror".to_owned()).spawn(move || store::follow(&own, &models, &folder))?;
    }
    Ok(())
}

/// Nothing: a configuration that names an object store was refused before.
///
/// # Errors
/// None.
#[cfg(not(feature = "object-store"))]
pub fn start(_: &std::sync::Arc<crate::server::Service>, _: &Config) -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(feature = "object-store"))]
fn bring(url: &str, _: Option<&Path>, _: &Path) -> Result<(), MirrorError> {
    Err(MirrorError::NotBuilt(url.to_owned()))
}

#[cfg(feature = "object-store")]
fn bring(url: &str, options: Option<&Path>, folder: &Path) -> Result<(), MirrorError> {
    let pulled = pull(url, options, folder);
    let known = telltale_models::Repository::open(folder).is_ok_and(|known| known.models().is_ok_and(|models| !models.is_empty()));
    match pulled {
        Err(error @ (MirrorError::Store { .. } | MirrorError::Model(_))) if known => {
            tracing::warn!(%error, "not all of the object store could be brought; what is here serves");
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// Brings what is new in a store into a folder, once. Returns what was brought, in words.
///
/// # Errors
/// [`MirrorError`].
#[cfg(not(feature = "object-store"))]
pub fn pull(url: &str, _: Option<&Path>, _: &Path) -> Result<Vec<String>, MirrorError> {
    Err(MirrorError::NotBuilt(url.to_owned()))
}

/// Brings what is new in a store into a folder, once. Returns what was brought, in words.
///
/// # Errors
/// [`MirrorError`].
#[cfg(feature = "object-store")]
pub fn pull(url: &str, options: Option<&Path>, folder: &Path) -> Result<Vec<String>, MirrorError> {
    let mut mirror = Mirror::open(url, options, folder)?;
    store::wait(async move || mirror.pull().await)
}

/// Brings a version of a folder, or only a model's policy, into a store.
///
/// # Errors
/// [`MirrorError`].
#[cfg(not(feature = "object-store"))]
pub fn push(url: &str, _: Option<&Path>, _: &Path, _: (&str, Option<u32>)) -> Result<Vec<String>, MirrorError> {
    Err(MirrorError::NotBuilt(url.to_owned()))
}

/// Brings a version of a folder, or only a model's policy, into a store.
///
/// # Errors
/// [`MirrorError`].
#[cfg(feature = "object-store")]
pub fn push(url: &str, options: Option<&Path>, folder: &Path, (model, version): (&str, Option<u32>)) -> Result<Vec<String>, MirrorError> {
    let (mut mirror, model) = (Mirror::open(url, options, folder)?, model.to_owned());
    store::wait(async move || mirror.push(&model, version).await)
}
