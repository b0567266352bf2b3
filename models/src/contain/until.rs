//! One exchange with a worker until a moment: however the bytes come, drop by drop or not at all, the wait ends then.
//!
//! Where nobody waits for a verdict the time that a worker stood in line for a processor is not held against it: on a busy machine a good
//! model would look like a slow one.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::protocol::{Answer, Request, answered, ask};

/// Bytes read at once: an answer to one row is smaller.
const BUFFER: usize = 4_096;

/// The longest wait, in deadlines, whatever time a worker stood in line.
const MOST_DEADLINES: u32 = 10;

/// How long an answer is waited for.
#[derive(Clone, Copy)]
pub enum Wait {
    /// That long.
    For(Duration),
    /// That long, and as long as this process stood in line for a processor meanwhile; ten times that long at most.
    Patiently(Duration, Pid),
}

impl Wait {
    /// How long at least.
    pub const fn deadline(self) -> Duration {
        match self {
            Self::For(deadline) | Self::Patiently(deadline, _) => deadline,
        }
    }

    /// How long the process stood in line since it was started; nothing where the system does not tell.
    fn in_line(self) -> Duration {
        let Self::Patiently(_, worker) = self else { return Duration::ZERO };
        let told = std::fs::read_to_string(format!("/proc/{}/schedstat", worker.as_raw_nonzero())).unwrap_or_default();
        Duration::from_nanos(told.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
    }
}

/// A socket that neither reads nor writes after a moment.
struct Until<'s> {
    socket: &'s UnixStream,
    begun: Instant,
    wait: Wait,
    /// How long the worker had stood in line before.
    in_line: Duration,
}

/// Sends a request, if there is one, and reads the answer.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when the answer is not complete by then, else what [`answered`] says.
pub fn exchange(socket: &UnixStream, request: Option<&Request>, wait: Wait) -> io::Result<Answer> {
    let mut until = Until { socket, begun: now(), wait, in_line: wait.in_line() };
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
        let (deadline, passed) = (self.wait.deadline(), now().duration_since(self.begun));
        // What the system tells is asked for only once it matters.
        let in_line = if passed < deadline { Duration::ZERO } else { self.wait.in_line().saturating_sub(self.in_line) };
        let left = left(deadline, passed, in_line);
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Does something until it is done or the time is over.
    fn until<T>(&self, mut act: impl FnMut(Duration) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(self.left()?) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                done => return done,
            }
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        self.until(|left| {
            socket.set_read_timeout(Some(left))?;
            socket.read(to)
        })
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        self.until(|left| {
            socket.set_write_timeout(Some(left))?;
            socket.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// What is left of a deadline when so much has passed, some of it in line for a processor.
fn left(deadline: Duration, passed: Duration, in_line: Duration) -> Duration {
    (deadline + in_line.min(deadline * (MOST_DEADLINES - 1))).saturating_sub(passed)
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
        let error = exchange(&socket, Some(&Request::Score(1, vec![1.0])), Wait::For(Duration::from_millis(60))).unwrap_err();
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
        let error = exchange(&socket, Some(&Request::Score(1, vec![1.0; 8 << 20])), Wait::For(Duration::from_millis(60))).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
    }

    #[test]
    fn time_in_line_for_a_processor_is_not_held_against_a_worker() {
        let [second, minute] = [1, 60].map(Duration::from_secs);
        assert_eq!(left(second, second / 4, Duration::ZERO), second * 3 / 4);
        assert_eq!(left(second, second * 3, second * 5 / 2), second / 2, "half a second of the three was its own");
        assert_eq!(left(second, second * 3, second), Duration::ZERO, "two were");
        assert_eq!(left(second, second * 9, minute), second, "ten deadlines at most");
        assert_eq!(left(second, second * 11, minute), Duration::ZERO);
        let own = Wait::Patiently(second, rustix::process::getpid());
        assert!(own.deadline() == second && own.in_line() < Duration::from_secs(3_600), "what the system tells is read as nanoseconds");
        assert_eq!(Wait::For(second).in_line(), Duration::ZERO);
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
            exchange(&socket, None, Wait::For(Duration::from_secs(30)))
        };
        assert_eq!(told(&[&[1, 0], &[0, 0, 0]]).unwrap(), Answer::Ready);
        let more = told(&[&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0]]).unwrap_err();
        assert!(more.to_string().contains("more than an answer"), "{more}");
    }
}
