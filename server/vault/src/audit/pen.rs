//! The pen: whoever holds it is the only one who writes to the log, so it needs no lock.
//!
//! A batch of records goes out in one `write(2)`, all or nothing: what a failing disk took of it is cut off
//! again, so that the next record starts on a line of its own and continues the chain. What the disk cannot take may
//! wait in memory, if the settings say so, and is written first when the disk is well again.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coffer_core::audit::Chain;
use coffer_core::failpoint::{self, Step};

use super::disk::{Disk, LogFile};
use super::file;
use super::meters::{Alarm, AuditMeters};
use super::room::Room;
use super::settings::{AuditSettings, Durability, OnFailure};

/// How often a disk that failed is tried again while records wait in memory, or while a file could not be set aside.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// The most bytes of waiting records that are written at once.
const DRAIN_BYTES: usize = 1 << 20;

/// Why a record is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotWritten {
    /// More than a line, a queue, the quota or the buffer may hold.
    #[error("{0}")]
    Limit(&'static str),
    /// The disk's answer.
    #[error("{0}")]
    Disk(String),
    /// No answer in time, or the log is closed.
    #[error("the audit log does not answer")]
    Silent,
}

impl From<io::Error> for NotWritten {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// A record on its way.
pub(super) struct Draft {
    pub(super) record: String,
    /// The completion of something that was announced: it may use what is kept free for it.
    pub(super) completes: bool,
}

/// The end of the log.
pub(super) struct Pen {
    pub(super) file: Arc<dyn LogFile>,
    /// After the last whole record.
    pub(super) chain: Chain,
    /// Bytes of whole records in the present file.
    pub(super) len: u64,
    /// The number of the first record in the present file.
    first: u64,
    /// Whether part of a failed batch may lie behind the whole records. Nothing is appended until it has been cut
    /// off: a record glued to it would break the chain for good.
    torn: bool,
    /// What waits in memory, and how many bytes that is.
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    /// Not before then is a failed thing tried again.
    retry_at: Option<Instant>,
    room: Room,
    dir: PathBuf,
    disk: Box<dyn Disk>,
    settings: AuditSettings,
    meters: AuditMeters,
    scratch: Vec<u8>,
}

impl Pen {
    pub(super) fn new(
        dir: PathBuf,
        disk: Box<dyn Disk>,
        opened: file::Opened,
        settings: AuditSettings,
        meters: AuditMeters,
    ) -> Self {
        Self {
            file: Arc::from(disk.file(opened.file)),
            chain: opened.chain,
            len: opened.len,
            first: opened.first,
            torn: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            retry_at: None,
            room: Room::new(&settings, opened.aside),
            dir,
            disk,
            settings,
            meters,
            scratch: Vec::new(),
        }
    }

    /// Takes a batch, and says of each record whether it is taken: written as durably as was asked for, or waiting in
    /// memory where that is allowed.
    pub(super) fn take(&mut self, batch: &[Draft], now: Instant) -> Vec<Result<(), NotWritten>> {
        self.drain(now);
        self.room.look(&*self.disk, &self.dir, self.len, now, &self.meters);
        let mut left = self.room.left(self.len);
        let mut results: Vec<_> = batch.iter().map(|draft| left.admit(draft)).collect();
        let mut failed = None;
        if self.waiting.is_empty() {
            let admitted = batch.iter().zip(&results).filter(|(_, result)| result.is_ok());
            let records: Vec<&str> = admitted.map(|(draft, _)| draft.record.as_str()).collect();
            if records.is_empty() {
                return self.counted(results);
            }
            failed = self.write(&records).err();
            self.say(failed.as_ref());
            if failed.is_none() {
                self.meters.records.inc_by(records.len() as u64);
                return self.counted(results);
            }
            self.retry_at = Some(now + RETRY);
        }
        for (draft, result) in batch.iter().zip(&mut results).filter(|(_, result)| result.is_ok()) {
            *result = self.keep(&draft.record, failed.as_ref());
        }
        self.counted(results)
    }

    fn counted(&self, results: Vec<Result<(), NotWritten>>) -> Vec<Result<(), NotWritten>> {
        self.meters.failures.inc_by(results.iter().filter(|result| result.is_err()).count() as u64);
        results
    }

    /// Lets a record wait in memory.
    fn keep(&mut self, record: &str, failed: Option<&NotWritten>) -> Result<(), NotWritten> {
        let OnFailure::Degraded { buffer_bytes } = self.settings.on_failure else {
            return Err(failed.cloned().unwrap_or(NotWritten::Silent));
        };
        if self.waiting_bytes + record.len() > buffer_bytes {
            return Err(NotWritten::Limit("the buffer of the audit log is full"));
        }
        self.waiting_bytes += record.len();
        self.waiting.push_back(record.to_owned());
        self.tell_waiting();
        Ok(())
    }

    fn tell_waiting(&self) {
        self.meters.waiting.set(i64::try_from(self.waiting_bytes).unwrap_or(i64::MAX));
        if self.meters.set(Alarm::Degraded, !self.waiting.is_empty()) {
            if self.waiting.is_empty() {
                tracing::info!("audit log: what waited in memory is written");
            } else {
                tracing::error!("audit log: records wait in memory, and are lost if this process dies");
            }
        }
    }

    /// Whether records wait in memory.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes what waits in memory, oldest first, as far as the disk takes it.
    pub(super) fn drain(&mut self, now: Instant) {
        while !self.waiting.is_empty() && self.retry_at.is_none_or(|at| at <= now) {
            let mut bytes = 0;
            let fits = |record: &&String| {
                bytes += record.len();
                bytes <= DRAIN_BYTES
            };
            let count = self.waiting.iter().take_while(fits).count().max(1);
            let batch: Vec<String> = self.waiting.drain(..count).collect();
            let records: Vec<&str> = batch.iter().map(String::as_str).collect();
            let failed = self.write(&records).err();
            self.say(failed.as_ref());
            if failed.is_some() {
                self.retry_at = Some(now + RETRY);
                batch.into_iter().rev().for_each(|record| self.waiting.push_front(record));
                return;
            }
            self.meters.records.inc_by(batch.len() as u64);
            self.waiting_bytes -= batch.iter().map(String::len).sum::<usize>();
            self.tell_waiting();
        }
    }

    /// Tells the world when writing begins to fail and when it does not fail any more; not each time.
    fn say(&self, failed: Option<&NotWritten>) {
        let changed = self.meters.set(Alarm::Failing, failed.is_some());
        match failed {
            Some(error) if changed => tracing::error!(%error, "audit log cannot be written"),
            None if changed => tracing::info!("audit log can be written again"),
            _ => {}
        }
    }

    /// Writes records, all or none. On `Ok` they are as durable as was asked for.
    fn write(&mut self, records: &[&str]) -> Result<(), NotWritten> {
        if self.torn {
            self.file.cut(self.len)?;
            self.torn = false;
        }
        let mut next = self.chain;
        self.scratch.clear();
        for record in records {
            next.append_line(record, &mut self.scratch)
                .map_err(|_| NotWritten::Limit("an audit record does not fit into a line"))?;
        }
        self.meters.batches.inc();
        failpoint::reach(Step::AuditBeforeAppend);
        let written = append_all(&*self.file, &self.scratch).and_then(|()| match self.settings.durability {
            Durability::Process => Ok(()),
            // After a failed sync nobody knows what the disk has: it is cut off and comes again as new bytes.
            Durability::Disk => self.file.sync(),
        });
        if let Err(error) = written {
            // Nothing of it was acknowledged to anybody.
            self.torn = self.file.cut(self.len).is_err();
            return Err(error.into());
        }
        failpoint::reach(Step::AuditAppended);
        self.chain = next;
        self.len += self.scratch.len() as u64;
        Ok(())
    }

    /// Whether the present file has its size. To be seen to by whoever may wait for a disk.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.len >= self.settings.rotate_bytes && !self.torn && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Sets the present file aside and begins a new one. Failing that, the present one goes on.
    pub(super) fn rotate(&mut self, now: Instant) {
        let rotated = self.file.sync().and_then(|()| file::rotate(&self.dir, self.first));
        match rotated {
            Ok(new) => {
                self.file = Arc::from(self.disk.file(new));
                self.room.set_aside(self.len);
                self.len = 0;
                self.first = self.chain.seq;
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                tracing::error!(%error, "audit log: the full file cannot be set aside yet");
            }
        }
    }

    /// Says that files set aside were deleted.
    pub(super) fn deleted(&mut self, bytes: u64) {
        self.room.deleted(bytes);
    }
}

fn append_all(file: &dyn LogFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
