//! The way of a request: clean it, see what stands, score it, do what the verdict says, forward it, report the outcome.
//!
//! Holds no policy of its own.

mod enforce;
mod forward;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use telltale_proto::v1::{Action, HttpResponse, Outcome, Verdict};
use tokio::sync::Semaphore;

use crate::aggregates::Aggregates;
use crate::alarm::Alarm;
use crate::answers::{self, Client};
use crate::bucket::Buckets;
use crate::clock;
use crate::config::Settings;
use crate::decisions::{Clues, Decisions, Kept};
use crate::download::Answer;
use crate::hygiene::{self, Clean, Reason, Refusal};
use crate::metrics::{Metrics, Unscored};
use crate::scorer::Scorers;
use crate::transaction::{self, Sample, timestamp};
use crate::upload::{Bounds, Upload, UploadError};

/// How long a passive verdict is awaited: nobody waits for it, the table of awaited ones does.
const PASSIVE_DEADLINE: Duration = Duration::from_secs(1);

/// What all threads of a proxy share.
pub struct Shared {
    pub(crate) settings: Settings,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) kept: Option<Kept>,
    pub(crate) buckets: Buckets,
    pub(crate) alarm: Alarm,
    delays: Semaphore,
}

/// Everything that the requests of one thread share.
pub struct Proxy {
    shared: Arc<Shared>,
    pub(crate) scorers: Scorers,
    aggregates: Aggregates,
    upstream: forward::Upstream,
}

/// When a request came, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    at: Instant,
    wall: SystemTime,
}

/// A request that passed hygiene.
pub(crate) struct Asked {
    parts: Parts,
    clean: Clean,
    client: Client,
    arrival: Arrival,
}

impl Asked {
    fn clues(&self) -> Clues<'_> {
        Clues { client: self.clean.client, headers: &self.clean.headers, query: self.parts.uri.query().unwrap_or_default() }
    }
}

/// What is reported once the answer is complete.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    id: String,
    /// The verdict's token; in passive mode it may come after the answer began.
    context: Arc<Mutex<Bytes>>,
    /// Whether the scorer has the transaction, so that an outcome makes sense to it.
    known: bool,
    arrival: Arrival,
}

/// Where a request goes on.
pub(crate) enum Course {
    /// To the upstream, with what is reported as done.
    Onward(Action),
    /// Back to the client.
    Answered(Action, Response<Answer>),
}

impl Shared {
    /// Nothing counted, nothing held.
    pub(crate) fn new(settings: Settings, metrics: Arc<Metrics>, decisions: Arc<Decisions>, kept: Option<Kept>) -> Self {
        Self {
            kept,
            delays: Semaphore::new(settings.limits.delayed),
            alarm: Alarm::new(settings.scorer.alert_after),
            buckets: Buckets::default(),
            settings,
            metrics,
            decisions,
        }
    }

    /// What is due once a second: ended decisions and buckets leave, changed decisions are saved.
    pub(crate) fn tick(&self) {
        self.decisions.sweep(clock::wall());
        self.buckets.sweep(clock::now());
        self.metrics.decisions.set(i64::try_from(self.decisions.len()).unwrap_or(i64::MAX));
        self.save();
    }

    /// Saves the decisions if they have changed.
    pub(crate) fn save(&self) {
        let Some(kept) = &self.kept else { return };
        if let Some(table) = self.decisions.changes()
            && let Err(error) = kept.save(&table)
        {
            tracing::error!(file = %kept.path().display(), %error, "decisions could not be saved; they stay in force until a restart");
            self.decisions.mark_changed();
        }
    }
}

impl std::ops::Deref for Proxy {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Proxy {
    /// A proxy that serves nobody yet; its streams are opened on the runtime of the caller.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            scorers: Scorers::start(&shared.settings.scorer, &shared.metrics),
            upstream: forward::Upstream::new(&shared.settings),
            aggregates: Aggregates::default(),
            shared: Arc::clone(shared),
        }
    }

    /// Sends what was denied here since the last time.
    pub(crate) fn flush(&self) {
        self.aggregates.flush(&self.scorers);
    }

    /// Answers one request. Every path ends in an answer.
    pub(crate) async fn serve(self: Arc<Self>, peer: SocketAddr, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let arrival = Arrival { at: clock::now(), wall: clock::wall() };
        let answer = self.answer(peer, arrival, request).await.unwrap_or_else(|refusal| self.refuse(&refusal));
        Ok(answer)
    }

    async fn answer(self: &Arc<Self>, peer: SocketAddr, arrival: Arrival, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let clean = hygiene::clean(&mut parts, peer, &self.settings)?; // what the client may claim
        let limits = &self.settings.limits;
        let mut upload = Upload::new(body, Bounds { bytes: limits.body_bytes, idle: limits.idle_time });
        let asked = Asked { client: Client::of(&clean.headers), parts, clean, arrival };
        if self.settings.passive {
            let scored = self.score_beside(&asked, &mut upload);
            return Ok(self.forward(asked, upload, scored, Action::Allow).await);
        }
        let standing = self.decisions.standing(&asked.clues(), arrival.wall); // what was decided before
        if let Some(denied) = self.deny(&standing, &asked).await {
            return Ok(denied);
        }
        let looked_up = arrival.at.elapsed();
        let wanted = &self.settings.scorer;
        let sample = upload.sample(wanted.sample_bytes, wanted.sample_wait).await.map_err(|error| self.broken(error))?;
        let sampled = clock::now();
        let (scored, verdict) = self.score(&asked, sample).await; // what the scorer says
        self.metrics.added.observe((looked_up + sampled.elapsed()).as_secs_f64());
        Ok(match self.enforce(&standing, verdict, &asked, &scored.id).await {
            Course::Onward(done) => self.forward(asked, upload, scored, done).await,
            Course::Answered(done, response) => self.report_own(&scored, done, response),
        })
    }

    /// Asks for the verdict of a request.
    async fn score(&self, asked: &Asked, sample: Sample) -> (Scored, Result<Verdict, Unscored>) {
        let transaction = transaction::transaction(&asked.parts, &asked.clean, &self.settings.service, asked.arrival.wall);
        let id = transaction.id.clone();
        let verdict = self.scorers.score(transaction::with_sample(transaction, sample)).await;
        let known = matches!(verdict, Ok(_) | Err(Unscored::Deadline));
        let context = verdict.as_ref().map(|verdict| verdict.context.clone()).unwrap_or_default();
        (Scored { id, context: Arc::new(Mutex::new(context)), known, arrival: asked.arrival }, verdict)
    }

    /// Scores while the request is on its way; nobody waits for the verdict.
    fn score_beside(self: &Arc<Self>, asked: &Asked, upload: &mut Upload) -> Scored {
        let transaction = transaction::transaction(&asked.parts, &asked.clean, &self.settings.service, asked.arrival.wall);
        let context = Arc::new(Mutex::new(Bytes::new()));
        let scored = Scored { id: transaction.id.clone(), context: Arc::clone(&context), known: true, arrival: asked.arrival };
        let proxy = Arc::clone(self);
        let ask = move |sample| {
            tokio::spawn(async move {
                let verdict = proxy.scorers.score_within(transaction::with_sample(transaction, sample), PASSIVE_DEADLINE).await;
                match verdict {
                    Ok(verdict) => {
                        enforce::log(&verdict);
                        *context.lock() = verdict.context;
                    }
                    Err(reason) => proxy.metrics.unscored.count(reason),
                }
            });
        };
        upload.tap(self.settings.scorer.sample_bytes, Box::new(ask));
        scored
    }

    /// Reports an answer of our own to a scored request, and gives it.
    fn report_own(&self, scored: &Scored, done: Action, response: Response<Answer>) -> Response<Answer> {
        let size = hyper::body::Body::size_hint(response.body()).exact().unwrap_or_default();
        self.report(scored, done, transaction::response(response.status().as_u16(), response.headers()), size);
        response
    }

    /// Reports the outcome of a request whose answer is complete.
    fn report(&self, scored: &Scored, done: Action, mut response: HttpResponse, size: u64) {
        let took = scored.arrival.at.elapsed();
        self.metrics.duration.observe(took.as_secs_f64());
        if !scored.known {
            return;
        }
        response.body_size = size;
        response.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.scorers.outcome(Outcome {
            transaction_id: scored.id.clone(),
            context: scored.context.lock().clone(),
            time: Some(timestamp(clock::wall())),
            response: Some(response),
            enforced: done.into(),
            ..Outcome::default()
        });
    }

    /// Counts a refusal and puts it in words.
    pub(crate) fn refuse(&self, refusal: &Refusal) -> Response<Answer> {
        self.metrics.refused.count(refusal.reason);
        tracing::debug!(%refusal, "request refused");
        answers::refused(refusal)
    }

    /// The refusal that fits a body which did not come whole.
    fn broken(&self, error: UploadError) -> Refusal {
        match error {
            UploadError::TooLarge => hygiene::too_large(self.settings.limits.body_bytes),
            UploadError::TooSlow => Refusal::new(Reason::TooSlow, StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            UploadError::Broken => Refusal::new(Reason::BrokenBody, StatusCode::BAD_REQUEST, "the body broke off or is badly framed"),
        }
    }
}
