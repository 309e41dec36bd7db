//! This process's own change-log stream: who gets which number, and which numbers are resolved.
//!
//! A number is resolved when its transaction is known committed or a void row stands at it; a timeout is neither
//! (R5). Numbers are given out up to the published mark plus a window. Log rows are insert-only: the transaction
//! guards the row it inserts, and so does whoever puts a void row there, so that only one of them can succeed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Notify, OnceCell};

use crate::error::BarrierError;
use crate::key::{MountId, RecordKind, RowKey};
use crate::keys::{Keys, Term};
use crate::log::{LogRow, log_prefix, streams, upto_range};
use crate::read::{Read, Reader, View};
use crate::store::{Store, Txn};

/// A stream is named by 16 random bytes, fresh per process start.
pub(crate) type Incarnation = MountId;

/// The path that the log's rows hang under.
pub(crate) const LOG_PATH: &str = "change-log";
/// How far numbers run ahead of the published mark.
pub(crate) const WINDOW: u64 = 1024;
/// Log rows that one trimming transaction deletes.
const TRIM_BATCH: usize = 1000;
/// How often publishing is tried again after a conflict.
const PUBLISH_ATTEMPTS: usize = 8;

/// A stream's state as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamRow {
    format: u8,
    /// W: every number up to it is resolved.
    pub(crate) published: u64,
    /// Rows up to this number may have been deleted.
    pub(crate) trimmed: u64,
    /// No further rows will come.
    pub(crate) closed: bool,
    /// The store's version at its birth; orders streams by age.
    pub(crate) born: u64,
}

impl StreamRow {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BarrierError> {
        serde_json::from_slice(bytes).map_err(|_| BarrierError::Tampered { what: "change-log stream" })
    }

    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields serialise")
    }
}

/// Counts the streams that have been removed altogether, so that a reader can tell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TrimRow {
    pub(crate) removed: u64,
}

impl TrimRow {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BarrierError> {
        serde_json::from_slice(bytes).map_err(|_| BarrierError::Tampered { what: "change-log trim row" })
    }
}

pub(crate) fn trim_key() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, LOG_PATH)
}

fn stream_key(id: Incarnation) -> RowKey {
    RowKey::with_suffix(MountId::SYSTEM, RecordKind::Stream, LOG_PATH, id.as_bytes().to_vec())
}

fn log_key(id: Incarnation, seq: u64) -> RowKey {
    let suffix = [id.as_bytes().as_slice(), &seq.to_be_bytes()].concat();
    RowKey::with_suffix(MountId::SYSTEM, RecordKind::Log, LOG_PATH, suffix)
}

/// How a transaction that held a number ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    /// Known not to have been applied, now or later: the number can be used again.
    Failed,
    Unknown,
}

#[derive(Default)]
struct Numbers {
    /// The highest number given out so far.
    highest: u64,
    /// Every number up to this one is resolved.
    contiguous: u64,
    /// Resolved numbers above `contiguous`.
    resolved: BTreeSet<u64>,
    /// Known failed, free to be used again.
    free: BTreeSet<u64>,
    /// Sent, and nobody knows.
    unknown: BTreeSet<u64>,
    /// W as last known committed.
    published: u64,
}

impl Numbers {
    fn take(&mut self) -> Option<u64> {
        if let Some(seq) = self.free.pop_first() {
            return Some(seq);
        }
        if self.highest >= self.published.saturating_add(WINDOW) {
            return None;
        }
        self.highest += 1;
        Some(self.highest)
    }

    fn resolve(&mut self, seq: u64) {
        self.unknown.remove(&seq);
        self.resolved.insert(seq);
        while self.resolved.remove(&(self.contiguous + 1)) {
            self.contiguous += 1;
        }
    }

    /// Takes the numbers that hold W back though no transaction will resolve them.
    fn stuck(&mut self) -> Vec<u64> {
        let top = self.resolved.last().copied().unwrap_or(0);
        let free: Vec<u64> = self.free.range(..top).copied().collect();
        for seq in &free {
            self.free.remove(seq);
            self.unknown.insert(*seq);
        }
        self.unknown.iter().copied().collect()
    }
}

/// The stream of this process since its last unseal.
pub(crate) struct Stream {
    id: Incarnation,
    store: Arc<dyn Store>,
    opened: OnceCell<()>,
    numbers: Mutex<Numbers>,
    /// One publisher at a time.
    publishing: AsyncMutex<()>,
    changed: Notify,
}

/// A number held by a transaction. Dropped unsettled after it was sent, its outcome counts as unknown.
pub(crate) struct Ticket {
    stream: Arc<Stream>,
    seq: u64,
    outcome: Outcome,
}

impl Ticket {
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn sent(&mut self) {
        self.outcome = Outcome::Unknown;
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut numbers = self.stream.numbers();
        match self.outcome {
            Outcome::Committed => numbers.resolve(self.seq),
            Outcome::Failed => drop(numbers.free.insert(self.seq)),
            Outcome::Unknown => drop(numbers.unknown.insert(self.seq)),
        }
        drop(numbers);
        self.stream.changed.notify_waiters();
    }
}

impl Stream {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            id: Incarnation::random(),
            store,
            opened: OnceCell::new(),
            numbers: Mutex::new(Numbers::default()),
            publishing: AsyncMutex::new(()),
            changed: Notify::new(),
        })
    }

    pub(crate) const fn id(&self) -> Incarnation {
        self.id
    }

    pub(crate) fn log_key(&self, seq: u64) -> RowKey {
        log_key(self.id, seq)
    }

    /// A number for a transaction that is about to commit. Waits while the window is used up.
    pub(crate) async fn reserve(self: &Arc<Self>, keys: &Keys) -> Result<Ticket, BarrierError> {
        self.opened.get_or_try_init(|| self.open(keys)).await?;
        loop {
            let changed = self.changed.notified();
            let (taken, due) = {
                let mut numbers = self.numbers();
                let taken = numbers.take();
                (taken, numbers.contiguous >= numbers.published + WINDOW / 2)
            };
            match taken {
                Some(seq) => {
                    let ticket = Ticket { stream: Arc::clone(self), seq, outcome: Outcome::Failed };
                    if due && let Ok(_publishing) = self.publishing.try_lock() {
                        // A publication that fails costs nothing: the next commit tries again.
                        let _ = self.publish_locked(keys).await;
                    }
                    return Ok(ticket);
                }
                None if self.publish(keys).await? => {}
                None => changed.await,
            }
        }
    }

    /// Voids the numbers nobody will use, and publishes W. Tells whether W moved.
    pub(crate) async fn publish(&self, keys: &Keys) -> Result<bool, BarrierError> {
        let _publishing = self.publishing.lock().await;
        self.publish_locked(keys).await
    }

    async fn publish_locked(&self, keys: &Keys) -> Result<bool, BarrierError> {
        for _ in 0..PUBLISH_ATTEMPTS {
            let stuck = self.numbers().stuck();
            let term = keys.term();
            let mut txn = self.store.begin().await?;
            let mut known = Vec::with_capacity(stuck.len());
            for seq in stuck {
                void(keys, &term, &mut *txn, self.id, seq).await?;
                known.push(seq);
            }
            let mark = {
                let numbers = self.numbers();
                let mut mark = numbers.contiguous;
                while known.contains(&(mark + 1)) || numbers.resolved.contains(&(mark + 1)) {
                    mark += 1;
                }
                if mark == numbers.published && known.is_empty() {
                    return Ok(false);
                }
                mark
            };
            self.put_mark(keys, &term, &mut *txn, mark).await?;
            match txn.commit().await.map_err(BarrierError::from) {
                Ok(_) => {
                    let mut numbers = self.numbers();
                    for seq in known {
                        numbers.resolve(seq);
                    }
                    let moved = mark > numbers.published;
                    numbers.published = mark;
                    drop(numbers);
                    self.changed.notify_waiters();
                    return Ok(moved);
                }
                // A late commit arrived at one of the numbers: look again.
                Err(BarrierError::Conflict) => {}
                Err(other) => return Err(other),
            }
        }
        Err(BarrierError::Unavailable("the change log cannot publish".into()))
    }

    async fn put_mark(
        &self,
        keys: &Keys,
        term: &Term,
        txn: &mut dyn Txn,
        mark: u64,
    ) -> Result<(), BarrierError> {
        let at = keys.layout.encode(&stream_key(self.id))?;
        let stored = txn.get(&at).await?.ok_or(BarrierError::Tampered { what: "change-log stream" })?;
        // Under whichever key it was sealed: a rotation may lie between.
        let view = View { snapshot: &*txn, keys, pending: &[] };
        let mut row = StreamRow::parse(view.open(&at, &stored).await?.expose())?;
        if row.closed {
            return Err(BarrierError::Unavailable("this process's change-log stream was closed".into()));
        }
        row.published = row.published.max(mark);
        Ok(txn.put(&at, term.seal(&at, &row.to_bytes())?)?)
    }

    async fn open(&self, keys: &Keys) -> Result<(), BarrierError> {
        keys.check()?;
        let term = keys.term();
        let mut txn = self.store.begin().await?;
        let row = StreamRow { format: 1, published: 0, trimmed: 0, closed: false, born: txn.version() };
        let at = keys.layout.encode(&stream_key(self.id))?;
        txn.put(&at, term.seal(&at, &row.to_bytes())?)?;
        txn.commit().await?;
        Ok(())
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a void row at `seq` unless something stands there. Either way the number is resolved once `txn` commits.
async fn void(
    keys: &Keys,
    term: &Term,
    txn: &mut dyn Txn,
    id: Incarnation,
    seq: u64,
) -> Result<(), BarrierError> {
    let at = keys.layout.encode(&log_key(id, seq))?;
    txn.guard(&at);
    if txn.get(&at).await?.is_none() {
        txn.put(&at, term.seal(&at, &LogRow::void().to_bytes()?)?)?;
    }
    Ok(())
}

/// Closes a dead process's stream: voids every free number of its window, then publishes the window's end. A
/// transaction of that process still on its way meets a void row and conflicts.
pub(crate) async fn close(store: &dyn Store, keys: &Arc<Keys>, id: Incarnation) -> Result<(), BarrierError> {
    loop {
        let term = keys.term();
        let mut txn = store.begin().await?;
        let at = keys.layout.encode(&stream_key(id))?;
        let Some(stored) = txn.get(&at).await? else { return Ok(()) };
        let reader = Reader { snapshot: store.snapshot().await?, keys: Arc::clone(keys) };
        let mut row = StreamRow::parse(reader.view().open(&at, &stored).await?.expose())?;
        if row.closed {
            return Ok(());
        }
        for seq in row.published + 1..=row.published + WINDOW {
            void(keys, &term, &mut *txn, id, seq).await?;
        }
        row.published += WINDOW;
        row.closed = true;
        txn.put(&at, term.seal(&at, &row.to_bytes())?)?;
        match txn.commit().await.map_err(BarrierError::from) {
            Ok(_) => return Ok(()),
            Err(BarrierError::Conflict) => {}
            Err(other) => return Err(other),
        }
    }
}

/// Deletes all but the newest `keep` resolved rows of each stream, and the closed streams but for the newest
/// `keep_closed`. Returns how many rows went.
pub(crate) async fn trim(
    store: &dyn Store,
    keys: &Arc<Keys>,
    keep: u64,
    keep_closed: usize,
) -> Result<usize, BarrierError> {
    let reader = Reader { snapshot: store.snapshot().await?, keys: Arc::clone(keys) };
    let mut all = streams(&reader).await?;
    all.sort_by_key(|(_, row)| std::cmp::Reverse(row.born));
    let (mut deleted, mut closed_seen) = (0, 0);
    for (id, row) in all {
        closed_seen += usize::from(row.closed);
        let remove = row.closed && closed_seen > keep_closed;
        let upto = if remove { row.published } else { row.published.saturating_sub(keep) };
        deleted += trim_stream(store, keys, id, upto, remove).await?;
    }
    Ok(deleted)
}

async fn trim_stream(
    store: &dyn Store,
    keys: &Arc<Keys>,
    id: Incarnation,
    upto: u64,
    remove: bool,
) -> Result<usize, BarrierError> {
    let mut deleted = 0;
    loop {
        let reader = Reader { snapshot: store.snapshot().await?, keys: Arc::clone(keys) };
        let term = keys.term();
        let mut txn = store.begin().await?;
        let at = keys.layout.encode(&stream_key(id))?;
        let Some(stored) = txn.get(&at).await? else { return Ok(deleted) };
        let mut row = StreamRow::parse(reader.view().open(&at, &stored).await?.expose())?;
        let rows = txn.scan(&upto_range(&log_prefix(&reader, id)?, upto), TRIM_BATCH).await?;
        let last = rows.len() < TRIM_BATCH;
        if rows.is_empty() && !remove {
            return Ok(deleted);
        }
        for (key, _) in &rows {
            txn.delete(key)?;
        }
        // Said before the first row goes and not after the last one: a reader in between must know.
        row.trimmed = row.trimmed.max(upto);
        if remove && last {
            txn.delete(&at)?;
            let trim_at = keys.layout.encode(&trim_key())?;
            let mut trims = match txn.get(&trim_at).await? {
                Some(stored) => TrimRow::parse(reader.view().open(&trim_at, &stored).await?.expose())?,
                None => TrimRow::default(),
            };
            trims.removed += 1;
            let plain = serde_json::to_vec(&trims).expect("plain fields serialise");
            txn.put(&trim_at, term.seal(&trim_at, &plain)?)?;
        } else {
            txn.put(&at, term.seal(&at, &row.to_bytes())?)?;
        }
        match txn.commit().await.map_err(BarrierError::from) {
            Ok(_) => deleted += rows.len(),
            Err(BarrierError::Conflict) => continue,
            Err(other) => return Err(other),
        }
        if last {
            return Ok(deleted);
        }
    }
}
