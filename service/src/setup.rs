//! Puts an engine together from a configuration: schema, policy, models, store. What is missing degrades or is a clear error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use telltale_features::hash::Hasher;
use telltale_features::schema::Schema;
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore};
use telltale_features::time::{Clock, Timestamp};
use telltale_features::yaml::Problems;
use telltale_models::{Bundle, ModelError, Repository, RuntimeOptions};

use crate::config::Config;
use crate::in_force::{InForce, PolicySource, PolicySourceError, yaml_files};
use crate::journal::Journal;
use crate::score::{Engine, Parts};

/// Why an engine could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A schema file cannot be read.
    #[error("cannot read the schema `{}`: {source}", path.display())]
    Schema {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The schema is wrong.
    #[error("{0}")]
    SchemaContent(#[from] Problems),
    /// The policy cannot be read or is wrong.
    #[error("{0}")]
    Policy(#[from] PolicySourceError),
    /// The model repository cannot be read.
    #[error("{0}")]
    Models(#[from] ModelError),
}

/// The system's clock: the only place that asks it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the others are given")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Reads the schema of a configuration.
///
/// # Errors
/// When it cannot be read or is wrong.
pub fn schema(path: Option<&Path>) -> Result<Schema, SetupError> {
    let Some(path) = path else { return Ok(Schema::shipped()) };
    let files = yaml_files(path).map_err(|source| SetupError::Schema { path: path.to_path_buf(), source })?;
    Ok(Schema::from_sources(&files)?)
}

/// Puts an engine together.
///
/// # Errors
/// When schema or policy cannot be used, or the model repository cannot be read. A model that fails is only listed.
pub fn engine(
    config: &Config,
    lanes: usize,
    hasher: Hasher,
    clock: Arc<dyn Clock>,
    journal: Journal,
) -> Result<Arc<Engine<EmbeddedStore>>, SetupError> {
    let schema = Arc::new(schema(config.schema.path.as_deref())?);
    let source = PolicySource::read(config.policy.path.as_deref(), config.policy.mode.as_deref())?;
    let policy = source.compile(&schema)?;
    let bundle = bundle(config, &schema, lanes)?;
    let max_bytes = config.store.max_mb << 20;
    Ok(Arc::new(Engine::new(Parts {
        store: EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes }),
        force: InForce::new(policy, source, bundle, &schema),
        schema,
        hasher,
        clock,
        calibration_rows: config.models.calibration_rows,
        journal,
    })))
}

/// Loads the models of a configuration; without a repository, none.
///
/// # Errors
/// When the repository cannot be listed.
pub fn bundle(config: &Config, schema: &Schema, lanes: usize) -> Result<Bundle, SetupError> {
    let Some(path) = &config.models.path else { return Ok(Bundle::none()) };
    let mut options = RuntimeOptions {
        lanes: lanes.max(1),
        calibration_rows: config.models.calibration_rows,
        shipped_calibration: config.models.shipped_calibration,
        ..RuntimeOptions::default()
    };
    if let Some(runtime) = &config.models.runtime {
        options.library.clone_from(runtime);
    }
    Ok(Repository::open(path)?.load(schema, &options)?)
}

/// What is missing, in words: said at start and in every verdict.
pub fn degraded(bundle: &Bundle, has_repository: bool) -> Vec<String> {
    let mut missing: Vec<String> = bundle.failures().iter().map(|failure| format!("model {}: {}", failure.model, failure.reason)).collect();
    if !has_repository {
        missing.push("no model repository: rules only".to_owned());
    }
    missing
}
