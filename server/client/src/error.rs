//! What a call can end in. No variant holds a token, a body or a secret.

use thiserror::Error;

/// Why a call did not give its reply.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The client was set up wrongly; trying again will not help.
    #[error("client configuration: {0}")]
    Config(String),
    /// The server answered, but not with what this client knows.
    #[error("unexpected reply to {path}: {what}")]
    Decode {
        /// The path that was asked.
        path: String,
        /// What was wrong with the reply.
        what: String,
    },
    /// The caller's path cannot be asked for.
    #[error("path {path:?}: {why}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server refused.
    #[error("status {code}: {}", errors.join("; "))]
    Status {
        /// The HTTP status.
        code: u16,
        /// What the server said.
        errors: Vec<String>,
    },
    /// No answer in time. An effect may have happened.
    #[error("no answer from {path} within {seconds} s")]
    Timeout {
        /// The path that was asked.
        path: String,
        /// How long the client waited.
        seconds: u64,
    },
    /// The reply is larger than the client accepts.
    #[error("reply to {path} exceeds {limit} bytes")]
    TooLarge {
        /// The path that was asked.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// No connection, or it broke. An effect may have happened if it broke.
    #[error("server unreachable: {0}")]
    Unreachable(String),
}

impl ClientError {
    /// The HTTP status, if the server answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// There is nothing at that path.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The token may not do this, or is no longer a token.
    pub fn is_denied(&self) -> bool {
        self.status() == Some(403)
    }

    /// The vault is sealed, or not initialised.
    pub fn is_sealed(&self) -> bool {
        matches!(self.status(), Some(501 | 503))
    }

    /// The same call may succeed later without anyone changing anything at the caller.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout { .. } => true,
            Self::Status { code, .. } => matches!(code, 412 | 429 | 500..),
            Self::Config(_) | Self::Decode { .. } | Self::Path { .. } | Self::TooLarge { .. } => false,
        }
    }
}
