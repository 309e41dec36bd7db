//! The audit log: many requests, one pen.
//!
//! A record counts as written when the kernel has it (durability `process`) or the disk has it (`disk`). Whoever
//! comes with a record and finds the pen free has it kept for him, lets the requests that are ready go first, and then
//! writes what is waiting, his own first; whoever comes meanwhile leaves the record in the queue and waits for its
//! answer. So a lone request pays for one `write(2)` and no hand-over, and under load a single `write(2)` carries the
//! records of all requests that were ready.
//!
//! One thread stands by for what would hold up the others: syncing, and writing while the disk is slow.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, mem, thread};

use coffer_core::audit::{AuditRecord, Chain, MAX_LINE_BYTES};
use tokio::sync::oneshot;

use super::cover::{self, Covered};
use super::device::Salt;
use super::disk::{Disk, LogFile, SystemDisk};
use super::file;
use super::flood::Flood;
use super::meters::AuditMeters;
use super::pen::{Draft, NotWritten, Pen, RETRY};
use super::settings::{AuditSettings, Durability};
use super::tail::Filter;
use crate::swap::Swap;

/// The most bytes that wait for the pen; more than a stuck disk may pile up in memory.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// The most bytes of one batch.
const BATCH_BYTES: usize = 1 << 20;
/// How many batches a request writes before it leaves the pen to the thread: it has an answer of its own to give.
const ROUNDS: usize = 4;
/// Most records fit into this: growing costs more than the room.
const RECORD_BYTES: usize = 768;
/// A batch that took longer makes the thread the writer for [`SLOW_FOR`], so that no request's worker is held up. Not a
/// few milliseconds: that long takes every write that meets a sync, or whose thread the system sets aside, and handing
/// each record to another thread costs more than the request itself.
const SLOW: Duration = Duration::from_millis(20);
const SLOW_FOR: Duration = Duration::from_secs(1);
/// How long a request waits for its record. One that gives up has failed; its record may still get written.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The audit log of this server.
pub(crate) struct AuditLog {
    pub(super) flood: Flood,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    dir: PathBuf,
    settings: AuditSettings,
    meters: AuditMeters,
    /// What covers identifiers, while the vault is unsealed.
    salt: Swap<Option<Salt>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    end: Mutex<End>,
}

/// What others may know of the end of the log. Renewed after each batch.
struct End {
    file: Arc<dyn LogFile>,
    chain: Chain,
    len: u64,
    /// Whether records wait in memory.
    waits: bool,
}

struct Queue {
    pending: Vec<Entry>,
    bytes: usize,
    pen: Place,
    /// Since when there is something the disk may not have.
    dirty_since: Option<Instant>,
    /// Until when the thread writes because the disk is slow.
    slow_until: Option<Instant>,
    /// Bytes of files that were deleted, until the pen knows.
    deleted: u64,
    closing: bool,
}

/// Where the pen is.
enum Place {
    /// On the table.
    Free(Box<Pen>),
    /// On the table, for a request that is about to take it.
    Kept(Box<Pen>),
    /// Left for the thread.
    Handed(Box<Pen>),
    /// In somebody's hand, who looks into the queue before he puts it down.
    Taken,
}

struct Entry {
    draft: Draft,
    done: oneshot::Sender<Result<(), NotWritten>>,
}

impl AuditLog {
    /// Opens or creates the log in `dir`, finds its head and starts its thread.
    pub(crate) fn open(dir: &Path, settings: AuditSettings, meters: AuditMeters) -> io::Result<Self> {
        Self::open_on(Box::new(SystemDisk), dir, settings, meters)
    }

    pub(super) fn open_on(
        disk: Box<dyn Disk>,
        dir: &Path,
        settings: AuditSettings,
        meters: AuditMeters,
    ) -> io::Result<Self> {
        let opened = file::open(dir)?;
        let (chain, len) = (opened.chain, opened.len);
        let pen = Pen::new(dir.to_owned(), disk, opened, settings.clone(), meters.clone());
        let end = Mutex::new(End { file: Arc::clone(&pen.file), chain, len, waits: false });
        let queue = Mutex::new(Queue {
            pending: Vec::new(),
            bytes: 0,
            pen: Place::Free(Box::new(pen)),
            dirty_since: None,
            slow_until: None,
            deleted: 0,
            closing: false,
        });
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            settings,
            meters,
            salt: Swap::new(None),
            queue,
            wake: Condvar::new(),
            end,
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("audit".into()).spawn(move || theirs.stand_by())?;
        Ok(Self { flood: Flood::default(), shared, thread: Some(thread) })
    }

    /// Appends a record. On `Ok` it is as durable as the settings say.
    pub(crate) async fn write(&self, record: &AuditRecord) -> Result<(), NotWritten> {
        self.submit(record, false).await
    }

    /// Appends the completion of something whose intent is written: it may use what is kept free for it.
    pub(crate) async fn complete(&self, record: &AuditRecord) -> Result<(), NotWritten> {
        self.submit(record, true).await
    }

    async fn submit(&self, record: &AuditRecord, completes: bool) -> Result<(), NotWritten> {
        let covered = self.covered();
        let hidden =
            covered.any().then(|| cover::cover(record, covered, self.shared.salt.load().as_ref().as_ref()));
        let mut text = Vec::with_capacity(RECORD_BYTES);
        let unfit = || NotWritten::Limit("an audit record cannot be written as JSON");
        serde_json::to_writer(&mut text, hidden.as_ref().unwrap_or(record)).map_err(|_| unfit())?;
        let record = String::from_utf8(text).map_err(|_| unfit())?;
        if record.len() + CHAIN_FIELDS > MAX_LINE_BYTES {
            return Err(NotWritten::Limit("an audit record does not fit into a line"));
        }
        let (done, mut answer) = oneshot::channel();
        if let Some(turn) = self.shared.enqueue(Entry { draft: Draft { record, completes }, done })? {
            tokio::task::yield_now().await;
            turn.write();
        }
        // Whoever held the pen has his answer already.
        if let Ok(result) = answer.try_recv() {
            return result;
        }
        match tokio::time::timeout(WAIT_MAX, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(NotWritten::Silent),
        }
    }

    /// Brings what was written to the disk. Blocks.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.shared.flush()
    }

    /// The head, to be anchored where an editor of the file cannot reach.
    pub(crate) fn head(&self) -> Chain {
        self.shared.end().chain
    }

    pub(super) fn meters(&self) -> &AuditMeters {
        &self.shared.meters
    }

    /// Which identifiers are covered.
    pub(crate) fn covered(&self) -> Covered {
        self.shared.settings.covered
    }

    /// From here on identifiers are covered with this salt; without one they are left out.
    pub(crate) fn cover_with(&self, salt: Option<Salt>) {
        self.shared.salt.store(salt);
    }

    /// What stands for a text in this log, if anything is covered in it and the salt is known.
    pub(crate) fn identify(&self, text: &str) -> Option<String> {
        let salt = self.shared.salt.load();
        let salt = salt.as_ref().as_ref().filter(|_| self.covered().any())?;
        Some(salt.identify(text))
    }

    /// What to look for besides, where what a filter names may be covered.
    pub(super) fn covered_filter(&self, filter: &Filter) -> Option<Filter> {
        let salt = self.shared.salt.load();
        let salt = salt.as_ref().as_ref().filter(|_| self.covered().any())?;
        Some(cover::cover_filter(filter, self.covered(), salt))
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The files, in the chain's order.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        file::all(&self.shared.dir)
    }

    /// The files set aside whose time is over at `now`, and where the chain begins without them. Blocks.
    pub(crate) fn expired(&self, now: SystemTime) -> io::Result<Option<(Chain, Vec<PathBuf>)>> {
        let Some(retain) = self.shared.settings.retain else { return Ok(None) };
        let files = self.files()?;
        let mut expired = Vec::new();
        for pair in files.windows(2) {
            let [path, next] = pair else { break };
            let age = now.duration_since(fs::symlink_metadata(path)?.modified()?).unwrap_or_default();
            // The order is the chain's: what is younger keeps everything after it.
            if age <= retain || fs::symlink_metadata(next)?.len() == 0 {
                break;
            }
            expired.push(path.clone());
        }
        match files.get(expired.len()) {
            Some(first) if !expired.is_empty() => Ok(Some((file::start_of(first)?, expired))),
            _ => Ok(None),
        }
    }

    /// Deletes files that [`AuditLog::expired`] gave, once it is anchored where the chain begins now. Blocks.
    pub(crate) fn delete(&self, expired: &[PathBuf]) -> io::Result<()> {
        for path in expired {
            let bytes = fs::symlink_metadata(path)?.len();
            fs::remove_file(path)?;
            self.shared.queue().deleted += bytes;
        }
        Ok(())
    }
}

/// Room for what the chain adds to a record.
const CHAIN_FIELDS: usize = 192;

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It writes and syncs what is left.
            let _panicked = thread.join().is_err();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change under the lock is complete before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record into the queue. Keeps the pen for the caller if he is to write.
    fn enqueue(&self, entry: Entry) -> Result<Option<Turn<'_>>, NotWritten> {
        let mut queue = self.queue();
        let bytes = queue.bytes + entry.draft.record.len();
        if bytes > QUEUE_BYTES_MAX {
            self.meters.failures.inc();
            return Err(NotWritten::Limit("too many audit records wait for the disk"));
        }
        queue.bytes = bytes;
        queue.pending.push(entry);
        match mem::replace(&mut queue.pen, Place::Taken) {
            Place::Free(pen) if self.writes_inline(&mut queue) => {
                queue.pen = Place::Kept(pen);
                Ok(Some(Turn { log: self, over: false }))
            }
            Place::Free(pen) | Place::Handed(pen) => {
                self.hand(&mut queue, pen);
                Ok(None)
            }
            theirs @ (Place::Kept(_) | Place::Taken) => {
                queue.pen = theirs;
                Ok(None)
            }
        }
    }

    /// The pen that was kept for the caller.
    fn kept(&self) -> Option<Box<Pen>> {
        let mut queue = self.queue();
        match mem::replace(&mut queue.pen, Place::Taken) {
            Place::Kept(pen) => Some(pen),
            other => {
                queue.pen = other;
                None
            }
        }
    }

    /// Whether requests write themselves. Not when that means waiting for a disk.
    fn writes_inline(&self, queue: &mut Queue) -> bool {
        if queue.slow_until.is_some_and(|until| until <= Instant::now()) {
            queue.slow_until = None;
        }
        self.settings.durability == Durability::Process && queue.slow_until.is_none()
    }

    fn hand(&self, queue: &mut Queue, pen: Box<Pen>) {
        queue.pen = Place::Handed(pen);
        self.wake.notify_one();
    }

    /// Writes what waits, batch after batch, until nothing does; after `rounds` batches the thread goes on. Setting a
    /// full file aside is always the thread's.
    fn write_out(&self, mut pen: Box<Pen>, rounds: usize) {
        let is_thread = rounds == usize::MAX;
        let mut left = rounds;
        loop {
            let now = Instant::now();
            let full = pen.is_full(now);
            if full && is_thread {
                pen.rotate(now);
                self.publish(&pen);
            }
            let (batch, deleted) = {
                let mut queue = self.queue();
                if (full && !is_thread) || (left == 0 && !queue.pending.is_empty()) {
                    self.hand(&mut queue, pen);
                    return;
                }
                if queue.pending.is_empty() {
                    queue.pen = Place::Free(pen);
                    return;
                }
                (queue.next_batch(), mem::take(&mut queue.deleted))
            };
            left = left.saturating_sub(1);
            pen.deleted(deleted);
            let (drafts, askers): (Vec<Draft>, Vec<_>) =
                batch.into_iter().map(|entry| (entry.draft, entry.done)).unzip();
            let results = pen.take(&drafts, now);
            self.wrote(&pen, now);
            for (asker, result) in askers.into_iter().zip(results) {
                // Whoever has given up waiting needs no answer.
                let _gone = asker.send(result);
            }
        }
    }

    fn publish(&self, pen: &Pen) -> bool {
        let mut end = self.end();
        let grown = end.chain != pen.chain;
        if !Arc::ptr_eq(&end.file, &pen.file) {
            end.file = Arc::clone(&pen.file);
        }
        end.chain = pen.chain;
        end.len = pen.len;
        end.waits = pen.has_waiting();
        grown
    }

    fn wrote(&self, pen: &Pen, begun: Instant) {
        let grown = self.publish(pen);
        let slow = begun.elapsed() > SLOW;
        if self.settings.durability == Durability::Disk && !pen.has_waiting() {
            return;
        }
        let mut queue = self.queue();
        if slow {
            queue.slow_until = Some(begun + SLOW_FOR);
        }
        if (grown && queue.dirty_since.is_none()) || pen.has_waiting() {
            queue.dirty_since.get_or_insert(begun);
            self.wake.notify_one();
        }
    }

    /// Tries again to write what waits in memory. For the thread.
    fn drain(&self, now: Instant) {
        if !self.end().waits {
            return;
        }
        let mut pen = {
            let mut queue = self.queue();
            match mem::replace(&mut queue.pen, Place::Taken) {
                Place::Free(pen) => pen,
                other => {
                    queue.pen = other;
                    return;
                }
            }
        };
        pen.drain(now);
        self.publish(&pen);
        if pen.has_waiting() {
            // Due again, like what is not yet on the disk.
            self.queue().dirty_since.get_or_insert(Instant::now());
        }
        self.write_out(pen, usize::MAX);
    }

    fn flush(&self) -> io::Result<()> {
        // Asked before the sync: what is written during it is for the next one.
        if self.queue().dirty_since.take().is_none() {
            return Ok(());
        }
        let file = Arc::clone(&self.end().file);
        file.sync().inspect_err(|error| {
            tracing::error!(%error, "audit log cannot be brought to the disk");
            self.meters.sync_failures.inc();
            self.queue().dirty_since = Some(Instant::now());
        })
    }

    /// The thread's life.
    fn stand_by(&self) {
        loop {
            match self.next_duty() {
                Duty::Write(pen) => self.write_out(pen, usize::MAX),
                Duty::Flush => {
                    // Whatever fails is said where it fails, and due again.
                    let _later = self.flush();
                    self.drain(Instant::now());
                }
                Duty::End => {
                    // The last chance, however short ago the last attempt was.
                    self.drain(Instant::now() + RETRY);
                    let _said = self.flush();
                    return;
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn next_duty(&self) -> Duty {
        let mut queue = self.queue();
        loop {
            match mem::replace(&mut queue.pen, Place::Taken) {
                Place::Handed(pen) => return Duty::Write(pen),
                other => queue.pen = other,
            }
            if queue.closing {
                return Duty::End;
            }
            let due = queue.dirty_since.map(|since| since + self.settings.flush);
            queue = match due.map(|due| due.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Duty::Flush,
                Some(left) => self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

/// A request's turn to write, for which the pen is kept. Of one that is given up the thread takes care.
struct Turn<'a> {
    log: &'a Shared,
    over: bool,
}

impl Turn<'_> {
    fn write(mut self) {
        self.over = true;
        if let Some(pen) = self.log.kept() {
            self.log.write_out(pen, ROUNDS);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Some(pen) = self.log.kept() {
            self.log.hand(&mut self.log.queue(), pen);
        }
    }
}

enum Duty {
    Write(Box<Pen>),
    Flush,
    End,
}

impl Queue {
    /// What the next `write(2)` takes: at least one record.
    fn next_batch(&mut self) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.draft.record.len();
            bytes <= BATCH_BYTES
        };
        let count = self.pending.iter().take_while(fits).count().max(1);
        let rest = self.pending.split_off(count.min(self.pending.len()));
        let batch = mem::replace(&mut self.pending, rest);
        self.bytes -= batch.iter().map(|entry| entry.draft.record.len()).sum::<usize>();
        batch
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
