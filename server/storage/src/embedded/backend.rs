//! The seam between redb and its file: passes every call on and remembers what went wrong.
//!
//! redb answers every call after a failed one with "previous failure", whatever it was. What matters to us is which
//! kind it was: a full disk is over when there is room again, a failed sync never is.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coffer_core::failpoint::{self, Step};
use redb::{BackendError, StorageBackend};

/// What has gone wrong with the file since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Health {
    full: AtomicBool,
    sync_failed: AtomicBool,
}

impl Health {
    /// Whether a write failed for want of room.
    pub(crate) fn full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Whether a sync failed. The kernel may then have dropped what it could not write and call it clean, so that
    /// no later sync proves anything.
    pub(crate) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::SeqCst)
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(e) = &result
            && matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            self.full.store(true, Ordering::SeqCst);
        }
        result
    }
}

/// A backend that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) inner: Box<dyn StorageBackend>,
    pub(crate) health: Arc<Health>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.health.note(self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        failpoint::reach(Step::CommitterBeforeSync);
        let result = self.health.note(self.inner.sync_data());
        failpoint::reach(Step::CommitterAfterSync);
        if result.is_err() {
            self.health.sync_failed.store(true, Ordering::SeqCst);
        }
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.health.note(self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
