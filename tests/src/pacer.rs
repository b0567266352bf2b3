//! Waits for moments a fraction of a millisecond apart.
//!
//! tokio's timers go in steps of a millisecond: an open loop on them sends in bursts, and measures its own bursts. The
//! kernel's timers are exact to some microseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// A kernel timer in tokio's loop.
#[derive(Debug)]
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the kernel gives none.
    #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor; the tests below wait with it")]
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned by the value that is registered, stays open as long as it, and is never replaced.
        let timer = unsafe { AsyncFd::register(timer) };
        Ok(Self { timer: timer? })
    }

    /// Returns at that moment; when it has passed already, after everybody else had a turn.
    ///
    /// # Errors
    /// When the timer fails.
    pub async fn until(&self, moment: Instant) -> io::Result<()> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.set(wait)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut fired = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut fired)?)) {
                Ok(read) => return read.map(drop),
                Err(_not_yet) => {}
            }
        }
    }

    fn set(&self, wait: Duration) -> io::Result<()> {
        let value = Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn never_returns_early() {
        let pacer = Pacer::new().unwrap();
        let begun = Instant::now();
        for step in 1..=40 {
            let meant = begun + Duration::from_micros(step * 100);
            pacer.until(meant).await.unwrap();
            assert!(Instant::now() >= meant);
        }
    }
}
