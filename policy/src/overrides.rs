//! What people decided about entities: an immutable snapshot, an input of every decision.

use std::collections::HashMap;
use std::sync::Arc;

use telltale_features::entity::{EntityId, Subjects};
use telltale_features::time::Timestamp;

/// What a person ruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Everything this entity does is refused.
    Deny,
    /// This entity is exempt from every rule and denial.
    Allow,
}

/// One override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Whom it is about.
    pub entity: EntityId,
    /// What was ruled.
    pub ruling: Ruling,
    /// When it ends; `None`: never.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Arc<str>,
    /// Who ruled.
    pub author: Arc<str>,
    /// When.
    pub created: Timestamp,
}

/// All overrides in force: at most one an entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    table: HashMap<EntityId, Override>,
}

impl Overrides {
    /// A snapshot; of several about one entity the last given counts.
    pub fn new(given: impl IntoIterator<Item = Override>) -> Self {
        Self { table: given.into_iter().map(|ruling| (ruling.entity, ruling)).collect() }
    }

    /// The override of that entity that holds at that time.
    pub fn get(&self, entity: EntityId, at: Timestamp) -> Option<&Override> {
        self.table.get(&entity).filter(|ruling| ruling.until.is_none_or(|until| until > at))
    }

    /// The override that decides about these subjects: a denial of any beats an exemption of any.
    pub fn ruling(&self, subjects: &Subjects, at: Timestamp) -> Option<&Override> {
        if self.table.is_empty() {
            return None;
        }
        let holding = || subjects.iter().filter_map(|subject| self.get(subject.id, at));
        holding().find(|ruling| ruling.ruling == Ruling::Deny).or_else(|| holding().next())
    }

    /// A snapshot with that override added or replaced.
    #[must_use]
    pub fn with(&self, ruling: Override) -> Self {
        let mut table = self.table.clone();
        table.insert(ruling.entity, ruling);
        Self { table }
    }

    /// A snapshot without an override of that entity.
    #[must_use]
    pub fn without(&self, entity: EntityId) -> Self {
        let mut table = self.table.clone();
        table.remove(&entity);
        Self { table }
    }

    /// A snapshot without those that have ended.
    #[must_use]
    pub fn current(&self, at: Timestamp) -> Self {
        Self::new(self.table.values().filter(|ruling| ruling.until.is_none_or(|until| until > at)).cloned())
    }

    /// All of them, in entity order.
    pub fn iter(&self) -> impl Iterator<Item = &Override> {
        let mut all: Vec<_> = self.table.values().collect();
        all.sort_by_key(|ruling| ruling.entity);
        all.into_iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
