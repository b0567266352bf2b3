//! Models asked directly, by the Open Inference Protocol: rows that the caller has enter, scores leave. Nothing is decided, counted or
//! journalled.
//!
//! One thread of low priority works, on a lane of its own, so that no transaction ever waits for a batch. Calls wait in a bounded queue;
//! when it is full they are refused. Who hangs up or runs out of time is not worked for any more.

mod api;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use telltale_models::{BATCH, Lane, Served};
use telltale_proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use tokio::sync::oneshot;

use super::Service;
use super::errors::CallError;
use super::models::yield_to_scoring;
use crate::config::InferenceSection;
use crate::convert::inference::{Inferred, Rows};

use api::InferenceApi;

/// How often an idle thread looks whether the server is still there.
const LOOK: Duration = Duration::from_millis(250);

/// Rows that wait for their scores.
struct Job {
    served: Served,
    rows: Rows,
    answer: oneshot::Sender<Result<Inferred, CallError>>,
}

/// What the server keeps for calls of models.
pub struct Inference {
    options: InferenceSection,
    queue: SyncSender<Job>,
    waiting: Mutex<Option<Receiver<Job>>>,
}

impl Inference {
    /// Ready; nothing is worked on before [`Inference::start`].
    pub fn new(options: &InferenceSection) -> Self {
        let (queue, waiting) = sync_channel(options.queue);
        Self { options: options.clone(), queue, waiting: Mutex::new(Some(waiting)) }
    }

    /// Lanes that it needs.
    pub fn lanes(options: &InferenceSection) -> usize {
        usize::from(options.enabled)
    }

    /// Starts the thread and gives what answers the calls, if models may be asked. The thread ends soon after the service begins to drain.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(service: &Arc<Service>) -> std::io::Result<Option<GrpcInferenceServiceServer<InferenceApi>>> {
        let own = &service.inference;
        let waiting = own.waiting.lock().take();
        let Some(queue) = waiting.filter(|_| own.options.enabled) else { return Ok(None) };
        let weak = Arc::downgrade(service);
        std::thread::Builder::new().name("inference".to_owned()).spawn(move || run(&weak, &queue))?;
        let answers = GrpcInferenceServiceServer::new(InferenceApi(Arc::clone(service)));
        Ok(Some(answers.max_decoding_message_size(own.options.max_mb << 20)))
    }

    /// Whether models may be asked.
    pub const fn is_enabled(&self) -> bool {
        self.options.enabled
    }

    /// Leaves rows for the thread and waits for their scores.
    ///
    /// # Errors
    /// [`CallError::Queue`] when too many wait, [`CallError::Unscored`] when no row got a score.
    async fn ask(&self, served: Served, rows: Rows) -> Result<Inferred, CallError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job { served, rows, answer }).map_err(|error| match error {
            TrySendError::Full(_) => CallError::Queue { limit: self.options.queue },
            TrySendError::Disconnected(_) => CallError::Draining,
        })?;
        answered.await.map_err(|_| CallError::Draining)?
    }
}

fn run(service: &Weak<Service>, queue: &Receiver<Job>) {
    yield_to_scoring(5);
    loop {
        let job = match queue.recv_timeout(LOOK) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(service) = service.upgrade() else { return };
        match job {
            Some(job) => work(job, service.inference_lane()),
            // What was accepted is worked off first.
            None if *service.draining.borrow() => return,
            None => {}
        }
    }
}

/// Scores the rows of a job, a batch at a time, as long as somebody waits.
fn work(job: Job, lane: Lane) {
    let Job { served, rows, answer } = job;
    let width = served.inputs().count().max(1);
    let mut inferred = Inferred { version: served.version(), meaning: served.meaning(), ..Inferred::default() };
    for batch in rows.values.chunks(BATCH * width) {
        if answer.is_closed() {
            return;
        }
        for raw in served.raws(batch, lane) {
            match raw {
                Ok(raw) => {
                    inferred.raw.push(raw);
                    inferred.calibrated.push(served.calibrated(raw).unwrap_or(f64::NAN));
                }
                Err(problem) => {
                    if inferred.unscored == 0 {
                        inferred.problem = problem;
                    }
                    inferred.unscored += 1;
                    inferred.raw.push(f64::NAN);
                    inferred.calibrated.push(f64::NAN);
                }
            }
        }
    }
    let result = if inferred.unscored == rows.rows { Err(CallError::Unscored(inferred.problem)) } else { Ok(inferred) };
    // Nobody waits any more: that is theirs to say.
    drop(answer.send(result));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_who_is_gone_is_not_worked_for() {
        let inference = Inference::new(&InferenceSection { queue: 0, ..InferenceSection::default() });
        let served = served();
        let rows = || Rows { rows: 1, values: vec![0.5; served.inputs().count()] };
        let refused = inference.ask(served.clone(), rows()).await.unwrap_err();
        assert!(matches!(refused, CallError::Queue { limit: 0 }), "{refused}");
        let (answer, answered) = oneshot::channel();
        work(Job { served: served.clone(), rows: rows(), answer }, Lane(0));
        assert_eq!(answered.await.unwrap().unwrap().raw.len(), 1);
        drop(inference.waiting.lock().take());
        assert!(matches!(inference.ask(served.clone(), rows()).await.unwrap_err(), CallError::Draining));
    }

    /// The shipped forest.
    fn served() -> Served {
        let mut config = crate::config::Config::default();
        config.models.path = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default").into());
        let (bundle, _) = crate::setup::models(&config, &crate::setup::schema(None).unwrap(), 1).unwrap();
        bundle.served("unusual", None).unwrap()
    }
}
