//! Everything that a caller can have done wrong, and the one place where it becomes a gRPC code.

use telltale_features::door::DoorError;
use telltale_models::ModelError;
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::token::TokenError;

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A field is out of bounds.
    #[error("{0}")]
    Field(#[from] ConvertError),
    /// The door refused the transaction.
    #[error("{0}")]
    Door(#[from] DoorError),
    /// The context token is not ours.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// Bytes that are no message.
    #[error("the frame is no `ScoreStreamRequest`: {0}")]
    Frame(String),
    /// Nothing in it.
    #[error("`{0}` is absent; allowed is exactly one")]
    Empty(&'static str),
    /// Too many at once.
    #[error("{limit} transactions are being scored, which is all that is allowed at once; try again, or fail open")]
    Overloaded {
        /// How many.
        limit: usize,
    },
    /// Too many calls of models wait.
    #[error(
        "{limit} calls of `ModelInfer` wait already, which is all that may (`inference.queue`); try again later, or send fewer at once"
    )]
    Queue {
        /// How many.
        limit: usize,
    },
    /// A model or version that is not loaded.
    #[error("{0}")]
    NotLoaded(String),
    /// A model that gave no score for any row.
    #[error("the model gave no score: {0}")]
    Unscored(String),
    /// Too late.
    #[error("the deadline passed; the transaction is counted all the same")]
    Deadline,
    /// Shutting down.
    #[error("the scorer is shutting down; call another replica or try again")]
    Draining,
    /// An override that cannot be.
    #[error("{0}")]
    Override(String),
    /// A model that cannot be used so.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// There is no repository.
    #[error("this scorer has no model repository; start it with `--models FOLDER` or set `models.path`")]
    NoRepository,
    /// A change of models is in force and could not be saved.
    #[error("{0}")]
    Unsaved(String),
    /// Something could not be saved.
    #[error("the decision could not be saved: {0}")]
    Save(#[from] std::io::Error),
}

impl CallError {
    /// Its gRPC code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Field(_) | Self::Door(_) | Self::Frame(_) | Self::Empty(_) | Self::Override(_) => Code::InvalidArgument,
            Self::Token(error) => match error {
                TokenError::Malformed(_) | TokenError::OtherTransaction { .. } => Code::InvalidArgument,
                TokenError::UnknownKey { .. } | TokenError::Forged => Code::PermissionDenied,
                TokenError::Content(_) => Code::FailedPrecondition,
            },
            Self::Overloaded { .. } | Self::Queue { .. } => Code::ResourceExhausted,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Draining => Code::Unavailable,
            Self::NotLoaded(_) => Code::NotFound,
            Self::NoRepository => Code::FailedPrecondition,
            Self::Model(error) => match error {
                ModelError::Name { .. } => Code::InvalidArgument,
                ModelError::Absent { .. } => Code::NotFound,
                ModelError::Invalid { .. } | ModelError::Data(_) | ModelError::Runtime(_) => Code::FailedPrecondition,
                ModelError::Io { .. } => Code::Internal,
            },
            Self::Save(_) | Self::Unsaved(_) | Self::Unscored(_) => Code::Internal,
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
