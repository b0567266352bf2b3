//! Containment: a foreign model runs in worker processes of its own that can do nothing but score. A row enters, its score or the reason
//! why there is none leaves, within a deadline.
//!
//! One worker a lane and a spare with the model loaded: a worker that is too slow or crashes costs the row it was asked about, the spare
//! takes its place at once, and a new spare is made beside, as often as it takes. A version that loses too many workers is not asked any
//! more. The last lanes are those of what only watches or asks: they share their workers with nobody.

mod jail;
mod probe;
mod process;
mod protocol;
mod restock;
mod until;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::score::Lane;
use process::{Process, Silent};
use protocol::{Answer, Request};

pub use protocol::Spec;

/// Workers that a version may lose before it is given up.
const LIVES: u32 = 8;
/// Most workers of one version, whatever the number of lanes.
const MAX_WORKERS: usize = 8;

/// The last lanes, of what watches and of what only asks: neither holds up whoever waits for a verdict.
const APART: usize = 2;

/// How foreign models are contained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containment {
    /// The program that has the `model-worker` command.
    pub program: PathBuf,
    /// An empty folder, in which workers run; made when the first one starts.
    pub folder: PathBuf,
    /// Address space of a worker, bytes.
    pub memory_bytes: u64,
    /// How long is waited for what.
    pub deadlines: Deadlines,
    /// Whether limits and filter are on. Off only where a test shows that they matter.
    pub locked: bool,
    /// Only a look at a model: one worker and no spare, and the least part of a processor, as long as that suffices.
    pub aside: bool,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until a worker has started.
    pub start: Duration,
    /// Until it has loaded a model.
    pub load: Duration,
    /// Until a row is scored.
    pub row: Duration,
}

/// Why a worker gave no scores.
pub(crate) enum Unanswered {
    /// It answered that it gives none for these rows, and lives.
    Refused(String),
    /// There is no worker, or not any more.
    Lost(String),
}

impl Unanswered {
    fn why(self) -> String {
        match self {
            Self::Refused(why) | Self::Lost(why) => why,
        }
    }
}

/// A foreign model in its workers.
pub struct Contained {
    inner: Arc<Inner>,
    /// How many lanes there are; several of them may share a worker.
    asked: usize,
    workers: Vec<Mutex<Option<Process>>>,
}

/// What making a new worker needs.
struct Inner {
    containment: Containment,
    library: PathBuf,
    spec: Spec,
    bytes: Vec<u8>,
    spares: Mutex<Vec<Process>>,
    /// Whether new workers take the least part of a processor.
    aside: AtomicBool,
    lost: AtomicU32,
    /// Why the last worker was lost.
    last: Mutex<String>,
}

impl Contained {
    /// Starts the workers and loads the model in each.
    ///
    /// # Errors
    /// What the worker said of the model, or what the model did to its worker.
    pub fn start(bytes: Vec<u8>, spec: Spec, lanes: usize, library: PathBuf, containment: Containment) -> Result<Self, String> {
        let (spares, lost, last) = (Mutex::default(), AtomicU32::new(0), Mutex::new(String::new()));
        let (aside, only_look) = (AtomicBool::new(containment.aside), containment.aside);
        let inner = Arc::new(Inner { containment, library, spec, bytes, spares, aside, lost, last });
        let workers = (0..lanes.clamp(1, MAX_WORKERS)).map(|_| inner.worker().map(|worker| Mutex::new(Some(worker))));
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        if !only_look {
            let spare = inner.worker()?;
            inner.spares.lock().push(spare);
        }
        Ok(Self { inner, asked: lanes, workers })
    }

    /// How many numbers a row has.
    pub fn width(&self) -> usize {
        self.inner.spec.inputs.len()
    }

    /// The score of one row.
    ///
    /// # Errors
    /// Why there is none.
    pub fn score(&self, row: &[f32], lane: Lane) -> Result<f64, String> {
        self.scores(row.to_vec(), 1, lane)?.first().copied().ok_or_else(|| "no score came back".to_string())
    }

    /// The scores of some rows, as fast as whoever waits for a verdict needs them.
    ///
    /// # Errors
    /// Why there are none.
    pub fn scores(&self, matrix: Vec<f32>, rows: usize, lane: Lane) -> Result<Vec<f64>, String> {
        let deadline = self.inner.containment.deadlines.row * u32::try_from(rows.div_ceil(16)).unwrap_or(1).max(1);
        self.within(deadline, (matrix, rows), lane).map_err(Unanswered::why)
    }

    /// The same for whoever has time: each row has what a row alone has.
    ///
    /// # Errors
    /// Why there are none, and whether that cost the worker.
    pub(crate) fn unhurried(&self, matrix: Vec<f32>, rows: usize, lane: Lane) -> Result<Vec<f64>, Unanswered> {
        self.within(self.inner.containment.deadlines.row * u32::try_from(rows).unwrap_or(1).max(1), (matrix, rows), lane)
    }

    fn within(&self, deadline: Duration, (matrix, rows): (Vec<f32>, usize), lane: Lane) -> Result<Vec<f64>, Unanswered> {
        let lost = |why: &str| Unanswered::Lost(why.to_string());
        let place = self.workers.get(place(lane, self.asked, self.workers.len())).ok_or_else(|| lost("no lane"))?;
        let mut place = place.lock();
        if place.is_none() {
            *place = self.inner.replacement().map_err(Unanswered::Lost)?;
        }
        let worker = place.as_mut().ok_or_else(|| lost("its worker is being replaced"))?;
        let count = u32::try_from(rows).map_err(|_| lost("too many rows"))?;
        let request = Request::Score(count, matrix);
        let answer = match worker.ask(&request, deadline) {
            // That tells of the machine and nothing of the model: another worker, which does not give way.
            Err(Silent { starved: true, .. }) => {
                process::end(place.take().into_iter().collect());
                self.inner.aside.store(false, Ordering::Relaxed);
                place.insert(self.inner.worker().map_err(Unanswered::Lost)?).ask(&request, deadline)
            }
            answer => answer,
        };
        match answer {
            Ok(Answer::Scores(scores)) if scores.len() == rows => Ok(scores),
            Ok(Answer::Refused(why)) => Err(Unanswered::Refused(why)),
            Ok(_) => Err(Unanswered::Lost(self.inner.lose(&mut place, "what its worker sent is no answer".to_string()))),
            Err(Silent { why, .. }) => Err(Unanswered::Lost(self.inner.lose(&mut place, why))),
        }
    }
}

impl Drop for Contained {
    /// A model is given up by whoever changes models, while others wait for the change: who only looks at one waits until it is gone.
    fn drop(&mut self) {
        if self.inner.containment.aside {
            return;
        }
        let spares = std::mem::take(&mut *self.inner.spares.lock());
        let workers = std::mem::take(&mut self.workers).into_iter().filter_map(Mutex::into_inner);
        process::end(workers.chain(spares).collect());
    }
}

impl Inner {
    /// A new worker with the model loaded.
    fn worker(&self) -> Result<Process, String> {
        if self.aside.load(Ordering::Relaxed) {
            match self.started(true) {
                // That tells of the machine and nothing of the model.
                Err(Silent { starved: true, .. }) => self.aside.store(false, Ordering::Relaxed),
                other => return other.map_err(|silent| silent.why),
            }
        }
        self.started(false).map_err(|silent| silent.why)
    }

    fn started(&self, aside: bool) -> Result<Process, Silent> {
        let mut worker = Process::start(&self.containment, &self.library, aside)?;
        let load = Request::Load(self.spec.clone(), self.bytes.clone());
        match worker.ask(&load, self.containment.deadlines.load) {
            Ok(Answer::Ready) => Ok(worker),
            Ok(Answer::Refused(why)) => Err(why.into()),
            Ok(Answer::Scores(_)) => Err("what its worker sent is no answer".to_string().into()),
            Err(Silent { why, starved }) => Err(Silent { why: format!("it cannot be loaded: {why}"), starved }),
        }
    }

    /// Puts the spare in the place of a lost worker, ends the lost one and makes a new spare beside. Returns the reason.
    fn lose(self: &Arc<Self>, place: &mut Option<Process>, why: String) -> String {
        why.clone_into(&mut self.last.lock());
        process::end(place.take().into_iter().collect());
        *place = self.spares.lock().pop();
        let number = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(why, number, "a worker of a contained model is lost");
        if number < LIVES && !self.containment.aside {
            let inner = Arc::downgrade(self);
            let restock = move || restock::run(&inner);
            if let Err(error) = std::thread::Builder::new().name("model-spare".to_string()).spawn(restock) {
                tracing::error!(%error, "no new worker is made");
            }
        }
        why
    }

    /// The spare for a lane that has no worker; the error says why there is none.
    fn replacement(&self) -> Result<Option<Process>, String> {
        if self.lost.load(Ordering::Relaxed) >= LIVES {
            return Err(format!("it is not asked any more after {LIVES} lost workers; the last: {}", self.last.lock()));
        }
        Ok(self.spares.lock().pop())
    }
}

/// Which worker a lane has: each of the last [`APART`] lanes one of its own, all others share the rest.
fn place(lane: Lane, lanes: usize, workers: usize) -> usize {
    let behind = lanes.saturating_sub(lane.0 + 1);
    if lanes <= workers || behind < APART { workers.saturating_sub(behind + 1) } else { lane.0 % workers.saturating_sub(APART).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_watches_or_asks_shares_a_worker_with_nobody() {
        for lanes in 1..40 {
            let workers = lanes.clamp(1, MAX_WORKERS);
            let of = |lane: usize| place(Lane(lane), lanes, workers);
            assert!((0..lanes + 2).all(|lane| of(lane) < workers), "{lanes}");
            for apart in lanes.saturating_sub(APART)..lanes {
                let shared = (0..lanes).any(|lane| lane != apart && of(lane) == of(apart));
                assert!(!shared, "{lanes} lanes, {workers} workers");
            }
            assert_eq!((0..lanes).map(of).collect::<std::collections::BTreeSet<_>>().len(), workers, "every worker has a lane");
        }
    }
}
