//! The barrier itself: initialised or not, sealed or not, and the way to readers and writers.
//!
//! Never decides who may do what. Sealing drops the keys; operations that already hold them fail at their next step.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use coffer_core::failpoint::{self, Step};
use coffer_core::secret::SecretBytes;
use coffer_core::shamir::Share;
use coffer_core::token::HmacKey;

use crate::boot::{BootRecord, SealConfig};
use crate::envelope::{self, Needs};
use crate::error::BarrierError;
use crate::key::MountId;
use crate::keyring::{KeyId, KeyringRecord, Purpose};
use crate::keys::Keys;
use crate::read::Reader;
use crate::seal::Seal;
use crate::seal::shamir::ShamirSeal;
use crate::store::{Snapshot, Store};
use crate::stream::{self, Stream};
use crate::writer::{CommitInfo, Writer};

/// How often [`Barrier::transact`] runs an operation again after a conflict.
pub const ATTEMPTS_MAX: u32 = 24;
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(64);

struct Unsealed {
    keys: Arc<Keys>,
    stream: Arc<Stream>,
}

/// The one way to stored data. Shared as `Arc<Barrier>`.
pub struct Barrier {
    store: Arc<dyn Store>,
    seal: Arc<dyn Seal>,
    state: RwLock<Option<Unsealed>>,
    /// One change of the master key or of all KEKs at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Barrier {
    /// A sealed barrier over `store`, opened by shares.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_seal(store, Arc::new(ShamirSeal))
    }

    /// A sealed barrier over `store`, opened as `seal` says.
    pub fn with_seal(store: Arc<dyn Store>, seal: Arc<dyn Seal>) -> Self {
        Self { store, seal, state: RwLock::new(None), turn: tokio::sync::Mutex::default() }
    }

    /// Whether [`Barrier::unseal`] needs no shares.
    pub fn opens_alone(&self) -> bool {
        self.seal.opens_alone()
    }

    /// Which kind of seal this process is configured for.
    pub fn seal_kind(&self) -> &'static str {
        self.seal.kind()
    }

    /// Whether there are keys.
    pub async fn initialized(&self) -> Result<bool, BarrierError> {
        Ok(self.seal_config().await?.is_some())
    }

    /// How the vault is sealed; `None` before it is initialised. Readable while sealed.
    pub async fn seal_config(&self) -> Result<Option<SealConfig>, BarrierError> {
        let snapshot = self.store.snapshot().await?;
        let stored = BootRecord::SealConfig.read(&*snapshot).await?;
        stored.map(|bytes| SealConfig::parse(&bytes)).transpose()
    }

    /// Unseals with `shares`. Whether they are the right ones shows by decrypting: else [`BarrierError::WrongShares`].
    pub async fn unseal(&self, shares: &[Share]) -> Result<(), BarrierError> {
        let snapshot = self.store.snapshot().await?;
        let (config, stored) = self.sealed_master(&*snapshot).await?;
        let master = self.seal.open(&config, &stored, shares).await?;
        let record = KeyringRecord::load(&*snapshot).await?;
        let keys = Arc::new(Keys::open(master, &record).await?);
        let stream = Stream::new(Arc::clone(&self.store));
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.is_none() {
            *state = Some(Unsealed { keys, stream });
        }
        Ok(())
    }

    /// The seal configuration and the master key as it is stored.
    pub(crate) async fn sealed_master(
        &self,
        snapshot: &dyn Snapshot,
    ) -> Result<(SealConfig, Vec<u8>), BarrierError> {
        let config = BootRecord::SealConfig.read(snapshot).await?.ok_or(BarrierError::NotInitialized)?;
        let config = SealConfig::parse(&config)?;
        if config.kind != self.seal.kind() {
            return Err(BarrierError::SealMismatch);
        }
        let stored = BootRecord::MasterKey.read(snapshot).await?.ok_or(BarrierError::NotInitialized)?;
        Ok((config, stored))
    }

    /// Whether `shares` are enough of those that people hold: what a ceremony asks for.
    ///
    /// # Errors
    /// [`BarrierError::WrongShares`] when they are not.
    pub async fn prove(&self, shares: &[Share]) -> Result<(), BarrierError> {
        self.unsealed()?;
        let snapshot = self.store.snapshot().await?;
        let (config, stored) = self.sealed_master(&*snapshot).await?;
        self.seal.prove(&config, &stored, shares).await
    }

    /// Drops the keys. Readers and writers at work fail at their next step; the last of them wipes the memory.
    pub fn seal(&self) {
        let state = self.state.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(unsealed) = state {
            unsealed.keys.mark_sealed();
        }
    }

    /// Whether the keys are absent.
    pub fn sealed(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// A snapshot that sees everything committed before this call.
    pub async fn reader(&self) -> Result<Reader, BarrierError> {
        let (keys, _) = self.unsealed()?;
        Ok(Reader { snapshot: self.store.snapshot().await?, keys })
    }

    /// A transaction.
    pub async fn begin(&self) -> Result<Writer, BarrierError> {
        let (keys, stream) = self.unsealed()?;
        // Before the snapshot is taken: see `Keys::settle`.
        let term = keys.term();
        let txn = self.store.begin().await?;
        failpoint::reach(Step::Begun);
        Ok(Writer::new(txn, keys, term, Some(stream)))
    }

    /// Runs `operation` in a transaction and commits it. On a conflict the whole operation runs again, up to
    /// [`ATTEMPTS_MAX`] times with growing random pauses, so it must have no other side effects. An unknown outcome is
    /// returned: only the caller knows how to find out.
    ///
    /// The operation takes the writer by value and gives it back with its result; an error drops it, and with it
    /// everything written: `barrier.transact(|mut w| async move { ...; Ok::<_, BarrierError>((w, value)) })`.
    pub async fn transact<T, E, F, R>(&self, mut operation: F) -> Result<(T, CommitInfo), E>
    where
        F: FnMut(Writer) -> R,
        R: Future<Output = Result<(Writer, T), E>>,
        E: From<BarrierError>,
    {
        let mut attempt = 0;
        loop {
            let (writer, value) = operation(self.begin().await?).await?;
            match writer.commit().await {
                Ok(info) => return Ok((value, info)),
                Err(BarrierError::Conflict) if attempt + 1 < ATTEMPTS_MAX => {
                    pause(attempt).await;
                    attempt += 1;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Seals `plain` for one purpose, to be carried by somebody outside: under a key of its own derived from the system
    /// KEK, with the purpose as associated data. No row of the store opens as such, nor the other way round.
    pub fn seal_for(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, BarrierError> {
        let (keys, _) = self.unsealed()?;
        keys.check()?;
        keys.term().seal(&outside(purpose), plain)
    }

    /// Opens what [`Self::seal_for`] made for this purpose; `None` for anything else, also when it was sealed under a key
    /// that is retired by now.
    pub async fn open_from(&self, purpose: &str, sealed: &[u8]) -> Result<Option<SecretBytes>, BarrierError> {
        let (keys, _) = self.unsealed()?;
        let Ok(Needs::System(generation)) = envelope::needs(sealed) else { return Ok(None) };
        // What comes from outside says which key it wants: it must not make anybody read the keyring for nothing.
        let found = match keys.system_kek(generation) {
            Ok(Some(kek)) => Ok(kek),
            Ok(None) => {
                let id = KeyId::system(Purpose::Record, generation);
                keys.find(&*self.store.snapshot().await?, id).await
            }
            Err(other) => Err(other),
        };
        match found {
            Ok(kek) => Ok(envelope::open_system(&kek, &outside(purpose), sealed).ok()),
            Err(BarrierError::NoKey) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// An HMAC key for one purpose ("token", "audit"), the same at every unseal.
    pub fn hmac_key(&self, purpose: &str) -> Result<HmacKey, BarrierError> {
        Ok(self.unsealed()?.0.hmac_key(purpose))
    }

    /// Gives `mount` a new KEK, usable within `w` and, once `w` has committed, by everybody.
    pub async fn create_kek(&self, w: &mut Writer, mount: MountId) -> Result<(), BarrierError> {
        w.create_kek(mount).await
    }

    /// Removes `mount`'s KEKs: its secrets can never be opened again.
    pub async fn drop_kek(&self, w: &mut Writer, mount: MountId) -> Result<(), BarrierError> {
        w.drop_kek(mount).await
    }

    /// The change-log stream this process writes to since its last unseal.
    pub fn stream(&self) -> Result<MountId, BarrierError> {
        Ok(self.unsealed()?.1.id())
    }

    /// Publishes up to where this process's change-log stream is resolved. To be called every now and then
    /// (100 ms); how late only decides how much readers read twice.
    pub async fn publish_log(&self) -> Result<(), BarrierError> {
        let (keys, stream) = self.unsealed()?;
        stream.publish(&keys).await?;
        Ok(())
    }

    /// Closes every other stream. Only for whoever knows that no other process uses the store (the embedded store's
    /// lock proves it).
    pub async fn close_other_streams(&self) -> Result<(), BarrierError> {
        let (keys, own) = self.unsealed()?;
        let reader = Reader { snapshot: self.store.snapshot().await?, keys: Arc::clone(&keys) };
        for (id, row) in crate::log::streams(&reader).await? {
            if id != own.id() && !row.closed {
                stream::close(&*self.store, &keys, id).await?;
            }
        }
        Ok(())
    }

    /// Deletes all but the newest `keep` resolved change-log rows of each stream, and all closed streams but the
    /// newest `keep_closed`. Readers behind that see a gap. Returns how many rows went.
    pub async fn trim_log(&self, keep: u64, keep_closed: usize) -> Result<usize, BarrierError> {
        let (keys, _) = self.unsealed()?;
        stream::trim(&*self.store, &keys, keep, keep_closed).await
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn seal_port(&self) -> &Arc<dyn Seal> {
        &self.seal
    }

    pub(crate) fn unsealed(&self) -> Result<(Arc<Keys>, Arc<Stream>), BarrierError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let unsealed = state.as_ref().ok_or(BarrierError::Sealed)?;
        Ok((Arc::clone(&unsealed.keys), Arc::clone(&unsealed.stream)))
    }
}

/// The "place" of what is not in the store. Storage keys begin with another byte.
fn outside(purpose: &str) -> Vec<u8> {
    [b"outside ".as_slice(), purpose.as_bytes()].concat()
}

/// Waits a little, longer with each attempt, by a random share so that two who met do not meet again.
pub(crate) async fn pause(attempt: u32) {
    let ceiling = Duration::from_millis(1 << attempt.min(6)).min(PAUSE_MAX);
    let share: f64 = rand::random();
    tokio::time::sleep(ceiling.mul_f64(share)).await;
}
