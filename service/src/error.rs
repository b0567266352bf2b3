//! Why a command ended badly. Enters from every part of the service, leaves as one line and an exit code.

/// Exit code of bad usage and bad configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// What made a command end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The caller asked for something that cannot be: wrong flag, wrong configuration. Exit code 64.
    #[error("{0}")]
    Usage(String),
    /// The command was right and failed all the same. Exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// A failure in those words.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Bad usage in those words.
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Failed(_) => 1,
        }
    }
}
