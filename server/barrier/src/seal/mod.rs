//! Seals: what the master key is, and how it wraps the keys below it.
//!
//! A seal never hands out the master key; with an HSM nobody ever has it. It only wraps and unwraps.

pub mod shamir;

use async_trait::async_trait;

use crate::envelope::Key;
use crate::error::BarrierError;

/// The master key, wherever it lives.
#[async_trait]
pub trait Seal: Send + Sync {
    /// Wraps `key`. `context` says which key it is, and must be given again to unwrap it.
    async fn wrap(&self, context: &[u8], key: &Key) -> Result<Vec<u8>, BarrierError>;
    /// Unwraps what [`Seal::wrap`] made.
    async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Key, BarrierError>;
}
