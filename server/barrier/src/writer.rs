//! Writing through the barrier: one transaction, encrypted rows, and its entry in the change log.
//!
//! Never retries by itself: a conflict means that the whole operation has to be looked at again, and an unknown
//! outcome that somebody has to read back.

use std::sync::Arc;

use coffer_core::failpoint::{self, Step};
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use coffer_core::token::HmacKey;

use crate::boot::BootRecord;
use crate::children;
use crate::envelope::{self, Key};
use crate::error::BarrierError;
use crate::key::{Layout, MountId, RowKey, mount_prefix};
use crate::keyring::{KeyId, KeyringRecord, Purpose};
use crate::keys::{Keys, Term};
use crate::log::{ChangeEntry, LogRow};
use crate::read::{Read, View};
use crate::seal::MasterKey;
use crate::store::{KeyRange, Row, SCAN_PAGE_MAX, Snapshot, Txn};
use crate::stream::{Outcome, Stream};

/// The most rows one transaction may write.
pub const WRITES_MAX: usize = 10_000;
/// The most change entries one transaction may carry.
pub const NOTES_MAX: usize = 10_000;

/// What is known about a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The store's version: every snapshot of at least this version sees the commit.
    pub version: u64,
    /// Its place in this process's change-log stream; 0 when nothing was written.
    pub seq: u64,
}

/// A transaction. Reads see its own writes; dropping it applies nothing.
pub struct Writer {
    txn: Box<dyn Txn>,
    keys: Arc<Keys>,
    /// Held until the commit, so that a rotation can tell who is still writing under the keys before it.
    term: Arc<Term>,
    /// None for the very first commit: nobody can follow the log of a vault that is not there yet.
    stream: Option<Arc<Stream>>,
    notes: Vec<ChangeEntry>,
    written: Vec<Vec<u8>>,
    new_keks: Vec<(KeyId, Arc<Key>)>,
    dropped_keks: Vec<MountId>,
}

impl Read for Writer {
    fn view(&self) -> View<'_> {
        View { snapshot: &*self.txn, keys: &self.keys, pending: &self.new_keks }
    }
}

impl Writer {
    pub(crate) fn new(
        txn: Box<dyn Txn>,
        keys: Arc<Keys>,
        term: Arc<Term>,
        stream: Option<Arc<Stream>>,
    ) -> Self {
        Self {
            txn,
            keys,
            term,
            stream,
            notes: Vec::new(),
            written: Vec::new(),
            new_keks: Vec::new(),
            dropped_keks: Vec::new(),
        }
    }

    /// Writes a system row, under a key of its own derived from the system KEK.
    pub async fn put_system(&mut self, key: &RowKey, plain: &[u8]) -> Result<(), BarrierError> {
        let at = self.keys.layout.encode(key)?;
        let row = self.seal_row(&at, plain)?;
        self.put_at(at, row)
    }

    /// Writes a secret row, under a fresh DEK wrapped by the mount's KEK.
    pub async fn put_secret(&mut self, key: &RowKey, plain: &SecretBytes) -> Result<(), BarrierError> {
        let at = self.keys.layout.encode(key)?;
        let (generation, kek) = self.kek_of(key.mount()).await?;
        let row = envelope::seal_secret(&kek, generation, &at, plain.expose())?;
        self.term.count_row();
        self.put_at(at, row)
    }

    /// The KEK that secrets of `mount` are sealed under from here on.
    pub(crate) async fn kek_of(&self, mount: MountId) -> Result<(u32, Arc<Key>), BarrierError> {
        let pending = self.pending(mount, Purpose::Kek);
        match pending {
            Some(found) => Ok(found),
            None => self.keys.newest_kek(&*self.txn, mount).await,
        }
    }

    /// The newest key that this transaction makes.
    fn pending(&self, mount: MountId, purpose: Purpose) -> Option<(u32, Arc<Key>)> {
        let new = self.new_keks.iter().rev();
        new.clone()
            .find(|(id, _)| id.mount == mount && id.purpose == purpose)
            .map(|(id, key)| (id.generation, Arc::clone(key)))
    }

    /// Seals a system row: under the key this transaction makes, if it makes one.
    pub(crate) fn seal_row(&self, at: &[u8], plain: &[u8]) -> Result<Vec<u8>, BarrierError> {
        self.keys.check()?;
        match self.pending(MountId::SYSTEM, Purpose::Record) {
            Some((generation, kek)) => envelope::seal_system(&kek, generation, at, plain),
            None => self.term.seal(at, plain),
        }
    }

    /// Removes a row; removing an absent one is no error.
    pub async fn delete(&mut self, key: &RowKey) -> Result<(), BarrierError> {
        let at = self.keys.layout.encode(key)?;
        self.delete_at(at)
    }

    /// Makes `path` show up in `list`, with the directories above it. Write some row at `path` in the same
    /// transaction that `unlink`'s caller also writes, so that the two conflict.
    pub async fn link(&mut self, mount: MountId, path: &str) -> Result<(), BarrierError> {
        children::link(self, mount, path).await
    }

    /// Takes `path` out of `list`, with the directories that this leaves empty.
    pub async fn unlink(&mut self, mount: MountId, path: &str) -> Result<(), BarrierError> {
        children::unlink(self, mount, path).await
    }

    /// Makes the commit conflict if anybody changes, creates or deletes `key` after this transaction's snapshot.
    /// Everything a decision rests on and this transaction does not write must be guarded.
    pub fn guard(&mut self, key: &RowKey) -> Result<(), BarrierError> {
        let at = self.keys.layout.encode(key)?;
        self.txn.guard(&at);
        Ok(())
    }

    /// An HMAC key for one purpose, the same at every unseal: also before the first commit.
    #[must_use]
    pub fn hmac_key(&self, purpose: &str) -> HmacKey {
        self.keys.hmac_key(purpose)
    }

    /// Says what this commit means for caches and events. It is encrypted into the change log.
    pub fn note(&mut self, entry: ChangeEntry) {
        self.notes.push(entry);
    }

    /// Deletes up to `limit` rows of `mount`, whatever they are; returns how many there were. Below `limit` means
    /// that none are left.
    pub async fn clear_mount(&mut self, mount: MountId, limit: usize) -> Result<usize, BarrierError> {
        if mount == MountId::SYSTEM || mount == MountId::BOOT {
            return Err(BarrierError::Limit("the vault's own rows cannot be cleared"));
        }
        let rows = self.scan(&KeyRange::prefix(&mount_prefix(mount)), limit.min(SCAN_PAGE_MAX)).await?;
        let count = rows.len();
        for (at, _) in rows {
            self.delete_at(at)?;
        }
        Ok(count)
    }

    /// Gives `mount` a new KEK, usable within this transaction and, once it has committed, by everybody.
    pub async fn create_kek(&mut self, mount: MountId) -> Result<(), BarrierError> {
        let mut record = self.keyring().await?;
        let generation = record.newest(mount, Purpose::Kek).map_or(1, |id| id.generation + 1);
        let (id, key) = (KeyId::kek(mount, generation), Arc::new(Key::generate()?));
        record.add(&*self.term.master, id, &key).await?;
        self.put_keyring(record).await?;
        self.new_keks.push((id, key));
        Ok(())
    }

    pub(crate) async fn drop_kek(&mut self, mount: MountId) -> Result<(), BarrierError> {
        let mut record = self.keyring().await?;
        if record.remove_keks(mount) {
            self.put_keyring(record).await?;
            self.new_keks.retain(|(id, _)| id.mount != mount);
            self.dropped_keks.push(mount);
        }
        Ok(())
    }

    /// Gives every mount and the system a new KEK. Gives back the system's, as it is stored.
    pub(crate) async fn rotate_keks(
        &mut self,
        record: &mut KeyringRecord,
        master: &dyn MasterKey,
        at: Timestamp,
    ) -> Result<(KeyId, String), BarrierError> {
        let mut made = None;
        for old in record.newest_of_all() {
            if old.purpose == Purpose::Derive {
                continue;
            }
            let id = KeyId { generation: old.generation + 1, ..old };
            let key = Arc::new(Key::generate()?);
            record.add(master, id, &key).await?;
            if id.purpose == Purpose::Record {
                made = record.wrapped(id).map(|wrapped| (id, wrapped.to_owned()));
            }
            self.new_keks.push((id, key));
        }
        record.set_installed(at);
        made.ok_or(BarrierError::Tampered { what: "keyring" })
    }

    /// The master key this transaction began under.
    pub(crate) fn master(&self) -> Arc<dyn MasterKey> {
        Arc::clone(&self.term.master)
    }

    /// The generation that system rows are sealed under.
    pub(crate) fn system_generation(&self) -> u32 {
        self.term.generation
    }

    /// What this transaction reads from.
    pub(crate) fn snapshot(&self) -> &dyn Snapshot {
        &*self.txn
    }

    /// The keys that this transaction makes.
    pub(crate) fn new_keks(&self) -> Vec<(KeyId, Arc<Key>)> {
        self.new_keks.clone()
    }

    /// The keyring, for a change.
    pub(crate) async fn keyring(&self) -> Result<KeyringRecord, BarrierError> {
        self.keys.check()?;
        KeyringRecord::load_to_change(&*self.txn, &*self.term.master, self.term.named).await
    }

    /// Stores a changed keyring.
    pub(crate) async fn put_keyring(&mut self, mut record: KeyringRecord) -> Result<(), BarrierError> {
        let bytes = record.sealed_by(&*self.term.master).await?;
        self.put_at(BootRecord::Keyring.at(), bytes)
    }

    /// Applies everything at once, durably, with its entry in the change log. A transaction that wrote nothing and
    /// noted nothing only has its guards checked.
    pub async fn commit(mut self) -> Result<CommitInfo, BarrierError> {
        self.keys.check()?;
        if self.written.is_empty() && self.notes.is_empty() {
            return Ok(CommitInfo { version: self.txn.commit().await?, seq: 0 });
        }
        let Some(stream) = self.stream.clone() else {
            return Ok(CommitInfo { version: self.txn.commit().await?, seq: 0 });
        };
        let mut ticket = stream.reserve(&self.keys).await?;
        let seq = ticket.seq();
        let row = LogRow::new(std::mem::take(&mut self.written), std::mem::take(&mut self.notes));
        let at = self.keys.layout.encode(&stream.log_key(seq))?;
        let sealed = row.to_bytes().and_then(|plain| self.seal_row(&at, &plain));
        let staged = match sealed {
            Ok(sealed) => self.insert_log_row(&at, sealed).await,
            Err(e) => Err(e),
        };
        if let Err(e) = staged {
            ticket.settle(Outcome::Failed);
            return Err(e);
        }
        // From here on dropping this future leaves the ticket unknown, not failed.
        ticket.sent();
        failpoint::reach(Step::BeforeCommit);
        let result = self.txn.commit().await.map_err(BarrierError::from);
        match result {
            Ok(version) => {
                failpoint::reach(Step::Committed);
                ticket.settle(Outcome::Committed);
                for mount in &self.dropped_keks {
                    self.keys.forget_keks(*mount, true);
                }
                self.keys.install(self.new_keks);
                Ok(CommitInfo { version, seq })
            }
            Err(BarrierError::OutcomeUnknown) => {
                // They may be gone, and if not they are found again.
                for mount in &self.dropped_keks {
                    self.keys.forget_keks(*mount, false);
                }
                Err(BarrierError::OutcomeUnknown)
            }
            Err(known) => {
                ticket.settle(Outcome::Failed);
                Err(known)
            }
        }
    }

    /// Insert-only: a void row that somebody put here, before this transaction's snapshot or after, must win.
    async fn insert_log_row(&mut self, at: &[u8], sealed: Vec<u8>) -> Result<(), BarrierError> {
        self.txn.guard(at);
        if self.txn.get(at).await?.is_some() {
            return Err(BarrierError::Unavailable("this process's change-log stream was closed".into()));
        }
        Ok(self.txn.put(at, sealed)?)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.keys.layout
    }

    pub(crate) async fn has(&self, key: &RowKey) -> Result<bool, BarrierError> {
        self.keys.check()?;
        Ok(self.txn.get(&self.keys.layout.encode(key)?).await?.is_some())
    }

    pub(crate) async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, BarrierError> {
        self.keys.check()?;
        Ok(self.txn.scan(range, limit).await?)
    }

    pub(crate) fn put_at(&mut self, at: Vec<u8>, row: Vec<u8>) -> Result<(), BarrierError> {
        self.count_write()?;
        self.txn.put(&at, row)?;
        self.written.push(at);
        Ok(())
    }

    pub(crate) fn delete_at(&mut self, at: Vec<u8>) -> Result<(), BarrierError> {
        self.count_write()?;
        self.txn.delete(&at)?;
        self.written.push(at);
        Ok(())
    }

    fn count_write(&self) -> Result<(), BarrierError> {
        self.keys.check()?;
        if self.written.len() >= WRITES_MAX || self.notes.len() > NOTES_MAX {
            return Err(BarrierError::Limit("too many rows in one transaction"));
        }
        Ok(())
    }
}
