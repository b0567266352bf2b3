//! Rate limits held here: one GCRA bucket for each entity and rate (the virtual scheduling form of ITU-T I.371).
//!
//! Time is an argument. Bounded: when full, buckets that have run empty go first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use telltale_proto::v1::Mitigation;

use crate::decisions::EntityKey;

#[cfg(test)]
mod tests;

/// Most buckets held at once.
const CAPACITY: usize = 100_000;
/// A limit without an end is held this long after the verdict that last asked for it.
const HOLD: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rate {
    requests: u32,
    period_ms: u32,
    burst: u32,
}

#[derive(Debug, Default)]
struct Inner {
    /// When each bucket will have run empty (theoretical arrival time).
    arrival: HashMap<(EntityKey, Rate), Instant>,
    /// Limits that hold for an entity while no verdict can be had.
    held: HashMap<EntityKey, (Rate, Instant)>,
}

/// All buckets of a proxy.
#[derive(Debug, Default)]
pub struct Buckets(Mutex<Inner>);

impl Buckets {
    /// Takes one from the bucket of that entity, or says how long to wait. A limit without an entity or a rate admits nothing.
    pub fn take(&self, key: Option<EntityKey>, mitigation: &Mitigation, now: Instant) -> Result<(), Duration> {
        let retry = Duration::from_millis(u64::from(mitigation.retry_after_ms));
        let rate = Rate { requests: mitigation.rate, period_ms: mitigation.period_ms, burst: mitigation.burst };
        let Some(key) = key.filter(|_| rate.requests > 0 && rate.period_ms > 0) else { return Err(retry) };
        let mut inner = self.0.lock();
        inner.take(key, rate, now).map_err(|wait| wait.max(retry))
    }

    /// Remembers the limit for times without verdicts, until `until` or a minute.
    pub fn hold(&self, key: EntityKey, mitigation: &Mitigation, now: Instant, lasting: Option<Duration>) {
        let rate = Rate { requests: mitigation.rate, period_ms: mitigation.period_ms, burst: mitigation.burst };
        let mut inner = self.0.lock();
        if inner.held.len() >= CAPACITY {
            inner.held.retain(|_, (_, until)| *until > now);
        }
        if inner.held.len() < CAPACITY {
            inner.held.insert(key, (rate, now + lasting.unwrap_or(HOLD)));
        }
    }

    /// Takes one from a held limit of any of these entities.
    pub fn take_held(&self, keys: impl Iterator<Item = EntityKey>, now: Instant) -> Result<(), Duration> {
        let mut inner = self.0.lock();
        for key in keys {
            if let Some((rate, until)) = inner.held.get(&key).copied()
                && until > now
            {
                inner.take(key, rate, now)?;
            }
        }
        Ok(())
    }

    /// Whether any limit is held.
    pub fn holds_any(&self) -> bool {
        !self.0.lock().held.is_empty()
    }

    /// Forgets what has run out.
    pub fn sweep(&self, now: Instant) {
        let mut inner = self.0.lock();
        inner.arrival.retain(|_, arrival| *arrival > now);
        inner.held.retain(|_, (_, until)| *until > now);
    }
}

impl Inner {
    fn take(&mut self, key: EntityKey, rate: Rate, now: Instant) -> Result<(), Duration> {
        let step = Duration::from_millis(u64::from(rate.period_ms)) / rate.requests.max(1);
        let tolerance = step * rate.burst.max(1).saturating_sub(1);
        if self.arrival.len() >= CAPACITY && !self.arrival.contains_key(&(key, rate)) {
            self.arrival.retain(|_, arrival| *arrival > now);
            if self.arrival.len() >= CAPACITY {
                return Ok(());
            }
        }
        let arrival = self.arrival.entry((key, rate)).or_insert(now);
        let expected = (*arrival).max(now);
        let early = expected - now;
        if early > tolerance {
            return Err(early - tolerance);
        }
        *arrival = expected + step;
        Ok(())
    }
}
