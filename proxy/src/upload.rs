//! The request's body on its way: its first bytes are kept for scoring, the rest streams through, counted and bounded.
//!
//! Never holds more than the sample and one frame.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::transaction::Sample;

/// Why a body did not reach the upstream whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// It is larger than allowed.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// Nothing came for too long.
    #[error("the body did not come in time")]
    TooSlow,
    /// The client broke off.
    #[error("the body broke off")]
    Broken,
}

/// What bounds a body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes in all.
    pub bytes: u64,
    /// Time without a frame.
    pub idle: Duration,
}

/// Called once with the sample when it is full, the body ends, or nobody wants more of it.
type Tap = Box<dyn FnOnce(Sample) + Send>;

/// A body that streams, its first frames perhaps read already.
pub struct Upload {
    head: VecDeque<Bytes>,
    head_bytes: u64,
    rest: Option<Incoming>,
    seen: u64,
    announced: Option<u64>,
    bounds: Bounds,
    idle: Option<Pin<Box<Sleep>>>,
    tap: Option<(Tap, usize, Vec<Bytes>)>,
}

impl Upload {
    /// A body of which nothing was read yet.
    pub fn new(body: Incoming, bounds: Bounds) -> Self {
        let announced = body.size_hint().exact();
        let rest = (!body.is_end_stream()).then_some(body);
        Self { head: VecDeque::new(), head_bytes: 0, rest, seen: 0, announced, bounds, idle: None, tap: None }
    }

    /// Reads the first `want` bytes, for at most `wait`. What was read still goes to the upstream.
    pub async fn sample(&mut self, want: usize, wait: Duration) -> Result<Sample, UploadError> {
        let until = Instant::now() + wait;
        while self.seen < want as u64 {
            let Some(rest) = &mut self.rest else { break };
            let Ok(frame) = tokio::time::timeout_at(until, rest.frame()).await else { break };
            match frame {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.count(&data)?;
                    self.head_bytes = self.seen;
                    self.head.push_back(data);
                }
                Some(Err(_)) => return Err(UploadError::Broken),
                None => self.rest = None,
            }
            if self.rest.as_ref().is_some_and(Body::is_end_stream) {
                self.rest = None;
            }
        }
        Ok(self.excerpt(self.head.iter(), want))
    }

    /// Lets `tap` have the first `want` bytes as they stream by.
    pub fn tap(&mut self, want: usize, tap: Tap) {
        if self.rest.is_none() {
            tap(Sample::default());
        } else {
            self.tap = Some((tap, want, Vec::new()));
        }
    }

    fn excerpt<'a>(&self, frames: impl Iterator<Item = &'a Bytes> + Clone, want: usize) -> Sample {
        let mut bytes = match frames.clone().next() {
            Some(first) if first.len() as u64 == self.seen || first.len() >= want => first.clone(),
            _ => frames
                .fold(BytesMut::new(), |mut all, frame| {
                    all.extend_from_slice(frame);
                    all
                })
                .freeze(),
        };
        bytes.truncate(want);
        let size = if self.rest.is_none() { self.seen } else { self.announced.unwrap_or(self.seen) };
        let truncated = self.rest.is_some() || (bytes.len() as u64) < self.seen;
        Sample { bytes, size, truncated }
    }

    fn count(&mut self, data: &Bytes) -> Result<(), UploadError> {
        self.seen += data.len() as u64;
        if self.seen > self.bounds.bytes { Err(UploadError::TooLarge) } else { Ok(()) }
    }

    fn feed_tap(&mut self, data: Option<&Bytes>) {
        let Some((_, want, frames)) = &mut self.tap else { return };
        frames.extend(data.cloned());
        if data.is_none() || self.seen >= *want as u64 {
            self.release_tap();
        }
    }

    fn release_tap(&mut self) {
        if let Some((tap, want, frames)) = self.tap.take() {
            tap(self.excerpt(frames.iter(), want));
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        loop {
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            match Pin::new(rest).poll_frame(cx) {
                Poll::Pending => {
                    let idle = self.bounds.idle;
                    let timer = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                    ready!(timer.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(UploadError::TooSlow)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(timer) = &mut self.idle {
                        timer.as_mut().reset(Instant::now() + self.bounds.idle);
                    }
                    // Trailers are dropped: whoever scored the head would never have seen them.
                    let Ok(data) = frame.into_data() else { continue };
                    self.count(&data)?;
                    if self.rest.as_ref().is_some_and(Body::is_end_stream) {
                        self.rest = None;
                    }
                    self.feed_tap(Some(&data));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(UploadError::Broken))),
                Poll::Ready(None) => {
                    self.rest = None;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Some(data) = self.head.pop_front() {
            self.head_bytes -= data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = ready!(self.poll_rest(cx));
        if frame.is_none() || self.rest.is_none() {
            self.feed_tap(None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + self.head_bytes);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.head_bytes);
        }
        hint
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.release_tap();
    }
}
