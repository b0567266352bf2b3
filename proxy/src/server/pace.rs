//! A client's socket with a sense of time: a head that began must end soon, and an answer must be taken.
//!
//! hyper times the whole wait for a head, idle time included; a slow head needs a shorter limit than an idle connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::framing::Watch;

/// What the socket and the service of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Pace {
    serving: AtomicBool,
    // INVARIANT: both sides run in the connection's own task: the lock is never waited for.
    watch: Mutex<(Watch, u64)>,
}

impl Pace {
    /// A request came out of hyper's parser; what the raw bytes say against it.
    pub(super) fn request_began(&self) -> Result<(), &'static str> {
        self.serving.store(true, Ordering::Relaxed);
        let mut watch = self.watch.lock();
        watch.1 += 1;
        let clean = watch.1 <= watch.0.heads();
        if clean { Ok(()) } else { Err(watch.0.wrong().unwrap_or("the request's framing is ambiguous")) }
    }

    /// Its answer began.
    pub(super) fn request_ended(&self) {
        self.serving.store(false, Ordering::Relaxed);
    }
}

/// The socket.
pub(super) struct Paced {
    stream: TcpStream,
    pace: Arc<Pace>,
    head_time: Duration,
    idle_time: Duration,
    /// Runs from the first byte of a head to the request.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing of what is ready for it.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pace: Arc<Pace>, head_time: Duration, idle_time: Duration) -> Self {
        Self { stream, pace, head_time, idle_time, head: None, stalled: None }
    }

    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let idle = self.idle_time;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if !fresh.is_empty() {
            self.pace.watch.lock().0.feed(fresh);
        }
        if self.pace.serving.load(Ordering::Relaxed) {
            self.head = None;
            return result;
        }
        if result.is_pending() {
            if let Some(head) = &mut self.head {
                ready!(head.as_mut().poll(cx));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head did not come in time")));
            }
        } else if buffer.filled().len() > before && self.head.is_none() {
            let until = Instant::now() + self.head_time;
            self.head = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        result
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_stalled(cx, result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.poll_stalled(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
