//! Which user a session belongs to, as far as a successful login has shown it: a bounded memory in two generations.
//!
//! It serves identification only, and what it said is kept in the journal with each transaction: replay never asks it.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::entity::{EntityKey, Subject};

/// Entries of one generation; two are held. About 100 bytes each.
const GENERATION: usize = 500_000;

#[derive(Default)]
pub(super) struct Sessions(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<EntityKey, Subject>,
    old: HashMap<EntityKey, Subject>,
}

impl Sessions {
    /// The user to whom that session was opened.
    pub fn user(&self, session: EntityKey) -> Option<Subject> {
        let mut generations = self.0.lock();
        if let Some(user) = generations.young.get(&session) {
            return Some(user.clone());
        }
        let user = generations.old.remove(&session)?;
        generations.insert(session, user.clone());
        Some(user)
    }

    /// Remembers that a login opened the session to the user.
    pub fn opened(&self, session: EntityKey, user: Subject) {
        self.0.lock().insert(session, user);
    }
}

impl Generations {
    fn insert(&mut self, session: EntityKey, user: Subject) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, user);
    }
}
