//! What only the embedded store does: files, the lock, a full disk, errors of the file.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use coffer_barrier::store::{KeyRange, Store, StoreError};
use coffer_storage::embedded::{DATA_FILE, EmbeddedStore, LOCK_FILE};
use redb::StorageBackend;

async fn put(store: &EmbeddedStore, key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let mut txn = store.begin().await?;
    txn.put(key, value.to_vec())?;
    txn.commit().await
}

async fn get(store: &EmbeddedStore, key: &[u8]) -> Option<Vec<u8>> {
    store.snapshot().await.unwrap().get(key).await.unwrap()
}

#[tokio::test]
async fn keeps_rows_and_versions_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er");
    let store = EmbeddedStore::open(&path).unwrap();
    let version = put(&store, b"Ca", b"1").await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"1");
    assert_eq!(store.snapshot().await.unwrap().version(), version);
    assert!(put(&store, b"Ca", b"2").await.unwrap() > version);
}

#[tokio::test]
async fn nobody_else_can_read_or_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = EmbeddedStore::open(&path).unwrap();
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(DATA_FILE)), 0o600);
    assert_eq!(mode(&path.join(LOCK_FILE)), 0o600);
    assert!(matches!(EmbeddedStore::open(&path).map(drop), Err(StoreError::Unavailable(_))));
    drop(store);
    EmbeddedStore::open(&path).unwrap();
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    put(&store, b"Ca", b"1").await.unwrap();
    let mut txn = store.begin().await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    txn.put(b"Cb", vec![1]).unwrap();
    drop(store);
    assert!(matches!(txn.commit().await, Err(StoreError::Unavailable(_))));
    let _ = snapshot.scan(&KeyRange::prefix(b"C"), 10).await;
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert_eq!(get(&store, b"Cb").await, None);
}

/// A file in memory that outlives the store, with switches for what fails.
#[derive(Clone, Debug, Default)]
struct Switchable {
    bytes: Arc<Mutex<Vec<u8>>>,
    no_room: Arc<AtomicBool>,
    no_sync: Arc<AtomicBool>,
    read_only: Arc<AtomicBool>,
}

impl Switchable {
    fn writable(&self) -> io::Result<()> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }
}

impl StorageBackend for Switchable {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.no_sync.load(Ordering::SeqCst) { Err(io::Error::other("sync")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // The first pages stay writable, as blocks that a file has already do.
        if self.no_room.load(Ordering::SeqCst) && offset >= 4096 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.writable()?;
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn over(file: &Switchable) -> EmbeddedStore {
    let file = file.clone();
    EmbeddedStore::with_backend(Box::new(move || Ok(Box::new(file.clone()))), Box::new(|| None)).unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let file = Switchable::default();
    let store = over(&file);
    put(&store, b"Ca", b"1").await.unwrap();
    file.no_room.store(true, Ordering::SeqCst);
    let refused = put(&store, b"Cb", &[7; 20_000]).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"1");
    assert_eq!(get(&store, b"Cb").await, None);
    file.no_room.store(false, Ordering::SeqCst);
    put(&store, b"Cb", b"2").await.unwrap();
    assert_eq!(get(&store, b"Cb").await.unwrap(), b"2");
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_not_even_tried() {
    let file = Switchable::default();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let (backend, left) = (file.clone(), Arc::clone(&free));
    let store = EmbeddedStore::with_backend(
        Box::new(move || Ok(Box::new(backend.clone()))),
        Box::new(move || Some(left.load(Ordering::SeqCst))),
    )
    .unwrap();
    put(&store, b"Ca", b"1").await.unwrap();
    free.store(1024 * 1024, Ordering::SeqCst);
    let before = store.snapshot().await.unwrap();
    assert!(matches!(put(&store, b"Cb", b"2").await, Err(StoreError::Full(_))));
    // Snapshots of before go on, as the file was never touched.
    assert_eq!(before.get(b"Ca").await.unwrap().unwrap(), b"1");
    free.store(u64::MAX, Ordering::SeqCst);
    put(&store, b"Cb", b"2").await.unwrap();
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_is_named_and_loses_nothing() {
    let file = Switchable::default();
    let store = over(&file);
    put(&store, b"Ca", b"1").await.unwrap();
    file.read_only.store(true, Ordering::SeqCst);
    let refused = put(&store, b"Cb", b"2").await;
    // Nothing was opened anew that could say whether it is there.
    assert!(matches!(refused, Err(StoreError::OutcomeUnknown)), "{refused:?}");
    for _ in 0..2 {
        match store.begin().await.map(drop) {
            Err(StoreError::Unavailable(why)) => assert!(why.contains("read-only"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    file.read_only.store(false, Ordering::SeqCst);
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"1");
    assert_eq!(get(&store, b"Cb").await, None);
    put(&store, b"Cb", b"3").await.unwrap();
    assert_eq!(get(&store, b"Cb").await.unwrap(), b"3");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_promised_any_more() {
    let file = Switchable::default();
    let store = over(&file);
    put(&store, b"Ca", b"1").await.unwrap();
    file.no_sync.store(true, Ordering::SeqCst);
    assert!(matches!(put(&store, b"Cb", b"2").await, Err(StoreError::OutcomeUnknown)));
    file.no_sync.store(false, Ordering::SeqCst);
    assert!(matches!(put(&store, b"Cc", b"3").await, Err(StoreError::Unavailable(_))));
    assert_eq!(get(&store, b"Cc").await, None);
    // A new process may look at what there is.
    drop(store);
    let store = over(&file);
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"1");
    put(&store, b"Cc", b"3").await.unwrap();
}
