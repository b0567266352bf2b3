//! One exchange with a worker until a moment: however the bytes come, drop by drop or not at all, the wait ends then; sooner for a worker
//! that takes the least part of a processor, once that is too little to judge a model by.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{Answer, Request, answered, ask};

/// Bytes read at once: an answer to one row is smaller.
const BUFFER: usize = 4_096;

/// How often it is looked whether a worker had a processor.
const LOOK: Duration = Duration::from_millis(500);
/// The part of the time for which it must have had one: so far, and where the time is over.
const SO_FAR: (u32, u32) = (1, 2);
const IN_ALL: (u32, u32) = (4, 5);

/// How long a worker ran since it was started.
pub type Ran<'r> = &'r dyn Fn() -> Duration;

/// A socket that neither reads nor writes after a moment.
struct Until<'s> {
    socket: &'s UnixStream,
    end: Instant,
    watch: Option<Watch<'s>>,
}

/// A worker that has to share: how long it ran before a moment.
struct Watch<'r> {
    ran: Ran<'r>,
    begun: (Instant, Duration),
    last: (Instant, Duration),
}

/// Sends a request, if there is one, and reads the answer. A worker is watched by how long it ran.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when the answer is not complete by then, [`io::ErrorKind::ResourceBusy`] when a watched worker ran for less than
/// half of the time so far or four fifths of all of it, else what [`answered`] says.
pub fn exchange(socket: &UnixStream, request: Option<&Request>, deadline: Duration, watched: Option<Ran<'_>>) -> io::Result<Answer> {
    let begun = now();
    let watch = watched.map(|ran| {
        let begun = (begun, ran());
        Watch { ran, begun, last: begun }
    });
    let mut until = Until { socket, end: begun + deadline, watch };
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
    /// How long to wait before asking again.
    fn left(&mut self) -> io::Result<Duration> {
        let now = now();
        let left = self.end.saturating_duration_since(now);
        let next = self.watch.as_mut().map_or(Ok(left), |watch| watch.next(now, left))?;
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(next) }
    }

    /// Does something until it is done or there is no time left.
    fn until<T>(&mut self, mut act: impl FnMut(&UnixStream, Option<Duration>) -> io::Result<T>) -> io::Result<T> {
        loop {
            let left = self.left()?;
            match act(self.socket, Some(left)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                done => return done,
            }
        }
    }
}

impl Watch<'_> {
    /// How long to wait before the next look, at most what is left; an error when the worker hardly ran.
    fn next(&mut self, now: Instant, left: Duration) -> io::Result<Duration> {
        let passed = now.duration_since(self.last.0);
        if !left.is_zero() && passed < LOOK {
            return Ok(left.min(LOOK - passed));
        }
        let ran = (self.ran)();
        let (since, part) = if left.is_zero() { (self.begun, IN_ALL) } else { (self.last, SO_FAR) };
        if ran.saturating_sub(since.1) * part.1 < now.duration_since(since.0) * part.0 {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.last = (now, ran);
        Ok(left.min(LOOK))
    }
}

impl Read for Until<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.until(|mut socket, left| {
            socket.set_read_timeout(left)?;
            socket.read(to)
        })
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until(|mut socket, left| {
            socket.set_write_timeout(left)?;
            socket.write(bytes)
        })
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
        let error = exchange(&socket, Some(&Request::Score(1, vec![1.0])), Duration::from_millis(60), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn a_worker_that_reads_drop_by_drop_has_the_deadline_and_no_more() {
        let socket = worker(|mut socket| {
            let mut drop = [0; 64];
            while socket.read(&mut drop).is_ok_and(|read| read > 0) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let error = exchange(&socket, Some(&Request::Score(1, vec![1.0; 8 << 20])), Duration::from_millis(60), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn a_worker_that_did_not_run_is_starved_and_one_that_ran_is_late() {
        let silent = || worker(|mut socket| drop(socket.read_exact(&mut [0; 1])));
        let kind = |ran: Ran<'_>, deadline| exchange(&silent(), None, Duration::from_millis(deadline), Some(ran)).unwrap_err().kind();
        let begun = now();
        assert_eq!(kind(&|| Duration::ZERO, 60), io::ErrorKind::ResourceBusy);
        assert_eq!(kind(&|| begun.elapsed(), 60), io::ErrorKind::TimedOut);
        // Not before it was looked at once, and long before the deadline.
        let begun = now();
        assert_eq!(kind(&|| begun.elapsed() / 4, 600_000), io::ErrorKind::ResourceBusy);
        assert!(begun.elapsed() >= LOOK);
        let begun = now();
        assert_eq!(kind(&|| begun.elapsed() * 9 / 10, 1_200), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(1_200));
        // Enough to go on, too little to be called late.
        let begun = now();
        assert_eq!(kind(&|| begun.elapsed() * 3 / 5, 600), io::ErrorKind::ResourceBusy);
        assert!(begun.elapsed() >= Duration::from_millis(600));
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
            exchange(&socket, None, Duration::from_secs(30), None)
        };
        assert_eq!(told(&[&[1, 0], &[0, 0, 0]]).unwrap(), Answer::Ready);
        let more = told(&[&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0]]).unwrap_err();
        assert!(more.to_string().contains("more than an answer"), "{more}");
    }
}
