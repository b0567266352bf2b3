//! The ONNX Runtime library: a path enters, the process-wide environment leaves, loaded once.

use std::path::Path;

use ort::environment::Environment;
use parking_lot::Mutex;

use crate::ModelError;

// One environment a process is what ONNX Runtime allows; it lives as long as the process.
static LOADED: Mutex<Option<Environment>> = Mutex::new(None);

/// The environment, loaded from this library at the first call. A failure may be tried again with another path.
///
/// # Errors
/// [`ModelError::Runtime`] that names the path and how to install it.
pub fn environment(library: &Path) -> Result<Environment, ModelError> {
    let mut loaded = LOADED.lock();
    if let Some(environment) = loaded.as_ref() {
        return Ok(environment.clone());
    }
    let refuse = |problem: String| {
        ModelError::Runtime(format!(
            "ONNX Runtime cannot be loaded from `{}`: {problem}; run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so of version 1.31",
            library.display()
        ))
    };
    // Checked here: the loader would otherwise search system folders for a bare name.
    let path = std::path::absolute(library).map_err(|error| refuse(error.to_string()))?;
    if !path.is_file() {
        return Err(refuse("there is no such file".to_string()));
    }
    let builder = ort::init_from(&path).map_err(|error| refuse(error.to_string()))?;
    let environment = builder.with_name("telltale").with_telemetry(false).build().map_err(|error| refuse(error.to_string()))?;
    *loaded = Some(environment.clone());
    Ok(environment)
}
