//! Fuzz target of the embedded store's file, as a bad disk or somebody else may have left it.

use std::io;
use std::sync::{Arc, Mutex};

use coffer_barrier::store::{KeyRange, Store, StoreError};
use coffer_fuzz::{Target, kind};
use redb::StorageBackend;

use crate::embedded::EmbeddedStore;

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        let part = bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        bytes.get_mut(at..at + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

fn open(file: &Bytes) -> Result<EmbeddedStore, StoreError> {
    let file = file.clone();
    EmbeddedStore::with_backend(Box::new(move || Ok(Box::new(file.clone()))), Box::new(|| None))
}

async fn put(store: &EmbeddedStore, n: u8) -> Result<u64, StoreError> {
    let mut txn = store.begin().await?;
    txn.put(&[1, n], vec![7; 900])?;
    txn.commit().await
}

/// Edits, three bytes each: where (of the file's length, in 65536ths) and what is put there; one that ends in zero cuts the
/// file off.
#[test]
fn a_damaged_file_is_refused_or_read_and_written_without_a_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let whole = Bytes::default();
    runtime.block_on(async {
        let store = open(&whole).unwrap();
        for n in 0..40u8 {
            let mut txn = store.begin().await.unwrap();
            txn.put(&[1, n], vec![n + 1; 300]).unwrap();
            txn.commit().await.unwrap();
        }
    });
    let whole = whole.0.lock().unwrap().clone();
    Target::new("store-file").words(&["\0\0", "\u{1}", "\0\u{10}A"]).runs(60).run(|input| {
        let mut bytes = whole.clone();
        for edit in input.chunks_exact(3).take(16) {
            let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) * bytes.len() / 65_536;
            match edit[2] {
                0 => bytes.truncate(at),
                value => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
            }
        }
        let store = match open(&Bytes(Arc::new(Mutex::new(bytes)))) {
            Ok(store) => store,
            Err(why) => return kind(&why),
        };
        runtime.block_on(async {
            let snapshot = match store.snapshot().await {
                Ok(snapshot) => snapshot,
                Err(why) => return kind(&why),
            };
            let read = match snapshot.scan(&KeyRange::prefix(&[1]), 100).await {
                Ok(rows) => format!("{}", rows.len()),
                Err(why) => kind(&why),
            };
            drop(snapshot);
            // Over what can be read, and over what cannot.
            let (first, last) = (put(&store, 0).await, put(&store, 39).await);
            if matches!(first, Err(StoreError::Corrupt(_))) {
                assert!(last.is_err(), "written to a file that is known to be damaged");
            }
            let word =
                |result: Result<u64, StoreError>| result.map_or_else(|why| kind(&why), |_| "ok".into());
            format!("{read} {} {}", word(first), word(last))
        })
    });
}

/// The pages' heads are overwritten below the open store: whoever writes gets an answer, and once damage was met nothing
/// is read or written any more.
#[test]
fn a_panic_over_a_damaged_page_ends_the_store_and_not_its_committer() {
    const PAGE: usize = 4096;
    let key = |n: u16| [&[1], n.to_be_bytes().as_slice()].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let file = Bytes::default();
        let store = open(&file).unwrap();
        // More than is kept in memory.
        for part in 0..8u16 {
            let mut txn = store.begin().await.unwrap();
            for n in 0..1_000 {
                txn.put(&key(part * 1_000 + n), vec![7; 1_000]).unwrap();
            }
            txn.commit().await.unwrap();
        }
        file.0.lock().unwrap().chunks_mut(PAGE).skip(1).for_each(|page| page[..64].fill(0xff));
        let mut refused = None;
        for n in 0..100 {
            let mut txn = store.begin().await.unwrap();
            txn.put(&key(n * 79), vec![8; 1_000]).unwrap();
            if let Err(why) = txn.commit().await {
                refused = Some(why);
                break;
            }
        }
        assert!(matches!(refused, Some(StoreError::Corrupt(_))), "{refused:?}");
        for _ in 0..2 {
            assert!(matches!(store.begin().await.map(drop), Err(StoreError::Corrupt(_))));
            assert!(matches!(store.snapshot().await.map(drop), Err(StoreError::Corrupt(_))));
        }
    });
}
