//! A Redis Cluster: which master has which slot, one connection a master, one pipeline a node.
//!
//! Calls on single keys enter, their answers leave in the same order. A slot that has moved is followed, for one call (`ASK`) or from
//! then on (`MOVED`); anything that does not go as the map says makes it stale, and the keeper asks for a new one. No call waits for a
//! connection or for a map: what cannot be sent is refused, and its caller tries again.
//!
//! The client library's cluster connection is not used. It asks for the map between two polls of all calls in flight: while 600 slots
//! moved, such a look-up began and never ended in half of the runs, and nothing was sent any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisError, RedisResult, Value, cmd, make_extension_error};
use futures_util::future::{join_all, select_ok};
use parking_lot::RwLock;
use tokio::time::timeout;

use super::link::{self, CONNECT};
use super::options::RedisOptions;

/// Slots of every Cluster.
const SLOTS: u16 = 16_384;
/// How often one call is sent at most: there, where it moved, where it moved meanwhile.
const ROUNDS: usize = 4;

/// `host:port`.
type Address = Arc<str>;

/// A slot and what is called on a key of it.
pub(super) type Call = (u16, Cmd);

/// Connections to the masters of a Cluster.
pub(super) struct Cluster {
    options: Arc<RedisOptions>,
    map: RwLock<Map>,
    /// Something did not go as the map says.
    stale: AtomicBool,
    /// Which node is asked for the next map: one that is wrong is not asked twice.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Map {
    /// First and last slot with their master, ascending; what moved stands in `moved`.
    ranges: Vec<(u16, u16, Address)>,
    /// Slots that were found elsewhere since.
    moved: BTreeMap<u16, Address>,
    nodes: BTreeMap<Address, MultiplexedConnection>,
}

impl Map {
    fn master(&self, slot: u16) -> Option<Address> {
        let range = || self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, address)| address);
        self.moved.get(&slot).or_else(range).cloned()
    }
}

/// Where a call goes, and whether as an exception.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Goal {
    address: Address,
    asking: bool,
}

impl Cluster {
    /// Connects to every master.
    pub(super) async fn connect(options: Arc<RedisOptions>) -> RedisResult<Self> {
        let cluster = Self { options, map: RwLock::default(), stale: AtomicBool::new(false), turn: AtomicUsize::new(0) };
        cluster.refresh().await?;
        Ok(cluster)
    }

    /// Sends each call to the master of its slot, in one pipeline a node.
    pub(super) async fn call(&self, calls: &[Call]) -> Vec<RedisResult<Value>> {
        let mut answers: Vec<RedisResult<Value>> = calls.iter().map(|_| Err(away())).collect();
        let mut waiting: Vec<(usize, Goal)> = {
            let map = self.map.read();
            let goals = calls.iter().zip(0..).filter_map(|((slot, _), at)| map.master(*slot).map(|address| (at, address)));
            goals.map(|(at, address)| (at, Goal { address, asking: false })).collect()
        };
        if waiting.len() < calls.len() {
            self.suspect();
        }
        for _ in 0..ROUNDS {
            let mut by_node: BTreeMap<Address, Vec<(usize, bool)>> = BTreeMap::new();
            for (at, Goal { address, asking }) in waiting.drain(..) {
                by_node.entry(address).or_default().push((at, asking));
            }
            let asked = by_node.iter().map(|(address, some)| self.ask(address, some, calls));
            for ((address, some), found) in by_node.iter().zip(join_all(asked).await) {
                for ((at, _), answer) in some.iter().zip(found) {
                    waiting.extend(self.redirected(address, &answer).map(|goal| (*at, goal)));
                    if let Some(slot) = answers.get_mut(*at) {
                        *slot = answer;
                    }
                }
            }
            if waiting.is_empty() {
                break;
            }
        }
        answers
    }

    /// One pipeline. An exception is asked for in the same pipeline, right before the call that it is for.
    async fn ask(&self, address: &Address, some: &[(usize, bool)], calls: &[Call]) -> Vec<RedisResult<Value>> {
        let connection = self.map.read().nodes.get(address).cloned();
        let Some(mut connection) = connection else {
            self.suspect();
            return some.iter().map(|_| Err(away())).collect();
        };
        let mut pipeline = Pipeline::with_capacity(some.len());
        for (at, asking) in some {
            if *asking {
                pipeline.cmd("ASKING");
            }
            if let Some((_, call)) = calls.get(*at) {
                pipeline.add_command(call.clone());
            }
        }
        let answered: RedisResult<Vec<RedisResult<Value>>> = pipeline.ignore_errors().query_async(&mut connection).await;
        match answered {
            Ok(answered) => {
                let mut answered = answered.into_iter();
                let one = |(_, asking): &(usize, bool)| {
                    if *asking {
                        answered.next();
                    }
                    answered.next().unwrap_or_else(|| Err(away())).and_then(|value| value.extract_error())
                };
                some.iter().map(one).collect()
            }
            Err(error) => {
                self.suspect();
                if error.is_connection_dropped() || error.is_unrecoverable_error() {
                    self.map.write().nodes.remove(address);
                }
                some.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// Where an answer sends its call.
    fn redirected(&self, from: &Address, answer: &RedisResult<Value>) -> Option<Goal> {
        let error = answer.as_ref().err()?;
        let code = error.code()?;
        if matches!(code, "MOVED" | "READONLY" | "CLUSTERDOWN" | "MASTERDOWN" | "NOAUTH") {
            self.suspect();
        }
        let (to, slot) = error.redirect_node().filter(|_| matches!(code, "MOVED" | "ASK"))?;
        let address = absolute(to, from);
        if code == "MOVED" {
            self.map.write().moved.insert(slot, Arc::clone(&address));
        }
        Some(Goal { address, asking: code == "ASK" })
    }

    /// The map may be wrong, or a master without a connection.
    fn suspect(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// Asks for a new map, if something did not go as the map says.
    pub(super) async fn tend(&self) {
        if self.stale.swap(false, Ordering::Relaxed)
            && let Err(error) = self.refresh().await
        {
            self.suspect();
            tracing::debug!(%error, "no node of the Cluster tells who has which slots");
        }
    }

    /// The map of the first node that tells it: masters that are known, in turn, then any of the configuration's.
    async fn refresh(&self) -> RedisResult<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut known: Vec<_> = self.map.read().nodes.iter().map(|(address, node)| (Arc::clone(address), node.clone())).collect();
        if !known.is_empty() {
            let first = turn % known.len();
            known.rotate_left(first);
        }
        let mut last = away();
        for (address, node) in known {
            match slots(&address, node).await {
                Ok(ranges) => return self.adopt(ranges).await,
                Err(error) => last = error,
            }
        }
        if self.options.addresses.is_empty() {
            return Err(last);
        }
        // All at once: one after the other, two that swallow what they are sent would use up the whole time for a connection.
        let told = self.options.addresses.iter().map(|seed| Box::pin(self.map_of(seed.as_str().into())));
        self.adopt(select_ok(told).await?.0).await
    }

    async fn map_of(&self, address: Address) -> RedisResult<Vec<(u16, u16, Address)>> {
        slots(&address, self.reach(&address).await?).await
    }

    /// Takes a map over; masters without a connection get one, and stay suspect when they cannot be reached.
    async fn adopt(&self, ranges: Vec<(u16, u16, Address)>) -> RedisResult<()> {
        let missing: Vec<Address> = {
            let mut map = self.map.write();
            let masters = |address: &Address| ranges.iter().any(|(_, _, master)| master == address);
            map.nodes.retain(|address, _| masters(address));
            let mut missing: Vec<Address> = ranges.iter().map(|(_, _, address)| Arc::clone(address)).collect();
            missing.retain(|address| !map.nodes.contains_key(address));
            map.ranges = ranges;
            map.moved.clear();
            missing.sort_unstable();
            missing.dedup();
            missing
        };
        let reached = join_all(missing.iter().map(|address| self.reach(address))).await;
        let mut failed = None;
        for (address, node) in missing.into_iter().zip(reached) {
            match node {
                Ok(node) => drop(self.map.write().nodes.insert(address, node)),
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_some() {
            self.suspect();
        }
        // Without any master nothing can be sent.
        failed.filter(|_| self.map.read().nodes.is_empty()).map_or(Ok(()), Err)
    }

    async fn reach(&self, address: &Address) -> RedisResult<MultiplexedConnection> {
        timeout(CONNECT * 2, link::reach(&self.options, address)).await.map_err(|_| link::timed_out())?
    }

    /// Each master's clock, microseconds since 1970.
    pub(super) async fn time(&self) -> RedisResult<Vec<(i64, i64)>> {
        let nodes: Vec<_> = self.map.read().nodes.values().cloned().collect();
        let ask = async |mut node: MultiplexedConnection| cmd("TIME").query_async(&mut node).await;
        join_all(nodes.into_iter().map(ask)).await.into_iter().collect()
    }
}

/// Which slots have which master, as that node sees it (`CLUSTER SLOTS`, redis.io/commands/cluster-slots).
async fn slots(of: &Address, mut node: MultiplexedConnection) -> RedisResult<Vec<(u16, u16, Address)>> {
    let mut ask = cmd("CLUSTER");
    ask.arg("SLOTS");
    let answer: Value = timeout(CONNECT, ask.query_async(&mut node)).await.map_err(|_| link::timed_out())??;
    let Value::Array(rows) = answer else { return Err(away()) };
    let ranges: Vec<_> = rows.iter().filter_map(|row| range(row, of)).collect();
    if ranges.is_empty() { Err(away()) } else { Ok(ranges) }
}

/// A row: first slot, last slot, master, replicas.
fn range(row: &Value, of: &Address) -> Option<(u16, u16, Address)> {
    let Value::Array(row) = row else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = row.as_slice() else { return None };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        // A node that does not know its own name has the one by which it was reached.
        _ => "",
    };
    let slot = |slot: &i64| u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS);
    (host != "?").then_some((slot(first)?, slot(last)?, absolute(&format!("{host}:{port}"), of)))
}

/// An address; one without a host is at the host of the node that tells it.
fn absolute(address: &str, from: &Address) -> Address {
    match address.strip_prefix(':') {
        Some(port) => format!("{}:{port}", from.rsplit_once(':').map_or("", |(host, _)| host)).into(),
        None => address.into(),
    }
}

/// Not sent: refused, in the terms of an answer.
fn away() -> RedisError {
    make_extension_error("AWAY".to_owned(), None)
}

/// The slot of a key: CRC-16/XMODEM of what stands between the first braces, of all of it where nothing does (Redis Cluster
/// specification, key distribution model).
pub(super) fn slot(key: &[u8]) -> u16 {
    let tagged = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    let crc = tagged.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // As the specification gives it, and by `CLUSTER KEYSLOT` of Redis 7.0.
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot(b"tt:{user:abc}"), slot(b"user:abc"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn maps_are_read_and_moves_are_followed() {
        let of: Address = "127.0.0.1:7000".into();
        let node = |host: &str, port| Value::Array(vec![Value::BulkString(host.as_bytes().to_vec()), Value::Int(port)]);
        let row = Value::Array(vec![Value::Int(0), Value::Int(99), node("", 7001), node("10.0.0.9", 7004)]);
        assert_eq!(range(&row, &of), Some((0, 99, "127.0.0.1:7001".into())));
        assert_eq!(range(&Value::Array(vec![Value::Int(0), Value::Int(16_384), node("a", 1)]), &of), None);
        assert_eq!(range(&Value::Array(vec![Value::Int(0), Value::Int(1), node("?", 1)]), &of), None);
        let mut map = Map { ranges: vec![(0, 99, "a:1".into()), (100, 200, "b:1".into())], ..Map::default() };
        map.moved.insert(5, "b:1".into());
        assert_eq!((map.master(4), map.master(5), map.master(201)), (Some("a:1".into()), Some("b:1".into()), None));
    }
}
