//! Why a request was not answered with what it asked for, and how that looks from outside.
//!
//! A `Fail`'s text goes to the client: it never names what the caller has no right to know.

use coffer_barrier::BarrierError;
use coffer_engines::EngineError;

use crate::audit::NotWritten;
use crate::request::Reply;

/// What can go wrong before there is anybody to answer to: start, initialisation, background work.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The audit log could not be opened or written.
    #[error("audit log: {0}")]
    Audit(#[from] std::io::Error),
    /// The barrier refused.
    #[error("barrier: {0}")]
    Barrier(#[from] BarrierError),
    /// The request was refused; the text is the one a client would see.
    #[error("{0}")]
    Refused(String),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fail {
    /// What the request is about does not exist; the text says what.
    #[error("{0}")]
    Absent(String),
    /// The audit log cannot take the record, so nothing may happen.
    #[error("the audit log could not be written")]
    Audit,
    /// The request is wrong in a way its sender can see and repair.
    #[error("{0}")]
    BadRequest(String),
    /// No token, or none that is alive.
    #[error("permission denied")]
    BadToken,
    /// The barrier or the store.
    #[error("{0}")]
    Barrier(#[from] BarrierError),
    /// The policies do not allow it.
    #[error("permission denied")]
    Denied,
    /// An engine.
    #[error("{0}")]
    Engine(EngineError),
    /// Not for this caller; the message says what he would need.
    #[error("{0}")]
    Forbidden(String),
    /// Something of this program's own doing.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// A login that is not believed. Why is for the audit log only: it would help whoever is guessing.
    #[error("login refused: {0}")]
    Login(&'static str),
    /// As [`Fail::Denied`], to a caller who may know what he is missing: the text says it.
    #[error("permission denied")]
    Lacking(String),
    /// There is no such operation on this path.
    #[error("unsupported operation")]
    NoOperation,
    /// Nothing is mounted there.
    #[error("no handler for route {0:?}. route entry not found.")]
    NoRoute(String),
    /// There is nothing.
    #[error("not found")]
    NotFound,
    /// The vault is sealed.
    #[error("Vault is sealed")]
    Sealed,
    /// The token to be unwrapped is there, and empty.
    #[error("error validating wrapping token: empty token in request body")]
    Unwrapping,
    /// A token that was asked about, and that nobody knows.
    #[error("bad token")]
    UnknownToken,
    /// Over a limit that the message names.
    #[error("{0}")]
    TooLarge(String),
    /// Over a rate limit.
    #[error("{0}")]
    TooManyRequests(String),
    /// The method or engine that is mounted there knows no such path.
    #[error("unsupported path")]
    UnsupportedPath,
    /// Somebody else cannot do his part now (a cluster's API, a target).
    #[error("{0}")]
    Unavailable(String),
}

impl From<EngineError> for Fail {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Barrier(inner) => Self::Barrier(inner),
            other => Self::Engine(other),
        }
    }
}

impl From<NotWritten> for Fail {
    fn from(_: NotWritten) -> Self {
        // Why is in the process log, which the log room writes to.
        Self::Audit
    }
}

impl From<serde_json::Error> for Fail {
    fn from(_: serde_json::Error) -> Self {
        // What does not decode came out of the barrier, so it is this program's own format.
        Self::Internal("a stored record could not be decoded")
    }
}

impl From<Fail> for VaultError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Barrier(inner) => Self::Barrier(inner),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// A `400`.
pub(crate) fn bad(message: impl Into<String>) -> Fail {
    Fail::BadRequest(message.into())
}

impl Fail {
    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::BadToken
            | Self::Denied
            | Self::Forbidden(_)
            | Self::Lacking(_)
            | Self::Login(_)
            | Self::UnknownToken
            | Self::Unwrapping => 403,
            Self::Absent(_) | Self::NoRoute(_) | Self::NotFound | Self::UnsupportedPath => 404,
            Self::NoOperation => 405,
            Self::TooLarge(_) => 413,
            Self::TooManyRequests(_) => 429,
            Self::Audit | Self::Internal(_) => 500,
            Self::Sealed | Self::Unavailable(_) => 503,
            Self::Barrier(error) => barrier_status(error),
            Self::Engine(error) => engine_status(error),
        }
    }

    /// The reply a client gets.
    pub(crate) fn reply(&self) -> Reply {
        let status = self.status();
        match self {
            Self::NotFound | Self::Engine(EngineError::NotFound) => Reply::errors(status, &[]),
            Self::UnsupportedPath => Reply::errors(status, &["1 error occurred:\n\t* unsupported path\n\n"]),
            Self::Denied => Reply::errors(status, &["1 error occurred:\n\t* permission denied\n\n"]),
            Self::Lacking(what) => {
                Reply::errors(status, &["1 error occurred:\n\t* permission denied\n\n", what])
            }
            Self::NoOperation | Self::Engine(EngineError::Unsupported) => {
                Reply::errors(status, &["1 error occurred:\n\t* unsupported operation\n\n"])
            }
            Self::Login(_) => Reply::errors(status, &["permission denied"]),
            Self::Barrier(BarrierError::Sealed) => Reply::errors(status, &["Vault is sealed"]),
            other => Reply::errors(status, &[&other.to_string()]),
        }
    }
}

fn barrier_status(error: &BarrierError) -> u16 {
    match error {
        BarrierError::Limit(_) | BarrierError::Path => 400,
        BarrierError::Conflict
        | BarrierError::Full(_)
        | BarrierError::NotInitialized
        | BarrierError::Sealed
        | BarrierError::SealUnavailable(_)
        | BarrierError::Unavailable(_) => 503,
        BarrierError::AlreadyInitialized | BarrierError::Shares(_) | BarrierError::WrongShares => 400,
        BarrierError::NoKey
        | BarrierError::OutcomeUnknown
        | BarrierError::SealMismatch
        | BarrierError::Tampered { .. } => 500,
    }
}

fn engine_status(error: &EngineError) -> u16 {
    match error {
        EngineError::BadRequest(_) => 400,
        EngineError::NotFound => 404,
        EngineError::TooLarge(_) => 413,
        EngineError::Unsupported => 405,
        EngineError::Target { retriable, .. } => {
            // 503 asks clients to come again, 400 to look at what they configured.
            if *retriable { 503 } else { 400 }
        }
        EngineError::Corrupt(_) => 500,
        EngineError::Barrier(inner) => barrier_status(inner),
    }
}
