//! Whether this server may answer from memory at all. Alone on its store it always may.
//!
//! With several servers on one store each has a member row, and may serve from its caches only while that row is valid
//! (R1 of `revocation.md`). There is no member row yet: a server that is not alone keeps nothing. Reads no clock.

use std::sync::atomic::{AtomicU64, Ordering};

use coffer_core::time::Timestamp;

/// Until when caches may be used.
#[derive(Debug)]
pub(crate) struct Validity(AtomicU64);

impl Validity {
    /// For good: no other process can change the store.
    pub(crate) const fn always() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Not before somebody vouches for it.
    pub(crate) const fn not_yet() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether caches may be used at `now`.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        now.as_millis() < self.0.load(Ordering::Acquire)
    }
}
