//! Fuzz target of the embedded store's file, as a bad disk or somebody else may have left it.

use std::io;
use std::sync::{Arc, Mutex};

use coffer_barrier::store::{KeyRange, Store};
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

fn open(file: &Bytes) -> Result<EmbeddedStore, coffer_barrier::store::StoreError> {
    let file = file.clone();
    EmbeddedStore::with_backend(Box::new(move || Ok(Box::new(file.clone()))), Box::new(|| None))
}

/// Edits, three bytes each: where (of the file's length, in 65536ths) and what is put there; one that ends in zero cuts the
/// file off.
#[test]
fn a_damaged_file_is_refused_or_read_without_a_panic() {
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
            match snapshot.scan(&KeyRange::prefix(&[1]), 100).await {
                Ok(rows) => format!("{}", rows.len()),
                Err(why) => kind(&why),
            }
        })
    });
}
