//! What changing the champion costs: from the command to the flip for a version that is loaded for it, back to one that is still warm, and
//! what the calls meanwhile notice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hdrhistogram::Histogram;
use telltale_models::repository::Step;
use telltale_models::{Bundle, Lane, Loader, Repository, Which};
use tokio::time::Instant;

use super::kinds::Given;
use super::models::options;
use super::{Failure, Row, median};

const MODEL: &str = "swapped";
/// Champion and previous stay loaded: of so many in turn, the next one never is.
const VERSIONS: u32 = 4;
const SWAPS: usize = 100;
/// Every so many promotions, one is taken back.
const TAKEN_BACK: usize = 4;
const STEADY_FOR: Duration = Duration::from_secs(2);

const STEADY: u8 = 0;
const SWAPPING: u8 = 1;
const OVER: u8 = 2;

/// Latencies of calls, nanoseconds.
type Latencies = Histogram<u64>;

struct Site {
    loader: Loader,
    in_force: ArcSwap<Bundle>,
}

/// Measures.
///
/// # Errors
/// When a version is not taken or cannot be loaded, or a call got no score.
pub fn run(folder: &Path) -> Result<Vec<Row>, Failure> {
    let (given, options) = (Given::read()?, options(Which::None, folder)?);
    let repository = Repository::create(folder.join("swaps"))?;
    for _ in 0..VERSIONS {
        repository.publish(MODEL, given.export("lightgbm", &options)?)?;
    }
    repository.promote(MODEL, 1)?;
    let loader = Loader::new(repository, given.index.clone(), options);
    let in_force = ArcSwap::from_pointee(loader.bundle()?);
    let site = Site { loader, in_force };
    let phase = AtomicU8::new(STEADY);
    let (calls, swaps) = std::thread::scope(|scope| {
        let calls = scope.spawn(|| calls(&site, &given, &phase));
        std::thread::sleep(STEADY_FOR);
        phase.store(SWAPPING, Ordering::Relaxed);
        let swaps = site.swaps();
        // Also after an error: the other thread must end.
        phase.store(OVER, Ordering::Relaxed);
        (calls.join().map_err(|_| "the calling thread panicked"), swaps)
    });
    let ((steady, during), (promoted, back)) = (calls??, swaps?);
    let longest = promoted.iter().copied().fold(0.0, f64::max);
    let p99 = |latencies: &Latencies| latencies.value_at_quantile(0.99) as f64 / 1e3;
    Ok(vec![
        Row::new("swap: promotion to flip, loads the version", median(promoted), "ms").beside("the longest", longest),
        Row::new("swap: rollback to flip, still warm", median(back), "ms"),
        Row::new(format!("swap: p99 of a call during {SWAPS} swaps"), p99(&during), "µs").beside("steady", p99(&steady)),
    ])
}

impl Site {
    /// Milliseconds of each promotion and of each rollback.
    fn swaps(&self) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let (mut promoted, mut back, mut next) = (Vec::new(), Vec::new(), 1);
        while promoted.len() + back.len() < SWAPS {
            next = next % VERSIONS + 1;
            promoted.push(self.swap(Step::Promote(next))?);
            if promoted.len() % TAKEN_BACK == 0 {
                back.push(self.swap(Step::Rollback)?);
            }
        }
        Ok((promoted, back))
    }

    /// One change as the scorer makes it; milliseconds until its flip. What is taken back is stored after the flip, as there.
    fn swap(&self, step: Step) -> Result<f64, Failure> {
        let begun = Instant::now();
        let repository = self.loader.repository();
        let policy = repository.policy(MODEL)?.after(step)?;
        let state = self.loader.state_of(MODEL, policy.clone())?;
        let before = self.in_force.load_full();
        let built = self.loader.apply(&before, MODEL, &state)?;
        let save = || repository.change(MODEL, |_| Ok(policy.clone()));
        if !step.takes_back() {
            save()?;
        }
        self.in_force.store(Arc::new(before.adopting(&built, MODEL)));
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if step.takes_back() {
            save()?;
        }
        self.loader.settle(&self.in_force.load());
        Ok(took)
    }
}

/// Scores row after row until it is over: the latencies while nothing was swapped, and while something was.
fn calls(site: &Site, given: &Given, phase: &AtomicU8) -> Result<(Latencies, Latencies), Failure> {
    let (mut steady, mut during) = (Histogram::new(3)?, Histogram::new(3)?);
    for vector in given.rows.iter().cycle() {
        let latencies = match phase.load(Ordering::Relaxed) {
            STEADY => &mut steady,
            SWAPPING => &mut during,
            _ => break,
        };
        let begun = Instant::now();
        let scores = site.in_force.load().score(vector, Lane(0));
        latencies.record(u64::try_from(begun.elapsed().as_nanos())?)?;
        if let Some(problem) = scores.degraded.first() {
            return Err(problem.clone().into());
        }
    }
    Ok((steady, during))
}
