//! One `ScoreStream`: frames out, replies in, matched by sequence. Opens itself again when it breaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use telltale_proto::v1::score_stream_request::Payload;
use telltale_proto::v1::score_stream_response::Payload as Reply;
use telltale_proto::v1::scorer_client::ScorerClient;
use telltale_proto::v1::{ScoreStreamRequest, ScoreStreamResponse, Transaction, Verdict};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{Backoff, call, connect};
use crate::config::ScorerSettings;
use crate::metrics::{Metrics, Report, Unscored};

type Waiting = oneshot::Sender<Result<Verdict, Unscored>>;

/// One stream, standing or being opened again.
#[derive(Debug)]
pub(super) struct Link {
    frames: ArcSwapOption<mpsc::Sender<ScoreStreamRequest>>,
    // INVARIANT: holds at most `in_flight` senders; each leaves with its reply, its deadline or the stream.
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// Even numbers are transactions, odd ones reports: a late error about a transaction is not taken for one about a report.
    sequence: AtomicU64,
    /// Reports that the scorer has not acknowledged yet.
    unacknowledged: AtomicUsize,
    acknowledged: Notify,
    in_flight: usize,
    metrics: Arc<Metrics>,
    /// Whether the stream has stood, or could not be opened, once.
    tried: watch::Sender<bool>,
    stop: Notify,
}

impl Link {
    pub(super) fn start(settings: ScorerSettings, metrics: Arc<Metrics>) -> Arc<Self> {
        let link = Arc::new(Self {
            frames: ArcSwapOption::empty(),
            waiting: Mutex::new(HashMap::with_capacity(settings.in_flight.min(1024))),
            sequence: AtomicU64::new(1),
            unacknowledged: AtomicUsize::new(0),
            acknowledged: Notify::new(),
            in_flight: settings.in_flight,
            metrics,
            tried: watch::Sender::new(false),
            stop: Notify::new(),
        });
        let kept = Arc::clone(&link);
        tokio::spawn(async move {
            tokio::select! {
                () = kept.keep(&settings) => {}
                () = kept.stop.notified() => {}
            }
            kept.close();
        });
        link
    }

    pub(super) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Returns once the first attempt to open the stream has ended, well or not.
    pub(super) async fn tried(&self) {
        let mut tried = self.tried.subscribe();
        // The sender is this value's own.
        let _gone = tried.wait_for(|tried| *tried).await.is_err();
    }

    pub(super) fn stands(&self) -> bool {
        self.frames.load().is_some()
    }

    pub(super) async fn score(&self, transaction: Transaction, deadline: Duration) -> Result<Verdict, Unscored> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) * 2;
        let (answer, reply) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= self.in_flight {
                return Err(Unscored::Full);
            }
            waiting.insert(sequence, answer);
        }
        let _leave = Leave { link: self, sequence };
        let deadline_us = u32::try_from(deadline.as_micros()).unwrap_or(u32::MAX);
        self.push(|| ScoreStreamRequest { sequence, deadline_us, payload: Some(Payload::Transaction(transaction)) })?;
        match tokio::time::timeout(deadline, reply).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Err(Unscored::Absent),
            Err(_) => Err(Unscored::Deadline),
        }
    }

    /// Sends a frame that nobody waits for; it is made only if there is room.
    pub(super) fn send(&self, payload: impl FnOnce() -> Payload) -> Result<(), Unscored> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) * 2 + 1;
        self.push(|| {
            self.unacknowledged.fetch_add(1, Ordering::AcqRel);
            ScoreStreamRequest { sequence, deadline_us: 0, payload: Some(payload()) }
        })
    }

    /// Returns once the scorer has acknowledged every report, or the stream is lost and they with it.
    pub(super) async fn acknowledged(&self) {
        loop {
            let told = self.acknowledged.notified();
            if self.unacknowledged.load(Ordering::Acquire) == 0 {
                return;
            }
            told.await;
        }
    }

    fn push(&self, frame: impl FnOnce() -> ScoreStreamRequest) -> Result<(), Unscored> {
        let frames = self.frames.load();
        let Some(sender) = frames.as_ref() else { return Err(Unscored::Absent) };
        let room = sender.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => Unscored::Full,
            mpsc::error::TrySendError::Closed(()) => Unscored::Absent,
        })?;
        room.send(frame());
        Ok(())
    }

    async fn keep(&self, settings: &ScorerSettings) {
        let mut backoff = Backoff::new();
        loop {
            let begun = crate::clock::now();
            let why = match self.run(settings).await {
                Ok(()) => "the scorer ended the stream".to_owned(),
                Err(why) => why,
            };
            if self.stands() {
                tracing::warn!(%why, "scorer stream lost, requests fail open or closed until it is back");
            } else {
                tracing::debug!(%why, "scorer cannot be reached");
            }
            self.close();
            self.tried.send_replace(true);
            if begun.elapsed() > Duration::from_secs(1) {
                backoff.reset();
            }
            backoff.wait().await;
        }
    }

    /// One life of the stream.
    async fn run(&self, settings: &ScorerSettings) -> Result<(), String> {
        let channel = connect(settings).await.map_err(|error| chain(&error))?;
        let (sender, receiver) = mpsc::channel(self.in_flight.saturating_mul(2));
        let mut client = ScorerClient::new(channel).max_decoding_message_size(1 << 20);
        let opening = client.score_stream(call(ReceiverStream::new(receiver), settings));
        let response = tokio::time::timeout(Duration::from_secs(5), opening).await;
        let mut replies =
            response.map_err(|_| "the scorer did not accept the stream in 5 s".to_owned())?.map_err(|status| chain(&status))?.into_inner();
        self.frames.store(Some(Arc::new(sender)));
        self.metrics.links.inc();
        self.tried.send_replace(true);
        tracing::info!("scorer stream stands");
        while let Some(reply) = replies.message().await.map_err(|status| chain(&status))? {
            self.settle(reply);
        }
        Ok(())
    }

    fn settle(&self, reply: ScoreStreamResponse) {
        if reply.sequence % 2 == 1 {
            if let Some(Reply::Error(error)) = reply.payload {
                tracing::debug!(code = error.code, message = %error.message, "report not taken");
                self.metrics.reports.count(Report::Refused);
            }
            let left = self.unacknowledged.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
            if left == Ok(1) {
                self.acknowledged.notify_waiters();
            }
            return;
        }
        // Who waited may have gone at its deadline.
        let Some(waiting) = self.waiting.lock().remove(&reply.sequence) else { return };
        let verdict = match reply.payload {
            Some(Reply::Verdict(verdict)) => Ok(verdict),
            Some(Reply::Error(error)) => {
                tracing::debug!(code = error.code, message = %error.message, "transaction not scored");
                Err(Unscored::Refused)
            }
            _ => return,
        };
        let _gone = waiting.send(verdict).is_err();
    }

    fn close(&self) {
        if self.frames.swap(None).is_some() {
            self.metrics.links.dec();
        }
        self.waiting.lock().clear();
        self.unacknowledged.store(0, Ordering::Release);
        self.acknowledged.notify_waiters();
    }
}

/// Takes a waiting request out of the table, however it ends.
struct Leave<'a> {
    link: &'a Link,
    sequence: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.link.waiting.lock().remove(&self.sequence);
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
