//! The keyring record: every key below the master key, each wrapped on its own and bound to its mount, purpose and
//! generation, and the whole list vouched for by the master key.
//!
//! Without the last, whoever can write to the store could take the newest generation out, and new rows would be
//! sealed under an older key that he may know.

use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::boot::BootRecord;
use crate::envelope::Key;
use crate::error::BarrierError;
use crate::key::MountId;
use crate::seal::MasterKey;
use crate::store::Snapshot;

/// The first format: no proof over the whole. Still opened, never written again.
const FORMAT_1: u8 = 1;
/// The present format.
const FORMAT_2: u8 = 2;

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

    pub(crate) const fn kek(mount: MountId, generation: u32) -> Self {
        Self { mount, purpose: Purpose::Kek, generation }
    }

    fn context(self, format: u8) -> Vec<u8> {
        let label = if format == FORMAT_1 { "keyring" } else { "keyring v2" };
        format!("{label} {} {:?} {}", self.mount.to_hex(), self.purpose, self.generation).into_bytes()
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
    /// Names the master key; random, new with every master key.
    #[serde(default = "unnamed")]
    master: MountId,
    /// When the newest system KEK was made; unknown for those made before this was kept.
    #[serde(default)]
    installed: Option<Timestamp>,
    keys: Vec<WrappedKey>,
    /// A throw-away key wrapped with everything above as its context.
    #[serde(default)]
    proof: String,
}

const fn unnamed() -> MountId {
    MountId::SYSTEM
}

const TAMPERED: BarrierError = BarrierError::Tampered { what: "keyring" };
const UNFIT: BarrierError = BarrierError::Limit("keyring cannot be serialised");

impl KeyringRecord {
    /// A keyring without keys, of a new master key.
    pub(crate) fn empty(installed: Option<Timestamp>) -> Self {
        let (master, proof) = (MountId::random(), String::new());
        Self { format: FORMAT_2, epoch: 0, master, installed, keys: Vec::new(), proof }
    }

    /// The keyring as `snapshot` shows it; nothing is believed yet but what unwraps.
    pub(crate) async fn load(snapshot: &dyn Snapshot) -> Result<Self, BarrierError> {
        let bytes = BootRecord::Keyring.read(snapshot).await?.ok_or(BarrierError::NotInitialized)?;
        let record: Self = serde_json::from_slice(&bytes).map_err(|_| TAMPERED)?;
        if matches!(record.format, FORMAT_1 | FORMAT_2) { Ok(record) } else { Err(TAMPERED) }
    }

    /// Whether the master key vouches for the list as it is.
    pub(crate) async fn verify(&self, master: &dyn MasterKey) -> Result<(), BarrierError> {
        if self.format == FORMAT_1 {
            return Ok(());
        }
        let proof = hex::decode(&self.proof).map_err(|_| TAMPERED)?;
        master.unwrap(&self.digest()?, &proof).await.map(drop)
    }

    /// For whoever is about to change it: verified, and in the present format. `named` is the master key that
    /// `master` is; another one in the record means that this transaction is too late or too early.
    pub(crate) async fn load_to_change(
        snapshot: &dyn Snapshot,
        master: &dyn MasterKey,
        named: MountId,
    ) -> Result<Self, BarrierError> {
        let mut record = Self::load(snapshot).await?;
        if record.master != named {
            return Err(BarrierError::Conflict);
        }
        record.verify(master).await?;
        if record.format == FORMAT_1 {
            record.rewrap(master, master, named).await?;
        }
        Ok(record)
    }

    /// The record as it is stored, vouched for by `master`.
    pub(crate) async fn sealed_by(&mut self, master: &dyn MasterKey) -> Result<Vec<u8>, BarrierError> {
        self.epoch += 1;
        self.proof = hex::encode(master.wrap(&self.digest()?, &Key::generate()?).await?);
        serde_json::to_vec(self).map_err(|_| UNFIT)
    }

    /// JSON, so that no two lists give the same bytes.
    fn digest(&self) -> Result<Vec<u8>, BarrierError> {
        let all = (self.format, self.epoch, self.master, self.installed, &self.keys);
        let bytes = serde_json::to_vec(&all).map_err(|_| UNFIT)?;
        Ok([b"keyring as a whole ".as_slice(), &Sha256::digest(&bytes)].concat())
    }

    /// Adds `key`, wrapped.
    pub(crate) async fn add(
        &mut self,
        master: &dyn MasterKey,
        id: KeyId,
        key: &Key,
    ) -> Result<(), BarrierError> {
        let wrapped = hex::encode(master.wrap(&id.context(self.format), key).await?);
        self.keys.push(WrappedKey { id, wrapped });
        Ok(())
    }

    /// Wraps every key under `new`, which is named `named`. Gives back the keys.
    pub(crate) async fn rewrap(
        &mut self,
        old: &dyn MasterKey,
        new: &dyn MasterKey,
        named: MountId,
    ) -> Result<Vec<(KeyId, Key)>, BarrierError> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for id in self.ids() {
            keys.push((id, self.unwrap(old, id).await?));
        }
        self.format = FORMAT_2;
        self.master = named;
        self.keys.clear();
        for (id, key) in &keys {
            self.add(new, *id, key).await?;
        }
        Ok(keys)
    }

    /// Removes a mount's KEKs; tells whether there were any.
    pub(crate) fn remove_keks(&mut self, mount: MountId) -> bool {
        let before = self.keys.len();
        self.keys.retain(|k| k.id.mount != mount || k.id.purpose != Purpose::Kek);
        self.keys.len() != before
    }

    /// Removes all generations but the newest of each key.
    pub(crate) fn retire(&mut self) {
        let newest = self.newest_of_all();
        self.keys.retain(|key| newest.contains(&key.id));
    }

    /// All keys.
    pub(crate) fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(|k| k.id).collect()
    }

    /// The newest generation of each key.
    pub(crate) fn newest_of_all(&self) -> Vec<KeyId> {
        let mut newest: Vec<KeyId> = Vec::new();
        for id in self.ids() {
            match newest.iter_mut().find(|n| n.mount == id.mount && n.purpose == id.purpose) {
                Some(known) => *known = (*known).max(id),
                None => newest.push(id),
            }
        }
        newest
    }

    /// The newest generation of a key.
    pub(crate) fn newest(&self, mount: MountId, purpose: Purpose) -> Option<KeyId> {
        self.keys.iter().map(|k| k.id).filter(|id| id.mount == mount && id.purpose == purpose).max()
    }

    /// The generation of the newest system KEK.
    pub(crate) fn term(&self) -> Option<u32> {
        self.newest(MountId::SYSTEM, Purpose::Record).map(|id| id.generation)
    }

    /// Which master key it is wrapped by.
    pub(crate) const fn master(&self) -> MountId {
        self.master
    }

    /// When the newest system KEK was made.
    pub(crate) const fn installed(&self) -> Option<Timestamp> {
        self.installed
    }

    pub(crate) const fn set_installed(&mut self, at: Timestamp) {
        self.installed = Some(at);
    }

    /// The key `id`, unwrapped.
    pub(crate) async fn unwrap(&self, master: &dyn MasterKey, id: KeyId) -> Result<Key, BarrierError> {
        let stored = self.keys.iter().find(|k| k.id == id).ok_or(BarrierError::NoKey)?;
        let wrapped = hex::decode(&stored.wrapped).map_err(|_| TAMPERED)?;
        master.unwrap(&id.context(self.format), &wrapped).await
    }

    /// Whether the stored form of `id` is this one: tells one's own change from another's.
    pub(crate) fn has(&self, id: KeyId, wrapped: &str) -> bool {
        self.keys.iter().any(|k| k.id == id && k.wrapped == wrapped)
    }

    /// The stored form of `id`.
    pub(crate) fn wrapped(&self, id: KeyId) -> Option<&str> {
        self.keys.iter().find(|k| k.id == id).map(|k| k.wrapped.as_str())
    }
}
