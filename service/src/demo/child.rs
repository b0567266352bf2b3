//! A process that the demonstration starts and ends, by its own number, whatever happens between.
//!
//! Its lines go to whoever listens; the last ones are kept for the message when it fails.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use crate::error::CommandError;

/// Lines kept for a failure's message.
const TAIL: usize = 15;
/// A process that was asked to end gets so long.
const GRACE: Duration = Duration::from_secs(8);

/// A running process.
pub struct Child {
    name: &'static str,
    process: tokio::process::Child,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Child {
    /// Starts a program; its lines go to `lines`.
    pub fn start(name: &'static str, program: &Path, arguments: &[String], lines: &UnboundedSender<String>) -> Result<Self, CommandError> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A Ctrl-C in the terminal is for the demonstration alone; it ends its processes itself.
        command.process_group(0);
        let mut process = command.spawn().map_err(|error| {
            CommandError::failed(format!("cannot start {name} (`{}`): {error}; `make build` builds it", program.display()))
        })?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(output) = process.stdout.take() {
            tokio::spawn(read(output, Arc::clone(&tail), lines.clone()));
        }
        if let Some(output) = process.stderr.take() {
            tokio::spawn(read(output, Arc::clone(&tail), lines.clone()));
        }
        Ok(Self { name, process, tail })
    }

    /// An error with its last lines, when it has ended.
    pub fn check(&mut self) -> Result<(), CommandError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("ended ({status})"))),
            Err(error) => Err(self.failure(&format!("cannot be watched: {error}"))),
        }
    }

    /// That something is wrong with it, and its last lines.
    pub fn failure(&self, what: &str) -> CommandError {
        let tail: Vec<String> = self.tail.lock().iter().map(|line| format!("  {line}")).collect();
        let said = if tail.is_empty() { "it said nothing".to_owned() } else { format!("its last lines:\n{}", tail.join("\n")) };
        CommandError::failed(format!("{} {what}; {said}", self.name))
    }

    /// Asks it to end, and ends it when it does not.
    pub async fn stop(mut self) {
        let number = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(number) = number {
            // It may have ended by itself meanwhile.
            let _asked = rustix::process::kill_process(number, rustix::process::Signal::TERM);
        }
        if timeout(GRACE, self.process.wait()).await.is_err() {
            let _killed = self.process.kill().await;
        }
    }
}

async fn read(output: impl AsyncRead + Unpin, tail: Arc<Mutex<VecDeque<String>>>, lines: UnboundedSender<String>) {
    let mut reader = BufReader::new(output).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        let mut kept = tail.lock();
        if kept.len() == TAIL {
            kept.pop_front();
        }
        kept.push_back(line.clone());
        drop(kept);
        // Nobody may be listening.
        let _sent = lines.send(line);
    }
}
