//! Why an engine did not do what was asked. No message ever has a secret or a statement's text in it.

use coffer_barrier::BarrierError;

/// An engine's refusal or failure. The text may go to the client.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The request is wrong in a way that its sender can repair: `400`.
    #[error("{0}")]
    BadRequest(String),
    /// There is nothing there: `404` without a message.
    #[error("not found")]
    NotFound,
    /// Over a limit that the message names: `413`.
    #[error("{0}")]
    TooLarge(String),
    /// The engine has no such operation on this path: `405`.
    #[error("unsupported operation")]
    Unsupported,
    /// The system that the engine works on (a database) could not do its part.
    #[error("{target}: {message}")]
    Target {
        /// Which one, as in [`crate::Issue::target`].
        target: String,
        /// Whether the same call may succeed later without anybody changing anything.
        retriable: bool,
        /// What it said, without values.
        message: String,
    },
    /// A stored record does not decode. The message names which, never what.
    #[error("stored record is not readable: {0}")]
    Corrupt(&'static str),
    /// The barrier or the store below it.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
}

impl EngineError {
    /// A `400`.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    /// Whether trying again later may help without a change of the request or the configuration.
    pub fn retriable(&self) -> bool {
        match self {
            Self::Target { retriable, .. } => *retriable,
            Self::Barrier(error) => matches!(
                error,
                BarrierError::Conflict
                    | BarrierError::Full(_)
                    | BarrierError::OutcomeUnknown
                    | BarrierError::Sealed
                    | BarrierError::Unavailable(_)
            ),
            _ => false,
        }
    }
}
