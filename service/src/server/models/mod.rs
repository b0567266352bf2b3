//! Models while traffic flows: a thread of its own loads, swaps and watches; scoring only ever sees finished snapshots.
//!
//! Changes of models are jobs of that thread, one after the other. Between jobs it looks at the repository: a policy that somebody
//! changed by hand is followed within a second. What only watches is scored by a second thread behind a bounded queue.

mod api;
mod change;
mod compare;
mod drift;
mod follow;
mod guard;
mod inbox;
mod labels;
mod mirror;
mod probation;
mod seen;
mod shadow;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use telltale_models::Loader;
use telltale_models::repository::Author;

use super::Service;
use super::api::present;
use super::errors::CallError;
use crate::score::Engine;

pub use api::ModelsApi;
use drift::Drift;
pub use drift::report as drift_report;
use follow::Follow;
pub use shadow::Shadows;

/// Jobs that may wait.
const JOBS: usize = 64;
/// How often the repository is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Something to do on the models' thread.
type Job = Box<dyn FnOnce(&Service) + Send>;

/// What the server keeps for its models.
pub struct Models {
    jobs: SyncSender<Job>,
    /// Until the thread takes it.
    waiting: Mutex<Option<Receiver<Job>>>,
    /// What only watches.
    pub shadows: Shadows,
}

/// Who asks, in which role.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Identity.
    pub who: String,
    /// Role, for the audit.
    pub role: &'static str,
    /// Why.
    pub why: String,
}

impl Asker {
    fn author(&self, service: &Service) -> Author {
        Author { who: self.who.clone(), why: self.why.clone(), time_us: service.engine.clock().now().micros() }
    }
}

impl Models {
    /// Ready; nothing runs before [`Models::start`].
    pub fn new<S: telltale_features::store::Store>(engine: &Engine<S>, config: &crate::config::Models) -> Self {
        let (jobs, waiting) = sync_channel(JOBS);
        let drift = Drift::new(config.drift_one_in, config.drift_minutes);
        Self { jobs, waiting: Mutex::new(Some(waiting)), shadows: Shadows::new(engine, config, drift) }
    }

    /// Takes note of the models in force, then starts the threads. They end soon after the service begins to drain.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(service: &Arc<Service>, config: &crate::config::Config) -> std::io::Result<()> {
        let Some(jobs) = service.models.waiting.lock().take() else { return Ok(()) };
        shadow::begin(service);
        let own = Arc::downgrade(service);
        std::thread::Builder::new().name("models".to_owned()).spawn(move || run(&own, &jobs))?;
        let (own, percent) = (Arc::downgrade(service), config.models.inbox_percent);
        std::thread::Builder::new().name("inbox".to_owned()).spawn(move || inbox::run(&own, percent))?;
        let own = Arc::downgrade(service);
        std::thread::Builder::new().name("shadows".to_owned()).spawn(move || shadow::run(&own))?;
        mirror::start(service, config)
    }

    /// Runs a job on the models' thread and waits for what it says.
    ///
    /// # Errors
    /// What the job says; [`CallError::Overloaded`] when too many wait.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Service) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let job = Box::new(move |service: &Service| drop(answer.send(job(service))));
        self.jobs.try_send(job).map_err(|_| CallError::Overloaded { limit: JOBS })?;
        answered.await.map_err(|_| CallError::Draining)?
    }

    /// Leaves a job for the models' thread. False when too many wait.
    pub fn leave(&self, job: impl FnOnce(&Service) + Send + 'static) -> bool {
        self.jobs.try_send(Box::new(job)).is_ok()
    }
}

/// What loads the models in force.
fn loader(service: &Service) -> Result<Arc<Loader>, CallError> {
    service.engine.in_force().loader.clone().ok_or(CallError::NoRepository)
}

fn run(service: &Weak<Service>, jobs: &Receiver<Job>) {
    yield_to_scoring(10);
    let mut follow = Follow::default();
    let mut next = present() + LOOK;
    loop {
        let job = match jobs.recv_timeout(next.saturating_duration_since(present())) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(service) = service.upgrade() else { return };
        if *service.draining.borrow() {
            return;
        }
        if let Some(job) = job {
            job(&service);
        }
        // However many jobs come: the repository is looked at.
        if present() >= next {
            follow.look(&service);
            next = present() + LOOK;
        }
    }
}

/// Lowers this thread's priority, so that loading and watching never take processor time from scoring.
pub fn yield_to_scoring(niceness: i32) {
    // On Linux the nice value belongs to the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::warn!(%error, "a thread that should yield to scoring keeps its priority");
    }
}
