//! The store as one process sees it: it can die in any call.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use coffer_barrier::store::{KeyRange, Row, Snapshot, Store, StoreError, Txn};
use coffer_storage::memory::MemoryStore;

use crate::bugs::Bug;
use crate::process::Process;

pub struct SimStore {
    pub inner: Arc<dyn Store>,
    pub process: Arc<Process>,
    pub bug: Option<Bug>,
    pub disk: Arc<Disk>,
}

/// What is left when the process dies.
#[derive(Default)]
pub struct Disk {
    pub rows: MemoryStore,
    /// All rows before the last commit; kept for [`Bug::CommitForgotten`] only.
    before: Mutex<Option<Vec<Row>>>,
}

impl Disk {
    /// Back to before the last commit.
    pub fn forget_last(&self) {
        let Some(before) = self.before.lock().unwrap().take() else { return };
        for (key, _) in self.rows.dump() {
            self.rows.tamper(&key, None);
        }
        for (key, value) in before {
            self.rows.tamper(&key, Some(value));
        }
    }
}

#[async_trait]
impl Store for SimStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.process.step().await;
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(SimSnapshot { inner, process: Arc::clone(&self.process) }))
    }

    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError> {
        self.process.step().await;
        let inner = self.inner.begin().await?;
        let (process, disk) = (Arc::clone(&self.process), Arc::clone(&self.disk));
        Ok(Box::new(SimTxn { inner, process, bug: self.bug, disk }))
    }
}

struct SimSnapshot {
    inner: Box<dyn Snapshot>,
    process: Arc<Process>,
}

#[async_trait]
impl Snapshot for SimSnapshot {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.process.step().await;
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.process.step().await;
        self.inner.scan(range, limit).await
    }
}

struct SimTxn {
    inner: Box<dyn Txn>,
    process: Arc<Process>,
    bug: Option<Bug>,
    disk: Arc<Disk>,
}

#[async_trait]
impl Snapshot for SimTxn {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.process.step().await;
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.process.step().await;
        self.inner.scan(range, limit).await
    }
}

#[async_trait]
impl Txn for SimTxn {
    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.inner.put(key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn guard(&mut self, key: &[u8]) {
        if self.bug != Some(Bug::GuardsIgnored) {
            self.inner.guard(key);
        }
    }

    async fn commit(self: Box<Self>) -> Result<u64, StoreError> {
        let Self { inner, process, bug, disk } = *self;
        process.step().await;
        if bug == Some(Bug::CommitForgotten) {
            let rows = disk.rows.dump();
            *disk.before.lock().unwrap() = Some(rows);
        }
        let committed = inner.commit().await;
        // Dead after the commit and before anybody knows of it.
        process.step().await;
        committed
    }
}
