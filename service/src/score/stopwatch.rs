//! Where the time of one transaction goes.

use std::time::{Duration, Instant};

use crate::verdict::Timings;

/// Measures the steps of one transaction.
pub struct Stopwatch {
    started: Instant,
    last: Instant,
    timings: Timings,
    /// When the caller gives up.
    end: Option<Instant>,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "timings are about this process, not about events")]
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, timings: Timings::default(), end: None }
    }

    #[expect(clippy::disallowed_methods, reason = "timings are about this process, not about events")]
    pub(super) fn lap(&mut self, step: impl FnOnce(&mut Timings) -> &mut f64) {
        let now = Instant::now();
        *step(&mut self.timings) = now.duration_since(self.last).as_secs_f64() * 1e6;
        self.last = now;
    }

    /// The same, of a call that ends at that moment.
    #[must_use]
    pub fn until(self, end: Instant) -> Self {
        Self { end: Some(end), ..self }
    }

    /// When something must stop that may take that long, and half of what is left of the call.
    #[expect(clippy::disallowed_methods, reason = "the caller's deadline is about this process, not about events")]
    pub(super) fn share(&self, most: Duration) -> Instant {
        let now = Instant::now();
        let half = self.end.map_or(most, |end| end.saturating_duration_since(now) / 2);
        now + most.min(half)
    }

    /// Whether that moment is still to come.
    #[expect(clippy::disallowed_methods, reason = "the caller's deadline is about this process, not about events")]
    pub(super) fn is_before(moment: Instant) -> bool {
        Instant::now() < moment
    }

    pub(super) fn finish(mut self) -> Timings {
        self.timings.total_us = self.last.duration_since(self.started).as_secs_f64() * 1e6;
        self.timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_half_of_what_is_left_and_never_more_than_is_allowed() {
        let watch = Stopwatch::start();
        let begin = watch.started;
        let second = Duration::from_secs(1);
        assert!(Stopwatch::is_before(watch.share(60 * second)), "nobody waits");
        assert!(!Stopwatch::is_before(watch.until(begin).share(60 * second)), "the deadline has passed");
        let stop = Stopwatch::start().until(begin + 600 * second).share(900 * second);
        assert!(stop >= begin + 300 * second && stop < begin + 600 * second);
        assert!(Stopwatch::start().until(begin + 600 * second).share(2 * second) < begin + 300 * second);
    }
}
