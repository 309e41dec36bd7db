//! The one thread that writes: takes what many writers want to commit, validates each against what was committed
//! since its snapshot, and makes one durable commit of all that pass.
//!
//! It never answers "failed" when it does not know. After an IO error it opens the file anew and looks: a commit that
//! is not there was not applied, one that is there after an error is reported as unknown.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use coffer_barrier::store::StoreError;
use coffer_core::failpoint::{self, Step};
use redb::{Database, ReadableDatabase, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::recent::Recent;
use super::{META, ROWS, Shared, VERSION, damaged};
use crate::overlay::Changes;

/// The most transactions in one commit.
pub(crate) const BATCH_MAX: usize = 128;
/// The most bytes in one commit, but for its last transaction.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room that must be left on the disk before a commit, beside four times what it writes: redb copies the pages on the
/// way to each row.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// A transaction on its way to the committer.
pub(crate) struct Request {
    pub(crate) snapshot: u64,
    pub(crate) changes: Changes,
    pub(crate) reply: oneshot::Sender<Result<u64, StoreError>>,
}

/// A transaction that passed, with its version.
type Accepted = (Changes, u64, oneshot::Sender<Result<u64, StoreError>>);

pub(crate) struct Committer {
    shared: Arc<Shared>,
    recent: Recent,
    /// The keys of a commit whose outcome is not known yet, with the versions they would have.
    unsettled: Vec<(Vec<u8>, u64)>,
    /// The last version known committed.
    version: u64,
    /// A sync failed: nothing is written any more until the process starts again.
    poisoned: bool,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, version: u64) -> Self {
        Self { shared, recent: Recent::default(), unsettled: Vec::new(), version, poisoned: false }
    }

    /// Works until nobody can send any more, then closes the file.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.changes.bytes();
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(next) = requests.try_recv()
            {
                bytes += next.changes.bytes();
                batch.push(next);
            }
            // redb panics over damage that it meets. Who waits for this batch is told that nobody knows: his end of the
            // reply went with the panic.
            if catch_unwind(AssertUnwindSafe(|| self.process(batch, bytes))).is_err() {
                self.shared.condemn();
            }
        }
        self.shared.close();
    }

    fn process(&mut self, batch: Vec<Request>, bytes: usize) {
        // A reader may have opened the file anew, after an attempt here that failed.
        match self.shared.version() {
            Ok(version) => self.settle(version),
            Err(error) => {
                for request in batch {
                    answer(request.reply, Err(copy(&error)));
                }
                return;
            }
        }
        self.recent.prune(self.shared.oldest_live(self.version));
        let mut accepted = Vec::with_capacity(batch.len());
        let mut version = self.version;
        // What the batch itself changes, on top of what is committed.
        let mut changed: HashMap<Vec<u8>, u64> = HashMap::new();
        for request in batch {
            let Request { snapshot, changes, reply } = request;
            let last_change = |key: &[u8]| changed.get(key).copied().or_else(|| self.recent.last_change(key));
            if !self.recent.covers(snapshot) || changes.conflicts(snapshot, last_change) {
                answer(reply, Err(StoreError::Conflict));
                continue;
            }
            if !changes.writes.is_empty() {
                version += 1;
                changed.extend(changes.writes.keys().map(|key| (key.clone(), version)));
            }
            accepted.push((changes, version, reply));
        }
        self.unsettled.extend(changed);
        let outcome = if version == self.version { Ok(()) } else { self.apply(&accepted, version, bytes) };
        match &outcome {
            Ok(()) => self.settle(version),
            // What the file holds is asked before the next batch.
            Err(StoreError::OutcomeUnknown) => {}
            Err(_) => self.unsettled.clear(),
        }
        for (_, version, reply) in accepted {
            answer(reply, outcome.as_ref().map(|()| version).map_err(copy));
        }
    }

    /// The file is known to hold everything up to `version` and nothing above. What was not applied must not be
    /// remembered: nobody could ever write those keys again.
    fn settle(&mut self, version: u64) {
        self.version = version;
        for (key, changed) in self.unsettled.drain(..) {
            if changed <= version {
                self.recent.record(key, changed);
            }
        }
    }

    fn apply(&mut self, accepted: &[Accepted], version: u64, bytes: usize) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Unavailable("a sync of the store failed; restart to write again".into()));
        }
        let needed = RESERVE_BYTES.saturating_add((bytes as u64).saturating_mul(4));
        if self.shared.free_bytes().is_some_and(|free| free < needed) {
            return Err(StoreError::Full("no room for a commit on the store's disk".into()));
        }
        let changes = accepted.iter().map(|(changes, ..)| changes);
        let committing = Cell::new(false);
        let write = || self.shared.with_database(|database| write(database, changes, version, &committing));
        match catch_unwind(AssertUnwindSafe(write)) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(self.recover(&error, version)),
            Ok(Err(e)) => Err(e),
            Err(_) => {
                self.shared.condemn();
                // What was never to be committed is not in the file.
                if committing.get() { Err(StoreError::OutcomeUnknown) } else { Err(damaged()) }
            }
        }
    }

    /// After an error: opens the file anew and finds out whether the batch up to `version` is in it.
    fn recover(&mut self, error: &redb::Error, version: u64) -> StoreError {
        let full = self.shared.health().full();
        self.poisoned = self.shared.health().sync_failed();
        tracing::error!(error = %error, full, sync_failed = self.poisoned, "a commit of the embedded store failed");
        let found = self.shared.reopen();
        match found {
            Ok(found) if found < version => {
                if self.poisoned {
                    // Not in the file as it reads now; what the disk has nobody knows.
                    StoreError::OutcomeUnknown
                } else if full {
                    StoreError::Full("the store's disk is full".into())
                } else {
                    StoreError::Unavailable(error.to_string())
                }
            }
            Ok(_) => StoreError::OutcomeUnknown,
            Err(e) => {
                tracing::error!(error = %e, "the embedded store could not be opened again");
                StoreError::OutcomeUnknown
            }
        }
    }
}

fn write<'a>(
    database: &Database,
    accepted: impl Iterator<Item = &'a Changes>,
    version: u64,
    committing: &Cell<bool>,
) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    failpoint::reach(Step::CommitterBeforeWrite);
    put_all(&txn, accepted, version)?;
    committing.set(true);
    txn.commit()?;
    failpoint::reach(Step::CommitterDurable);
    Ok(())
}

fn put_all<'a>(
    txn: &WriteTransaction,
    accepted: impl Iterator<Item = &'a Changes>,
    version: u64,
) -> Result<(), redb::Error> {
    let mut rows = txn.open_table(ROWS)?;
    for changes in accepted {
        for (key, value) in &changes.writes {
            match value {
                Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
                None => drop(rows.remove(key.as_slice())?),
            }
        }
    }
    txn.open_table(META)?.insert(VERSION, version)?;
    Ok(())
}

/// The version that the file holds.
pub(crate) fn stored_version(database: &Database) -> Result<u64, redb::Error> {
    let txn = database.begin_read()?;
    Ok(txn.open_table(META)?.get(VERSION)?.map_or(0, |v| v.value()))
}

fn answer(reply: oneshot::Sender<Result<u64, StoreError>>, result: Result<u64, StoreError>) {
    // Nobody waits any more: the writer was cancelled, which leaves it with an unknown outcome.
    let _ = reply.send(result);
}

/// One error for every transaction of a batch.
fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Conflict => StoreError::Conflict,
        StoreError::OutcomeUnknown => StoreError::OutcomeUnknown,
        StoreError::Unavailable(m) => StoreError::Unavailable(m.clone()),
        StoreError::Full(m) => StoreError::Full(m.clone()),
        StoreError::Limit(m) => StoreError::Limit(m),
        StoreError::Corrupt(m) => StoreError::Corrupt(m.clone()),
    }
}
