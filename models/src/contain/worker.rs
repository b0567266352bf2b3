//! The worker: a process that runs one foreign model and nothing else. Requests enter through its standard input, which is a socket,
//! answers leave the same way.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::protocol::{Answer, Request, answer, asked};
use super::{jail, probe};
use crate::onnx::{Onnx, prepare};
use crate::score::Lane;

/// The nice value of what nobody waits for.
const LEAST: i32 = 19;

/// Gives this process the least part of a processor that is wanted by others too. Not the class of idle processes: scoring that woke up beside
/// one of those was late by a tick now and then, which it is not beside this.
pub fn stand_aside() {
    // Where the system does not allow it, it runs as it is.
    rustix::process::setpriority_process(None, LEAST).ok();
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
