//! One exchange with a worker until a moment: however the bytes come, drop by drop or not at all, the wait ends then.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{Answer, Request, answered, ask};

/// Bytes read at once: an answer to one row is smaller.
const BUFFER: usize = 4_096;

/// A socket that neither reads nor writes after a moment.
struct Until<'s> {
    socket: &'s UnixStream,
    end: Instant,
}

/// Sends a request, if there is one, and reads the answer.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when the answer is not complete by then, else what [`answered`] says.
pub fn exchange(socket: &UnixStream, request: Option<&Request>, deadline: Duration) -> io::Result<Answer> {
    let mut until = Until { socket, end: now() + deadline };
    if let Some(request) = request {
        ask(&mut until, request)?;
    }
    let mut from = BufReader::with_capacity(BUFFER, until);
    let answer = answered(&mut from)?;
    // What nobody asked for would be taken for the next answer.
    if from.buffer().is_empty() {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the worker sent more than an answer"))
    }
}

impl Until<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(to)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline is about this process, not about events")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other end in a thread of its own; it ends when this one is dropped.
    fn worker(act: impl FnOnce(UnixStream) + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || act(theirs));
        ours
    }

    #[test]
    fn a_worker_that_answers_drop_by_drop_has_the_deadline_and_no_more() {
        // Each byte comes long before the deadline, all of them would take an hour.
        let socket = worker(|mut socket| {
            let frame = (1_u32 << 20).to_le_bytes();
            for byte in frame.iter().chain(std::iter::repeat(&1)) {
                if socket.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let error = exchange(&socket, Some(&Request::Score(1, vec![1.0])), Duration::from_millis(60)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
    }

    #[test]
    fn a_worker_that_reads_drop_by_drop_has_the_deadline_and_no_more() {
        let socket = worker(|mut socket| {
            let mut drop = [0; 64];
            while socket.read(&mut drop).is_ok_and(|read| read > 0) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let error = exchange(&socket, Some(&Request::Score(1, vec![1.0; 8 << 20])), Duration::from_millis(60)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
    }

    #[test]
    fn an_answer_in_pieces_is_one_and_two_are_none() {
        let told = |bytes: &'static [&'static [u8]]| {
            let socket = worker(move |mut socket| {
                for piece in bytes {
                    socket.write_all(piece).unwrap();
                }
                // Until the other end has read it.
                socket.read_exact(&mut [0; 1]).ok();
            });
            exchange(&socket, None, Duration::from_secs(30))
        };
        assert_eq!(told(&[&[1, 0], &[0, 0, 0]]).unwrap(), Answer::Ready);
        let more = told(&[&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0]]).unwrap_err();
        assert!(more.to_string().contains("more than an answer"), "{more}");
    }
}
