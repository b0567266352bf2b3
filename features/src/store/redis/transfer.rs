//! All entities of one prefix, for moving them between stores: read by SCAN on every master, created where they are absent.
//!
//! Blobs leave and enter; nothing is merged and nothing overwritten. This is the one place that walks keys: scoring never does.

use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisError, RedisResult, Value, cmd};
use tokio::time::timeout;

use crate::entity::{EntityId, EntityType};
use crate::kernel::plan::EntityPlan;
use crate::kernel::{DecodeError, EntityState, Flush, Layout};
use crate::time::{Timestamp, micros};

use super::claims::CLAIM;
use super::cluster::{self, Cluster};
use super::link::{self, CONNECT};
use super::options::{RedisOptions, RedisOptionsError, Topology};
use super::value::{self, VERSION};

/// Keys asked for at once.
const TOGETHER: usize = 512;

/// Why entities could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The options cannot be used.
    #[error(transparent)]
    Options(#[from] RedisOptionsError),
    /// Redis did not answer, or not as expected.
    #[error("Redis does not answer as expected: {0}")]
    Redis(#[from] RedisError),
    /// Nothing that is known could be reached.
    #[error("no server of `store.redis.addresses` tells where the masters are")]
    NoMaster,
    /// Names are being changed.
    #[error(
        "the secret of names in Redis is being changed, and what stands under a name of before must not be hidden; allowed: import before \
         `store.redis.names_key_next` or after `store.redis.names_key_before`"
    )]
    NamesChange,
    /// A blob that cannot be read.
    #[error("an entity cannot be read: {0}")]
    Blob(#[from] DecodeError),
}

/// One entity as it stands in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which.
    pub entity: EntityId,
    /// The kernel's blob.
    pub blob: Vec<u8>,
    /// Clock of its last write, as its time to live tells it.
    pub touched: Timestamp,
}

/// What a key of the prefix holds.
enum Held {
    /// An entity.
    Entity(Stored),
    /// An entity on its way from the name of before to the newest one, as it was then: the newest counts.
    Moved(Stored),
    /// A claim, a shared table, or a name from which an entity has gone.
    Other,
    /// No entity of this schema.
    Unknown,
}

/// What became of entities that were to be created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// Written.
    pub created: u64,
    /// There already: left as they are.
    pub present: u64,
    /// Their time to live had passed.
    pub expired: u64,
}

/// A way to every master.
pub struct Transfer {
    options: Arc<RedisOptions>,
    layouts: Vec<Layout>,
    masters: Vec<MultiplexedConnection>,
    cluster: Option<Cluster>,
    flushes: u64,
}

impl Transfer {
    /// Connects.
    ///
    /// # Errors
    /// When the options cannot be used or a master cannot be reached.
    pub async fn connect(options: RedisOptions, plans: &[EntityPlan]) -> Result<Self, TransferError> {
        link::check(&options)?;
        let options = Arc::new(options);
        // A link sets up what TLS needs.
        drop(link::Link::new(Arc::clone(&options)));
        let mut masters = Vec::new();
        for address in masters_of(&options).await? {
            let mut node = reach(&options, &address).await?;
            if options.database != 0 {
                cmd("SELECT").arg(options.database).query_async::<()>(&mut node).await?;
            }
            masters.push(node);
        }
        let cluster = match options.topology {
            Topology::Cluster => Some(Cluster::connect(Arc::clone(&options)).await?),
            _ => None,
        };
        Ok(Self { options, layouts: plans.iter().cloned().map(Layout::new).collect(), masters, cluster, flushes: 0 })
    }

    /// Gives every entity to `sink`; returns how many keys were no entities of this schema. What changes meanwhile may be seen before or
    /// after its change, and more than once.
    ///
    /// # Errors
    /// When a master does not answer, or whatever `sink` answers.
    pub async fn each<E: From<TransferError>>(&self, now: Timestamp, mut sink: impl FnMut(Stored) -> Result<(), E>) -> Result<u64, E> {
        let mut unknown = 0;
        // A scan may meet a key more than once.
        let (mut met, mut moved) = (std::collections::HashSet::new(), Vec::new());
        for master in &self.masters {
            let mut cursor = 0_u64;
            loop {
                let (next, keys) = self.scan(master.clone(), cursor).await?;
                for stored in self.get(master.clone(), &keys, now).await? {
                    match stored {
                        Held::Entity(stored) if met.insert(stored.entity) => sink(stored)?,
                        Held::Moved(stored) => moved.push(stored),
                        Held::Entity(_) | Held::Other => {}
                        Held::Unknown => unknown += 1,
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        moved.into_iter().filter(|stored| met.insert(stored.entity)).try_for_each(sink)?;
        Ok(unknown)
    }

    async fn scan(&self, mut node: MultiplexedConnection, cursor: u64) -> Result<(u64, Vec<String>), TransferError> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}:{{*", self.options.prefix)).arg("COUNT").arg(TOGETHER);
        Ok(scan.query_async(&mut node).await?)
    }

    /// What stands under those keys; nothing for what has gone meanwhile.
    async fn get(&self, mut node: MultiplexedConnection, keys: &[String], now: Timestamp) -> Result<Vec<Held>, TransferError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(keys.len() * 2);
        for key in keys {
            pipeline.cmd("GET").arg(key).cmd("PTTL").arg(key);
        }
        // A key of another type is an error of its own.
        let answers: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(&mut node).await?;
        let mut answers = answers.into_iter();
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value: Option<Vec<u8>> = answers.next().and_then(|answer| ::redis::from_redis_value(answer.ok()?).ok()).unwrap_or_default();
            let lives: i64 = answers.next().and_then(|answer| ::redis::from_redis_value(answer.ok()?).ok()).unwrap_or(-2);
            if let Some(value) = value {
                found.push(self.held(key, &value, (lives, now)));
            } else if lives != -2 {
                // Of another type than an entity: tables are hashes.
                found.push(Held::Other);
            }
        }
        Ok(found)
    }

    fn held(&self, key: &str, value: &[u8], lives: (i64, Timestamp)) -> Held {
        let claim = key.strip_prefix(&self.options.prefix).is_some_and(|name| name.starts_with(CLAIM));
        if claim || value::is_emptied(value) || *key == link::token_key(&self.options) {
            return Held::Other;
        }
        let stored = self.stored(key, value, lives);
        stored.map_or(Held::Unknown, if value::is_closed(value) { Held::Moved } else { Held::Entity })
    }

    fn stored(&self, key: &str, value: &[u8], (lives_ms, now): (i64, Timestamp)) -> Option<Stored> {
        let (name, key) = self.options.names.parse(key.strip_prefix(&self.options.prefix)?.strip_prefix(':')?)?;
        let kind = self.layouts.iter().position(|layout| layout.plan().name == name)?;
        let layout = self.layouts.get(kind)?;
        let ttl = micros(layout.plan().ttl);
        let age = if lives_ms < 0 { 0 } else { (ttl - lives_ms.saturating_mul(1_000)).max(0) };
        let touched = Timestamp::from_micros(now.micros() - age);
        let entity = EntityId { kind: EntityType(u8::try_from(kind).ok()?), key };
        Some(Stored { entity, blob: value.get(VERSION..)?.to_vec(), touched })
    }

    /// Creates entities where there are none, each with what is left of its time to live.
    ///
    /// # Errors
    /// When Redis does not answer or refuses, or a blob cannot be read.
    pub async fn create(&mut self, some: &[Stored], now: Timestamp) -> Result<Created, TransferError> {
        if self.options.names.are_changing() {
            return Err(TransferError::NamesChange);
        }
        let mut result = Created::default();
        let mut calls = Vec::with_capacity(some.len());
        for stored in some {
            let Some(layout) = self.layouts.get(stored.entity.kind.index()) else { continue };
            let left = (micros(layout.plan().ttl) - now.micros_since(stored.touched).max(0)) / 1_000;
            if left <= 0 {
                result.expired += 1;
                continue;
            }
            self.flushes += 1;
            let flush = Flush { writer: self.options.writer, sequence: self.flushes, at: now };
            let mut state = EntityState::decode(layout, &stored.blob)?;
            state.stamp(flush);
            let name = self.options.names.name((&layout.plan().name, stored.entity.key), self.options.names.standing());
            let key = format!("{}:{name}", self.options.prefix);
            let mut set = cmd("SET");
            set.arg(&key).arg(&*value::pack(flush, &state, layout)).arg("NX").arg("PX").arg(left);
            calls.push((cluster::slot(key.as_bytes()), set));
        }
        for answer in self.call(calls).await? {
            match answer? {
                Value::Nil => result.present += 1,
                _ => result.created += 1,
            }
        }
        Ok(result)
    }

    async fn call(&self, calls: Vec<(u16, Cmd)>) -> Result<Vec<RedisResult<Value>>, TransferError> {
        if let Some(cluster) = &self.cluster {
            return Ok(cluster.call(&calls).await);
        }
        let Some(mut node) = self.masters.first().cloned().filter(|_| !calls.is_empty()) else { return Ok(Vec::new()) };
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for (_, call) in calls {
            pipeline.add_command(call);
        }
        let answers: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(&mut node).await?;
        Ok(answers.into_iter().map(|answer| answer.and_then(|value| value.extract_error())).collect())
    }
}

async fn reach(options: &RedisOptions, address: &str) -> Result<MultiplexedConnection, TransferError> {
    timeout(CONNECT * 2, link::reach(options, address)).await.map_err(|_| TransferError::NoMaster)?.map_err(TransferError::Redis)
}

/// The addresses of the masters.
async fn masters_of(options: &RedisOptions) -> Result<Vec<String>, TransferError> {
    let mut last = TransferError::NoMaster;
    for address in &options.addresses {
        let found = match &options.topology {
            Topology::Single => return Ok(vec![address.clone()]),
            Topology::Sentinel { master } => master_by(options, address, master).await,
            Topology::Cluster => cluster_masters(options, address).await,
        };
        match found {
            Ok(masters) if !masters.is_empty() => return Ok(masters),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn master_by(options: &RedisOptions, sentinel: &str, master: &str) -> Result<Vec<String>, TransferError> {
    let own = RedisOptions { credentials: options.sentinel_credentials.clone(), ..options.clone() };
    let mut node = reach(&own, sentinel).await?;
    let found: Option<(String, u16)> = cmd("SENTINEL").arg("get-master-addr-by-name").arg(master).query_async(&mut node).await?;
    Ok(found.into_iter().map(|(host, port)| format!("{host}:{port}")).collect())
}

/// Masters with slots, by `CLUSTER NODES` (redis.io/commands/cluster-nodes): id, `host:port@bus`, flags, …, slots from the ninth field on.
async fn cluster_masters(options: &RedisOptions, seed: &str) -> Result<Vec<String>, TransferError> {
    let mut node = reach(options, seed).await?;
    let text: String = cmd("CLUSTER").arg("NODES").query_async(&mut node).await?;
    let master = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, address, flags, ..] = fields.as_slice() else { return None };
        let is_master = flags.split(',').any(|flag| flag == "master") && !flags.contains("fail") && fields.len() > 8;
        is_master.then(|| address.split(['@', ',']).next().unwrap_or_default().to_owned())
    };
    Ok(text.lines().filter_map(master).collect())
}
