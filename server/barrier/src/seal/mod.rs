//! The seal port: what the master key is, who can open it, and how it wraps the keys below it.
//!
//! Never hands out the master key: with an HSM nobody ever has it. An implementation only makes, opens and changes
//! it, and wraps and unwraps with it. Everything here may be slow and may fail for a while: an HSM is elsewhere.

pub mod shamir;

use std::sync::Arc;

use async_trait::async_trait;
use coffer_core::shamir::{Share, Threshold};
use rand::CryptoRng;

use crate::boot::SealConfig;
use crate::envelope::Key;
use crate::error::BarrierError;

/// The master key, wherever it lives. Dropping the last reference wipes what of it is in memory.
#[async_trait]
pub trait MasterKey: Send + Sync {
    /// Wraps `key`. `context` says which key it is, and must be given again to unwrap it.
    ///
    /// # Errors
    /// [`BarrierError::SealUnavailable`] when whatever holds the key does not answer in its time.
    async fn wrap(&self, context: &[u8], key: &Key) -> Result<Vec<u8>, BarrierError>;
    /// Unwraps what [`MasterKey::wrap`] made.
    ///
    /// # Errors
    /// [`BarrierError::Tampered`] when key, context or a bit is another; [`BarrierError::SealUnavailable`] as above.
    async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Key, BarrierError>;
}

/// What making or changing a master key gives.
pub struct Made {
    /// The key, open.
    pub master: Arc<dyn MasterKey>,
    /// How it is sealed from now on. Public.
    pub config: SealConfig,
    /// What is stored so that it can be opened again: a wrapped key, or the name of a key in an HSM.
    pub stored: Vec<u8>,
    /// What people are given, once.
    pub shares: Vec<Share>,
}

/// A way to seal a vault.
#[async_trait]
pub trait Seal: Send + Sync + 'static {
    /// The word in `seal-status` and in the seal configuration.
    fn kind(&self) -> &'static str;

    /// Whether the vault opens without anybody giving a share.
    fn opens_alone(&self) -> bool;

    /// Makes a new master key and what opens it. Never touches the one in use.
    async fn create(
        &self,
        threshold: Threshold,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<Made, BarrierError>;

    /// Gives people new shares for the master key in use, which `shares` open.
    async fn resplit(
        &self,
        config: &SealConfig,
        stored: &[u8],
        shares: &[Share],
        threshold: Threshold,
        rng: &mut (dyn CryptoRng + Send),
    ) -> Result<Made, BarrierError>;

    /// Opens the master key. Where the seal opens alone, `shares` may be empty.
    ///
    /// # Errors
    /// [`BarrierError::WrongShares`] when these shares do not open it.
    async fn open(
        &self,
        config: &SealConfig,
        stored: &[u8],
        shares: &[Share],
    ) -> Result<Arc<dyn MasterKey>, BarrierError>;

    /// Whether `shares` are enough of those that people were given with `config`: what a ceremony (a new root
    /// token, new shares) asks for, also where the seal opens alone.
    ///
    /// # Errors
    /// [`BarrierError::WrongShares`] when they are not.
    async fn prove(&self, config: &SealConfig, stored: &[u8], shares: &[Share]) -> Result<(), BarrierError>;
}
