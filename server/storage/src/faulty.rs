//! A store that fails on purpose, by seed.
//!
//! The fault contract. Whatever happens here can happen to a real store, and the vault must live with it:
//! - taking a snapshot, beginning, reading or scanning fails with `Unavailable`;
//! - any call is delayed: it gives way to other tasks a few times before it starts;
//! - a commit fails with `Conflict`, `Unavailable` or `Full`, and nothing of it was applied, now or later;
//! - a commit answers `OutcomeUnknown`, and it was applied; or it was not and never will be; or it lands *later*,
//!   when [`FaultyStore::land_late`] is called, unless what it depends on has changed by then.
//!
//! What never happens: a commit that answers with a version and is not there, half a commit, a snapshot that does not
//! see what was acknowledged before it was taken, changed bytes. (Changed bytes are `MemoryStore::tamper`'s.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use coffer_barrier::store::{KeyRange, Row, Snapshot, Store, StoreError, Txn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How likely each fault is, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A snapshot, a transaction's begin, a read or a scan fails.
    pub read_fails: f64,
    /// A call gives way to others first.
    pub delay: f64,
    /// A commit fails, and that is known.
    pub commit_fails: f64,
    /// A commit is applied, and nobody knows.
    pub unknown_applied: f64,
    /// A commit is not applied, and nobody knows.
    pub unknown_lost: f64,
    /// A commit is applied later, if it still can be, and nobody knows.
    pub unknown_late: f64,
}

struct State {
    rng: StdRng,
    faults: Faults,
    late: Vec<Box<dyn Txn>>,
}

/// Wraps a store and breaks it.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

impl FaultyStore {
    /// Breaks `inner` as `seed` says.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, seed: u64, faults: Faults) -> Self {
        let state = State { rng: StdRng::seed_from_u64(seed), faults, late: Vec::new() };
        Self { inner, state: Arc::new(Mutex::new(state)) }
    }

    /// Other faults from here on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.state).faults = faults;
    }

    /// Lets the commits that were put off arrive now. Returns how many of them could still be applied.
    pub async fn land_late(&self) -> usize {
        let late = std::mem::take(&mut lock(&self.state).late);
        let mut landed = 0;
        for txn in late {
            landed += usize::from(txn.commit().await.is_ok());
        }
        landed
    }
}

/// Delays, then fails, if the seed says so.
async fn disturb(state: &Mutex<State>) -> Result<(), StoreError> {
    let (yields, fails) = {
        let mut state = lock(state);
        let Faults { delay, read_fails, .. } = state.faults;
        let yields = if state.rng.random_bool(delay) { state.rng.random_range(1..8) } else { 0 };
        (yields, state.rng.random_bool(read_fails))
    };
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    if fails { Err(StoreError::Unavailable("injected".into())) } else { Ok(()) }
}

#[async_trait]
impl Store for FaultyStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        disturb(&self.state).await?;
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(FaultySnapshot { inner, state: Arc::clone(&self.state) }))
    }

    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError> {
        disturb(&self.state).await?;
        let inner = self.inner.begin().await?;
        Ok(Box::new(FaultyTxn { inner, state: Arc::clone(&self.state) }))
    }
}

struct FaultySnapshot {
    inner: Box<dyn Snapshot>,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl Snapshot for FaultySnapshot {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        disturb(&self.state).await?;
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        disturb(&self.state).await?;
        self.inner.scan(range, limit).await
    }
}

struct FaultyTxn {
    inner: Box<dyn Txn>,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl Snapshot for FaultyTxn {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        disturb(&self.state).await?;
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        disturb(&self.state).await?;
        self.inner.scan(range, limit).await
    }
}

enum Fate {
    Fine,
    Fails(StoreError),
    Applied,
    Lost,
    Late,
}

impl State {
    fn fate(&mut self) -> Fate {
        let faults = self.faults;
        let dice: f64 = self.rng.random();
        let mut bound = faults.commit_fails;
        if dice < bound {
            return Fate::Fails(match self.rng.random_range(0..3) {
                0 => StoreError::Conflict,
                1 => StoreError::Unavailable("injected".into()),
                _ => StoreError::Full("injected".into()),
            });
        }
        for (likely, fate) in [
            (faults.unknown_applied, Fate::Applied),
            (faults.unknown_lost, Fate::Lost),
            (faults.unknown_late, Fate::Late),
        ] {
            bound += likely;
            if dice < bound {
                return fate;
            }
        }
        Fate::Fine
    }
}

#[async_trait]
impl Txn for FaultyTxn {
    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.inner.put(key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn guard(&mut self, key: &[u8]) {
        self.inner.guard(key);
    }

    async fn commit(self: Box<Self>) -> Result<u64, StoreError> {
        let Self { inner, state } = *self;
        let fate = lock(&state).fate();
        match fate {
            Fate::Fine => inner.commit().await,
            Fate::Fails(error) => Err(error),
            Fate::Applied => {
                // Even then the store may refuse it; that too stays unknown.
                let _ = inner.commit().await;
                Err(StoreError::OutcomeUnknown)
            }
            Fate::Lost => Err(StoreError::OutcomeUnknown),
            Fate::Late => {
                lock(&state).late.push(inner);
                Err(StoreError::OutcomeUnknown)
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
