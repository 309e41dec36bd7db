//! Reads the data file ahead of redb's check after an unclean stop.
//!
//! That check follows the tree from page to page: where the kernel has not kept the file, each is a read of its own. Read
//! from front to back the same bytes come several times as fast, and the check finds them in the kernel's memory. Only
//! reads, keeps nothing, and stops when the check is done.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one call reads.
const PIECE_BYTES: u64 = 4 << 20;
/// How many read at the same time, every one its share of the pieces.
const READERS: u64 = 2;

/// The readers of one check.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    started: AtomicBool,
    stopped: AtomicBool,
}

impl Ahead {
    /// Begins, unless it has begun. What cannot be read is left to the check, which says so.
    pub(crate) fn start(self: &Arc<Self>, path: &Arc<Path>) {
        if self.started.swap(true, Ordering::SeqCst) {
            return;
        }
        for number in 0..READERS {
            let (ahead, path) = (Arc::clone(self), Arc::clone(path));
            let reader = std::thread::Builder::new().name("coffer-ahead".into());
            if let Err(error) = reader.spawn(move || ahead.read(&path, number)) {
                tracing::warn!(%error, "the store's file is not read ahead");
            }
        }
    }

    /// The check is done.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Returns how many bytes were read.
    fn read(&self, path: &Path, number: u64) -> u64 {
        let Ok(file) = File::open(path) else { return 0 };
        let mut piece = vec![0; usize::try_from(PIECE_BYTES).unwrap_or_default()];
        let (mut at, mut read) = (number * PIECE_BYTES, 0);
        while !self.stopped.load(Ordering::SeqCst) {
            match file.read_at(&mut piece, at) {
                Ok(bytes) if bytes > 0 => read += bytes as u64,
                _ => break,
            }
            at += READERS * PIECE_BYTES;
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readers_share_the_file_and_stop_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let bytes = PIECE_BYTES * 3 + 5;
        File::create(&path).unwrap().set_len(bytes).unwrap();
        let ahead = Ahead::default();
        let read: Vec<u64> = (0..READERS).map(|number| ahead.read(&path, number)).collect();
        assert_eq!(read, [2 * PIECE_BYTES, PIECE_BYTES + 5]);
        assert_eq!(ahead.read(&dir.path().join("nothing"), 0), 0);
        ahead.stop();
        assert_eq!(ahead.read(&path, 0), 0);
    }
}
