//! A store in memory, for tests and for trying things out. Every row is gone when it is dropped.
//!
//! Multi-version: each key keeps the values that some live snapshot can still see.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use coffer_barrier::store::{KeyRange, Row, Snapshot, Store, StoreError, Txn};

use crate::overlay::{Base, Changes, Local};

type History = Vec<(u64, Option<Arc<[u8]>>)>;

#[derive(Default)]
struct State {
    version: u64,
    /// Per key its values, oldest first; `None` is a deletion.
    rows: BTreeMap<Vec<u8>, History>,
    /// Versions that live snapshots read, with their number.
    live: BTreeMap<u64, usize>,
    /// What was written, in order: once no snapshot is older, the values before it can go.
    written: VecDeque<(u64, Vec<u8>)>,
}

impl State {
    fn last_change(&self, key: &[u8]) -> Option<u64> {
        Some(self.rows.get(key)?.last()?.0)
    }

    fn prune(&mut self) {
        let oldest = self.live.keys().next().copied().unwrap_or(self.version);
        while self.written.front().is_some_and(|(version, _)| *version <= oldest) {
            let Some((_, key)) = self.written.pop_front() else { return };
            let Some(history) = self.rows.get_mut(&key) else { continue };
            let seen = history.iter().rposition(|(version, _)| *version <= oldest).unwrap_or(0);
            history.drain(..seen);
            if let [(version, None)] = history.as_slice()
                && *version <= oldest
            {
                self.rows.remove(&key);
            }
        }
    }
}

/// A store in memory. Clones share the same rows.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every row as it is now. For tests that look for what must not be there.
    #[must_use]
    pub fn dump(&self) -> Vec<Row> {
        let state = lock(&self.state);
        let latest =
            |history: &History| history.last().and_then(|(_, value)| value.as_deref().map(<[u8]>::to_vec));
        state.rows.iter().filter_map(|(key, history)| Some((key.clone(), latest(history)?))).collect()
    }

    /// Changes a row behind the vault's back, as somebody with the disk could; `None` removes it.
    pub fn tamper(&self, key: &[u8], value: Option<Vec<u8>>) {
        let mut state = lock(&self.state);
        state.version += 1;
        let version = state.version;
        state.rows.entry(key.to_vec()).or_default().push((version, value.map(Arc::from)));
        state.written.push_back((version, key.to_vec()));
    }

    fn base(&self) -> MemoryBase {
        let mut state = lock(&self.state);
        let version = state.version;
        *state.live.entry(version).or_default() += 1;
        MemoryBase { state: Arc::clone(&self.state), version }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(Local(self.base())))
    }

    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError> {
        Ok(Box::new(MemoryTxn { base: self.base(), changes: Changes::default() }))
    }
}

struct MemoryBase {
    state: Arc<Mutex<State>>,
    version: u64,
}

impl MemoryBase {
    fn visible(&self, history: &History) -> Option<Vec<u8>> {
        let (_, value) = history.iter().rev().find(|(version, _)| *version <= self.version)?;
        value.as_deref().map(<[u8]>::to_vec)
    }
}

impl Base for MemoryBase {
    fn version(&self) -> u64 {
        self.version
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.state).rows.get(key).and_then(|history| self.visible(history)))
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        let state = lock(&self.state);
        let rows = state.rows.range(range.start.clone()..).take_while(|(key, _)| range.contains(key));
        Ok(rows
            .filter_map(|(key, history)| Some((key.clone(), self.visible(history)?)))
            .take(limit)
            .collect())
    }
}

impl Drop for MemoryBase {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(count) = state.live.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&self.version);
            }
        }
    }
}

struct MemoryTxn {
    base: MemoryBase,
    changes: Changes,
}

#[async_trait]
impl Snapshot for MemoryTxn {
    fn version(&self) -> u64 {
        self.base.version
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.changes.get(&self.base, key)
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.changes.scan(&self.base, range, limit)
    }
}

#[async_trait]
impl Txn for MemoryTxn {
    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.changes.put(key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.changes.delete(key)
    }

    fn guard(&mut self, key: &[u8]) {
        self.changes.guard(key);
    }

    async fn commit(self: Box<Self>) -> Result<u64, StoreError> {
        let Self { base, changes } = *self;
        let mut state = lock(&base.state);
        if changes.conflicts(base.version, |key| state.last_change(key)) {
            return Err(StoreError::Conflict);
        }
        if !changes.writes.is_empty() {
            state.version += 1;
            let version = state.version;
            for (key, value) in changes.writes {
                state.rows.entry(key.clone()).or_default().push((version, value.map(Arc::from)));
                state.written.push_back((version, key));
            }
        }
        state.prune();
        Ok(state.version)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
