//! Standing decisions: overrides by people and denials by rules, held here so that they are in force without the scorer.
//!
//! What enters is the `Decisions.Stream` and, at start, the saved file; what leaves is what stands about a request's entities.

mod follow;
mod identify;
mod keep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use parking_lot::RwLock;
use telltale_proto::v1::{Action, Decision, DecisionOrigin, EntitySelector, StreamResponse};

pub use follow::follow;
pub use keep::Kept;

/// Keyed hash of an identifier, as the scorer computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey(pub [u8; 16]);

impl EntityKey {
    /// The key in a message, if it has 16 bytes.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// The parts of a request in which identifiers stand.
#[derive(Clone, Copy, Debug)]
pub struct Clues<'a> {
    /// Client address.
    pub client: IpAddr,
    /// Clean headers.
    pub headers: &'a HeaderMap,
    /// Query, as received.
    pub query: &'a str,
}

/// What stands about a request.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nothing.
    Nothing,
    /// A person exempts one of its entities from denials.
    Exempt(Arc<Decision>),
    /// One of its entities is denied.
    Denied(EntityKey, Arc<Decision>),
}

#[derive(Debug, Default)]
struct Table {
    version: u64,
    selectors: Vec<EntitySelector>,
    hash_key: [u8; 32],
    by_id: HashMap<String, EntityKey>,
    by_key: HashMap<EntityKey, Vec<Arc<Decision>>>,
    /// How many decisions there are about each selector's type; types without any are not looked for in requests.
    about: Vec<usize>,
    changed: bool,
}

/// The decisions in force.
#[derive(Debug, Default)]
pub struct Decisions(RwLock<Table>);

impl Decisions {
    /// Takes a message of the stream, whole table or change.
    pub fn apply(&self, message: StreamResponse) {
        let mut table = self.0.write();
        if message.snapshot {
            *table = Table { selectors: message.selectors, ..Table::default() };
            if let Ok(key) = <[u8; 32]>::try_from(message.hash_key.as_ref()) {
                table.hash_key = key;
            } else {
                tracing::error!(
                    bytes = message.hash_key.len(),
                    "the scorer's hash key has not 32 bytes: no standing decision can be recognised"
                );
            }
        }
        for id in &message.removed {
            table.remove(id);
        }
        for decision in message.decisions {
            table.insert(decision);
        }
        table.version = message.version;
        table.changed = true;
        table.recount();
    }

    /// What stands about a request at that time: a person's deny, else a person's allow, else a rule's denial; of several the
    /// most severe.
    pub fn standing(&self, clues: &Clues<'_>, now: SystemTime) -> Standing {
        let table = self.0.read();
        if table.by_key.is_empty() {
            return Standing::Nothing;
        }
        let mut best: Option<(EntityKey, &Arc<Decision>)> = None;
        for (selector, about) in table.selectors.iter().zip(&table.about) {
            if *about == 0 {
                continue;
            }
            let Some(key) = identify::key(selector, clues, &table.hash_key) else { continue };
            for decision in table.by_key.get(&key).into_iter().flatten() {
                let stronger = best.is_none_or(|(_, known)| rank(decision) > rank(known));
                if stronger && in_force(decision, now) {
                    best = Some((key, decision));
                }
            }
        }
        match best {
            None => Standing::Nothing,
            Some((_, decision)) if decision.action() == Action::Allow => Standing::Exempt(Arc::clone(decision)),
            Some((key, decision)) => Standing::Denied(key, Arc::clone(decision)),
        }
    }

    /// The keys of everybody who can be recognised in a request.
    pub fn keys(&self, clues: &Clues<'_>) -> Vec<EntityKey> {
        let table = self.0.read();
        table.selectors.iter().filter_map(|selector| identify::key(selector, clues, &table.hash_key)).collect()
    }

    /// Version of the table, to go on from.
    pub fn version(&self) -> u64 {
        self.0.read().version
    }

    /// How many decisions are held.
    pub fn len(&self) -> usize {
        self.0.read().by_id.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what has run out.
    pub fn sweep(&self, now: SystemTime) {
        let mut table = self.0.write();
        let ended: Vec<String> = table.all().filter(|decision| !in_force(decision, now)).map(|decision| decision.id.clone()).collect();
        for id in &ended {
            table.remove(id);
        }
        if !ended.is_empty() {
            table.changed = true;
            table.recount();
        }
    }

    /// Lets the next [`Decisions::changes`] give the table again.
    pub fn mark_changed(&self) {
        self.0.write().changed = true;
    }

    /// The whole table as a message, if it changed since the last call.
    pub fn changes(&self) -> Option<StreamResponse> {
        let mut table = self.0.write();
        if !std::mem::take(&mut table.changed) {
            return None;
        }
        Some(StreamResponse {
            version: table.version,
            snapshot: true,
            decisions: table.all().map(|decision| Decision::clone(decision)).collect(),
            removed: Vec::new(),
            selectors: table.selectors.clone(),
            hash_key: table.hash_key.to_vec().into(),
        })
    }
}

impl Table {
    fn all(&self) -> impl Iterator<Item = &Arc<Decision>> {
        self.by_key.values().flatten()
    }

    fn insert(&mut self, decision: Decision) {
        self.remove(&decision.id);
        let entity = decision.entity.as_ref();
        let key = entity.and_then(|entity| EntityKey::from_wire(&entity.key));
        let Some(key) = key else {
            tracing::warn!(decision = %decision.id, "a decision without an entity key of 16 bytes was left out");
            return;
        };
        self.by_id.insert(decision.id.clone(), key);
        self.by_key.entry(key).or_default().push(Arc::new(decision));
    }

    fn remove(&mut self, id: &str) {
        let Some(key) = self.by_id.remove(id) else { return };
        if let Some(decisions) = self.by_key.get_mut(&key) {
            decisions.retain(|decision| decision.id != id);
            if decisions.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    fn recount(&mut self) {
        let about = |selector: &EntitySelector| {
            self.all().filter(|decision| decision.entity.as_ref().is_some_and(|entity| entity.r#type == selector.r#type)).count()
        };
        self.about = self.selectors.iter().map(about).collect();
    }
}

/// Precedence of DESIGN §5: human deny, human allow, active denial; then by severity.
fn rank(decision: &Decision) -> (u8, i32) {
    let human = decision.origin() == DecisionOrigin::Override;
    let class = match (human, decision.action()) {
        (_, Action::Unspecified | Action::Log) | (false, Action::Allow) => 0,
        (true, Action::Allow) => 2,
        (true, _) => 3,
        (false, _) => 1,
    };
    (class, decision.action)
}

/// Whether it says anything at that time.
fn in_force(decision: &Decision, now: SystemTime) -> bool {
    let now = crate::transaction::timestamp(now);
    rank(decision).0 > 0 && decision.until.as_ref().is_none_or(|until| (until.seconds, until.nanos) > (now.seconds, now.nanos))
}
