//! Everything that can go wrong with models, in words an operator can act on.

use std::path::PathBuf;

/// Why a repository, a model or a calibration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file or folder could not be read or written.
    #[error("cannot {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A file was read and says something that is not allowed.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, where in the file, and what is allowed.
        problem: String,
    },
    /// A name that would leave the repository or cannot be a folder.
    #[error("model name `{name}` is not allowed: use 1 to 64 of a-z, 0-9, `-`, `_`, beginning with a letter or digit")]
    Name {
        /// The name given.
        name: String,
    },
    /// The model, version or calibration asked for is not there.
    #[error("{what} is not in the repository `{}`", repository.display())]
    Absent {
        /// What was asked for.
        what: String,
        /// Where it was looked for.
        repository: PathBuf,
    },
    /// ONNX Runtime could not be loaded or refused the model.
    #[error("{0}")]
    Runtime(String),
    /// Rows or labels that cannot be calibrated or fitted.
    #[error("{0}")]
    Data(String),
}

impl ModelError {
    /// An [`ModelError::Io`] of this path.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// An [`ModelError::Invalid`] of this path.
    pub fn invalid(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), problem: problem.into() }
    }
}
