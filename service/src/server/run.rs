//! Start and end of the server: addresses are taken first, then history is read, then the doors open; at the end the other way round.
//!
//! Until it can serve nobody is let in: a connection to an address that is only taken is refused at once.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use telltale_proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::access::{Access, AccessError, Role};
use super::admission::Admission;
use super::api::Api;
use super::audit::Audit;
use super::chores::{chores, save_names};
use super::decisions::Decisions;
use super::forget::Forgetting;
use super::inference::Inference;
use super::listen::{bind, serve_grpc, serve_http, server, sockets};
use super::memory::{Bounds, Memory};
use super::metrics::Metrics;
use super::models::{Models, ModelsApi};
use super::names::Names;
use super::snapshots::{self, Snapshots};
use super::stream::Scorer;
use super::templates::{self, Templates, TemplatesApi};
use super::warm::warm;
use super::{Service, forget, sharing};
use crate::config::Config;
use crate::journal::Journal;
use crate::replay::{Format, ReplayError};
use crate::setup::{self, SetupError, SystemClock};
use crate::snapshot::SnapshotError;
use crate::token;
use crate::warming::Warming;

/// Largest message that brings a model: the file, and a little more.
const MODEL_BYTES: usize = 65 << 20;

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory `{}`: {source}; allowed is a folder that can be written", path.display())]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on `{listen}` ({key}): {source}; choose another one in the configuration or end who holds it")]
    Listen {
        /// Configuration key.
        key: &'static str,
        /// The address.
        listen: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tokens or certificates cannot be used.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// A certificate or key cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tonic::transport::Error),
    /// The engine cannot be put together.
    #[error("{0}")]
    Setup(#[from] SetupError),
    /// Warm-up failed.
    #[error("warm-up: {0}")]
    Warm(#[from] ReplayError),
    /// A snapshot of another installation.
    #[error("{0}")]
    Snapshot(SnapshotError),
    /// Metrics could not be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task died.
    #[error("a listener failed: {0}")]
    Task(String),
}

/// Longest wait for the last writes to a shared store.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// What the command line adds to the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Replayed into the store before listening, where the own journal is empty.
    pub warm: Option<PathBuf>,
    /// What its lines are.
    pub format: Format,
    /// Whether progress is shown.
    pub progress: bool,
}

/// A server that runs.
pub struct Running {
    service: Arc<Service>,
    /// Where scoring listens, for TCP.
    pub scoring: Option<SocketAddr>,
    /// Where administration listens, for TCP.
    pub admin: Option<SocketAddr>,
    /// Where metrics listen, for TCP.
    pub metrics: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<Result<(), ServeError>>>,
    chores: JoinHandle<()>,
    sharing: [JoinHandle<()>; 3],
    snapshots: JoinHandle<()>,
    /// Where a last snapshot goes, when there is no journal to have the rest.
    last_snapshot: Option<PathBuf>,
    health: HealthReporter,
    sockets: Vec<PathBuf>,
    drain: Duration,
    /// Released when everything else has ended.
    _lock: File,
}

/// Name under which health is told.
const SERVICE: &str = "telltale.v1.Scorer";

/// Starts the server: takes its addresses, replays, then opens.
///
/// # Errors
/// Everything that keeps it from starting, with what to do about it.
pub async fn serve(config: Config, options: ServeOptions) -> Result<Running, ServeError> {
    let data = |source| ServeError::Data { path: config.data.clone(), source };
    std::fs::create_dir_all(&config.data).map_err(data)?;
    let lock = lock(&config.data).map_err(data)?;
    let keys = token::keyring(&config.data).map_err(data)?;
    let audit = Audit::open(&config.data).map_err(data)?;
    let scoring = bind("scoring.listen", &config.scoring.listen).await?;
    let admin = bind("admin.listen", &config.admin.listen).await?;
    let metrics = bind("metrics.listen", &config.metrics.listen).await?;
    let access = access(&config)?;
    let tls = tls(&config)?;
    // From here on a SIGHUP means a reload; before, it would end the process.
    let hangup = signal(SignalKind::hangup()).map_err(|error| ServeError::Task(error.to_string()))?;

    let lanes = crate::cli::threads(config.scoring.threads);
    let journal = Journal::default();
    // Lanes more: what only watches or asks must not wait for a session that scores, nor the other way round.
    let all_lanes = lanes + Inference::lanes(&config.inference) + 1;
    let engine = setup::serving_engine(&config, all_lanes, keys.hasher(), Arc::new(SystemClock), journal).await?;
    let now = setup::SystemClock;
    let now = telltale_features::time::Clock::now(&now);
    let table = config.data.join("decisions.ndjson");
    let decisions = Decisions::open(Some(table), &engine.schema, keys.entity_secret(), now).map_err(data)?;
    let warming = Warming::open(&config.data, &engine.schema, now).map_err(data)?;
    if let Some(redis) = engine.store.redis()
        && let Err(error) = warming.share(redis, now).await
    {
        tracing::warn!(%error, "since when features are counted is known here only");
    }
    let service = Arc::new(Service {
        warming,
        inputs: Default::default(),
        inference: Inference::new(&config.inference),
        memory: Arc::new(Memory::new(Bounds {
            transactions: config.idempotency.transactions,
            micros: i64::try_from(config.idempotency.seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX),
            early: config.idempotency.early_outcomes,
        })),
        admission: Arc::new(Admission::new(config.scoring.max_concurrent, config.scoring.shed_from, config.scoring.shed_last.clone())),
        decisions,
        metrics: Metrics::new()?,
        models: Models::new(&engine, &config.models),
        names: Names::open(&config.data, config.names.max_mb << 20).map_err(data)?,
        forgetting: Forgetting::new(&config.data, &keys.entity_secret()),
        audit,
        snapshots: Snapshots::default(),
        templates: Templates::open(&config.data, &config.endpoints).map_err(data)?,
        longest: Duration::from_millis(config.scoring.deadline_ms),
        lanes: lanes.max(1),
        ready: AtomicBool::new(false),
        draining: watch::Sender::new(false),
        engine,
    });

    let (stop, _) = watch::channel(false);
    let metrics_at = metrics.address();
    // This door opens first: it says `not ready` until the others do.
    let mut listeners = vec![serve_http(metrics.open("metrics.listen", &config.metrics.listen)?, &service, &stop)];
    let warming = {
        let (service, config) = (Arc::clone(&service), config.clone());
        tokio::task::spawn_blocking(move || warm(&service, &config, &options))
    };
    warming.await.map_err(|error| ServeError::Task(error.to_string()))??;

    let addresses = (scoring.address(), admin.address());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(SERVICE, ServingStatus::Serving).await;
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure();
        builder.register_encoded_file_descriptor_set(telltale_proto::DESCRIPTORS).build_v1()
    };
    let api = Api(Arc::clone(&service));
    let reflect = reflection().map_err(|error| ServeError::Task(error.to_string()))?;
    let router = server(&tls)?.layer(access.clone()).add_service(Scorer::new(&service));
    let router = router.add_service(v1::decisions_server::DecisionsServer::new(api.clone()));
    let router = router.add_optional_service(Inference::start(&service).map_err(data)?);
    // Before the first transaction: what watches misses none.
    Models::start(&service, &config).map_err(data)?;
    templates::start(&service).map_err(data)?;
    let scoring = scoring.open("scoring.listen", &config.scoring.listen)?;
    listeners.push(serve_grpc(scoring, router.add_service(health_service.clone()).add_service(reflect), &stop));
    let reflect = reflection().map_err(|error| ServeError::Task(error.to_string()))?;
    let router = server(&tls)?.layer(access).add_service(v1::entities_server::EntitiesServer::new(api.clone()));
    let router = router.add_service(v1::decisions_server::DecisionsServer::new(api));
    let models = v1::models_server::ModelsServer::new(ModelsApi(Arc::clone(&service))).max_decoding_message_size(MODEL_BYTES);
    let router = router.add_service(models);
    let router = router.add_service(v1::templates_server::TemplatesServer::new(TemplatesApi(Arc::clone(&service))));
    let admin = admin.open("admin.listen", &config.admin.listen)?;
    listeners.push(serve_grpc(admin, router.add_service(health_service).add_service(reflect), &stop));

    let (sockets, drain) = (sockets(&config), Duration::from_millis(config.scoring.drain_ms));
    let last_snapshot = (!config.journal.enabled && config.store.snapshot_minutes > 0.0).then(|| config.data.clone());
    let snapshots = tokio::spawn(snapshots::run(Arc::clone(&service), config.clone()));
    let chores = tokio::spawn(chores(Arc::clone(&service), config, hangup));
    let sharing = [
        tokio::spawn(sharing::run::<Decisions>(Arc::clone(&service))),
        tokio::spawn(sharing::run::<Templates>(Arc::clone(&service))),
        tokio::spawn(forget::run(Arc::clone(&service))),
    ];
    service.ready.store(true, Ordering::Release);
    Ok(Running {
        service,
        scoring: addresses.0,
        admin: addresses.1,
        metrics: metrics_at,
        stop,
        listeners,
        chores,
        sharing,
        snapshots,
        last_snapshot,
        health,
        sockets,
        drain,
        _lock: lock,
    })
}

impl Running {
    /// Stops accepting, finishes what was accepted within the drain time, writes the journal's last block.
    ///
    /// # Errors
    /// When a listener had failed.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.service.ready.store(false, Ordering::Release);
        self.health.set_service_status(SERVICE, ServingStatus::NotServing).await;
        self.service.draining.send_replace(true);
        self.stop.send_replace(true);
        let mut result = Ok(());
        let until = tokio::time::Instant::now() + self.drain;
        for mut listener in self.listeners {
            match tokio::time::timeout_at(until, &mut listener).await {
                Ok(ended) => {
                    let ended = ended.map_err(|error| ServeError::Task(error.to_string()));
                    result = result.and(ended.and_then(|ended| ended));
                }
                Err(_) => {
                    // A caller that neither ends its call nor its connection must not keep the scorer from stopping.
                    tracing::warn!("callers were still connected when the drain time was over");
                    listener.abort();
                }
            }
        }
        for socket in &self.sockets {
            if let Err(error) = std::fs::remove_file(socket) {
                tracing::warn!(socket = %socket.display(), %error, "the socket's file cannot be removed");
            }
        }
        self.service.admission.drain();
        self.chores.abort();
        self.sharing.iter().for_each(JoinHandle::abort);
        self.snapshots.abort();
        let (service, last_snapshot) = (self.service, self.last_snapshot);
        if let Some(redis) = service.engine.store.redis()
            && !redis.flush(LAST_FLUSH).await
        {
            tracing::error!("Redis did not take everything back; what was not written is lost");
        }
        let closed = tokio::task::spawn_blocking(move || {
            match last_snapshot {
                Some(data) => {
                    snapshots::take(&service, &data);
                }
                None => service.snapshots.stop(),
            }
            let now = service.engine.clock().now();
            if let Err(error) = service.decisions.tick(now) {
                tracing::error!(%error, "the standing decisions could not be saved");
            }
            save_names(&service);
            service.engine.journal().close()
        });
        match closed.await {
            Ok(true) => {}
            Ok(false) | Err(_) => tracing::error!("the journal's last block could not be written"),
        }
        result
    }

    /// What is missing, in words.
    pub fn degraded(&self) -> Vec<String> {
        let bundle = &self.service.engine.in_force().bundle;
        setup::degraded(bundle, bundle.models().next().is_some() || !bundle.failures().is_empty())
    }

    /// What the RPCs share.
    #[cfg(test)]
    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }
}

/// Two scorers in one data directory would write one journal.
fn lock(data: &Path) -> std::io::Result<File> {
    let file = File::create(data.join("lock"))?;
    file.try_lock().map_err(|error| std::io::Error::new(std::io::ErrorKind::ResourceBusy, format!("another scorer uses it ({error})")))?;
    Ok(file)
}

fn access(config: &Config) -> Result<Access, ServeError> {
    let role = config.access.client_ca.as_ref().and_then(|_| Role::parse(&config.access.certificate_role));
    Ok(Access::new(config.access.tokens.as_deref(), role)?)
}

fn tls(config: &Config) -> Result<Option<ServerTlsConfig>, ServeError> {
    let (Some(certificate), Some(key), Some(authority)) = (&config.access.certificate, &config.access.key, &config.access.client_ca) else {
        return Ok(None);
    };
    let read = |path: &Path| std::fs::read(path).map_err(|source| ServeError::Certificate { path: path.to_path_buf(), source });
    let identity = Identity::from_pem(read(certificate)?, read(key)?);
    Ok(Some(ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(read(authority)?))))
}
