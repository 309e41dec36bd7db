//! The default store: one node, one directory, durable on commit.
//!
//! redb keeps the rows. Reads are snapshots that never wait for writers; all writes go through one committer thread,
//! which puts many writers into one synced commit. Two processes cannot have the directory at once.

mod ahead;
mod backend;
mod committer;
mod file;
mod recent;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use coffer_barrier::store::{KeyRange, Row, Snapshot, Store, StoreError, Txn};
use redb::backends::FileBackend;
use redb::{Database, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use self::backend::Health;
use self::committer::{BATCH_MAX, Committer, Request, stored_version};
use self::file::{create_whole, open_database, private_file};
use crate::overlay::{Base, Changes, Local};

/// The rows.
const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
/// Facts about the file.
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const VERSION: &str = "version";
const FORMAT: &str = "format";
/// The format this code reads and writes.
const FORMAT_NOW: u64 = 1;
/// Name of the data file in the directory.
pub const DATA_FILE: &str = "coffer.redb";
/// Name of the lock file in the directory.
pub const LOCK_FILE: &str = "LOCK";
/// Memory for pages of the data file, in bytes, unless told otherwise. A tenth of it holds what a commit has not written
/// yet. Small: what is asked for often is answered from caches above this room, and the kernel keeps the file's pages, too.
pub const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// The least memory for pages: below it a commit writes many pages twice.
pub const CACHE_BYTES_MIN: usize = 1024 * 1024;

/// Opens the place where the bytes are; called again after an IO error.
pub type OpenBackend = Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;
/// How many bytes are left on the disk; `None` if nobody knows.
pub type FreeBytes = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// A store in one directory.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// Taken when the store is dropped; transactions only hold weak ones.
    requests: Option<mpsc::Sender<Request>>,
    committer: Option<JoinHandle<()>>,
    /// Held for the lock on it.
    _lock: Option<File>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is created if need be. Fails if another process has it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, CACHE_BYTES)
    }

    /// The same with this much memory for pages, in bytes; at least [`CACHE_BYTES_MIN`].
    pub fn open_with(dir: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unavailable)?;
        match std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)) {
            // The root of a Kubernetes volume belongs to somebody else. The files in it are private in any case.
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {}
            other => other.map_err(unavailable)?,
        }
        let lock = private_file(&dir.join(LOCK_FILE)).map_err(unavailable)?;
        if lock.try_lock().is_err() {
            return Err(StoreError::Unavailable("another process has the store's directory".into()));
        }
        let data: Arc<Path> = dir.join(DATA_FILE).into();
        match std::fs::metadata(&data) {
            // A data file is whole from its beginning, see `create_whole`. One without bytes has lost them, and must not be
            // taken for a new one.
            Ok(found) if found.len() == 0 => {
                return Err(StoreError::Corrupt(format!("{} is empty", data.display())));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => create_whole(dir, &data)?,
            Err(e) => return Err(unavailable(e)),
        }
        let free_dir = dir.to_owned();
        let path = Arc::clone(&data);
        let open: OpenBackend = Box::new(move || {
            let backend = FileBackend::new(private_file(&data)?).map_err(io::Error::other)?;
            Ok(Box::new(backend))
        });
        let free: FreeBytes = Box::new(move || {
            let stat = nix::sys::statvfs::statvfs(&free_dir).ok()?;
            Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
        });
        let mut store = Self::over(open, Some(path), free, cache_bytes)?;
        store._lock = Some(lock);
        Ok(store)
    }

    /// Opens the store over any place for bytes. This is the seam for tests that cut the power or fill the disk.
    pub fn with_backend(open: OpenBackend, free: FreeBytes) -> Result<Self, StoreError> {
        Self::over(open, None, free, CACHE_BYTES)
    }

    fn over(
        open: OpenBackend,
        path: Option<Arc<Path>>,
        free: FreeBytes,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let cache_bytes = cache_bytes.max(CACHE_BYTES_MIN);
        let health = Arc::new(Health::default());
        let (database, version) = unharmed(|| {
            let database = open_database(&open, path.as_ref(), &health, cache_bytes)?;
            let version = stored_version(&database).map_err(storage)?;
            Ok((database, version))
        })?;
        let shared = Arc::new(Shared {
            database: RwLock::new(Slot::Open(database)),
            health: Mutex::new(health),
            live: Mutex::new(Live { committed: version, snapshots: BTreeMap::new() }),
            open,
            path,
            free,
            cache_bytes,
        });
        let (requests, receiver) = mpsc::channel(BATCH_MAX);
        let committer = Committer::new(Arc::clone(&shared), version);
        let committer = std::thread::Builder::new()
            .name("coffer-commit".into())
            .spawn(move || committer.run(receiver))
            .map_err(unavailable)?;
        Ok(Self { shared, requests: Some(requests), committer: Some(committer), _lock: None })
    }

    fn base(&self) -> Result<EmbeddedBase, StoreError> {
        EmbeddedBase::new(&self.shared)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(committer) = self.committer.take() {
            // A panic there has been printed; there is nothing left to save.
            let _ = committer.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(Local(self.base()?)))
    }

    async fn begin(&self) -> Result<Box<dyn Txn>, StoreError> {
        let requests = self.requests.as_ref().map(mpsc::Sender::downgrade);
        let requests = requests.ok_or_else(|| StoreError::Unavailable("the store is closed".into()))?;
        Ok(Box::new(EmbeddedTxn { base: self.base()?, changes: Changes::default(), requests }))
    }
}

/// The open file, if it is open.
enum Slot {
    Open(Database),
    /// It failed and could not be opened anew; the next call tries again.
    Failed,
    /// redb panicked over it while writing: for good, until the process starts again.
    Damaged,
    /// For good.
    Closed,
}

/// What the store, its snapshots and its committer share.
pub(crate) struct Shared {
    database: RwLock<Slot>,
    health: Mutex<Arc<Health>>,
    live: Mutex<Live>,
    open: OpenBackend,
    /// Where the bytes are, if in a file.
    path: Option<Arc<Path>>,
    free: FreeBytes,
    /// For pages.
    cache_bytes: usize,
}

/// Which versions somebody still reads.
struct Live {
    /// A version that a snapshot taken now is not older than.
    committed: u64,
    snapshots: BTreeMap<u64, usize>,
}

impl Shared {
    /// Runs `f` on the open file. After a failed attempt to open it anew this is the next attempt.
    fn with_database<T>(&self, f: impl FnOnce(&Database) -> T) -> Result<T, StoreError> {
        {
            let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if let Slot::Open(database) = &*slot {
                return Ok(f(database));
            }
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Slot::Failed = &*slot {
            self.open_into(&mut slot)?;
        }
        match &*slot {
            Slot::Open(database) => Ok(f(database)),
            Slot::Damaged => Err(damaged()),
            Slot::Failed | Slot::Closed => Err(StoreError::Unavailable("the store is closed".into())),
        }
    }

    /// Nothing is read or written any more. The file is left as one that was not closed in order, so that the next
    /// start checks all of it.
    fn condemn(&self) {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *slot, Slot::Damaged);
        // Dropping it would write to the file once more, and call it whole.
        std::mem::forget(before);
        tracing::error!("the embedded store's file is damaged; nothing is served from it until a restart");
    }

    fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
    }

    /// The version that the file holds.
    fn version(&self) -> Result<u64, StoreError> {
        self.with_database(stored_version)?.map_err(storage)
    }

    fn health(&self) -> Arc<Health> {
        Arc::clone(&lock(&self.health))
    }

    fn free_bytes(&self) -> Option<u64> {
        (self.free)()
    }

    /// Opens the file anew and returns its version. Snapshots of before fail from here on.
    fn reopen(&self) -> Result<u64, StoreError> {
        {
            let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
            // Dropped first: it holds the lock on the file.
            *slot = Slot::Failed;
            self.open_into(&mut slot)?;
        }
        self.version()
    }

    fn open_into(&self, slot: &mut Slot) -> Result<(), StoreError> {
        let health = Arc::new(Health::default());
        let database = open_database(&self.open, self.path.as_ref(), &health, self.cache_bytes)?;
        *lock(&self.health) = health;
        *slot = Slot::Open(database);
        Ok(())
    }

    /// The oldest version that a live snapshot may read, given the newest committed one.
    fn oldest_live(&self, committed: u64) -> u64 {
        let mut live = lock(&self.live);
        live.committed = committed;
        live.snapshots.keys().next().copied().unwrap_or(committed).min(committed)
    }
}

struct EmbeddedBase {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    version: u64,
    shared: Arc<Shared>,
    /// The version it is counted under: at most the one it reads.
    counted: u64,
}

impl EmbeddedBase {
    fn new(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let counted = {
            // Counted before it is taken, or the committer could forget in between what it must be validated against.
            let mut live = lock(&shared.live);
            let committed = live.committed;
            *live.snapshots.entry(committed).or_default() += 1;
            committed
        };
        let taken = unharmed(|| {
            let taken = shared.with_database(|database| -> Result<_, redb::Error> {
                let txn = database.begin_read()?;
                let version = txn.open_table(META)?.get(VERSION)?.map_or(0, |v| v.value());
                Ok((txn.open_table(ROWS)?, version))
            });
            taken?.map_err(storage)
        });
        match taken {
            Ok((rows, version)) => Ok(Self { rows, version, shared: Arc::clone(shared), counted }),
            Err(e) => {
                uncount(shared, counted);
                Err(e)
            }
        }
    }
}

impl Drop for EmbeddedBase {
    fn drop(&mut self) {
        uncount(&self.shared, self.counted);
    }
}

fn uncount(shared: &Shared, version: u64) {
    let mut live = lock(&shared.live);
    if let Some(count) = live.snapshots.get_mut(&version) {
        *count -= 1;
        if *count == 0 {
            live.snapshots.remove(&version);
        }
    }
}

impl Base for EmbeddedBase {
    fn version(&self) -> u64 {
        self.version
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        unharmed(|| Ok(self.rows.get(key).map_err(storage)?.map(|value| value.value().to_vec())))
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(range.end.as_slice()) };
        let bounds = (Bound::Included(range.start.as_slice()), end);
        unharmed(|| {
            let mut found = Vec::new();
            for row in self.rows.range::<&[u8]>(bounds).map_err(storage)?.take(limit) {
                let (key, value) = row.map_err(storage)?;
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }
}

struct EmbeddedTxn {
    base: EmbeddedBase,
    changes: Changes,
    requests: mpsc::WeakSender<Request>,
}

#[async_trait]
impl Snapshot for EmbeddedTxn {
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
impl Txn for EmbeddedTxn {
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
        let Self { base, changes, requests } = *self;
        if changes.writes.is_empty() && changes.guards.is_empty() {
            return Ok(base.version);
        }
        let closed = || StoreError::Unavailable("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        let request = Request { snapshot: base.version, changes, reply };
        let sender = requests.upgrade().ok_or_else(closed)?;
        sender.send(request).await.map_err(|_| closed())?;
        drop(sender);
        // `base` lives until here, so that the committer remembers what this is validated against.
        let result = answer.await.unwrap_or(Err(StoreError::OutcomeUnknown));
        drop(base);
        result
    }
}

/// redb trusts the pages of its file: over damaged ones it panics where it cannot go on. That is a failure of the file and
/// not of this program, so it becomes one.
fn unharmed<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged()))
}

fn damaged() -> StoreError {
    StoreError::Corrupt("the store's file is damaged".into())
}

fn storage(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(what) => StoreError::Corrupt(what),
        // What is known to be there is not: the file was cut short.
        redb::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt("the data file ends too early".into())
        }
        redb::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => StoreError::Corrupt(e.to_string()),
        redb::Error::Io(e) if e.kind() == io::ErrorKind::StorageFull => StoreError::Full(e.to_string()),
        redb::Error::DatabaseAlreadyOpen => {
            StoreError::Unavailable("another process has the store's file".into())
        }
        other => StoreError::Unavailable(other.to_string()),
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
