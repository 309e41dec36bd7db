//! The Shamir seal: shares give an unseal key, which unwraps the master key.
//!
//! The shares split the unseal key and not the master key, so that the master key can change under the same
//! shares and old shares open nothing new after a rekey. The unseal key is never stored and never kept.

use async_trait::async_trait;
use coffer_core::shamir::{self, Share};
use rand::CryptoRng;

use super::Seal;
use crate::boot::SealConfig;
use crate::envelope::{Key, unwrap_key, wrap_key};
use crate::error::BarrierError;

/// A master key held in memory.
pub struct MasterKey(Key);

impl MasterKey {
    /// A new master key, its wrapped form, and the shares that open it.
    pub(crate) fn create(
        config: &SealConfig,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>, Vec<Share>), BarrierError> {
        let (unseal, master) = (Key::generate()?, Key::generate()?);
        let wrapped = wrap_key(&unseal, &context(config), &master)?;
        let secret = coffer_core::secret::SecretBytes::copy_of(unseal.expose());
        let shares = shamir::split(&secret, config.threshold, rng)?;
        Ok((Self(master), wrapped, shares))
    }

    /// The master key that `shares` open. Combining the wrong shares gives just another key, so only the
    /// unwrapping tells whether they were right.
    pub(crate) fn open(config: &SealConfig, wrapped: &[u8], shares: &[Share]) -> Result<Self, BarrierError> {
        if shares.len() < usize::from(config.threshold.needed()) {
            return Err(BarrierError::WrongShares);
        }
        let secret = shamir::combine(shares, config.threshold)?;
        let unseal = Key::from_slice(secret.expose()).ok_or(BarrierError::WrongShares)?;
        unwrap_key(&unseal, &context(config), wrapped).map(Self).ok_or(BarrierError::WrongShares)
    }
}

#[async_trait]
impl Seal for MasterKey {
    async fn wrap(&self, context: &[u8], key: &Key) -> Result<Vec<u8>, BarrierError> {
        wrap_key(&self.0, context, key)
    }

    async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Key, BarrierError> {
        unwrap_key(&self.0, context, wrapped).ok_or(BarrierError::Tampered { what: "keyring entry" })
    }
}

/// Binds the wrapped master key to its configuration: changed counts do not open.
fn context(config: &SealConfig) -> Vec<u8> {
    [b"master key ".as_slice(), &config.to_bytes()].concat()
}
