//! The keys in memory while unsealed, and the keyring record they are stored in.
//!
//! The record lists every key below the master key, each wrapped on its own and bound to its mount, purpose and
//! generation. Keys never leave this crate but for the HMAC keys derived for a named purpose.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use coffer_core::token::HmacKey;
use serde::{Deserialize, Serialize};

use crate::boot::{BootRecord, FORMAT};
use crate::directory::Directories;
use crate::envelope::Key;
use crate::error::BarrierError;
use crate::key::{Layout, MountId};
use crate::seal::Seal;
use crate::store::Snapshot;

/// What a key is for. The names are stored: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    /// Root of the derived keys (path hashes, HMACs). Never rotates: what was hashed must be found again.
    Derive,
    /// A mount's KEK.
    Kek,
    /// The system KEK, under which system rows are sealed.
    Record,
}

/// Which key, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct KeyId {
    pub(crate) mount: MountId,
    pub(crate) purpose: Purpose,
    pub(crate) generation: u32,
}

impl KeyId {
    pub(crate) const fn system(purpose: Purpose, generation: u32) -> Self {
        Self { mount: MountId::SYSTEM, purpose, generation }
    }

    fn context(self) -> Vec<u8> {
        format!("keyring {} {:?} {}", self.mount.to_hex(), self.purpose, self.generation).into_bytes()
    }
}

#[derive(Serialize, Deserialize)]
struct WrappedKey {
    #[serde(flatten)]
    id: KeyId,
    wrapped: String,
}

/// The stored keyring.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyringRecord {
    format: u8,
    /// Raised with every change.
    epoch: u64,
    keys: Vec<WrappedKey>,
}

impl KeyringRecord {
    pub(crate) const fn empty() -> Self {
        Self { format: FORMAT, epoch: 0, keys: Vec::new() }
    }

    pub(crate) async fn load(snapshot: &dyn Snapshot) -> Result<Self, BarrierError> {
        let tampered = || BarrierError::Tampered { what: "keyring" };
        let bytes = BootRecord::Keyring.read(snapshot).await?.ok_or(BarrierError::NotInitialized)?;
        let record: Self = serde_json::from_slice(&bytes).map_err(|_| tampered())?;
        if record.format == FORMAT { Ok(record) } else { Err(tampered()) }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields serialise")
    }

    /// Adds `key`, wrapped.
    pub(crate) async fn add(&mut self, seal: &dyn Seal, id: KeyId, key: &Key) -> Result<(), BarrierError> {
        let wrapped = hex::encode(seal.wrap(&id.context(), key).await?);
        self.keys.push(WrappedKey { id, wrapped });
        self.epoch += 1;
        Ok(())
    }

    /// Removes a mount's KEKs; tells whether there were any.
    pub(crate) fn remove_keks(&mut self, mount: MountId) -> bool {
        let before = self.keys.len();
        self.keys.retain(|k| k.id.mount != mount || k.id.purpose != Purpose::Kek);
        self.epoch += 1;
        self.keys.len() != before
    }

    /// The newest generation of a key.
    pub(crate) fn newest(&self, mount: MountId, purpose: Purpose) -> Option<KeyId> {
        self.keys.iter().map(|k| k.id).filter(|id| id.mount == mount && id.purpose == purpose).max()
    }

    pub(crate) async fn unwrap(&self, seal: &dyn Seal, id: KeyId) -> Result<Key, BarrierError> {
        let stored = self.keys.iter().find(|k| k.id == id).ok_or(BarrierError::NoKey)?;
        let wrapped =
            hex::decode(&stored.wrapped).map_err(|_| BarrierError::Tampered { what: "keyring entry" })?;
        seal.unwrap(&id.context(), &wrapped).await
    }
}

/// Everything that exists only while unsealed.
pub(crate) struct Keys {
    seal: Box<dyn Seal>,
    derive: Key,
    pub(crate) layout: Layout,
    /// The system KEK that new rows are sealed under.
    pub(crate) record: (u32, Arc<Key>),
    held: RwLock<BTreeMap<KeyId, Arc<Key>>>,
    /// Names, in clear: they go with the keys.
    pub(crate) directories: Directories,
    sealed: AtomicBool,
}

impl Keys {
    /// Unwraps the system keys; mounts' KEKs follow when first needed.
    pub(crate) async fn open(seal: Box<dyn Seal>, record: &KeyringRecord) -> Result<Self, BarrierError> {
        let no_key = BarrierError::Tampered { what: "keyring" };
        let derive = record.unwrap(&*seal, KeyId::system(Purpose::Derive, 1)).await?;
        let id = record.newest(MountId::SYSTEM, Purpose::Record).ok_or(no_key)?;
        let system = Arc::new(record.unwrap(&*seal, id).await?);
        let layout = Layout::new(hmac_key(&derive, "path"));
        let held = RwLock::new(BTreeMap::from([(id, Arc::clone(&system))]));
        let record = (id.generation, system);
        let (directories, sealed) = (Directories::default(), AtomicBool::new(false));
        Ok(Self { seal, derive, layout, record, held, directories, sealed })
    }

    /// From here on every operation that still holds these keys fails.
    pub(crate) fn mark_sealed(&self) {
        self.sealed.store(true, Ordering::SeqCst);
        self.held.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.directories.clear();
    }

    pub(crate) fn check(&self) -> Result<(), BarrierError> {
        if self.sealed.load(Ordering::SeqCst) { Err(BarrierError::Sealed) } else { Ok(()) }
    }

    pub(crate) fn seal(&self) -> &dyn Seal {
        &*self.seal
    }

    pub(crate) fn hmac_key(&self, purpose: &str) -> HmacKey {
        hmac_key(&self.derive, purpose)
    }

    /// The key `id`: from memory, else from the keyring as `snapshot` shows it.
    pub(crate) async fn find(&self, snapshot: &dyn Snapshot, id: KeyId) -> Result<Arc<Key>, BarrierError> {
        self.check()?;
        if let Some(key) = self.held().get(&id) {
            return Ok(Arc::clone(key));
        }
        let record = KeyringRecord::load(snapshot).await?;
        let key = Arc::new(record.unwrap(self.seal(), id).await?);
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
        let newest = |id: &&KeyId| id.mount == mount && id.purpose == Purpose::Kek;
        let held = self.held().keys().filter(newest).max().copied();
        if let Some(id) = held {
            return Ok((id.generation, self.find(snapshot, id).await?));
        }
        let record = KeyringRecord::load(snapshot).await?;
        let id = record.newest(mount, Purpose::Kek).ok_or(BarrierError::NoKey)?;
        Ok((id.generation, self.find(snapshot, id).await?))
    }

    pub(crate) fn hold(&self, id: KeyId, key: Arc<Key>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock: `mark_sealed` must not find the map refilled.
        if self.check().is_ok() {
            held.insert(id, key);
        }
    }

    pub(crate) fn forget_keks(&self, mount: MountId) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|id, _| id.mount != mount || id.purpose != Purpose::Kek);
    }

    fn held(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<KeyId, Arc<Key>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hmac_key(derive: &Key, purpose: &str) -> HmacKey {
    let key = derive.derive(None, &[b"coffer hmac v1 ".as_slice(), purpose.as_bytes()].concat());
    HmacKey::new(*key.expose())
}
