//! The keys in memory while unsealed, and which of them new rows are sealed under.
//!
//! Keys never leave this crate but for the HMAC keys derived for a named purpose. Dropping the last reference wipes
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use coffer_core::token::HmacKey;
use tokio::sync::Notify;

use crate::directory::Directories;
use crate::envelope::{self, Key};
use crate::error::BarrierError;
use crate::key::{Layout, MountId};
use crate::keyring::{KeyId, KeyringRecord, Purpose};
use crate::seal::MasterKey;
use crate::store::Snapshot;

/// What new rows are sealed under, until the next rotation. Whoever seals rows holds it until they are committed, so
/// that a rotation can wait until nothing more comes under the keys before it.
pub(crate) struct Term {
    /// The system KEK's generation.
    pub(crate) generation: u32,
    record: Arc<Key>,
    pub(crate) master: Arc<dyn MasterKey>,
    /// Which master key that is.
    pub(crate) named: MountId,
    ended: Arc<Notify>,
    sealed_rows: Arc<AtomicU64>,
}

impl Term {
    /// Seals a system row at storage key `at`.
    pub(crate) fn seal(&self, at: &[u8], plain: &[u8]) -> Result<Vec<u8>, BarrierError> {
        self.sealed_rows.fetch_add(1, Ordering::Relaxed);
        envelope::seal_system(&self.record, self.generation, at, plain)
    }

    /// Counts a row sealed under another key of this term.
    pub(crate) fn count_row(&self) {
        self.sealed_rows.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.ended.notify_waiters();
    }
}

#[derive(Default)]
struct Held {
    keys: BTreeMap<KeyId, Arc<Key>>,
    /// The newest generation of each mount's KEK, where it is known.
    newest: BTreeMap<MountId, u32>,
    /// Mounts whose KEKs are gone for good; ids never come back.
    dropped: BTreeSet<MountId>,
}

/// Everything that exists only while unsealed.
pub(crate) struct Keys {
    derive: Key,
    pub(crate) layout: Layout,
    term: RwLock<Arc<Term>>,
    /// Terms that are over but for those still at work under them.
    past: Mutex<Vec<Weak<Term>>>,
    ended: Arc<Notify>,
    held: RwLock<Held>,
    /// Names, in clear: they go with the keys.
    pub(crate) directories: Directories,
    sealed: AtomicBool,
    /// System KEKs of generations below this are retired.
    retired_below: AtomicU32,
}

impl Keys {
    /// Unwraps the system keys; mounts' KEKs follow when first needed.
    pub(crate) async fn open(
        master: Arc<dyn MasterKey>,
        record: &KeyringRecord,
    ) -> Result<Self, BarrierError> {
        record.verify(&*master).await?;
        let derive = record.unwrap(&*master, KeyId::system(Purpose::Derive, 1)).await?;
        let newest = record.newest(MountId::SYSTEM, Purpose::Record);
        let id = newest.ok_or(BarrierError::Tampered { what: "keyring" })?;
        let system = Arc::new(record.unwrap(&*master, id).await?);
        let layout = Layout::new(hmac_key(&derive, "path"));
        let ended = Arc::new(Notify::new());
        let term = Arc::new(Term {
            generation: id.generation,
            record: Arc::clone(&system),
            master,
            named: record.master(),
            ended: Arc::clone(&ended),
            sealed_rows: Arc::default(),
        });
        let mut held = Held::default();
        held.keys.insert(id, system);
        held.newest = newest_keks(record);
        Ok(Self {
            derive,
            layout,
            term: RwLock::new(term),
            past: Mutex::default(),
            ended,
            held: RwLock::new(held),
            directories: Directories::default(),
            sealed: AtomicBool::new(false),
            retired_below: AtomicU32::new(0),
        })
    }

    /// From here on every operation that still holds these keys fails.
    pub(crate) fn mark_sealed(&self) {
        self.sealed.store(true, Ordering::SeqCst);
        self.held.write().unwrap_or_else(PoisonError::into_inner).keys.clear();
        self.directories.clear();
    }

    pub(crate) fn check(&self) -> Result<(), BarrierError> {
        if self.sealed.load(Ordering::SeqCst) { Err(BarrierError::Sealed) } else { Ok(()) }
    }

    pub(crate) fn hmac_key(&self, purpose: &str) -> HmacKey {
        hmac_key(&self.derive, purpose)
    }

    /// What new rows are sealed under. To be held until they are committed.
    pub(crate) fn term(&self) -> Arc<Term> {
        Arc::clone(&self.term.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many rows were sealed in this term by this process.
    pub(crate) fn sealed_rows(&self) -> u64 {
        self.term().sealed_rows.load(Ordering::Relaxed)
    }

    /// Whether nobody is at work under the keys of an earlier term any more.
    pub(crate) fn settled(&self) -> bool {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.retain(|term| term.strong_count() > 0);
        past.is_empty()
    }

    /// Waits until [`Keys::settled`].
    pub(crate) async fn settle(&self) {
        loop {
            // Made before looking, so that no end is missed.
            let ended = self.ended.notified();
            if self.settled() {
                return;
            }
            ended.await;
        }
    }

    /// The key `id`: from memory, else from the keyring as `snapshot` shows it.
    pub(crate) async fn find(&self, snapshot: &dyn Snapshot, id: KeyId) -> Result<Arc<Key>, BarrierError> {
        self.check()?;
        if let Some(key) = self.held().keys.get(&id) {
            return Ok(Arc::clone(key));
        }
        let record = KeyringRecord::load(snapshot).await?;
        let term = self.term();
        if record.master() != term.named {
            return Err(BarrierError::master_changed());
        }
        let key = Arc::new(record.unwrap(&*term.master, id).await?);
        self.hold(id, Arc::clone(&key));
        Ok(key)
    }

    /// The newest KEK of `mount`.
    pub(crate) async fn newest_kek(
        &self,
        snapshot: &dyn Snapshot,
        mount: MountId,
    ) -> Result<(u32, Arc<Key>), BarrierError> {
        self.check()?;
        let known = self.held().newest.get(&mount).copied();
        let generation = match known {
            Some(generation) => generation,
            None => {
                let record = KeyringRecord::load(snapshot).await?;
                let id = record.newest(mount, Purpose::Kek).ok_or(BarrierError::NoKey)?;
                id.generation
            }
        };
        let key = self.find(snapshot, KeyId::kek(mount, generation)).await?;
        let mut held = self.held_mut();
        if !held.dropped.contains(&mount) {
            held.newest.entry(mount).or_insert(generation);
        }
        Ok((generation, key))
    }

    fn hold(&self, id: KeyId, key: Arc<Key>) {
        let mut held = self.held_mut();
        // Checked under the lock: `mark_sealed` must not find the map refilled, nor a dropped mount its key.
        if self.check().is_ok() && !(id.purpose == Purpose::Kek && held.dropped.contains(&id.mount)) {
            held.keys.insert(id, key);
        }
    }

    /// Keeps keys of whatever generation, for reading.
    pub(crate) fn hold_all(&self, keys: Vec<(KeyId, Key)>) {
        for (id, key) in keys {
            if id.purpose != Purpose::Derive {
                self.hold(id, Arc::new(key));
            }
        }
    }

    /// Keys that a committed transaction made: new rows are sealed under them from here on.
    pub(crate) fn install(&self, new: Vec<(KeyId, Arc<Key>)>) {
        let mut record = None;
        for (id, key) in new {
            match id.purpose {
                Purpose::Record => record = Some((id.generation, Arc::clone(&key))),
                Purpose::Kek => drop(self.held_mut().newest.insert(id.mount, id.generation)),
                Purpose::Derive => {}
            }
            self.hold(id, key);
        }
        let now = self.term();
        if let Some((generation, record)) = record {
            self.begin_term(generation, record, Arc::clone(&now.master), now.named, Arc::default());
        }
    }

    /// A committed change of the master key.
    pub(crate) fn replace_master(&self, master: Arc<dyn MasterKey>, named: MountId) {
        let now = self.term();
        let count = Arc::clone(&now.sealed_rows);
        self.begin_term(now.generation, Arc::clone(&now.record), master, named, count);
    }

    fn begin_term(
        &self,
        generation: u32,
        record: Arc<Key>,
        master: Arc<dyn MasterKey>,
        named: MountId,
        sealed_rows: Arc<AtomicU64>,
    ) {
        let ended = Arc::clone(&self.ended);
        let term = Arc::new(Term { generation, record, master, named, ended, sealed_rows });
        let mut present = self.term.write().unwrap_or_else(PoisonError::into_inner);
        let past = std::mem::replace(&mut *present, term);
        self.past.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&past));
    }

    /// Drops what is not the newest of its kind: the keyring has it no more.
    pub(crate) fn forget_old(&self) {
        let generation = self.term().generation;
        self.retired_below.fetch_max(generation, Ordering::AcqRel);
        let held = &mut *self.held_mut();
        let newest = &held.newest;
        held.keys.retain(|id, _| match id.purpose {
            Purpose::Record => id.generation >= generation,
            Purpose::Kek => newest.get(&id.mount).is_none_or(|newest| id.generation >= *newest),
            Purpose::Derive => true,
        });
    }

    /// A system KEK in memory; `None` if it would have to be looked for. An error if there is no use in that: it is
    /// retired, or was never made.
    pub(crate) fn system_kek(&self, generation: u32) -> Result<Option<Arc<Key>>, BarrierError> {
        self.check()?;
        let retired = generation < self.retired_below.load(Ordering::Acquire);
        if generation == 0 || retired || generation > self.term().generation {
            return Err(BarrierError::NoKey);
        }
        Ok(self.held().keys.get(&KeyId::system(Purpose::Record, generation)).cloned())
    }

    /// A mount whose KEKs are gone, or may be.
    pub(crate) fn forget_keks(&self, mount: MountId, for_good: bool) {
        let mut held = self.held_mut();
        held.keys.retain(|id, _| id.mount != mount || id.purpose != Purpose::Kek);
        held.newest.remove(&mount);
        if for_good {
            held.dropped.insert(mount);
        }
    }

    fn held(&self) -> std::sync::RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> std::sync::RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newest_keks(record: &KeyringRecord) -> BTreeMap<MountId, u32> {
    let keks = record.newest_of_all().into_iter().filter(|id| id.purpose == Purpose::Kek);
    keks.map(|id| (id.mount, id.generation)).collect()
}

fn hmac_key(derive: &Key, purpose: &str) -> HmacKey {
    let key = derive.derive(None, &[b"coffer hmac v1 ".as_slice(), purpose.as_bytes()].concat());
    HmacKey::new(*key.expose())
}
