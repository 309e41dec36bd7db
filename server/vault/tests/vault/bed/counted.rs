//! A store that counts what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use coffer_barrier::store::{KeyRange, Row, Snapshot, Store, StoreError, Txn};
use coffer_storage::memory::MemoryStore;

/// What was asked.
#[derive(Default)]
pub struct Asked {
    calls: AtomicU64,
    rows: AtomicU64,
}

impl Asked {
    /// Calls, and rows that were read by them, since the last time.
    pub fn take(&self) -> (u64, u64) {
        (self.calls.swap(0, Ordering::SeqCst), self.rows.swap(0, Ordering::SeqCst))
    }

    fn count(&self, rows: usize) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.rows.fetch_add(rows as u64, Ordering::SeqCst);
    }
}

pub struct CountedStore {
    pub inner: MemoryStore,
    pub asked: Arc<Asked>,
}

struct Counted<T: ?Sized> {
    asked: Arc<Asked>,
    inner: Box<T>,
}

#[async_trait]
impl Store for CountedStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.asked.count(0);
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(Counted { asked: Arc::clone(&self.asked), inner }))
    }

    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError> {
        self.asked.count(0);
        let inner = self.inner.begin().await?;
        Ok(Box::new(Counted { asked: Arc::clone(&self.asked), inner }))
    }
}

#[async_trait]
impl<T: Snapshot + ?Sized> Snapshot for Counted<T> {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.asked.count(1);
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.inner.scan(range, limit).await?;
        self.asked.count(rows.len());
        Ok(rows)
    }
}

#[async_trait]
impl Txn for Counted<dyn Txn> {
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
        self.asked.count(0);
        self.inner.commit().await
    }
}
