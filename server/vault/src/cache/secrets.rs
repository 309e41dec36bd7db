//! Secrets as replies carry them, ready to be sent again.
//!
//! A write closes its subject before its transaction and opens it again afterwards: in between nothing of it is served
//! from here or kept, so that whoever saw the new state is never answered with the old one. A fill states the
//! generation that it began under and is kept only if that is still the present one (R6). Readers take one shard's
//! lock shared; nobody holds a lock while he waits for anything. Never decides who may read.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;
use coffer_engines::{Encoded, Touches};

use super::meters::CacheMeter;

const SHARDS: usize = 16;
/// What an entry costs beside its name and its JSON.
const OVERHEAD: usize = 256;
/// The most variants (numbered versions) kept of one subject.
const VARIANTS_MAX: usize = 4;

/// The cache.
pub(crate) struct SecretCache {
    shards: [RwLock<Shard>; SHARDS],
    hasher: RandomState,
    ttl: Duration,
    /// Bytes of one shard.
    room: usize,
    meter: CacheMeter,
}

#[derive(Default)]
struct Shard {
    /// Raised whenever something here may have become untrue.
    generation: u64,
    mounts: HashMap<MountId, HashMap<Arc<str>, Slot>>,
    /// In the order of their arrival; one that was used in the meantime gets another turn.
    turns: VecDeque<(MountId, Arc<str>, u64)>,
    next_ticket: u64,
    entries: usize,
    bytes: usize,
    /// Subjects that are being written, by their hash, and how many writers each has.
    closed: HashMap<u64, usize>,
    /// Writers that may touch anything.
    all_closed: usize,
}

/// What is kept of one subject.
struct Slot {
    variants: Vec<Variant>,
    ticket: u64,
    cost: usize,
    used: AtomicBool,
}

struct Variant {
    number: u64,
    since: Timestamp,
    kept: Arc<Encoded>,
}

/// Proof of when a fill began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(u64);

/// While this lives, what it names is neither served from memory nor kept.
pub(crate) struct Writing<'a> {
    cache: &'a SecretCache,
    what: What,
}

enum What {
    Nothing,
    /// Shard and hash.
    One(usize, u64),
    All,
}

impl SecretCache {
    /// Keeps at most `bytes`, each entry for at most `ttl`; zero of either keeps nothing.
    pub(crate) fn new(bytes: usize, ttl: Duration, meter: CacheMeter) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            ttl,
            room: bytes / SHARDS,
            meter,
        }
    }

    fn place(&self, mount: MountId, subject: &str) -> (usize, u64) {
        let hash = self.hasher.hash_one((mount, subject));
        // The upper bits: the maps use the lower ones.
        ((hash >> 60) as usize % SHARDS, hash)
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept, if it still holds at `now`.
    pub(crate) fn get(
        &self,
        mount: MountId,
        subject: &str,
        number: u64,
        now: Timestamp,
    ) -> Option<Arc<Encoded>> {
        let found = self.find(mount, subject, number, now);
        if found.is_some() {
            self.meter.hits.inc()
        } else {
            self.meter.misses.inc()
        }
        found
    }

    fn find(&self, mount: MountId, subject: &str, number: u64, now: Timestamp) -> Option<Arc<Encoded>> {
        let shard = self.read(self.place(mount, subject).0);
        let slot = shard.mounts.get(&mount)?.get(subject)?;
        let variant = slot.variants.iter().find(|variant| variant.number == number)?;
        let in_time = now >= variant.since
            && now < variant.since.plus(self.ttl)
            && variant.kept.until.is_none_or(|end| now < end);
        if !in_time {
            return None;
        }
        slot.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&variant.kept))
    }

    /// To be asked for before the snapshot that a fill reads.
    pub(crate) fn began(&self, mount: MountId, subject: &str) -> Began {
        Began(self.read(self.place(mount, subject).0).generation)
    }

    /// Keeps what was read in a snapshot taken after `began`, unless something was written since, or is being written.
    pub(crate) fn fill(
        &self,
        began: Began,
        mount: MountId,
        subject: &str,
        number: u64,
        now: Timestamp,
        kept: &Arc<Encoded>,
    ) {
        let cost = OVERHEAD + 2 * subject.len() + kept.json.len();
        // One entry must not take the room of all others.
        if self.ttl.is_zero() || cost > self.room / 4 {
            return;
        }
        let (at, hash) = self.place(mount, subject);
        let shard = &mut *self.write(at);
        if shard.generation != began.0 || shard.all_closed > 0 || shard.closed.contains_key(&hash) {
            return;
        }
        let before = shard.bytes;
        let variant = Variant { number, since: now, kept: Arc::clone(kept) };
        shard.insert(mount, subject, variant, cost);
        let evicted = shard.make_room(self.room);
        self.meter.evictions.inc_by(evicted);
        self.meter.bytes.add(shard.bytes as i64 - before as i64);
    }

    /// To be held from before a write's transaction until its outcome is known.
    pub(crate) fn writing(&self, mount: MountId, touches: Touches<'_>) -> Writing<'_> {
        let what = match touches {
            Touches::Nothing => What::Nothing,
            Touches::One(subject) => {
                let (at, hash) = self.place(mount, subject);
                let shard = &mut *self.write(at);
                shard.generation += 1;
                *shard.closed.entry(hash).or_default() += 1;
                self.shrunk(shard.remove(mount, subject));
                What::One(at, hash)
            }
            Touches::All => {
                for at in 0..SHARDS {
                    let shard = &mut *self.write(at);
                    shard.generation += 1;
                    shard.all_closed += 1;
                    self.shrunk(shard.remove_mount(mount));
                }
                What::All
            }
        };
        Writing { cache: self, what }
    }

    /// Wipes what is past its time. Part of every sweep: nothing stays in memory only because nobody asks for it.
    pub(crate) fn expire(&self, now: Timestamp) {
        for at in 0..SHARDS {
            let shard = &mut *self.write(at);
            let before = shard.bytes;
            shard.expire(now, self.ttl);
            self.shrunk(before - shard.bytes);
        }
    }

    /// Drops everything of a mount.
    pub(crate) fn forget_mount(&self, mount: MountId) {
        drop(self.writing(mount, Touches::All));
    }

    fn shrunk(&self, bytes: usize) {
        self.meter.bytes.sub(bytes as i64);
    }

    /// The bytes held, as estimated.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        (0..SHARDS).map(|at| self.read(at).bytes).sum()
    }
}

impl Drop for SecretCache {
    fn drop(&mut self) {
        // What it holds itself: another cache may have begun to count already.
        self.meter.bytes.sub((0..SHARDS).map(|at| self.read(at).bytes).sum::<usize>() as i64);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        match self.what {
            What::Nothing => {}
            What::One(at, hash) => {
                let shard = &mut *self.cache.write(at);
                // What began during the write may have read what was before it.
                shard.generation += 1;
                if let Some(writers) = shard.closed.get_mut(&hash) {
                    *writers -= 1;
                    if *writers == 0 {
                        shard.closed.remove(&hash);
                    }
                }
            }
            What::All => {
                for at in 0..SHARDS {
                    let shard = &mut *self.cache.write(at);
                    shard.generation += 1;
                    shard.all_closed -= 1;
                }
            }
        }
    }
}

impl Shard {
    fn insert(&mut self, mount: MountId, subject: &str, variant: Variant, cost: usize) {
        let names = self.mounts.entry(mount).or_default();
        if let Some(slot) = names.get_mut(subject) {
            if let Some(at) = slot.variants.iter().position(|v| v.number == variant.number) {
                let old = slot.variants.swap_remove(at);
                let gone = cost_of(subject, &old);
                slot.cost -= gone;
                self.bytes -= gone;
            } else if slot.variants.len() == VARIANTS_MAX {
                let gone = cost_of(subject, &slot.variants.swap_remove(0));
                slot.cost -= gone;
                self.bytes -= gone;
            }
            slot.variants.push(variant);
            slot.cost += cost;
        } else {
            self.next_ticket += 1;
            let ticket = self.next_ticket;
            let name: Arc<str> = Arc::from(subject);
            self.turns.push_back((mount, Arc::clone(&name), ticket));
            names.insert(name, Slot { variants: vec![variant], ticket, cost, used: AtomicBool::new(false) });
            self.entries += 1;
        }
        self.bytes += cost;
    }

    /// Gives the bytes that were freed.
    fn remove(&mut self, mount: MountId, subject: &str) -> usize {
        let Some(slot) = self.mounts.get_mut(&mount).and_then(|names| names.remove(subject)) else {
            return 0;
        };
        self.entries -= 1;
        self.bytes -= slot.cost;
        self.tidy();
        slot.cost
    }

    fn remove_mount(&mut self, mount: MountId) -> usize {
        let Some(names) = self.mounts.remove(&mount) else { return 0 };
        let freed = names.values().map(|slot| slot.cost).sum();
        self.entries -= names.len();
        self.bytes -= freed;
        self.tidy();
        freed
    }

    fn expire(&mut self, now: Timestamp, ttl: Duration) {
        let (mut gone, mut freed) = (0, 0);
        for names in self.mounts.values_mut() {
            names.retain(|_, slot| {
                let stays = slot.variants.iter().any(|v| now >= v.since && now < v.since.plus(ttl));
                if !stays {
                    gone += 1;
                    freed += slot.cost;
                }
                stays
            });
        }
        self.entries -= gone;
        self.bytes -= freed;
        self.tidy();
    }

    /// Turns of entries that are gone must not pile up.
    fn tidy(&mut self) {
        if self.turns.len() > 2 * self.entries + 64 {
            let mounts = &self.mounts;
            self.turns.retain(|(mount, name, ticket)| {
                mounts.get(mount).and_then(|names| names.get(name)).is_some_and(|slot| slot.ticket == *ticket)
            });
        }
    }

    /// Evicts until at most `room` bytes are held; gives how many entries went.
    fn make_room(&mut self, room: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > room {
            let Some((mount, name, ticket)) = self.turns.pop_front() else { break };
            let Some(names) = self.mounts.get_mut(&mount) else { continue };
            match names.get(&name) {
                Some(slot) if slot.ticket == ticket => {
                    if slot.used.swap(false, Ordering::Relaxed) {
                        self.turns.push_back((mount, name, ticket));
                        continue;
                    }
                }
                _ => continue,
            }
            if let Some(slot) = names.remove(&name) {
                self.entries -= 1;
                self.bytes -= slot.cost;
                evicted += 1;
            }
        }
        evicted
    }
}

fn cost_of(subject: &str, variant: &Variant) -> usize {
    OVERHEAD + 2 * subject.len() + variant.kept.json.len()
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
