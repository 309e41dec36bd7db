//! What can go wrong at the barrier.
//!
//! Never carries a plaintext, a path or a key: an error may end up in a log.

use coffer_core::shamir::ShamirError;

use crate::store::StoreError;

/// Why the barrier did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// The vault already has keys.
    #[error("the barrier is already initialized")]
    AlreadyInitialized,
    /// Another transaction changed a row this one depends on; nothing was applied, run the whole operation again.
    #[error("conflict with another transaction")]
    Conflict,
    /// The disk behind the store is full; nothing was applied.
    #[error("storage full: {0}")]
    Full(String),
    /// A limit of the barrier or of the store was broken.
    #[error("limit: {0}")]
    Limit(&'static str),
    /// The mount has no key-encryption key (never created, or dropped with its mount).
    #[error("no key for this mount")]
    NoKey,
    /// The vault has no keys yet.
    #[error("the barrier is not initialized")]
    NotInitialized,
    /// The commit may or may not have been applied; only reading back tells.
    #[error("commit outcome unknown")]
    OutcomeUnknown,
    /// The path has an empty segment, or is too deep or too long.
    #[error("malformed storage path")]
    Path,
    /// Keys are not in memory.
    #[error("the barrier is sealed")]
    Sealed,
    /// The vault is sealed in another way than this process is configured for.
    #[error("the vault is sealed by another kind of seal")]
    SealMismatch,
    /// Whatever holds the master key does not answer; nothing was done.
    #[error("the seal does not answer: {0}")]
    SealUnavailable(&'static str),
    /// Shares could not be made or joined (count, threshold, duplicates).
    #[error("shares: {0}")]
    Shares(#[from] ShamirError),
    /// A stored row does not open under the key and the place it was found at.
    #[error("stored data does not authenticate: {what}")]
    Tampered {
        /// Which kind of row; never its content.
        what: &'static str,
    },
    /// The store cannot serve now; nothing was applied.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// The shares do not open this vault.
    #[error("the shares do not open this vault")]
    WrongShares,
}

impl BarrierError {
    /// Another process changed the master key: only new shares open it.
    pub(crate) fn master_changed() -> Self {
        Self::Unavailable("the master key has changed: unseal again".into())
    }
}

impl From<StoreError> for BarrierError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Conflict => Self::Conflict,
            StoreError::OutcomeUnknown => Self::OutcomeUnknown,
            StoreError::Unavailable(m) | StoreError::Corrupt(m) => Self::Unavailable(m),
            StoreError::Full(m) => Self::Full(m),
            StoreError::Limit(m) => Self::Limit(m),
        }
    }
}
