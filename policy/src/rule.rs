//! A compiled rule and the index that finds the rules of a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use telltale_features::entity::EntityType;
use telltale_features::expr::NameRef;
use telltale_features::kernel::slots::SlotTag;

use crate::decision::{Action, Mitigation, Mode};
use crate::reasons::Template;

/// One rule.
pub(crate) struct Rule {
    pub id: Arc<str>,
    pub name: Arc<str>,
    pub tags: Arc<[String]>,
    /// What its condition reads, for the reason.
    pub reads: Box<[NameRef]>,
    pub score: f64,
    pub action: Action,
    /// Its own mode; `None`: the route's, else the policy's.
    pub mode: Option<Mode>,
    pub operations: Vec<String>,
    pub routes: Vec<String>,
    pub methods: Vec<String>,
    /// Whose bucket, denial and evidence it is.
    pub entity: Option<EntityType>,
    pub limit: Option<Limit>,
    pub denial: Option<Denial>,
    /// Evidence that a match adds.
    pub evidence: f64,
    /// Parameters of the action, entity and end left open.
    pub mitigation: Mitigation,
    pub reason: Template,
}

/// A rate limit (GCRA, ITU-T I.371): one cell every `interval_us`, `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub tag: SlotTag,
    pub interval_us: i64,
    pub burst: u32,
}

/// How long a match denies the entity, and under which tags that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub duration: std::time::Duration,
    pub enforced: SlotTag,
    pub monitored: SlotTag,
}

/// Finds candidate rules by operation, route and method without looking at the others.
#[derive(Default)]
pub(crate) struct Index {
    /// Rules for every transaction.
    everywhere: Vec<u16>,
    /// Rules for some methods, whatever the route.
    by_method: HashMap<String, Vec<u16>>,
    by_operation: HashMap<String, Vec<u16>>,
    by_route: HashMap<String, Vec<u16>>,
}

impl Index {
    pub fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            let Ok(at) = u16::try_from(at) else { continue };
            if rule.operations.is_empty() && rule.routes.is_empty() {
                if rule.methods.is_empty() {
                    index.everywhere.push(at);
                }
                for method in &rule.methods {
                    let listed = index.by_method.entry(method.clone()).or_default();
                    if listed.last() != Some(&at) {
                        listed.push(at);
                    }
                }
            }
            for operation in &rule.operations {
                index.by_operation.entry(operation.clone()).or_default().push(at);
            }
            for route in rule.routes.iter().filter(|_| rule.operations.is_empty()) {
                index.by_route.entry(route.clone()).or_default().push(at);
            }
        }
        index
    }

    /// The rules that may match, each once.
    pub fn candidates<'i>(&'i self, operation: &str, route: &str, method: &str) -> impl Iterator<Item = u16> + 'i {
        let listed = |table: &'i HashMap<String, Vec<u16>>, key: &str| table.get(key).map_or(&[][..], Vec::as_slice);
        let by_method = listed(&self.by_method, method);
        let (by_operation, by_route) = (listed(&self.by_operation, operation), listed(&self.by_route, route));
        [&self.everywhere, by_method, by_operation, by_route].into_iter().flatten().copied()
    }
}

impl Rule {
    /// Whether route and method are among those it is for.
    pub fn is_for(&self, route: &str, method: &str) -> bool {
        (self.routes.is_empty() || self.routes.iter().any(|known| known == route))
            && (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
    }
}
