//! The worker: a process that runs one foreign model and nothing else. Requests enter through its standard input, which is a socket,
//! answers leave the same way.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::protocol::{Answer, Request, answer, asked};
use super::{jail, probe};
use crate::onnx::{Onnx, prepare};
use crate::score::Lane;

/// The nice value of what nobody waits for.
const LEAST: i32 = 19;
/// How often a worker looks whether its scorer is still there, and the stack of the thread that looks.
const WATCHED: (Duration, usize) = (Duration::from_secs(1), 64 << 10);

/// Gives this process the least part of a processor that is wanted by others too. Not the class of idle processes: scoring that woke up beside
/// one of those was late by a tick now and then, which it is not beside this.
pub fn stand_aside() {
    // Where the system does not allow it, it runs as it is.
    rustix::process::setpriority_process(None, LEAST).ok();
}

/// Ends this process soon after the one that started it, also when that was killed while a model here computes, and so never reads that the
/// socket is closed. The system's own signal at a parent's death follows the thread that started this process, and such threads end.
fn end_with_parent() -> Result<(), String> {
    let parent = rustix::process::getppid();
    let (begins, begun) = mpsc::channel();
    let watch = move || {
        // How a thread begins needs more than it may do once the process is locked in, so that waits for this.
        begins.send(()).ok();
        while rustix::process::getppid() == parent {
            thread::sleep(WATCHED.0);
        }
        // Nothing is tidied up: a model may be in the middle of anything. A locked worker may not even signal itself, and ends by that.
        std::process::abort();
    };
    let failed = |error: &dyn std::fmt::Display| format!("the worker cannot watch its scorer: {error}");
    thread::Builder::new().name("model-parent".to_string()).stack_size(WATCHED.1).spawn(watch).map_err(|error| failed(&error))?;
    begun.recv().map_err(|error| failed(&error))
}

/// Runs until the socket is closed; with `try_once`, tries that once instead.
///
/// # Errors
/// When it cannot be contained, or the other end is gone.
pub fn run(library: &Path, memory_bytes: u64, contained: bool, try_once: Option<&str>) -> Result<(), String> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    let mut socket = File::from(socket);
    // The library has to be read from disk, so it comes before the lock; the model comes after it.
    prepare(library).map_err(|error| error.to_string())?;
    end_with_parent()?;
    if contained {
        jail::limit(memory_bytes)?;
        jail::lock()?;
    }
    if let Some(what) = try_once {
        return probe::attempt(what);
    }
    let mut model = None;
    answer(&mut socket, &Answer::Ready).map_err(|error| error.to_string())?;
    while let Some(request) = asked(&mut socket).map_err(|error| error.to_string())? {
        let said = match request {
            Request::Load(spec, bytes) => match Onnx::of_one_lane(&bytes, &spec.inputs, &spec.output, library) {
                Ok(loaded) => {
                    model = Some(loaded);
                    Answer::Ready
                }
                Err(error) => Answer::Refused(error.to_string()),
            },
            Request::Score(rows, values) => match &model {
                Some(model) => model.scores(&values, rows as usize, Lane(0)).map_or_else(Answer::Refused, Answer::Scores),
                None => Answer::Refused("no model is loaded".to_string()),
            },
        };
        answer(&mut socket, &said).map_err(|error| error.to_string())?;
    }
    Ok(())
}
