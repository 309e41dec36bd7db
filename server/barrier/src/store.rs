//! The storage port: ordered byte keys, snapshot reads, transactions with guards.
//!
//! What it is: the one contract between the vault and whatever keeps its bytes. What it never does: see a
//! plaintext. Implementations live in `coffer-storage`; the contract suite there runs over every one of them.
//!
//! Isolation is snapshot isolation plus [`Txn::guard`]: two transactions that wrote the same key conflict, and
//! a guarded key that somebody else changed after this transaction's snapshot conflicts too. Everything the
//! vault decides on the strength of a row that it only reads (a token's liveness, a pod's tombstone, a shard's
//! epoch) must be guarded, otherwise write skew can undo a revocation.

use async_trait::async_trait;

/// The longest value a store takes, in bytes. TiKV's default entry limit leaves room above it.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// The longest key a store takes, in bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// The most rows one [`Snapshot::scan`] page returns.
pub const SCAN_PAGE_MAX: usize = 10_000;

/// A key and its value as one row of a scan.
pub type Row = (Vec<u8>, Vec<u8>);

/// Why a storage call did not do what was asked. The three that matter are kept apart on purpose: "may have
/// been committed" must never be treated as "failed".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another transaction committed a key that this one wrote or guarded. Nothing of this one was applied:
    /// the whole operation may be run again from its start.
    #[error("storage conflict: another transaction changed a row this one depends on")]
    Conflict,
    /// The commit may or may not have been applied. Only reading back tells.
    #[error("storage commit outcome unknown")]
    OutcomeUnknown,
    /// The store cannot serve now; nothing was applied.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// The disk behind the store is full; nothing was applied, reads go on.
    #[error("storage full: {0}")]
    Full(String),
    /// The caller broke a limit of the port (empty value, oversized key or value, page too large).
    #[error("storage limit: {0}")]
    Limit(&'static str),
    /// The store's own format is damaged; the message names where, never what.
    #[error("storage corrupt: {0}")]
    Corrupt(String),
}

/// A half-open key range `[start, end)`; `end` empty means "to the last key".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Vec<u8>,
    /// First key behind the range; empty for none.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.last_mut() {
            if *last == u8::MAX {
                end.pop();
            } else {
                *last += 1;
                break;
            }
        }
        Self { start: prefix.to_vec(), end }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && (self.end.is_empty() || key < self.end.as_slice())
    }
}

/// A consistent view of the store at one version.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// The commit version up to which this view sees everything.
    fn version(&self) -> u64;
    /// The value at `key`, if any.
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` rows of `range` in key order; `limit` is at most [`SCAN_PAGE_MAX`].
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError>;
}

/// A read-write transaction. Reads see its own writes. Dropping it without a commit applies nothing.
#[async_trait]
pub trait Txn: Snapshot {
    /// Writes `value` (not empty, at most [`VALUE_BYTES_MAX`]) at `key` (at most [`KEY_BYTES_MAX`]).
    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError>;
    /// Removes `key`; removing an absent key is no error.
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError>;
    /// Makes the commit fail with [`StoreError::Conflict`] if anybody changed `key` (also: created or deleted
    /// it) after this transaction's snapshot.
    fn guard(&mut self, key: &[u8]);
    /// Applies everything at once, durably, and returns the commit's version.
    async fn commit(self: Box<Self>) -> Result<u64, StoreError>;
}

/// A store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A view of everything committed before this call.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;
    /// A transaction whose reads see everything committed before this call.
    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError>;
}
