//! Living tokens in memory, so that a read does not go to the store for who is asking.
//!
//! An entry is a claim that a token, its ancestors and its policies are as they were: any revocation, renewal or
//! policy write drops what it touches and raises the generation. A fill keeps its result only if the
//! generation it began under is still the present one (rule R6 of `revocation.md`).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use coffer_core::time::Timestamp;
use coffer_core::token::TokenHash;

use super::LiveToken;
use crate::cache::CacheMeter;

const SHARDS: usize = 16;
/// What an entry costs beside its compiled policies and its texts: the token's own fields and the maps' room.
const OVERHEAD: usize = 1024;
/// What a compiled rule costs, about.
const RULE: usize = 512;

struct Slot {
    since: Timestamp,
    token: Arc<LiveToken>,
    cost: usize,
    used: AtomicBool,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<TokenHash, Slot>,
    /// In the order of their arrival; may name some that are gone.
    turns: VecDeque<TokenHash>,
    bytes: usize,
}

/// The cache.
pub(super) struct TokenCache {
    generation: AtomicU64,
    shards: [RwLock<Shard>; SHARDS],
    /// Bytes of one shard.
    room: usize,
    /// How long an entry may be used; zero keeps nothing.
    ttl: Duration,
    meter: CacheMeter,
}

impl TokenCache {
    pub(super) fn new(bytes: usize, ttl: Duration, meter: CacheMeter) -> Self {
        let shards = std::array::from_fn(|_| RwLock::default());
        Self { generation: AtomicU64::new(0), shards, room: bytes / SHARDS, ttl, meter }
    }

    fn shard(&self, hash: &TokenHash) -> &RwLock<Shard> {
        &self.shards[usize::from(hash.as_bytes()[0]) % SHARDS]
    }

    /// The present generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A token that was alive no longer ago than the cache's time to live.
    pub(super) fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<Arc<LiveToken>> {
        let found = self.find(hash, now);
        if found.is_some() {
            self.meter.hits.inc()
        } else {
            self.meter.misses.inc()
        }
        found
    }

    fn find(&self, hash: &TokenHash, now: Timestamp) -> Option<Arc<LiveToken>> {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let slot = shard.slots.get(hash)?;
        if now < slot.since || now >= slot.since.plus(self.ttl) {
            return None;
        }
        slot.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&slot.token))
    }

    /// Keeps a token that was read in a snapshot taken after `generation` was.
    pub(super) fn fill(&self, generation: u64, now: Timestamp, token: &Arc<LiveToken>) {
        let cost = OVERHEAD + RULE * token.acl.rules() + token.text_bytes();
        if self.ttl.is_zero() || cost > self.room {
            return;
        }
        let hash = token.entry.hash;
        let shard = &mut *self.shard(&hash).write().unwrap_or_else(PoisonError::into_inner);
        // Checked under the shard's lock: `drop_where` raises the generation before it takes that lock.
        if self.generation() != generation {
            return;
        }
        let before = shard.bytes;
        let slot = Slot { since: now, token: Arc::clone(token), cost, used: AtomicBool::new(false) };
        match shard.slots.insert(hash, slot) {
            Some(old) => shard.bytes -= old.cost,
            None => shard.turns.push_back(hash),
        }
        shard.bytes += cost;
        let evicted = shard.make_room(self.room);
        self.meter.evictions.inc_by(evicted);
        self.meter.bytes.add(shard.bytes as i64 - before as i64);
    }

    /// Drops every token of which `dead` says so, and disowns every fill under way.
    pub(super) fn drop_where(&self, dead: impl Fn(&LiveToken) -> bool) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            let shard = &mut *shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.bytes;
            shard.slots.retain(|_, slot| {
                let stays = !dead(&slot.token);
                if !stays {
                    shard.bytes -= slot.cost;
                }
                stays
            });
            shard.turns.retain(|hash| shard.slots.contains_key(hash));
            self.meter.bytes.sub((before - shard.bytes) as i64);
        }
    }
}

impl Drop for TokenCache {
    fn drop(&mut self) {
        // What it holds itself: another cache may have begun to count already.
        let bytes = |shard: &RwLock<Shard>| shard.read().unwrap_or_else(PoisonError::into_inner).bytes;
        self.meter.bytes.sub(self.shards.iter().map(bytes).sum::<usize>() as i64);
    }
}

impl Shard {
    /// Evicts until at most `room` bytes are held, those first that were not used lately.
    fn make_room(&mut self, room: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > room {
            let Some(hash) = self.turns.pop_front() else { break };
            let Some(slot) = self.slots.get(&hash) else { continue };
            if slot.used.swap(false, Ordering::Relaxed) {
                self.turns.push_back(hash);
            } else if let Some(slot) = self.slots.remove(&hash) {
                self.bytes -= slot.cost;
                evicted += 1;
            }
        }
        evicted
    }
}
