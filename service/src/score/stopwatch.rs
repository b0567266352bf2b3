//! Where the time of one transaction goes.

use std::time::Instant;

use crate::verdict::Timings;

/// Measures the steps of one transaction.
pub struct Stopwatch {
    started: Instant,
    last: Instant,
    timings: Timings,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "timings are about this process, not about events")]
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, timings: Timings::default() }
    }

    #[expect(clippy::disallowed_methods, reason = "timings are about this process, not about events")]
    pub(super) fn lap(&mut self, step: impl FnOnce(&mut Timings) -> &mut f64) {
        let now = Instant::now();
        *step(&mut self.timings) = now.duration_since(self.last).as_secs_f64() * 1e6;
        self.last = now;
    }

    pub(super) fn finish(mut self) -> Timings {
        self.timings.total_us = self.last.duration_since(self.started).as_secs_f64() * 1e6;
        self.timings
    }
}
