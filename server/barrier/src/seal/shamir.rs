//! The Shamir seal: shares give an unseal key, which unwraps the master key.
//!
//! The shares split the unseal key and not the master key, so that the master key can change under the same
//! shares and old shares open nothing new after a rekey. The unseal key is never stored and never kept.

use std::sync::Arc;

use async_trait::async_trait;
use coffer_core::secret::SecretBytes;
use coffer_core::shamir::{self, Share, Threshold};
use rand::CryptoRng;

use super::{Made, MasterKey, Seal};
use crate::boot::SealConfig;
use crate::envelope::{Key, unwrap_key, wrap_key};
use crate::error::BarrierError;

/// The seal's name in the configuration and in `seal-status`.
pub const KIND: &str = "shamir";

/// The seal of a vault that people open.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShamirSeal;

/// A master key held in memory.
struct InMemory(Key);

#[async_trait]
impl MasterKey for InMemory {
    async fn wrap(&self, context: &[u8], key: &Key) -> Result<Vec<u8>, BarrierError> {
        wrap_key(&self.0, context, key)
    }

    async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Key, BarrierError> {
        unwrap_key(&self.0, context, wrapped).ok_or(BarrierError::Tampered { what: "keyring" })
    }
}

#[async_trait]
impl Seal for ShamirSeal {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn opens_alone(&self) -> bool {
        false
    }

    async fn create(
        &self,
        threshold: Threshold,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<Made, BarrierError> {
        split(Key::generate()?, threshold, rng)
    }

    async fn resplit(
        &self,
        config: &SealConfig,
        stored: &[u8],
        shares: &[Share],
        threshold: Threshold,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<Made, BarrierError> {
        split(join(config, stored, shares)?, threshold, rng)
    }

    async fn open(
        &self,
        config: &SealConfig,
        stored: &[u8],
        shares: &[Share],
    ) -> Result<Arc<dyn MasterKey>, BarrierError> {
        Ok(Arc::new(InMemory(join(config, stored, shares)?)))
    }

    async fn prove(&self, config: &SealConfig, stored: &[u8], shares: &[Share]) -> Result<(), BarrierError> {
        join(config, stored, shares).map(drop)
    }
}

/// Wraps `master` under a fresh unseal key and splits that.
fn split(
    master: Key,
    threshold: Threshold,
    mut rng: &mut (dyn CryptoRng + Send),
) -> Result<Made, BarrierError> {
    let config = SealConfig::new(KIND, threshold);
    let unseal = Key::generate()?;
    let stored = wrap_key(&unseal, &context(&config), &master)?;
    let secret = SecretBytes::copy_of(unseal.expose());
    let shares = shamir::split(&secret, threshold, &mut rng)?;
    Ok(Made { master: Arc::new(InMemory(master)), config, stored, shares })
}

/// The master key that `shares` open. Combining the wrong shares gives just another key, so only the unwrapping
/// tells whether they were right.
fn join(config: &SealConfig, stored: &[u8], shares: &[Share]) -> Result<Key, BarrierError> {
    if shares.len() < usize::from(config.threshold.needed()) {
        return Err(BarrierError::WrongShares);
    }
    let secret = shamir::combine(shares, config.threshold)?;
    let unseal = Key::from_slice(secret.expose()).ok_or(BarrierError::WrongShares)?;
    unwrap_key(&unseal, &context(config), stored).ok_or(BarrierError::WrongShares)
}

/// Binds the wrapped master key to its configuration: changed counts do not open.
fn context(config: &SealConfig) -> Vec<u8> {
    [b"master key ".as_slice(), &config.to_bytes()].concat()
}
