//! The door's keeper: how many transactions are scored at once, and who is shed first.
//!
//! Ordinary routes are shed before logins, payments and resets, so that a flood of cheap requests does not blind the scorer for
//! what matters. Nothing waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::errors::CallError;

/// Counts what is being scored.
pub struct Admission {
    running: AtomicUsize,
    limit: usize,
    ordinary: usize,
    last: Vec<String>,
    draining: AtomicBool,
}

/// One transaction's place; given back when dropped.
pub struct Place(Arc<Admission>);

impl Admission {
    /// At most `limit` at once; ordinary routes only up to `share` of it.
    pub fn new(limit: usize, share: f64, last: Vec<String>) -> Self {
        let ordinary = ((limit as f64 * share).ceil() as usize).clamp(1, limit.max(1));
        Self { running: AtomicUsize::new(0), limit, ordinary, last, draining: AtomicBool::new(false) }
    }

    /// A place for a transaction with that path, if there is one.
    ///
    /// # Errors
    /// When all places are taken, or the scorer shuts down.
    pub fn enter(self: &Arc<Self>, path: &str) -> Result<Place, CallError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(CallError::Draining);
        }
        let limit = if self.is_shed_last(path) { self.limit } else { self.ordinary };
        let place = Place(Arc::clone(self));
        if self.running.fetch_add(1, Ordering::AcqRel) >= limit {
            return Err(CallError::Overloaded { limit });
        }
        Ok(place)
    }

    /// Whether a path is one of those that are shed last.
    pub fn is_shed_last(&self, path: &str) -> bool {
        self.last.iter().any(|part| path.contains(part.as_str()))
    }

    /// From now on nobody is let in.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// How many are being scored.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_routes_are_shed_first_and_places_come_back() {
        let admission = Arc::new(Admission::new(4, 0.5, vec!["login".to_owned()]));
        let mut places: Vec<Place> = (0..2).map(|_| admission.enter("/products").ok().unwrap()).collect();
        assert!(matches!(admission.enter("/products"), Err(CallError::Overloaded { limit: 2 })));
        places.extend((0..2).map(|_| admission.enter("/api/login").ok().unwrap()));
        assert!(matches!(admission.enter("/api/login"), Err(CallError::Overloaded { limit: 4 })));
        drop(places);
        assert_eq!(admission.running(), 0);
        admission.drain();
        assert!(matches!(admission.enter("/api/login"), Err(CallError::Draining)));
    }
}
