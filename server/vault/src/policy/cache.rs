//! Policies in memory. Dropped when they are written; a fill that began before a write is not kept (R6).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;

use super::PolicyEntry;
use crate::cache::CacheMeter;

/// What an entry costs beside its text.
const OVERHEAD: usize = 256;

/// That a policy is absent is kept, too.
type Found = Option<Arc<PolicyEntry>>;

/// The cache.
pub(super) struct PolicyCache {
    state: Mutex<State>,
    room: usize,
    ttl: Duration,
    meter: CacheMeter,
}

#[derive(Default)]
struct State {
    generation: u64,
    entries: HashMap<PolicyName, (Timestamp, Found)>,
    bytes: usize,
}

impl PolicyCache {
    pub(super) fn new(bytes: usize, ttl: Duration, meter: CacheMeter) -> Self {
        Self { state: Mutex::default(), room: bytes, ttl, meter }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, or the generation under which to find out.
    pub(super) fn get(&self, name: &PolicyName, now: Timestamp) -> Result<Found, u64> {
        let state = self.state();
        match state.entries.get(name) {
            Some((since, found)) if now >= *since && now < since.plus(self.ttl) => {
                self.meter.hits.inc();
                Ok(found.clone())
            }
            _ => {
                self.meter.misses.inc();
                Err(state.generation)
            }
        }
    }

    /// Keeps what was read in a snapshot taken after `generation` was.
    pub(super) fn fill(&self, generation: u64, name: &PolicyName, now: Timestamp, found: &Found) {
        let cost = cost(name, found);
        let state = &mut *self.state();
        if state.generation != generation || self.ttl.is_zero() || cost > self.room {
            return;
        }
        if state.bytes + cost > self.room {
            // Policies are few: a full cache starts anew.
            self.meter.evictions.inc_by(state.entries.len() as u64);
            state.entries.clear();
            state.bytes = 0;
        }
        if let Some((_, old)) = state.entries.insert(name.clone(), (now, found.clone())) {
            state.bytes -= self::cost(name, &old);
        }
        state.bytes += cost;
        self.meter.bytes.set(state.bytes as i64);
    }

    /// Drops a policy and disowns every fill under way.
    pub(super) fn forget(&self, name: &PolicyName) {
        let state = &mut *self.state();
        state.generation += 1;
        if let Some((_, old)) = state.entries.remove(name) {
            state.bytes -= cost(name, &old);
        }
        self.meter.bytes.set(state.bytes as i64);
    }
}

fn cost(name: &PolicyName, found: &Found) -> usize {
    OVERHEAD + 2 * name.as_str().len() + found.as_ref().map_or(0, |entry| entry.text.len())
}
