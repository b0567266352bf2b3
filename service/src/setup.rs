//! Puts an engine together from a configuration: schema, policy, models, store. What is missing degrades or is a clear error.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use telltale_features::hash::Hasher;
use telltale_features::schema::Schema;
use telltale_features::store::any::AnyStore;
use telltale_features::store::embedded::{EmbeddedOptions, EmbeddedStore};
use telltale_features::store::redis::{
    Acknowledge, Credentials, Names, NamesKey, RedisOptions, RedisOptionsError, RedisStore, Secret, Tls, Topology,
};
use telltale_features::time::{Clock, Timestamp};
use telltale_features::yaml::Problems;
use telltale_models::contain::{Containment, Deadlines};
use telltale_models::repository::FeatureIndex;
use telltale_models::trust::{Require, Trust};
use telltale_models::{Bundle, Loader, ModelError, Repository, RuntimeOptions, Which};

use crate::config::Config;
use crate::geo::{Geo, GeoError};
use crate::in_force::{InForce, PolicySource, PolicySourceError, yaml_files};
use crate::journal::Journal;
use crate::mirror::{self, MirrorError};
use crate::score::{Engine, Parts};
use crate::token;

/// In the place of a file: names without a secret.
const UNKEYED: &str = "unkeyed";

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
    /// The repository in an object store cannot be followed.
    #[error("{0}")]
    Mirror(#[from] MirrorError),
    /// A password or certificate for Redis cannot be read.
    #[error("cannot read `{}` ({key}): {source}", path.display())]
    RedisFile {
        /// Configuration key.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Two secrets of names cannot be told apart.
    #[error(
        "`{}` (store.redis.{key}) and `{}` (store.redis.names_key) both have number {id}; allowed: a secret made by `telltale state \
         new-names-key FILE --after FILE`", path.display(), names_key.display()
    )]
    NamesKeys {
        /// Configuration key.
        key: &'static str,
        /// Its file.
        path: PathBuf,
        /// The other file.
        names_key: PathBuf,
        /// Their number.
        id: u32,
    },
    /// A database of places cannot be used.
    #[error("{0}")]
    Geo(#[from] GeoError),
    /// The Redis store cannot be used as configured.
    #[error("{0}")]
    Redis(#[from] RedisOptionsError),
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

/// Puts an engine together on the embedded store: replay, evaluation, and `serve` unless it is told otherwise.
///
/// # Errors
/// When schema, policy or a database of places cannot be used, or the model repository cannot be read. A model that fails is only listed.
pub fn engine(config: &Config, lanes: usize, hasher: Hasher, clock: Arc<dyn Clock>, journal: Journal) -> Result<Arc<Engine>, SetupError> {
    let engine = Engine::new(parts(config, lanes, hasher, clock, journal)?);
    Ok(Arc::new(engine.with_geo(Geo::open(&config.geo.databases)?).with_hints(config.reasons.hints())))
}

/// The same on the store that the configuration names.
///
/// # Errors
/// As [`engine`], and when the options for Redis cannot be used. A Redis that cannot be reached is no error: state is kept here until
/// it can.
pub async fn serving_engine(
    config: &Config,
    lanes: usize,
    hasher: Hasher,
    clock: Arc<dyn Clock>,
    journal: Journal,
) -> Result<Arc<Engine>, SetupError> {
    let mut parts = parts(config, lanes, hasher, Arc::clone(&clock), journal)?;
    if config.store.kind == "redis" {
        let options = redis_options(config)?;
        parts.store = RedisStore::start(options, parts.schema.plans(), clock).await?.into();
    }
    Ok(Arc::new(Engine::new(parts).with_geo(Geo::open(&config.geo.databases)?).with_hints(config.reasons.hints())))
}

fn parts(config: &Config, lanes: usize, hasher: Hasher, clock: Arc<dyn Clock>, journal: Journal) -> Result<Parts<AnyStore>, SetupError> {
    let schema = Arc::new(schema(config.schema.path.as_deref())?);
    let source = PolicySource::read(config.policy.path.as_deref(), config.policy.mode.as_deref())?;
    let policy = source.compile(&schema)?;
    let (bundle, loader) = models(config, &schema, lanes)?;
    let force = InForce::new(policy, source, bundle, &schema).with_loader(loader);
    force.warn_of_unknown_models();
    Ok(Parts {
        store: embedded(config, &schema).into(),
        force,
        schema,
        hasher,
        clock,
        calibration_rows: config.models.calibration_rows,
        journal,
    })
}

/// An empty embedded store.
pub fn embedded(config: &Config, schema: &Schema) -> EmbeddedStore {
    EmbeddedStore::new(schema.plans(), EmbeddedOptions { max_bytes: config.store.max_mb << 20 })
}

/// What `[store.redis]` says, with its passwords and certificates read.
///
/// # Errors
/// When a file cannot be read.
pub fn redis_options(config: &Config) -> Result<RedisOptions, SetupError> {
    let redis = &config.store.redis;
    let password = |key, path: &Option<PathBuf>| -> Result<Option<Secret>, SetupError> {
        Ok(read(key, path)?.map(|text| Secret(String::from_utf8_lossy(&text).trim_end_matches(['\n', '\r']).to_owned())))
    };
    let tls = if redis.tls {
        let (certificate, key) = (read("store.redis.certificate", &redis.certificate)?, read("store.redis.key", &redis.key)?);
        Some(Tls { authority: read("store.redis.ca", &redis.ca)?, identity: certificate.zip(key) })
    } else {
        None
    };
    let random = Path::new("/dev/urandom");
    let mut options = RedisOptions::single("", random_number(random).map_err(|source| file_error("its random number", random, source))?);
    options.topology = match redis.topology.as_str() {
        "sentinel" => Topology::Sentinel { master: redis.master.clone() },
        "cluster" => Topology::Cluster,
        _ => Topology::Single,
    };
    options.addresses.clone_from(&redis.addresses);
    options.credentials =
        Credentials { username: redis.username.clone(), password: password("store.redis.password_file", &redis.password_file)? };
    options.sentinel_credentials = Credentials {
        username: redis.sentinel_username.clone(),
        password: password("store.redis.sentinel_password_file", &redis.sentinel_password_file)?,
    };
    options.tls = tls;
    options.database = redis.database;
    options.prefix.clone_from(&redis.prefix);
    options.names = names(config)?;
    options.max_bytes = config.store.max_mb << 20;
    options.read_deadline = Duration::from_micros(redis.read_deadline_us);
    options.flush_every = Duration::from_millis(redis.flush_ms);
    options.flush_deadline = Duration::from_millis(redis.flush_deadline_ms);
    options.lag = Duration::from_millis(redis.lag_ms);
    options.claims = (redis.idempotency == "strict").then(|| Duration::from_secs(config.idempotency.seconds.max(1)));
    options.acknowledge = match redis.acknowledge.as_str() {
        "sync" => Acknowledge::Synchronous { replicas: redis.replicas },
        _ => Acknowledge::Asynchronous,
    };
    Ok(options)
}

/// Under which secrets entities are named in Redis.
///
/// # Errors
/// When a secret cannot be read, or two have one number.
pub fn names(config: &Config) -> Result<Names, SetupError> {
    let redis = &config.store.redis;
    let secret = |key, path: &Option<PathBuf>| -> Result<Option<NamesKey>, SetupError> {
        path.as_ref().map(|path| token::names_key(path).map_err(|source| file_error(key, path, source))).transpose()
    };
    let current = secret("store.redis.names_key", &redis.names_key)?;
    let before = redis.names_key_before.clone().filter(|path| path.as_os_str() != UNKEYED);
    let next = secret("store.redis.names_key_next", &redis.names_key_next)?;
    let before = secret("store.redis.names_key_before", &before)?;
    for (key, path, other) in [("names_key_next", &redis.names_key_next, &next), ("names_key_before", &redis.names_key_before, &before)] {
        if let (Some(one), Some(other), Some(path), Some(names_key)) = (&current, other, path, &redis.names_key)
            && one.id == other.id
        {
            return Err(SetupError::NamesKeys { key, path: path.clone(), names_key: names_key.clone(), id: one.id });
        }
    }
    Ok(match (current, next) {
        (current, Some(next)) => Names::until_moved(current, next),
        (Some(current), None) if redis.names_key_before.is_some() => Names::moving(current, before),
        (current, None) => Names::under(current),
    })
}

fn read(key: &'static str, path: &Option<PathBuf>) -> Result<Option<Vec<u8>>, SetupError> {
    path.as_ref().map(|path| std::fs::read(path).map_err(|source| file_error(key, path, source))).transpose()
}

fn file_error(key: &'static str, path: &Path, source: std::io::Error) -> SetupError {
    SetupError::RedisFile { key, path: path.to_path_buf(), source }
}

/// The number of this process among the writers of a blob: new at every start.
fn random_number(source: &Path) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open(source)?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Loads the models of a configuration, with what loads more of them; without a repository, none.
///
/// # Errors
/// When the repository cannot be listed.
pub fn models(config: &Config, schema: &Schema, lanes: usize) -> Result<(Bundle, Option<Arc<Loader>>), SetupError> {
    let Some(loader) = loader(config, schema, lanes)? else { return Ok((Bundle::none(), None)) };
    Ok((loader.bundle()?, Some(Arc::new(loader))))
}

/// What loads the models of a configuration; `None` without a repository.
///
/// # Errors
/// When the repository cannot be listed.
pub fn loader(config: &Config, schema: &Schema, lanes: usize) -> Result<Option<Loader>, SetupError> {
    let Some(path) = mirror::folder(config)? else { return Ok(None) };
    let mut options = RuntimeOptions {
        lanes: lanes.max(1),
        calibration_rows: config.models.calibration_rows,
        shipped_calibration: config.models.shipped_calibration,
        max_bytes: config.models.max_mb << 20,
        contained: match config.models.contain.as_str() {
            "all" => Which::All,
            "none" => Which::None,
            _ => Which::Foreign,
        },
        containment: Some(containment(config)?),
        trust: trust(config)?,
        ..RuntimeOptions::default()
    };
    if let Some(runtime) = &config.models.runtime {
        options.library.clone_from(runtime);
    }
    // Workers run in another folder.
    options.library = std::path::absolute(&options.library).unwrap_or(options.library);
    Ok(Some(Loader::new(Repository::open(path)?, FeatureIndex::of(schema), options)))
}

/// Whose signatures are believed.
fn trust(config: &Config) -> Result<Trust, ModelError> {
    let require = Require::named(&config.models.require_signature).unwrap_or_default();
    Trust::new(&config.models.trusted_keys, require).map_err(|problem| ModelError::Data(format!("`models.trusted_keys`: {problem}")))
}

/// How foreign models are contained: by this program, in an empty folder.
fn containment(config: &Config) -> Result<Containment, SetupError> {
    let program = match &config.models.worker {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(ModelError::io("find the program of", "telltale"))?,
    };
    let folder = config.data.join("workers");
    let folder = std::path::absolute(&folder).map_err(ModelError::io("find", &folder))?;
    let row = Duration::from_millis(config.models.deadline_ms);
    let deadlines = Deadlines { row, ..Deadlines::default() };
    Ok(Containment { program, folder, memory_bytes: config.models.worker_mb << 20, deadlines, locked: true, aside: false })
}

/// What is missing, in words: said at start and in every verdict.
pub fn degraded(bundle: &Bundle, has_repository: bool) -> Vec<String> {
    let mut missing: Vec<String> = bundle.failures().iter().map(|failure| format!("model {}: {}", failure.model, failure.reason)).collect();
    if !has_repository {
        missing.push("no model repository: rules only".to_owned());
    }
    missing
}
