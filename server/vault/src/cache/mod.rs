//! What is kept in memory so that a read need not go to the store, and when that may be used.
//!
//! Nothing kept outlives what makes it untrue: a write drops what it touches before it is acknowledged, and whatever
//! was read before that is not kept (rules R6 and R7 of `revocation.md`). Sizes are in bytes; secrets are wiped when
//! they go.

mod meters;
mod secrets;
mod validity;

use std::time::Duration;

pub(crate) use meters::{CacheMeter, CacheMeters};
pub(crate) use secrets::SecretCache;
pub(crate) use validity::Validity;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes of all caches together; 0 keeps nothing.
    pub bytes: usize,
    /// How long anything is kept; zero keeps nothing.
    pub ttl: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { bytes: 64 << 20, ttl: Duration::from_secs(5) }
    }
}

impl CacheSettings {
    /// The secrets' share: three quarters.
    pub(crate) const fn secrets(&self) -> usize {
        self.bytes / 4 * 3
    }

    /// The tokens' share, with their compiled policies: an eighth.
    pub(crate) const fn tokens(&self) -> usize {
        self.bytes / 8
    }

    /// The policies' share: an eighth.
    pub(crate) const fn policies(&self) -> usize {
        self.bytes / 8
    }
}
