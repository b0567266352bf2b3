//! The ONNX Runtime library: a path enters, the process-wide environment leaves, loaded once.

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use parking_lot::Mutex;

use crate::ModelError;

// One environment a process is what ONNX Runtime allows; it lives as long as the process.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The environment, loaded from this library at the first call; later calls with the same path need no file. A failure may be tried again
/// with another path.
///
/// # Errors
/// [`ModelError::Runtime`] that names the path and how to install it, or the other library that this process has loaded.
pub fn environment(path: &Path) -> Result<Environment, ModelError> {
    let mut loaded = LOADED.lock();
    if let Some((_, environment)) = loaded.as_ref().filter(|(from, _)| from == path) {
        return Ok(environment.clone());
    }
    let found = library(path)?;
    if let Some((from, environment)) = loaded.as_ref() {
        let file = |path: &Path| std::fs::canonicalize(path).map_err(|error| refuse(path, &error.to_string()));
        if file(from)? == file(&found)? {
            return Ok(environment.clone());
        }
        return Err(refuse(path, &format!("this process has loaded `{}` already, and can load one only", from.display())));
    }
    let builder = ort::init_from(&found).map_err(|error| refuse(path, &error.to_string()))?;
    let environment = builder.with_name("telltale").with_telemetry(false).build().map_err(|error| refuse(path, &error.to_string()))?;
    *loaded = Some((path.to_path_buf(), environment.clone()));
    Ok(environment)
}

/// The library's absolute path. Checked here: the loader would search system folders for a bare name.
pub fn library(path: &Path) -> Result<PathBuf, ModelError> {
    let absolute = std::path::absolute(path).map_err(|error| refuse(path, &error.to_string()))?;
    if absolute.is_file() { Ok(absolute) } else { Err(refuse(path, "there is no such file")) }
}

fn refuse(library: &Path, problem: &str) -> ModelError {
    ModelError::Runtime(format!(
        "ONNX Runtime cannot be loaded from `{}`: {problem}; run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so of version 1.31",
        library.display()
    ))
}
