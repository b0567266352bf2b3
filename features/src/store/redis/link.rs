//! Connections: one server, the master that Sentinels name, or a Cluster, each behind the same few calls.
//!
//! Keys enter, values and answers leave; how entities are written stands in `write.rs`. A connection that failed is dropped here and made anew by the keeper; no call
//! waits for that. Reads and writes have a connection each, so that a large flush never stands before a read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, TlsCertificates, TlsMode, Value, cmd,
};
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;

use super::cluster::{self, Call, Cluster};
use super::options::{Acknowledge, Credentials, RedisOptions, RedisOptionsError, Tls, Topology};
use super::sole::{Sole, Token};
use super::value::SCRIPT;
use super::write::Watch;
use crate::store::Claim;

/// Longest time for a connection to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// A connection; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Node(MultiplexedConnection),
    Cluster(Arc<Cluster>),
}

/// One way to Redis, up or down.
pub(super) struct Link {
    pub(super) options: Arc<RedisOptions>,
    /// The script's.
    pub(super) digest: String,
    connection: RwLock<Option<Connection>>,
    /// Which server this leads to: a number of its process; 0 where that is not known.
    server: AtomicU64,
    pub(super) sole: Mutex<Sole>,
    pub(super) watch: tokio::sync::Mutex<Option<Watch>>,
    /// Writes that were done without a look.
    pub(super) sole_writes: AtomicU64,
}

impl Link {
    /// Down.
    pub(super) fn new(options: Arc<RedisOptions>) -> Self {
        static CRYPTOGRAPHY: Once = Once::new();
        // An error says that another part of the process has chosen already, which is as good.
        CRYPTOGRAPHY.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        Self {
            options,
            digest: ::redis::Script::new(SCRIPT).get_hash().to_owned(),
            connection: RwLock::new(None),
            server: AtomicU64::new(0),
            sole: Mutex::default(),
            watch: tokio::sync::Mutex::default(),
            sole_writes: AtomicU64::new(0),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.read().is_some()
    }

    /// Gives the connection up.
    pub(super) fn drop_connection(&self) {
        *self.connection.write() = None;
        self.forget_server();
        self.sole.lock().end();
    }

    /// Makes a connection, if it is down.
    pub(super) async fn connect(&self) -> RedisResult<()> {
        if self.is_up() {
            return Ok(());
        }
        let made = timeout(CONNECT * 2, connection(&self.options)).await.map_err(|_| timed_out())??;
        let server = match &made {
            Connection::Node(node) => timeout(CONNECT, server(node.clone())).await.unwrap_or_default(),
            Connection::Cluster(_) => 0,
        };
        self.sole.lock().end();
        self.server.store(server, Ordering::Relaxed);
        *self.connection.write() = Some(made);
        Ok(())
    }

    /// Which server this leads to; 0 where that is not known.
    pub(super) fn server(&self) -> u64 {
        self.server.load(Ordering::Relaxed)
    }

    /// What is read there is relied on no more, until there is a new connection.
    pub(super) fn forget_server(&self) {
        self.server.store(0, Ordering::Relaxed);
    }

    /// Whether both lead to the same server.
    pub(super) fn is_with(&self, other: &Self) -> bool {
        self.server() != 0 && self.server() == other.server()
    }

    /// The token that stands there, as far as is known.
    pub(super) fn token(&self) -> Token {
        self.sole.lock().standing()
    }

    /// Brings the map of a Cluster up to date, where it turned out to be wrong.
    pub(super) async fn tend(&self) {
        if let Ok(Connection::Cluster(cluster)) = self.connection() {
            cluster.tend().await;
        }
    }

    /// The values of some keys, and whose a transaction is: one round trip to each node.
    pub(super) async fn get(&self, keys: &[String], claim: Option<(String, Duration)>) -> RedisResult<(Vec<Option<Vec<u8>>>, Claim)> {
        if let Some((claim, stands)) = claim {
            return self.get_and_claim(keys, &claim, stands).await;
        }
        let found = match self.connection()? {
            Connection::Node(mut node) => {
                // One command for all of them: a server spends about a fifth less on it than on as many GETs.
                cmd("MGET").arg(keys).query_async(&mut node).await
            }
            Connection::Cluster(cluster) => {
                let call = |key: &String| {
                    let mut get = cmd("GET");
                    get.arg(key);
                    (cluster::slot(key.as_bytes()), get)
                };
                let calls: Vec<Call> = keys.iter().map(call).collect();
                let answers = cluster.call(&calls).await.into_iter();
                answers.map(|answer| Ok(::redis::from_redis_value(answer?)?)).collect()
            }
        };
        found.map(|found| (found, Claim::Unasked)).inspect_err(|error| self.note(error))
    }

    /// The claim is made and read in the same pipeline. Without room for it (`maxmemory`) the values are there all the same.
    async fn get_and_claim(&self, keys: &[String], claim: &str, stands: Duration) -> RedisResult<(Vec<Option<Vec<u8>>>, Claim)> {
        let call = |name: &str, key: &str| {
            let mut call = cmd(name);
            call.arg(key);
            (cluster::slot(key.as_bytes()), call)
        };
        let mut calls: Vec<Call> = keys.iter().map(|key| call("GET", key)).collect();
        let (slot, mut set) = call("SET", claim);
        set.arg("").arg("NX").arg("PX").arg(u64::try_from(stands.as_millis()).unwrap_or(u64::MAX));
        calls.extend([(slot, set), call("GET", claim)]);
        let mut answers = self.ask(calls).await.inspect_err(|error| self.note(error))?;
        let claimed = (answers.pop(), answers.pop());
        let found = answers.into_iter().map(|answer| Ok(::redis::from_redis_value(answer?)?));
        let found = found.collect::<RedisResult<_>>().inspect_err(|error| self.note(error))?;
        Ok((found, whose(claimed)))
    }

    /// Writes values that live for that long.
    pub(super) async fn put(&self, values: &[(String, Vec<u8>)], lives: Duration) -> RedisResult<()> {
        let call = |(key, value): &(String, Vec<u8>)| {
            let mut set = cmd("SET");
            set.arg(key).arg(value.as_slice()).arg("PX").arg(u64::try_from(lives.as_millis()).unwrap_or(u64::MAX));
            (cluster::slot(key.as_bytes()), set)
        };
        let answers = self.ask(values.iter().map(call).collect()).await;
        answers.and_then(|answers| answers.into_iter().try_for_each(|answer| answer.map(drop))).inspect_err(|error| self.note(error))
    }

    /// Calls in one pipeline a node, each with its own answer.
    async fn ask(&self, calls: Vec<Call>) -> RedisResult<Vec<RedisResult<Value>>> {
        match self.connection()? {
            Connection::Node(mut node) => {
                let mut pipeline = ::redis::Pipeline::with_capacity(calls.len());
                for (_, call) in calls {
                    pipeline.add_command(call);
                }
                pipeline.ignore_errors().query_async(&mut node).await
            }
            Connection::Cluster(cluster) => Ok(cluster.call(&calls).await),
        }
    }

    /// Each master's clock, microseconds since 1970.
    pub(super) async fn time(&self) -> RedisResult<Vec<i64>> {
        let answers = match self.connection()? {
            Connection::Node(mut node) => vec![cmd("TIME").query_async::<(i64, i64)>(&mut node).await],
            Connection::Cluster(cluster) => cluster.time().await?.into_iter().map(Ok).collect(),
        };
        let micros = |(seconds, micros): (i64, i64)| seconds.saturating_mul(1_000_000).saturating_add(micros);
        answers.into_iter().map(|answer| answer.map(micros)).collect::<RedisResult<_>>().inspect_err(|error| self.note(error))
    }

    /// One command on that key.
    pub(super) async fn command(&self, key: &str, command: &Cmd) -> RedisResult<Value> {
        let answer = match self.connection()? {
            Connection::Node(mut node) => command.query_async(&mut node).await,
            Connection::Cluster(cluster) => {
                let answers = cluster.call(&[(cluster::slot(key.as_bytes()), command.clone())]).await;
                answers.into_iter().next().unwrap_or_else(|| Err(timed_out()))
            }
        };
        answer.inspect_err(|error| self.note(error))
    }

    pub(super) fn connection(&self) -> RedisResult<Connection> {
        self.connection.read().clone().ok_or_else(timed_out)
    }

    /// An error after which this connection is of no use: it is gone, or it leads to one that is master no more.
    pub(super) fn note(&self, error: &RedisError) {
        let cluster = matches!(self.options.topology, Topology::Cluster);
        let useless =
            error.is_connection_dropped() || error.is_unrecoverable_error() || matches!(error.code(), Some("READONLY" | "NOAUTH"));
        if useless && !cluster {
            self.drop_connection();
        }
    }
}

/// What the two commands of a claim were answered with, the last one first.
fn whose((read, set): (Option<RedisResult<Value>>, Option<RedisResult<Value>>)) -> Claim {
    match (set, read) {
        (Some(Ok(Value::Okay)), _) => Claim::Won,
        (Some(Ok(Value::Nil)), Some(Ok(Value::BulkString(decision)))) => Claim::Lost(decision.into()),
        (Some(Ok(Value::Nil)), _) => Claim::Lost(Box::default()),
        _ => Claim::Unasked,
    }
}

pub(super) fn timed_out() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

/// What the options say in the client's terms.
pub(super) fn check(options: &RedisOptions) -> Result<(), RedisOptionsError> {
    if options.addresses.is_empty() {
        return Err(RedisOptionsError::NoAddress);
    }
    for address in &options.addresses {
        parse(address, options.tls.is_some()).ok_or_else(|| RedisOptionsError::Address(address.clone()))?;
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    if options.prefix.is_empty() || options.prefix.len() > 64 || !options.prefix.chars().all(allowed) {
        return Err(RedisOptionsError::Prefix(options.prefix.clone()));
    }
    match (&options.topology, options.acknowledge) {
        (Topology::Cluster, Acknowledge::Synchronous { replicas: 1.. }) => Err(RedisOptionsError::Topology(
            "waiting for replicas is not possible on a Cluster; allowed there: `async` or `sync` without replicas",
        )),
        (Topology::Cluster, _) if options.database != 0 => Err(RedisOptionsError::Topology("a Cluster has database 0 only")),
        (Topology::Single, _) if options.addresses.len() > 1 => Err(RedisOptionsError::Topology(
            "several addresses are given for a single server; allowed: one, or topology `sentinel` or `cluster`",
        )),
        _ => Ok(()),
    }
}

fn parse(address: &str, tls: bool) -> Option<ConnectionAddr> {
    if let Some(path) = address.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| ConnectionAddr::Unix(path.into()));
    }
    let (host, port) = address.rsplit_once(':')?;
    let (host, port) = (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?);
    let plain = !host.is_empty() && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:".contains(letter));
    let address =
        if tls { ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None } } else { ConnectionAddr::Tcp(host, port) };
    plain.then_some(address)
}

fn addresses(options: &RedisOptions) -> Vec<ConnectionAddr> {
    options.addresses.iter().filter_map(|address| parse(address, options.tls.is_some())).collect()
}

fn certificates(tls: &Tls) -> TlsCertificates {
    let client_tls = tls.identity.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    TlsCertificates { client_tls, root_cert: tls.authority.clone() }
}

fn settings(credentials: &Credentials, database: i64) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(database);
    if let Some(username) = &credentials.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &credentials.password {
        settings = settings.set_password(&password.0);
    }
    settings
}

async fn connection(options: &Arc<RedisOptions>) -> RedisResult<Connection> {
    match &options.topology {
        Topology::Single => {
            let address = addresses(options).into_iter().next().ok_or_else(timed_out)?;
            let info = address.into_connection_info()?.set_redis_settings(settings(&options.credentials, options.database));
            Ok(Connection::Node(node(options, client(options, info)?).await?))
        }
        Topology::Sentinel { master } => {
            let mut builder = SentinelClientBuilder::new(addresses(options), master, SentinelServerType::Master)?
                .set_client_to_redis_db(options.database);
            if let Some(username) = &options.credentials.username {
                builder = builder.set_client_to_redis_username(username);
            }
            if let Some(password) = &options.credentials.password {
                builder = builder.set_client_to_redis_password(&password.0);
            }
            if let Some(username) = &options.sentinel_credentials.username {
                builder = builder.set_client_to_sentinel_username(username);
            }
            if let Some(password) = &options.sentinel_credentials.password {
                builder = builder.set_client_to_sentinel_password(&password.0);
            }
            if let Some(tls) = &options.tls {
                builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
                builder =
                    builder.set_client_to_redis_certificates(certificates(tls)).set_client_to_sentinel_certificates(certificates(tls));
            }
            let client = builder.build()?.async_get_client().await?;
            Ok(Connection::Node(node(options, client).await?))
        }
        Topology::Cluster => Ok(Connection::Cluster(Arc::new(Cluster::connect(Arc::clone(options)).await?))),
    }
}

/// The key of the token of who wrote last.
pub(super) fn token_key(options: &RedisOptions) -> String {
    format!("{}:{{writer}}", options.prefix)
}

/// A number of the server's process; 0 where the user may not ask for it.
async fn server(mut node: MultiplexedConnection) -> u64 {
    let told = cmd("INFO").arg("server").query_async::<String>(&mut node).await.unwrap_or_default();
    let id = told.lines().find_map(|line| line.strip_prefix("run_id:"));
    id.and_then(|id| u64::from_str_radix(id.get(..16)?, 16).ok()).unwrap_or(0)
}

/// A connection to the node of a Cluster at that address.
pub(super) async fn reach(options: &RedisOptions, address: &str) -> RedisResult<MultiplexedConnection> {
    let address = parse(address, options.tls.is_some()).ok_or_else(timed_out)?;
    let info = address.into_connection_info()?.set_redis_settings(settings(&options.credentials, 0));
    node(options, client(options, info)?).await
}

fn client(options: &RedisOptions, info: ConnectionInfo) -> RedisResult<Client> {
    match &options.tls {
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
        None => Client::open(info),
    }
}

async fn node(options: &RedisOptions, client: Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(options.flush_deadline));
    client.get_multiplexed_async_connection_with_config(&config).await
}
