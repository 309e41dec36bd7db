//! The seal port with another implementation behind it: an HSM whose key never leaves it, that is slow, and that is
//! sometimes away. What holds here without a change to a caller will hold for PKCS#11.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use coffer_barrier::seal::shamir::ShamirSeal;
use coffer_barrier::seal::{Made, MasterKey, Seal};
use coffer_barrier::{
    Barrier, BarrierError, Key, MountId, NewMaster, Read, RecordKind, Rekeyed, RewrapStep, RowKey, SealConfig,
};
use coffer_core::secret::SecretBytes;
use coffer_core::shamir::{Share, Threshold};
use coffer_core::time::Timestamp;
use coffer_storage::memory::MemoryStore;
use rand::CryptoRng;

/// One key in the device, and the recovery shares that people have for it.
struct Slot {
    master: Arc<dyn MasterKey>,
    config: SealConfig,
    stored: Vec<u8>,
}

/// What everybody who talks to the HSM shares: it is a device, not an object.
#[derive(Default)]
struct Device {
    slots: Mutex<BTreeMap<Vec<u8>, Arc<Slot>>>,
    away: AtomicBool,
}

impl Device {
    async fn slot(&self, name: &[u8]) -> Result<Arc<Slot>, BarrierError> {
        tokio::task::yield_now().await;
        if self.away.load(Ordering::SeqCst) {
            return Err(BarrierError::SealUnavailable("no answer from the HSM in time"));
        }
        self.slots.lock().unwrap().get(name).cloned().ok_or(BarrierError::SealUnavailable("no such key"))
    }
}

/// A key that stays where it is: only its name is here.
struct InDevice(Arc<Device>, Vec<u8>);

#[async_trait]
impl MasterKey for InDevice {
    async fn wrap(&self, context: &[u8], key: &Key) -> Result<Vec<u8>, BarrierError> {
        self.0.slot(&self.1).await?.master.wrap(context, key).await
    }

    async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Key, BarrierError> {
        self.0.slot(&self.1).await?.master.unwrap(context, wrapped).await
    }
}

/// Opens alone. What people hold allows ceremonies only.
#[derive(Clone, Default)]
struct Hsm(Arc<Device>);

impl Hsm {
    /// Puts a key into the device. All that is stored in the vault is its name.
    fn keep(&self, made: Made) -> Made {
        let name = MountId::random().as_bytes().to_vec();
        let config = SealConfig::new(self.kind(), made.config.threshold);
        let slot = Slot { master: made.master, config: made.config, stored: made.stored };
        self.0.slots.lock().unwrap().insert(name.clone(), Arc::new(slot));
        let master = Arc::new(InDevice(Arc::clone(&self.0), name.clone()));
        Made { master, config, stored: name, shares: made.shares }
    }
}

#[async_trait]
impl Seal for Hsm {
    fn kind(&self) -> &'static str {
        "pkcs11"
    }

    fn opens_alone(&self) -> bool {
        true
    }

    async fn create(&self, t: Threshold, rng: &mut (dyn CryptoRng + Send)) -> Result<Made, BarrierError> {
        Ok(self.keep(ShamirSeal.create(t, rng).await?))
    }

    async fn resplit(
        &self,
        _: &SealConfig,
        stored: &[u8],
        shares: &[Share],
        threshold: Threshold,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<Made, BarrierError> {
        let slot = self.0.slot(stored).await?;
        Ok(self.keep(ShamirSeal.resplit(&slot.config, &slot.stored, shares, threshold, rng).await?))
    }

    async fn open(
        &self,
        _: &SealConfig,
        stored: &[u8],
        _: &[Share],
    ) -> Result<Arc<dyn MasterKey>, BarrierError> {
        self.0.slot(stored).await?;
        Ok(Arc::new(InDevice(Arc::clone(&self.0), stored.to_vec())))
    }

    async fn prove(&self, _: &SealConfig, stored: &[u8], shares: &[Share]) -> Result<(), BarrierError> {
        let slot = self.0.slot(stored).await?;
        ShamirSeal.prove(&slot.config, &slot.stored, shares).await
    }
}

fn threshold() -> Threshold {
    Threshold::new(3, 2).unwrap()
}

fn at() -> Timestamp {
    Timestamp::from_secs(1)
}

fn row(mount: MountId) -> RowKey {
    RowKey::path(mount, RecordKind::Version, "a").version(1)
}

async fn mount_with_secret(barrier: &Barrier) -> MountId {
    let mount = MountId::random();
    let mut w = barrier.begin().await.unwrap();
    barrier.create_kek(&mut w, mount).await.unwrap();
    w.put_secret(&row(mount), &SecretBytes::copy_of(b"value")).await.unwrap();
    w.commit().await.unwrap();
    mount
}

async fn reads(barrier: &Barrier, mount: MountId) -> Result<bool, BarrierError> {
    let reader = barrier.reader().await?;
    Ok(reader.get(&row(mount)).await?.unwrap().expose() == b"value")
}

#[tokio::test]
async fn a_seal_whose_key_nobody_has_does_everything_that_shamir_does() {
    let (store, hsm) = (MemoryStore::new(), Hsm::default());
    let over = |store: &MemoryStore| Barrier::with_seal(Arc::new(store.clone()), Arc::new(hsm.clone()));
    let barrier = over(&store);
    let mut rng = common::rng();
    let shares = barrier.initialize(threshold(), &mut rng).await.unwrap();
    assert!(barrier.opens_alone());
    barrier.unseal(&[]).await.unwrap();
    let mount = mount_with_secret(&barrier).await;
    barrier.rotate(at()).await.unwrap();
    while barrier.rewrap().await.unwrap() != RewrapStep::Idle {}
    assert!(barrier.rewrap_status().await.unwrap().retired);
    assert!(matches!(barrier.prove(&shares[..1]).await, Err(BarrierError::WrongShares)));
    for change in [NewMaster::Yes, NewMaster::No] {
        let few = barrier.prepare_rekey(&shares[..1], threshold(), change, &mut rng).await;
        assert!(matches!(few.map(drop), Err(BarrierError::WrongShares)));
    }
    let new = barrier.prepare_rekey(&shares[..2], threshold(), NewMaster::Yes, &mut rng).await.unwrap();
    barrier.verify_rekey(&new, &new.shares()[1..]).await.unwrap();
    assert_eq!(barrier.rekey(&new, at()).await.unwrap(), Rekeyed::Done);
    assert!(barrier.prove(&shares[..2]).await.is_err());
    barrier.prove(&new.shares()[..2]).await.unwrap();
    let split =
        barrier.prepare_rekey(&new.shares()[..2], threshold(), NewMaster::No, &mut rng).await.unwrap();
    assert_eq!(barrier.rekey(&split, at()).await.unwrap(), Rekeyed::Done);
    assert!(reads(&barrier, mount).await.unwrap());
    let second = over(&store);
    second.unseal(&[]).await.unwrap();
    assert!(reads(&second, mount).await.unwrap());
    // Shamir's process does not try its luck on it.
    let other = Barrier::new(Arc::new(store));
    assert!(matches!(other.unseal(split.shares()).await, Err(BarrierError::SealMismatch)));
}

#[tokio::test]
async fn while_the_hsm_is_away_held_keys_serve_and_nothing_half_done_stays() {
    let (store, hsm) = (MemoryStore::new(), Hsm::default());
    let barrier = Barrier::with_seal(Arc::new(store.clone()), Arc::new(hsm.clone()));
    let shares = barrier.initialize(threshold(), &mut common::rng()).await.unwrap();
    barrier.unseal(&[]).await.unwrap();
    let mount = mount_with_secret(&barrier).await;
    hsm.0.away.store(true, Ordering::SeqCst);
    let away = |e: BarrierError| assert!(matches!(e, BarrierError::SealUnavailable(_)), "{e}");
    assert!(reads(&barrier, mount).await.unwrap());
    away(barrier.rotate(at()).await.unwrap_err());
    away(barrier.prove(&shares[..2]).await.unwrap_err());
    let mut w = barrier.begin().await.unwrap();
    away(barrier.create_kek(&mut w, MountId::random()).await.unwrap_err());
    let second = Barrier::with_seal(Arc::new(store), Arc::new(hsm.clone()));
    away(second.unseal(&[]).await.unwrap_err());
    assert!(second.sealed());
    hsm.0.away.store(false, Ordering::SeqCst);
    assert_eq!(barrier.rotate(at()).await.unwrap(), 2);
    second.unseal(&[]).await.unwrap();
    assert!(reads(&second, mount).await.unwrap());
}
