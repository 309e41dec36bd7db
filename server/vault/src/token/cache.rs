//! Living tokens in memory, so that a read does not go to the store for who is asking.
//!
//! An entry is a claim that a token, its ancestors and its policies are as they were: any revocation, renewal or
//! policy write drops what it touches and raises the generation. A fill keeps its result only if the
//! generation it began under is still the present one (rule R6 of `revocation.md`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use coffer_core::time::Timestamp;
use coffer_core::token::TokenHash;

use super::LiveToken;

/// How long an entry may be used.
const LIFE: Duration = Duration::from_secs(5);
const SHARDS: usize = 16;
/// The most entries of a shard; a full shard is emptied, and fills again.
const SHARD_MAX: usize = 4096;

type Shard = HashMap<TokenHash, (Timestamp, Arc<LiveToken>)>;

/// The cache.
pub(super) struct TokenCache {
    generation: AtomicU64,
    shards: [RwLock<Shard>; SHARDS],
}

impl TokenCache {
    pub(super) fn new() -> Self {
        Self { generation: AtomicU64::new(0), shards: std::array::from_fn(|_| RwLock::default()) }
    }

    fn shard(&self, hash: &TokenHash) -> &RwLock<Shard> {
        &self.shards[usize::from(hash.as_bytes()[0]) % SHARDS]
    }

    /// The present generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A token that was alive no longer ago than [`LIFE`].
    pub(super) fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<Arc<LiveToken>> {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let (since, token) = shard.get(hash)?;
        (now >= *since && now < since.plus(LIFE)).then(|| Arc::clone(token))
    }

    /// Keeps a token that was read in a snapshot taken after `generation` was.
    pub(super) fn fill(&self, generation: u64, now: Timestamp, token: &Arc<LiveToken>) {
        let hash = token.entry.hash;
        let mut shard = self.shard(&hash).write().unwrap_or_else(PoisonError::into_inner);
        // Checked under the shard's lock: `drop_where` raises the generation before it takes that lock.
        if self.generation() != generation {
            return;
        }
        if shard.len() >= SHARD_MAX {
            shard.clear();
        }
        shard.insert(hash, (now, Arc::clone(token)));
    }

    /// Drops every token of which `dead` says so, and disowns every fill under way.
    pub(super) fn drop_where(&self, dead: impl Fn(&LiveToken) -> bool) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).retain(|_, (_, token)| !dead(token));
        }
    }
}
