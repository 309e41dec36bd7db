//! The audit log: many requests, one pen.
//!
//! A record counts as written when the kernel has it (durability `process`) or the disk has it (`disk`). Whoever
//! comes with a record and finds the pen free takes it and writes what is waiting, his own first; whoever finds it taken
//! leaves the record in the queue and waits for its answer. So a lone request pays for one `write(2)` and no
//! hand-over, and under load a single `write(2)` carries all records that came during the one before.
//!
//! One thread stands by for what would hold up the others: syncing, and writing while the disk is slow.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use coffer_core::audit::{AuditRecord, Chain, MAX_LINE_BYTES};
use tokio::sync::oneshot;

use super::disk::{Disk, LogFile, SystemDisk};
use super::file;
use super::pen::{NotWritten, Pen};
use super::settings::{AuditSettings, Durability};

/// The most bytes that wait for the pen; more than a stuck disk may pile up in memory.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// The most bytes of one batch.
const BATCH_BYTES: usize = 1 << 20;
/// How many batches a request writes before it leaves the pen to the thread: it has an answer of its own to give.
const ROUNDS: usize = 4;
/// A batch that took longer makes the thread the writer for [`SLOW_FOR`], so that no request's worker is held up.
const SLOW: Duration = Duration::from_millis(2);
const SLOW_FOR: Duration = Duration::from_secs(1);
/// How long a request waits for its record. One that gives up has failed; its record may still get written.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The audit log of this server.
pub(crate) struct AuditLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    settings: AuditSettings,
    queue: Mutex<Queue>,
    wake: Condvar,
    end: Mutex<End>,
}

/// What others may know of the end of the log. Renewed after each batch.
struct End {
    file: Arc<dyn LogFile>,
    chain: Chain,
    len: u64,
}

struct Queue {
    pending: Vec<Entry>,
    bytes: usize,
    pen: Place,
    /// Since when there is something the disk may not have.
    dirty_since: Option<Instant>,
    /// Until when the thread writes because the disk is slow.
    slow_until: Option<Instant>,
    closing: bool,
}

/// Where the pen is.
enum Place {
    /// On the table.
    Free(Box<Pen>),
    /// Left for the thread.
    Handed(Box<Pen>),
    /// In somebody's hand, who looks into the queue before he puts it down.
    Taken,
}

struct Entry {
    record: String,
    done: oneshot::Sender<Result<(), NotWritten>>,
}

impl AuditLog {
    /// Opens or creates the log in `dir`, finds its head and starts its thread.
    pub(crate) fn open(dir: &Path, settings: AuditSettings) -> io::Result<Self> {
        Self::open_on(&SystemDisk, dir, settings)
    }

    pub(super) fn open_on(disk: &dyn Disk, dir: &Path, settings: AuditSettings) -> io::Result<Self> {
        let opened = file::open(dir)?;
        let file: Arc<dyn LogFile> = Arc::from(disk.file(opened.file));
        let pen = Pen::new(Arc::clone(&file), opened.chain, opened.len, settings.durability);
        let shared = Arc::new(Shared {
            path: opened.path,
            settings,
            queue: Mutex::new(Queue {
                pending: Vec::new(),
                bytes: 0,
                pen: Place::Free(Box::new(pen)),
                dirty_since: None,
                slow_until: None,
                closing: false,
            }),
            wake: Condvar::new(),
            end: Mutex::new(End { file, chain: opened.chain, len: opened.len }),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("audit".into()).spawn(move || theirs.stand_by())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Appends a record. On `Ok` it is as durable as the settings say.
    pub(crate) async fn write(&self, record: &AuditRecord) -> Result<(), NotWritten> {
        let record = serde_json::to_string(record)
            .map_err(|_| NotWritten::Limit("an audit record cannot be written as JSON"))?;
        if record.len() + CHAIN_FIELDS > MAX_LINE_BYTES {
            return Err(NotWritten::Limit("an audit record does not fit into a line"));
        }
        let (done, mut answer) = oneshot::channel();
        if let Some(pen) = self.shared.enqueue(Entry { record, done })? {
            self.shared.write_out(pen, ROUNDS);
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

    /// Where the file is and how many bytes of it are whole records.
    pub(super) fn extent(&self) -> (PathBuf, u64) {
        (self.shared.path.clone(), self.shared.end().len)
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

    /// Puts a record into the queue. Gives the pen if the caller is to write.
    fn enqueue(&self, entry: Entry) -> Result<Option<Box<Pen>>, NotWritten> {
        let mut queue = self.queue();
        if queue.bytes + entry.record.len() > QUEUE_BYTES_MAX {
            return Err(NotWritten::Limit("too many audit records wait for the disk"));
        }
        queue.bytes += entry.record.len();
        queue.pending.push(entry);
        match mem::replace(&mut queue.pen, Place::Taken) {
            Place::Free(pen) if self.writes_inline(&mut queue) => Ok(Some(pen)),
            Place::Free(pen) | Place::Handed(pen) => {
                self.hand(&mut queue, pen);
                Ok(None)
            }
            Place::Taken => Ok(None),
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

    /// Writes what waits, batch after batch, until nothing does; after `rounds` batches the thread goes on.
    fn write_out(&self, mut pen: Box<Pen>, rounds: usize) {
        let mut left = rounds;
        loop {
            let batch = {
                let mut queue = self.queue();
                if queue.pending.is_empty() {
                    queue.pen = Place::Free(pen);
                    return;
                }
                if left == 0 {
                    self.hand(&mut queue, pen);
                    return;
                }
                queue.next_batch()
            };
            left -= 1;
            let begun = Instant::now();
            let result = pen.write(batch.iter().map(|entry| entry.record.as_str()));
            if let Err(error) = &result {
                tracing::error!(%error, records = batch.len(), "audit log cannot be written");
            } else {
                self.wrote(&pen, begun);
            }
            for entry in batch {
                // Whoever has given up waiting needs no answer.
                let _gone = entry.done.send(result.clone());
            }
        }
    }

    fn wrote(&self, pen: &Pen, begun: Instant) {
        {
            let mut end = self.end();
            end.chain = pen.chain;
            end.len = pen.len;
        }
        if self.settings.durability == Durability::Disk {
            return;
        }
        let slow = begun.elapsed() > SLOW;
        let mut queue = self.queue();
        if slow {
            queue.slow_until = Some(begun + SLOW_FOR);
        }
        if queue.dirty_since.is_none() {
            queue.dirty_since = Some(begun);
            self.wake.notify_one();
        }
    }

    fn flush(&self) -> io::Result<()> {
        // Asked before the sync: what is written during it is for the next one.
        if self.queue().dirty_since.take().is_none() {
            return Ok(());
        }
        let file = Arc::clone(&self.end().file);
        file.sync().inspect_err(|_| self.queue().dirty_since = Some(Instant::now()))
    }

    /// The thread's life.
    fn stand_by(&self) {
        loop {
            match self.next_duty() {
                Duty::Write(pen) => self.write_out(pen, usize::MAX),
                Duty::Flush => {
                    if let Err(error) = self.flush() {
                        tracing::error!(%error, "audit log cannot be brought to the disk");
                    }
                }
                Duty::End => {
                    if let Err(error) = self.flush() {
                        tracing::error!(%error, "audit log cannot be brought to the disk");
                    }
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
            bytes += entry.record.len();
            bytes <= BATCH_BYTES
        };
        let count = self.pending.iter().take_while(fits).count().max(1);
        let rest = self.pending.split_off(count.min(self.pending.len()));
        let batch = mem::replace(&mut self.pending, rest);
        self.bytes -= batch.iter().map(|entry| entry.record.len()).sum::<usize>();
        batch
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
