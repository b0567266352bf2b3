//! A new spare worker, as often as it takes: the machine may be out of memory or processes for a while.

use std::sync::Weak;
use std::time::Duration;

use super::Inner;

/// Pause after the first attempt that failed; each pause is twice the one before it.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Makes a spare for a model, for as long as that is in memory.
pub fn run(model: &Weak<Inner>) {
    let attempt = || {
        let Some(inner) = model.upgrade() else { return true };
        match inner.worker() {
            Ok(worker) => {
                inner.spares.lock().push(worker);
                true
            }
            Err(why) => {
                tracing::warn!(why, "no spare worker for a contained model; trying again");
                false
            }
        }
    };
    until_done(attempt, std::thread::sleep);
}

fn until_done(mut attempt: impl FnMut() -> bool, mut pause: impl FnMut(Duration)) {
    let mut next = FIRST;
    while !attempt() {
        pause(next);
        next = (next * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tries_again_after_longer_and_longer_pauses() {
        let (mut attempts, mut pauses) = (0, Vec::new());
        let attempt = || {
            attempts += 1;
            attempts > 12
        };
        until_done(attempt, |pause| pauses.push(pause.as_millis()));
        assert_eq!((attempts, &pauses[..3], pauses.len()), (13, &[100, 200, 400][..], 12));
        assert_eq!(pauses.iter().max(), Some(&30_000));
    }

    #[test]
    fn a_model_that_left_memory_gets_none() {
        run(&Weak::new());
    }
}
