//! The circuit breaker of reads: after a few misses in a row nobody waits any more until a probe was answered in time.
//!
//! Misses and answers enter; whether to ask at all leaves.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Reads that miss their deadline one after the other before the breaker opens.
const MISSES: u32 = 5;
/// Probes answered in time, one after the other, before it closes.
const PROBES: u32 = 2;

/// Counts misses; open from [`MISSES`] on.
#[derive(Debug)]
pub(super) struct Breaker {
    misses: AtomicU32,
    probes: AtomicU32,
    opened: AtomicU64,
}

impl Breaker {
    /// Open: a probe has to close it first.
    pub(super) const fn open() -> Self {
        Self { misses: AtomicU32::new(MISSES), probes: AtomicU32::new(0), opened: AtomicU64::new(0) }
    }

    /// Whether reads may be tried.
    pub(super) fn is_closed(&self) -> bool {
        self.misses.load(Ordering::Relaxed) < MISSES
    }

    /// A read was answered in time.
    pub(super) fn answered(&self) {
        if self.is_closed() {
            self.misses.store(0, Ordering::Relaxed);
        }
    }

    /// A read was not answered in time.
    pub(super) fn missed(&self) {
        let before = self.misses.fetch_add(1, Ordering::Relaxed);
        if before + 1 == MISSES {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        self.misses.fetch_min(MISSES, Ordering::Relaxed);
    }

    /// The connection is lost: nobody waits for it.
    pub(super) fn lost(&self) {
        if self.misses.swap(MISSES, Ordering::Relaxed) < MISSES {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        self.probes.store(0, Ordering::Relaxed);
    }

    /// A probe was answered in time, or not.
    pub(super) fn probed(&self, in_time: bool) {
        if !in_time {
            self.probes.store(0, Ordering::Relaxed);
        } else if self.probes.fetch_add(1, Ordering::Relaxed) + 1 >= PROBES {
            self.probes.store(0, Ordering::Relaxed);
            self.misses.store(0, Ordering::Relaxed);
        }
    }

    /// How often it opened.
    pub(super) fn openings(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_misses_in_a_row_and_closes_after_probes_in_a_row() {
        let breaker = Breaker::open();
        assert!(!breaker.is_closed());
        breaker.probed(true);
        breaker.probed(false);
        breaker.probed(true);
        assert!(!breaker.is_closed());
        breaker.probed(true);
        assert!(breaker.is_closed());
        for _ in 0..3 {
            (0..MISSES - 1).for_each(|_| breaker.missed());
            breaker.answered();
        }
        assert!(breaker.is_closed() && breaker.openings() == 0);
        (0..MISSES + 3).for_each(|_| breaker.missed());
        breaker.answered();
        assert!(!breaker.is_closed(), "a late answer does not close it");
        assert_eq!(breaker.openings(), 1);
        breaker.probed(true);
        breaker.lost();
        breaker.probed(true);
        assert!(!breaker.is_closed());
    }
}
