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

/// Place in the walk over all sessions: number of a generation, place in its order.
pub type SessionPlace = (u64, usize);

#[derive(Default)]
struct Generations {
    /// Number of the young one; the old one has the number before it.
    number: u64,
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    users: HashMap<EntityKey, Subject>,
    /// Sessions as they came, so that they can be walked some at a time.
    order: Vec<EntityKey>,
}

impl Sessions {
    /// The user to whom that session was opened.
    pub fn user(&self, session: EntityKey) -> Option<Subject> {
        let mut generations = self.0.lock();
        if let Some(user) = generations.young.users.get(&session) {
            return Some(user.clone());
        }
        let user = generations.old.users.remove(&session)?;
        generations.insert(session, user.clone());
        Some(user)
    }

    /// Remembers that a login opened the session to the user.
    pub fn opened(&self, session: EntityKey, user: Subject) {
        self.0.lock().insert(session, user);
    }

    /// At most so many sessions from that place on, oldest first, and the place after them; `None` at the end.
    pub fn some(&self, (number, from): SessionPlace, most: usize) -> Option<(Vec<(EntityKey, Subject)>, SessionPlace)> {
        let generations = self.0.lock();
        // A generation that is gone meanwhile is forgotten.
        let oldest = generations.number.saturating_sub(1);
        let (number, from) = if number < oldest { (oldest, 0) } else { (number, from) };
        let generation = if number < generations.number { &generations.old } else { &generations.young };
        let keys = generation.order.get(from..).unwrap_or_default();
        if keys.is_empty() {
            return (number < generations.number).then_some((Vec::new(), (number + 1, 0)));
        }
        let keys = keys.get(..most).unwrap_or(keys);
        let users = keys.iter().filter_map(|key| Some((*key, generation.users.get(key)?.clone()))).collect();
        Some((users, (number, from + keys.len())))
    }
}

impl Generations {
    fn insert(&mut self, session: EntityKey, user: Subject) {
        if self.young.users.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.number += 1;
        }
        if self.young.users.insert(session, user).is_none() {
            self.young.order.push(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::{EntityId, EntityType};

    #[test]
    fn all_sessions_are_walked_over_both_generations() {
        let sessions = Sessions::default();
        let key = |number: usize| EntityKey((number as u128).to_le_bytes());
        let user = Subject { id: EntityId { kind: EntityType(1), key: key(7) }, verified: true, name: Some("anna".into()) };
        (0..GENERATION + 10).for_each(|number| sessions.opened(key(number), user.clone()));
        // Comes back into the young one.
        assert_eq!(sessions.user(key(3)), Some(user.clone()));
        let (mut place, mut all) = ((0, 0), Vec::new());
        while let Some((some, next)) = sessions.some(place, 1_000) {
            all.extend(some);
            place = next;
        }
        assert_eq!(all.len(), GENERATION + 10);
        assert!(all.iter().all(|(_, of)| *of == user) && all.last().map(|(key, _)| *key) == Some(key(3)));
    }
}
