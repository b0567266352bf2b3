//! The one place that asks the system for time and randomness: the proxy is the edge of the system.

use std::time::{Instant, SystemTime};

/// Monotonic time, for durations and deadlines.
#[expect(clippy::disallowed_methods, reason = "the proxy stands at the edge: its time is the system's")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calendar time, for what is sent to the scorer and for the end of decisions.
#[expect(clippy::disallowed_methods, reason = "the proxy stands at the edge: its time is the system's")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A number in [0, 1), to spread reconnections.
#[expect(clippy::disallowed_methods, reason = "jitter must differ between proxies")]
pub fn jitter() -> f64 {
    rand::random()
}

/// Unpredictable bytes, for identifiers.
#[expect(clippy::disallowed_methods, reason = "identifiers must not be guessable")]
pub fn entropy() -> [u8; 16] {
    rand::random()
}
