//! What is known of a session from its earlier traffic: bounded memories in two generations.
//!
//! Which user a session belongs to, as far as a successful login has shown it, and which route it asked for last. Both serve the door
//! only, and what they said is kept in the journal with each transaction: replay never asks them.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::entity::EntityKey;

/// Entries of one generation; two are held. About 100 bytes each.
const GENERATION: usize = 500_000;

/// Something known of each session that was seen lately.
pub(super) struct Sessions<T>(Mutex<Generations<T>>);

struct Generations<T> {
    young: HashMap<EntityKey, T>,
    old: HashMap<EntityKey, T>,
}

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<T: Clone> Sessions<T> {
    /// What is known of that session.
    pub fn get(&self, session: EntityKey) -> Option<T> {
        let mut generations = self.0.lock();
        if let Some(known) = generations.young.get(&session) {
            return Some(known.clone());
        }
        let known = generations.old.remove(&session)?;
        generations.insert(session, known.clone());
        Some(known)
    }

    /// Remembers something of a session, and gives what was known before.
    pub fn replace(&self, session: EntityKey, known: T) -> Option<T> {
        let mut generations = self.0.lock();
        let before = generations.old.remove(&session);
        generations.insert(session, known).or(before)
    }
}

impl<T> Generations<T> {
    fn insert(&mut self, session: EntityKey, known: T) -> Option<T> {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            let before = self.old.remove(&session);
            self.young.insert(session, known);
            return before;
        }
        self.young.insert(session, known)
    }
}
