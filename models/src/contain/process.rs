//! One worker process seen from the server: started, asked with a deadline, ended by terminate and then kill.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::protocol::{Answer, Request};
use super::until::exchange;
use super::{Containment, Deadlines};

/// How often the end of a process is looked for, and how many times before it is killed.
const POLL: (Duration, u32) = (Duration::from_millis(5), 20);

/// A worker process.
pub struct Process {
    child: Child,
    socket: UnixStream,
    /// Whether it takes the least part of a processor.
    aside: bool,
}

/// Ends workers, and waits for that in a thread of its own.
pub fn end(mut workers: Vec<Process>) {
    // At once, since this program may end before the thread does.
    workers.iter_mut().for_each(Process::terminate);
    // Without a thread they are waited for here, late but surely.
    if let Err(error) = std::thread::Builder::new().name("model-end".to_string()).spawn(move || drop(workers)) {
        tracing::error!(%error, "whoever changes models waits for the end of workers");
    }
}

/// Why a worker gave no answer, in words.
pub struct Silent {
    pub why: String,
    /// It takes the least part of a processor, and that was too little: it tells nothing of its model.
    pub starved: bool,
}

impl Process {
    /// Starts a worker and waits until it stands ready, without a model. One aside takes the least part of a processor.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start(containment: &Containment, library: &std::path::Path, aside: bool) -> Result<Self, Silent> {
        let failed = |error: io::Error| Silent::from(format!("a worker cannot be started: {error}"));
        std::fs::create_dir_all(&containment.folder).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(&containment.program);
        command.arg("model-worker").arg("--runtime").arg(library).arg("--memory-mb").arg((containment.memory_bytes >> 20).to_string());
        if !containment.locked {
            command.arg("--unlocked");
        }
        if aside {
            command.arg("--aside");
        }
        // Without it ONNX Runtime starts threads of its own, which look for its vendor's server.
        command.env_clear().env("ORT_DISABLE_TELEMETRY", "1").current_dir(&containment.folder);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        // Dropping the command closes the worker's end here, so that its death shows as the end of the stream.
        drop(command);
        let mut process = Self { child, socket: ours, aside };
        match process.exchange(None, containment.deadlines.start) {
            Ok(Answer::Ready) => Ok(process),
            Ok(_) => Err("a worker began with something else than that it is ready".to_string().into()),
            Err(Silent { why, starved }) => Err(Silent { why: format!("a worker did not become ready: {why}"), starved }),
        }
    }

    /// Asks and waits for the answer, at most that long. After an error the process must not be asked again.
    ///
    /// # Errors
    /// What ended the wait.
    pub fn ask(&mut self, request: &Request, deadline: Duration) -> Result<Answer, Silent> {
        self.exchange(Some(request), deadline)
    }

    fn exchange(&mut self, request: Option<&Request>, deadline: Duration) -> Result<Answer, Silent> {
        let worker = self.child.id();
        let ran = || ran(worker);
        let answer = exchange(&self.socket, request, deadline, self.aside.then_some(&ran));
        answer.map_err(|error| {
            if error.kind() == io::ErrorKind::ResourceBusy {
                return Silent { why: "it hardly had a processor".to_string(), starved: true };
            }
            self.words(&error, deadline).into()
        })
    }

    /// Tells it to end, without waiting for that.
    fn terminate(&mut self) {
        // The number of a process that was waited for may be another's by now.
        let alive = matches!(self.child.try_wait(), Ok(None));
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| alive) {
            kill_process(pid, Signal::TERM).ok();
        }
    }

    /// An error in words that tell a model's author what it did.
    fn words(&mut self, error: &io::Error, deadline: Duration) -> String {
        use std::os::unix::process::ExitStatusExt;
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return format!("no answer within {} ms", deadline.as_millis());
        }
        // A process that has just died may not be a zombie yet.
        let status = (0..POLL.1).find_map(|_| {
            let status = self.child.try_wait().ok().flatten();
            if status.is_none() {
                std::thread::sleep(POLL.0);
            }
            status
        });
        match status.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) if signal == Signal::SYS.as_raw() => "it made a forbidden system call and was killed".to_string(),
            Some((Some(signal), _)) => format!("its process crashed with signal {signal}"),
            Some((None, Some(code))) => format!("its process ended with {code}"),
            _ => error.to_string(),
        }
    }
}

impl From<String> for Silent {
    fn from(why: String) -> Self {
        Self { why, starved: false }
    }
}

/// How long a process ran since it was started; nothing where the system does not tell. A worker's only thread is its first.
fn ran(process: u32) -> Duration {
    let told = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    Duration::from_nanos(told.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

impl Drop for Process {
    /// Terminates, and kills what does not go.
    fn drop(&mut self) {
        let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if gone(&mut self.child) {
            return;
        }
        self.terminate();
        for _ in 0..POLL.1 {
            if gone(&mut self.child) {
                return;
            }
            std::thread::sleep(POLL.0);
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { start: Duration::from_secs(30), load: Duration::from_secs(10), row: Duration::from_millis(50) }
    }
}
