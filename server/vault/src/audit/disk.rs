//! The few things the log asks of a disk, so that tests can have one that fails.
//!
//! Nothing is decided here.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// One file that is only ever appended to, or cut back after a failed append.
pub(super) trait LogFile: Send + Sync {
    /// One `write(2)` at the end. May take less than all, as that does.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts off what is behind `len` bytes.
    fn cut(&self, len: u64) -> io::Result<()>;
    /// Brings what was appended to the disk. Blocks.
    fn sync(&self) -> io::Result<()>;
}

/// Where the files are.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// A file opened for appending.
    fn file(&self, file: File) -> Box<dyn LogFile>;
    /// How much room the volume that `dir` is on has.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// The room on a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// What this process may still write.
    pub(super) free: u64,
    /// What there is in all.
    pub(super) total: u64,
}

/// The real one.
#[derive(Debug)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn file(&self, file: File) -> Box<dyn LogFile> {
        Box::new(file)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Ok(Space { free: bytes(stat.blocks_available()), total: bytes(stat.blocks()) })
    }
}

impl LogFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self;
        file.write(bytes)
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
pub(super) mod faulty {
    //! A real file under a disk that fails when told to.

    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What the next append does instead of its work.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Fault {
        /// As if nothing were wrong.
        None,
        /// Takes only so many bytes and says so.
        Short(usize),
        /// Takes so many bytes and fails all the same.
        Fail(usize, nix::errno::Errno),
    }

    #[derive(Debug, Default)]
    pub(crate) struct State {
        /// One for each append to come; then all go well.
        pub(crate) appends: VecDeque<Fault>,
        /// Whether appends fail until this is unset.
        pub(crate) broken: bool,
        pub(crate) cut_fails: bool,
        pub(crate) sync_fails: bool,
        pub(crate) space: Option<Space>,
        /// How many appends and syncs there were.
        pub(crate) appended: usize,
        pub(crate) synced: usize,
    }

    #[derive(Clone, Debug, Default)]
    pub(crate) struct FaultyDisk(pub(crate) Arc<Mutex<State>>);

    impl FaultyDisk {
        pub(crate) fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
            change(&mut self.0.lock().unwrap())
        }
    }

    impl Disk for FaultyDisk {
        fn file(&self, file: File) -> Box<dyn LogFile> {
            Box::new(FaultyFile { disk: self.clone(), file })
        }

        fn space(&self, _dir: &Path) -> io::Result<Space> {
            Ok(self.set(|state| state.space).unwrap_or(Space { free: 1 << 40, total: 1 << 40 }))
        }
    }

    struct FaultyFile {
        disk: FaultyDisk,
        file: File,
    }

    impl LogFile for FaultyFile {
        fn append(&self, bytes: &[u8]) -> io::Result<usize> {
            let fault = self.disk.set(|state| {
                state.appended += 1;
                let fault = state.appends.pop_front().unwrap_or(Fault::None);
                if state.broken { Fault::Fail(0, nix::errno::Errno::EIO) } else { fault }
            });
            let mut file = &self.file;
            match fault {
                Fault::None => file.write(bytes),
                Fault::Short(n) => file.write(&bytes[..n.min(bytes.len())]),
                Fault::Fail(n, errno) => {
                    file.write_all(&bytes[..n.min(bytes.len())])?;
                    Err(errno.into())
                }
            }
        }

        fn cut(&self, len: u64) -> io::Result<()> {
            if self.disk.set(|state| state.cut_fails) {
                return Err(nix::errno::Errno::EIO.into());
            }
            self.file.set_len(len)
        }

        fn sync(&self) -> io::Result<()> {
            let fails = self.disk.set(|state| {
                state.synced += 1;
                state.sync_fails
            });
            if fails { Err(nix::errno::Errno::EIO.into()) } else { self.file.sync_data() }
        }
    }
}
