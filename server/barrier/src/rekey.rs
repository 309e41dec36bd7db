//! Rekey: new shares, and by default a new master key and new KEKs with them.
//!
//! One transaction replaces the seal configuration, the sealed master key and the whole keyring, so there is no
//! moment at which two sets of shares count. Whoever has an old copy of the store and enough old shares has the old
//! KEKs; that is why new shares alone would not be enough, and why every KEK gets a new generation here.

use std::sync::Arc;
use std::time::Duration;

use coffer_core::failpoint::{self, Step};
use coffer_core::shamir::{Share, Threshold};
use coffer_core::time::Timestamp;
use rand::CryptoRng;

use crate::barrier::{ATTEMPTS_MAX, Barrier, pause};
use crate::boot::{BootRecord, SealConfig};
use crate::error::BarrierError;
use crate::key::MountId;
use crate::log::ChangeEntry;
use crate::seal::Made;

/// How long a rekey waits for transactions that began before it. Those take milliseconds; one that does not end keeps
/// its right to finish under the keys it began with.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// What changes besides the shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewMaster {
    /// The master key and every KEK: old shares open nothing written afterwards.
    Yes,
    /// Nothing: old shares with an old copy of the store go on opening what is written.
    No,
}

/// New shares that do not count yet.
pub struct NewKeys {
    made: Made,
    change: NewMaster,
    /// The configuration of the shares that allowed it: another one means that somebody else was first.
    from: MountId,
    /// The new master key's name.
    named: MountId,
}

impl NewKeys {
    /// The new shares.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        &self.made.shares
    }

    /// How many there are and how many it takes.
    #[must_use]
    pub const fn threshold(&self) -> Threshold {
        self.made.config.threshold
    }
}

/// How a rekey ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rekeyed {
    /// The new shares count, the old ones do not.
    Done,
    /// The store does not say which of the two count. Both must be kept until it does.
    Unknown,
}

impl Barrier {
    /// Makes new shares for whoever brings enough of the present ones. Nothing is stored yet.
    pub async fn prepare_rekey(
        &self,
        shares: &[Share],
        threshold: Threshold,
        change: NewMaster,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<NewKeys, BarrierError> {
        self.unsealed()?;
        let snapshot = self.store().snapshot().await?;
        let (config, stored) = self.sealed_master(&*snapshot).await?;
        let seal = self.seal_port();
        let made = match change {
            NewMaster::Yes => {
                seal.prove(&config, &stored, shares).await?;
                seal.create(threshold, rng).await?
            }
            NewMaster::No => seal.resplit(&config, &stored, shares, threshold, rng).await?,
        };
        Ok(NewKeys { made, change, from: config.nonce, named: MountId::random() })
    }

    /// Whether `shares` are enough of the new ones.
    ///
    /// # Errors
    /// [`BarrierError::WrongShares`] when they are not.
    pub async fn verify_rekey(&self, new: &NewKeys, shares: &[Share]) -> Result<(), BarrierError> {
        self.seal_port().prove(&new.made.config, &new.made.stored, shares).await
    }

    /// Makes the new shares count. Returns when nothing is written any more under keys from before, or after five
    /// seconds.
    ///
    /// # Errors
    /// [`BarrierError::WrongShares`] when the shares that allowed it do not count any more.
    pub async fn rekey(&self, new: &NewKeys, at: Timestamp) -> Result<Rekeyed, BarrierError> {
        let _turn = self.turn.lock().await;
        for attempt in 0..ATTEMPTS_MAX {
            match self.try_rekey(new, at).await {
                Ok(()) => {
                    let (keys, _) = self.unsealed()?;
                    if tokio::time::timeout(SETTLE_MAX, keys.settle()).await.is_err() {
                        tracing::warn!("rekey: a transaction from before has not ended yet");
                    }
                    return Ok(Rekeyed::Done);
                }
                Err(BarrierError::Conflict) => pause(attempt).await,
                Err(BarrierError::OutcomeUnknown) => return Ok(Rekeyed::Unknown),
                Err(other) => return Err(other),
            }
        }
        Err(BarrierError::Conflict)
    }

    async fn try_rekey(&self, new: &NewKeys, at: Timestamp) -> Result<(), BarrierError> {
        let mut w = self.begin().await?;
        let config = BootRecord::SealConfig.read(w.snapshot()).await?.ok_or(BarrierError::NotInitialized)?;
        if SealConfig::parse(&config)?.nonce != new.from {
            return Err(BarrierError::WrongShares);
        }
        let mut record = w.keyring().await?;
        let old = w.master();
        let master = Arc::clone(&new.made.master);
        let (held, _) = self.unsealed()?;
        if new.change == NewMaster::Yes {
            // Held from here on, and before the commit: nobody has to load what is wrapped under another master key.
            held.hold_all(record.rewrap(&*old, &*master, new.named).await?);
            w.rotate_keks(&mut record, &*master, at).await?;
        }
        w.put_at(BootRecord::SealConfig.at(), new.made.config.to_bytes())?;
        w.put_at(BootRecord::MasterKey.at(), new.made.stored.clone())?;
        w.put_at(BootRecord::Keyring.at(), record.sealed_by(&*master).await?)?;
        w.note(ChangeEntry::new("sys/rekey", ""));
        let pending = w.new_keks();
        match w.commit().await {
            Ok(_) => {}
            Err(BarrierError::OutcomeUnknown) => {
                if !self.config_is(&new.made.config).await? {
                    return Err(BarrierError::Conflict);
                }
                held.install(pending);
            }
            Err(other) => return Err(other),
        }
        failpoint::reach(Step::Rekeyed);
        if new.change == NewMaster::Yes {
            held.replace_master(master, new.named);
        }
        Ok(())
    }

    /// After an unanswered commit: whether the new configuration is there. If not, it never will be.
    async fn config_is(&self, config: &SealConfig) -> Result<bool, BarrierError> {
        let wanted = config.to_bytes();
        for attempt in 0..ATTEMPTS_MAX {
            pause(attempt).await;
            let Ok(mut txn) = self.store().begin().await else { continue };
            let row = BootRecord::SealConfig;
            let Ok(Some(bytes)) = row.read(&*txn).await else { continue };
            if bytes == wanted {
                return Ok(true);
            }
            // Written as it is: whatever is late meets it and conflicts.
            txn.put(&row.at(), bytes)?;
            if txn.commit().await.is_ok() {
                return Ok(false);
            }
        }
        Err(BarrierError::OutcomeUnknown)
    }
}
