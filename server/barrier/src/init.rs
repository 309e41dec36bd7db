//! Initialisation: keys, seal configuration and the vault's first rows, in one transaction.
//!
//! Either all of it is there or nothing: a vault whose keys nobody was given cannot come to be by a failing step.

use std::sync::Arc;

use coffer_core::shamir::{Share, Threshold};
use coffer_core::time::Timestamp;
use rand::CryptoRng;

use crate::barrier::{Barrier, pause};
use crate::boot::BootRecord;
use crate::envelope::Key;
use crate::error::BarrierError;
use crate::keyring::{KeyId, KeyringRecord, Purpose};
use crate::keys::Keys;
use crate::seal::Made;
use crate::store::Txn;
use crate::writer::Writer;

/// How often a commit that nobody answered for is looked after.
const ATTEMPTS_MAX: u32 = 24;

impl Barrier {
    /// Creates the master key and the keyring, and returns the shares. The barrier stays sealed.
    pub async fn initialize(
        &self,
        threshold: Threshold,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<Vec<Share>, BarrierError> {
        let first = |w: Writer| async move { Ok::<_, BarrierError>((w, ())) };
        self.initialize_with(threshold, rng, None, first).await.map(|(shares, ())| shares)
    }

    /// The same, with the first rows, which `first` writes; it may run more than once. What it gives back comes with
    /// the shares. `at` is what is remembered as the age of the keys.
    ///
    /// # Errors
    /// With [`BarrierError::OutcomeUnknown`], and only then, there may be a vault that nobody has shares of.
    pub async fn initialize_with<T, E, F, R>(
        &self,
        threshold: Threshold,
        rng: &mut (impl CryptoRng + Send),
        at: Option<Timestamp>,
        mut first: F,
    ) -> Result<(Vec<Share>, T), E>
    where
        F: FnMut(Writer) -> R,
        R: Future<Output = Result<(Writer, T), E>>,
        E: From<BarrierError>,
    {
        if self.initialized().await? {
            return Err(BarrierError::AlreadyInitialized.into());
        }
        let made = self.seal_port().create(threshold, rng).await?;
        let mut keyring = KeyringRecord::empty(at);
        for purpose in [Purpose::Derive, Purpose::Record] {
            keyring.add(&*made.master, KeyId::system(purpose, 1), &Key::generate()?).await?;
        }
        let stored = keyring.sealed_by(&*made.master).await?;
        let keys = Arc::new(Keys::open(Arc::clone(&made.master), &keyring).await?);
        let mut attempt = 0;
        let mut unknown = false;
        loop {
            match self.first_commit(&made, &stored, &keys, &mut first).await {
                Ok(value) => return Ok((made.shares, value)),
                // Whoever met us may have been our own earlier attempt, or somebody else who initialises.
                Err(Tried::Barrier(BarrierError::Conflict)) => {}
                Err(Tried::Barrier(BarrierError::OutcomeUnknown)) => unknown = true,
                // Whose it is is known: ours never applied, and cannot any more.
                Err(Tried::Barrier(error @ BarrierError::AlreadyInitialized)) => return Err(error.into()),
                // Once a commit is unanswered, giving up means not to know.
                Err(_) if unknown => {}
                Err(Tried::Barrier(known)) => return Err(known.into()),
                Err(Tried::First(error)) => return Err(error),
            }
            attempt += 1;
            if attempt == ATTEMPTS_MAX {
                let last = if unknown { BarrierError::OutcomeUnknown } else { BarrierError::Conflict };
                return Err(last.into());
            }
            pause(attempt).await;
        }
    }

    async fn first_commit<T, E, F, R>(
        &self,
        made: &Made,
        keyring: &[u8],
        keys: &Arc<Keys>,
        first: &mut F,
    ) -> Result<T, Tried<E>>
    where
        F: FnMut(Writer) -> R,
        R: Future<Output = Result<(Writer, T), E>>,
    {
        let mut txn = self.store().begin().await.map_err(|e| Tried::Barrier(e.into()))?;
        match claim(&mut *txn, made, keyring).await.map_err(Tried::Barrier)? {
            Claim::Done => {}
            Claim::Taken => return Err(Tried::Barrier(BarrierError::AlreadyInitialized)),
        }
        let writer = Writer::new(txn, Arc::clone(keys), keys.term(), None);
        let (writer, value) = first(writer).await.map_err(Tried::First)?;
        writer.commit().await.map_err(Tried::Barrier)?;
        Ok(value)
    }
}

enum Tried<E> {
    Barrier(BarrierError),
    First(E),
}

enum Claim {
    /// Nobody's; now ours, once this commits.
    Done,
    Taken,
}

/// Writes the boot records. Once ours are there they are written again, and the first rows after them, so that what
/// the caller is told about those is what is stored.
async fn claim(txn: &mut dyn Txn, made: &Made, keyring: &[u8]) -> Result<Claim, BarrierError> {
    let config = made.config.to_bytes();
    let ours = match BootRecord::SealConfig.read(&*txn).await? {
        None => false,
        Some(stored) if stored == config => true,
        Some(_) => return Ok(Claim::Taken),
    };
    for record in [BootRecord::MasterKey, BootRecord::Keyring] {
        if !ours && record.read(&*txn).await?.is_some() {
            return Ok(Claim::Taken);
        }
    }
    txn.put(&BootRecord::SealConfig.at(), config)?;
    txn.put(&BootRecord::MasterKey.at(), made.stored.clone())?;
    txn.put(&BootRecord::Keyring.at(), keyring.to_vec())?;
    Ok(Claim::Done)
}
