//! Models asked directly, by the Open Inference Protocol: rows that the caller has enter, scores leave. Nothing is decided, counted or
//! journalled.
//!
//! One thread of low priority converts and scores, on a lane of its own: no transaction stands in line behind a batch. What they share is
//! the processor, which the system gives to scoring first, and the runtime that decodes the messages. Calls wait in a bounded queue,
//! whatever they hold; when it is full they are refused. Who hangs up or runs out of time is not worked for any more.

mod api;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use telltale_features::schema::Schema;
use telltale_models::{BATCH, Lane, Served};
use telltale_proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use telltale_proto::inference::{ModelInferRequest, ModelInferResponse};
use tokio::sync::oneshot;

use super::Service;
use super::errors::CallError;
use super::models::yield_to_scoring;
use crate::config::InferenceSection;
use crate::convert::inference::{self, Inferred, Rows};

use api::{InferenceApi, names};

/// How often an idle thread looks whether the server is still there.
const LOOK: Duration = Duration::from_millis(250);

/// Rows that wait for their scores.
struct Job {
    served: Served,
    request: ModelInferRequest,
    answer: oneshot::Sender<Answer>,
}

/// The number of rows that a request brought, and what is said of them.
type Answer = Result<(u64, ModelInferResponse), CallError>;

/// What a job is worked on with.
#[derive(Clone, Copy)]
struct Work<'a> {
    schema: &'a Schema,
    lane: Lane,
    max_rows: usize,
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

    /// Leaves a request for the thread and waits for its scores.
    ///
    /// # Errors
    /// [`CallError::Queue`] when too many wait, [`CallError::Field`] when the request is out of bounds, [`CallError::Unscored`] when no
    /// row got a score.
    async fn ask(&self, served: Served, request: ModelInferRequest) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job { served, request, answer }).map_err(|error| match error {
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
            Some(job) => {
                let max_rows = service.inference.options.max_rows;
                job.work(Work { schema: &service.engine.schema, lane: service.inference_lane(), max_rows });
            }
            // What was accepted is worked off first.
            None if *service.draining.borrow() => return,
            None => {}
        }
    }
}

impl Job {
    /// Answers it, unless nobody waits any more.
    fn work(self, with: Work<'_>) {
        let Self { served, request, answer } = self;
        if answer.is_closed() {
            return;
        }
        let answered = answered(&served, &request, with, || answer.is_closed());
        if let Some(answered) = answered.transpose() {
            // Who hung up meanwhile: that is theirs to say.
            drop(answer.send(answered));
        }
    }
}

/// What is said to a request; nothing once it is given up.
fn answered(
    served: &Served,
    request: &ModelInferRequest,
    with: Work<'_>,
    given_up: impl Fn() -> bool,
) -> Result<Option<(u64, ModelInferResponse)>, CallError> {
    let outputs = inference::outputs(request)?;
    let rows = inference::rows(request, &names(with.schema, served), with.max_rows)?;
    let Some(inferred) = infer(served, &rows, with.lane, given_up)? else { return Ok(None) };
    Ok(Some((rows.rows as u64, inference::response(request, &outputs, &inferred))))
}

/// Scores rows, a batch at a time, as long as somebody waits.
fn infer(served: &Served, rows: &Rows, lane: Lane, given_up: impl Fn() -> bool) -> Result<Option<Inferred>, CallError> {
    let width = served.inputs().count().max(1);
    let mut inferred = Inferred { version: served.version(), meaning: served.meaning(), ..Inferred::default() };
    for batch in rows.values.chunks(BATCH * width) {
        if given_up() {
            return Ok(None);
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
    if inferred.unscored == rows.rows { Err(CallError::Unscored(inferred.problem)) } else { Ok(Some(inferred)) }
}

#[cfg(test)]
mod tests {
    use telltale_proto::inference::InferTensorContents;
    use telltale_proto::inference::model_infer_request::InferInputTensor;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_who_is_gone_is_not_worked_for() {
        let inference = Inference::new(&InferenceSection { queue: 0, ..InferenceSection::default() });
        let (served, schema) = (served(), crate::setup::schema(None).unwrap());
        let with = Work { schema: &schema, lane: Lane(0), max_rows: 1 };
        // Nothing is looked at before there is a place, not even whether it is a request at all.
        let refused = inference.ask(served.clone(), ModelInferRequest::default()).await.unwrap_err();
        assert!(matches!(refused, CallError::Queue { limit: 0 }), "{refused}");
        for (request, rows) in [(one_row(&served), Some(1)), (ModelInferRequest::default(), None)] {
            let (answer, answered) = oneshot::channel();
            Job { served: served.clone(), request, answer }.work(with);
            match (answered.await.unwrap(), rows) {
                (Ok((count, response)), Some(rows)) => assert_eq!((count, response.outputs.len()), (rows, 2)),
                (Err(CallError::Field(_)), None) => {}
                (answered, _) => panic!("{answered:?}"),
            }
        }
        let (request, asked) = (one_row(&served), std::cell::Cell::new(0));
        let give_up = || asked.replace(asked.get() + 1) == 0;
        assert!(answered(&served, &request, with, give_up).unwrap().is_none());
        assert_eq!(asked.get(), 1);
        drop(inference.waiting.lock().take());
        assert!(matches!(inference.ask(served.clone(), one_row(&served)).await.unwrap_err(), CallError::Draining));
    }

    fn one_row(served: &Served) -> ModelInferRequest {
        let width = served.inputs().count();
        let contents = Some(InferTensorContents { fp64_contents: vec![0.5; width], ..InferTensorContents::default() });
        let (name, datatype, shape) = (inference::FEATURES.to_owned(), "FP64".to_owned(), vec![1, i64::try_from(width).unwrap()]);
        let inputs = vec![InferInputTensor { name, datatype, shape, contents, ..InferInputTensor::default() }];
        ModelInferRequest { inputs, ..ModelInferRequest::default() }
    }

    /// The shipped forest.
    fn served() -> Served {
        let mut config = crate::config::Config::default();
        config.models.path = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default").into());
        let (bundle, _) = crate::setup::models(&config, &crate::setup::schema(None).unwrap(), 1).unwrap();
        bundle.served("unusual", None).unwrap()
    }
}
