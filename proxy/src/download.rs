//! The answer's body on its way to the client: an answer of our own, or the upstream's stream, counted and bounded in time.
//!
//! Its end, or its loss, is when the outcome is reported.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// Called once with the bytes sent, when the answer is complete or the client is gone.
type Closing = Box<dyn FnOnce(u64) + Send>;

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The upstream broke off.
    #[error("the upstream broke off")]
    Upstream(#[source] hyper::Error),
    /// The request took longer than allowed.
    #[error("the request took longer than allowed")]
    TooSlow,
}

/// An answer's body.
pub enum Answer {
    /// Our own words.
    Own(Option<Bytes>),
    /// The upstream's.
    Stream(Box<Download>),
}

/// An upstream's body.
pub struct Download {
    body: Incoming,
    sent: u64,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    closing: Option<Closing>,
}

impl Answer {
    /// An answer of our own.
    pub fn own(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::Own((!body.is_empty()).then_some(body))
    }

    /// The upstream's answer; `closing` learns how many bytes were sent.
    pub fn stream(body: Incoming, deadline: Instant, closing: Closing) -> Self {
        Self::Stream(Box::new(Download { body, sent: 0, deadline, timer: None, closing: Some(closing) }))
    }
}

impl Download {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(DownloadError::Upstream(error)))),
            Poll::Ready(None) => {
                self.close();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = self.deadline;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                timer.as_mut().poll(cx).map(|()| Some(Err(DownloadError::TooSlow)))
            }
        }
    }

    fn close(&mut self) {
        if let Some(closing) = self.closing.take() {
            closing(self.sent);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.close();
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match self.get_mut() {
            Self::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(download) => download.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_none(),
            Self::Stream(download) => download.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Stream(download) => download.body.size_hint(),
        }
    }
}
