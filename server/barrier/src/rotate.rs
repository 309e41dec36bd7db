//! Rotation of the KEKs: a new generation for every mount and for the system, in one transaction.
//!
//! New rows are sealed under the new keys at once; old rows stay readable under theirs and are re-wrapped by
//! [`crate::rewrap`]. Never touches a row itself.

use std::sync::Arc;

use coffer_core::failpoint::{self, Step};
use coffer_core::time::Timestamp;

use crate::barrier::{ATTEMPTS_MAX, Barrier, pause};
use crate::error::BarrierError;
use crate::keyring::{KeyId, KeyringRecord};
use crate::log::ChangeEntry;
use crate::writer::Writer;

/// The change-log topic of a rotation; the subject is the new term.
const TOPIC: &str = "sys/rotate";

/// What `sys/key-status` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// The generation of the system KEK.
    pub term: u32,
    /// When it was made, if that was written down.
    pub installed: Option<Timestamp>,
    /// How many rows this process has sealed in this term.
    pub encryptions: u64,
}

impl Barrier {
    /// What there is to say about the present keys.
    pub async fn key_status(&self) -> Result<KeyStatus, BarrierError> {
        let (keys, _) = self.unsealed()?;
        let record = KeyringRecord::load(&*self.store().snapshot().await?).await?;
        Ok(KeyStatus {
            term: keys.term().generation,
            installed: record.installed(),
            encryptions: keys.sealed_rows(),
        })
    }

    /// Gives every mount and the system a new KEK; returns the new term. What is written in transactions that begin
    /// after this has returned is sealed under the new keys.
    pub async fn rotate(&self, at: Timestamp) -> Result<u32, BarrierError> {
        let _turn = self.turn.lock().await;
        for attempt in 0..ATTEMPTS_MAX {
            let mut writer = self.begin().await?;
            let made = writer.rotate(at).await?;
            let pending = writer.new_keks();
            match writer.commit().await {
                Ok(_) => {
                    failpoint::reach(Step::Rotated);
                    return Ok(made.0.generation);
                }
                Err(BarrierError::Conflict) => pause(attempt).await,
                Err(BarrierError::OutcomeUnknown) => {
                    let arrived = |record: &KeyringRecord| record.has(made.0, &made.1);
                    if self.find_out(arrived).await? {
                        // Without asking the store again: whoever failed here would go on under keys that are past.
                        self.unsealed()?.0.install(pending);
                        return Ok(made.0.generation);
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Err(BarrierError::Conflict)
    }

    /// After a change of the keyring that nobody answered for: whether it is there. If it is not, it can never
    /// arrive any more when this returns.
    pub(crate) async fn find_out(
        &self,
        arrived: impl Fn(&KeyringRecord) -> bool + Send + Sync,
    ) -> Result<bool, BarrierError> {
        for attempt in 0..ATTEMPTS_MAX {
            pause(attempt).await;
            let Ok(mut txn) = self.store().begin().await else { continue };
            let Ok(record) = KeyringRecord::load(&*txn).await else { continue };
            if arrived(&record) {
                return Ok(true);
            }
            // The row is written as it is: whatever is late meets it and conflicts.
            let at = crate::boot::BootRecord::Keyring;
            let Ok(Some(bytes)) = at.read(&*txn).await else { continue };
            txn.put(&at.at(), bytes)?;
            if txn.commit().await.is_ok() {
                return Ok(false);
            }
        }
        Err(BarrierError::OutcomeUnknown)
    }

    /// Takes the stored keyring's newest keys into use, if a rotation came that this process did not hear of.
    ///
    /// # Errors
    /// [`BarrierError::Unavailable`] when the master key is another one: only new shares open it.
    pub(crate) async fn catch_up(&self) -> Result<(), BarrierError> {
        let (keys, _) = self.unsealed()?;
        let record = KeyringRecord::load(&*self.store().snapshot().await?).await?;
        let term = keys.term();
        if record.master() != term.named {
            return Err(BarrierError::master_changed());
        }
        if record.term() <= Some(term.generation) {
            return Ok(());
        }
        record.verify(&*term.master).await?;
        let mut newest = Vec::new();
        for id in record.newest_of_all() {
            newest.push((id, Arc::new(record.unwrap(&*term.master, id).await?)));
        }
        keys.install(newest);
        Ok(())
    }
}

impl Writer {
    /// The keyring with a new generation of every KEK; gives back the system's, as it is stored.
    async fn rotate(&mut self, at: Timestamp) -> Result<(KeyId, String), BarrierError> {
        let mut record = self.keyring().await?;
        let master = self.master();
        let made = self.rotate_keks(&mut record, &*master, at).await?;
        self.put_keyring(record).await?;
        self.note(ChangeEntry::new(TOPIC, made.0.generation.to_string()));
        Ok(made)
    }
}
