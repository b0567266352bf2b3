//! Notices bursts of unscored answers: one line in the log and one count each time ten seconds hold too many.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The span in which unscored answers are counted.
const SPAN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    seen: u64,
}

/// Counts unscored answers.
#[derive(Debug)]
pub struct Alarm {
    after: u64,
    window: Mutex<Window>,
}

impl Alarm {
    /// Raised by that many in ten seconds.
    pub fn new(after: u64) -> Self {
        Self { after, window: Mutex::default() }
    }

    /// Notes one; true when it completes a burst, once in each span.
    pub fn note(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        if window.begun.is_none_or(|begun| now.saturating_duration_since(begun) > SPAN) {
            *window = Window { begun: Some(now), seen: 0 };
        }
        window.seen += 1;
        window.seen == self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_noted_once_in_each_span() {
        let start = crate::clock::now();
        let alarm = Alarm::new(3);
        let noted: Vec<bool> = [0, 1, 2, 3, 4].iter().map(|second| alarm.note(start + Duration::from_secs(*second))).collect();
        assert_eq!(noted, [false, false, true, false, false]);
        let next: Vec<bool> = [20, 21, 22].iter().map(|second| alarm.note(start + Duration::from_secs(*second))).collect();
        assert_eq!(next, [false, false, true]);
        let slow: Vec<bool> = [40, 47, 54].iter().map(|second| alarm.note(start + Duration::from_secs(*second))).collect();
        assert_eq!(slow, [false; 3]);
    }
}
