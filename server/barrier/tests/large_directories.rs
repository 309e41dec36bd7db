//! LIST of a large directory: how often it goes to the store, and that what is kept in memory is never out of date.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use coffer_barrier::store::{KeyRange, Row, Snapshot, Store, StoreError, Txn};
use coffer_barrier::{Barrier, BarrierError, MountId, Read};
use coffer_storage::memory::MemoryStore;

const SYSTEM: MountId = MountId::SYSTEM;

/// Counts what is read through snapshots, and how many rows came back.
#[derive(Clone, Default)]
struct Counters {
    calls: Arc<AtomicUsize>,
    rows: Arc<AtomicUsize>,
}

impl Counters {
    fn take(&self) -> (usize, usize) {
        (self.calls.swap(0, Ordering::SeqCst), self.rows.swap(0, Ordering::SeqCst))
    }
}

struct Counting {
    inner: MemoryStore,
    counters: Counters,
}

struct CountingSnapshot {
    inner: Box<dyn Snapshot>,
    counters: Counters,
}

#[async_trait]
impl Store for Counting {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(CountingSnapshot { inner, counters: self.counters.clone() }))
    }

    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError> {
        self.inner.begin().await
    }
}

#[async_trait]
impl Snapshot for CountingSnapshot {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.counters.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.counters.calls.fetch_add(1, Ordering::SeqCst);
        let rows = self.inner.scan(range, limit).await?;
        self.counters.rows.fetch_add(rows.len(), Ordering::SeqCst);
        Ok(rows)
    }
}

async fn counted() -> (Arc<Barrier>, Counters) {
    let counters = Counters::default();
    let store = Counting { inner: MemoryStore::new(), counters: counters.clone() };
    (common::over(Arc::new(store)).await, counters)
}

async fn link(barrier: &Barrier, paths: impl Iterator<Item = String>) {
    let mut w = barrier.begin().await.unwrap();
    for path in paths {
        w.link(SYSTEM, &path).await.unwrap();
    }
    w.commit().await.unwrap();
}

async fn unlink(barrier: &Barrier, path: &str) {
    let mut w = barrier.begin().await.unwrap();
    w.unlink(SYSTEM, path).await.unwrap();
    w.commit().await.unwrap();
}

async fn page(barrier: &Barrier, dir: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    barrier.reader().await.unwrap().list(SYSTEM, dir, after, limit).await.unwrap()
}

#[tokio::test]
async fn ten_thousand_children_are_a_handful_of_calls_and_a_further_page_is_one() {
    let (barrier, counters) = counted().await;
    for part in 0..5 {
        link(&barrier, (0..2_000).map(|n| format!("dir/{:05}", part * 2_000 + n))).await;
    }
    counters.take();
    let all = page(&barrier, "dir", None, 10_000).await;
    assert!(all.len() == 10_000 && all.is_sorted());
    assert!(counters.take().0 <= 4, "a few, however many children there are");
    let mut found: Vec<String> = Vec::new();
    while found.len() < 10_000 {
        found.extend(page(&barrier, "dir", found.last().map(String::as_str), 500).await);
        let (calls, rows) = counters.take();
        assert!(calls == 1 && rows <= 32, "{calls} calls, {rows} rows: only what tells whether it changed");
    }
    assert_eq!(found, all);
    page(&barrier, "", None, 10).await;
    assert_eq!(counters.take().0, 1, "a small directory is one call");
}

#[tokio::test]
async fn what_is_kept_in_memory_follows_every_change() {
    let (barrier, _) = counted().await;
    link(&barrier, (0..1_000).map(|n| format!("dir/{n:04}"))).await;
    assert_eq!(page(&barrier, "dir", None, 2_000).await.len(), 1_000);
    let before = barrier.reader().await.unwrap();
    unlink(&barrier, "dir/0000").await;
    link(&barrier, std::iter::once("dir/0001x".to_owned())).await;
    assert_eq!(page(&barrier, "dir", None, 2).await, ["0001", "0001x"]);
    assert_eq!(page(&barrier, "dir", None, 2_000).await.len(), 1_000);
    // An older snapshot sees what was then, whatever is kept by now, and harms nobody.
    assert_eq!(before.list(SYSTEM, "dir", None, 2).await.unwrap(), ["0000", "0001"]);
    assert_eq!(page(&barrier, "dir", None, 2).await, ["0001", "0001x"]);
    // A transaction sees its own changes, and if it comes to nothing they were never there.
    let mut w = barrier.begin().await.unwrap();
    w.unlink(SYSTEM, "dir/0001").await.unwrap();
    assert_eq!(w.list(SYSTEM, "dir", None, 1).await.unwrap(), ["0001x"]);
    drop(w);
    assert_eq!(page(&barrier, "dir", None, 1).await, ["0001"]);
    // At the root of a mount, too, where no directory is ever removed.
    link(&barrier, (0..300).map(|n| format!("top{n:03}"))).await;
    assert_eq!(page(&barrier, "", Some("top298"), 5).await, ["top299"]);
    unlink(&barrier, "top299").await;
    assert!(page(&barrier, "", Some("top298"), 5).await.is_empty());
}

#[tokio::test]
async fn sealing_forgets_the_names() {
    let counters = Counters::default();
    let store = Counting { inner: MemoryStore::new(), counters: counters.clone() };
    let (barrier, shares) = common::sealed(Arc::new(store), 1, 1).await;
    barrier.unseal(&shares).await.unwrap();
    link(&barrier, (0..1_000).map(|n| format!("dir/{n:04}"))).await;
    let reader = barrier.reader().await.unwrap();
    assert_eq!(reader.list(SYSTEM, "dir", None, 2_000).await.unwrap().len(), 1_000);
    counters.take();
    assert_eq!(page(&barrier, "dir", None, 1).await.len(), 1);
    assert!(counters.take().1 <= 32, "they were in memory");
    barrier.seal();
    assert!(matches!(reader.list(SYSTEM, "dir", None, 1).await, Err(BarrierError::Sealed)));
    barrier.unseal(&shares).await.unwrap();
    counters.take();
    assert_eq!(page(&barrier, "dir", None, 1).await, ["0000"]);
    assert!(counters.take().1 >= 1_000, "they are read again, so they were forgotten");
}
