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

/// Place in the walk over all sessions: number of a generation, place in its order.
pub type SessionPlace = (u64, usize);

/// Some of the sessions with what is known of each, and the place after them.
pub type SessionPage<T> = (Vec<(EntityKey, T)>, SessionPlace);

struct Generations<T> {
    /// Number of the young one; the old one has the number before it.
    number: u64,
    young: Generation<T>,
    old: Generation<T>,
}

struct Generation<T> {
    known: HashMap<EntityKey, T>,
    /// Sessions as they came, so that they can be walked some at a time.
    order: Vec<EntityKey>,
}

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations { number: 0, young: Generation::default(), old: Generation::default() }))
    }
}

impl<T> Default for Generation<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: Vec::new() }
    }
}

impl<T: Clone> Sessions<T> {
    /// What is known of that session.
    pub fn get(&self, session: EntityKey) -> Option<T> {
        let mut generations = self.0.lock();
        if let Some(known) = generations.young.known.get(&session) {
            return Some(known.clone());
        }
        let known = generations.old.known.remove(&session)?;
        generations.insert(session, known.clone());
        Some(known)
    }

    /// Remembers something of a session, and gives what was known before.
    pub fn replace(&self, session: EntityKey, known: T) -> Option<T> {
        let mut generations = self.0.lock();
        let before = generations.old.known.remove(&session);
        generations.insert(session, known).or(before)
    }

    /// Forgets those for which it is so.
    pub fn forget(&self, gone: impl Fn(&EntityKey, &T) -> bool) {
        let mut generations = self.0.lock();
        let Generations { young, old, .. } = &mut *generations;
        for generation in [young, old] {
            generation.known.retain(|session, known| !gone(session, known));
        }
    }

    /// At most so many sessions from that place on, oldest first, and the place after them; `None` at the end.
    pub fn some(&self, (number, from): SessionPlace, most: usize) -> Option<SessionPage<T>> {
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
        let known = keys.iter().filter_map(|key| Some((*key, generation.known.get(key)?.clone()))).collect();
        Some((known, (number, from + keys.len())))
    }
}

impl<T> Generations<T> {
    fn insert(&mut self, session: EntityKey, known: T) -> Option<T> {
        let mut before = None;
        if self.young.known.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.number += 1;
            before = self.old.known.remove(&session);
        }
        let replaced = self.young.known.insert(session, known);
        if replaced.is_none() {
            self.young.order.push(session);
        }
        replaced.or(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::{EntityId, EntityType, Subject};

    #[test]
    fn all_sessions_are_walked_over_both_generations() {
        let sessions = Sessions::default();
        let key = |number: usize| EntityKey((number as u128).to_le_bytes());
        let user = Subject { id: EntityId { kind: EntityType(1), key: key(7) }, verified: true, name: Some("anna".into()) };
        for number in 0..GENERATION + 10 {
            assert_eq!(sessions.replace(key(number), user.clone()), None);
        }
        // Comes back into the young one.
        assert_eq!(sessions.get(key(3)), Some(user.clone()));
        let (mut place, mut all) = ((0, 0), Vec::new());
        while let Some((some, next)) = sessions.some(place, 1_000) {
            all.extend(some);
            place = next;
        }
        assert_eq!(all.len(), GENERATION + 10);
        assert!(all.iter().all(|(_, of)| *of == user) && all.last().map(|(key, _)| *key) == Some(key(3)));
    }
}
