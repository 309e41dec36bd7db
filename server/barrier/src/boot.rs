//! Boot records: the closed set of rows that are readable while sealed.
//!
//! They hold wrapped keys and counts, never a key in clear, a name or a secret.

use coffer_core::shamir::Threshold;
use serde::{Deserialize, Serialize};

use crate::error::BarrierError;
use crate::key::{MountId, mount_prefix};
use crate::store::Snapshot;

/// Format of the seal configuration.
pub(crate) const FORMAT: u8 = 1;

/// The boot records there are. The number is part of the storage key: never reuse one.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum BootRecord {
    /// A [`SealConfig`].
    SealConfig = 1,
    /// The master key, wrapped by the seal.
    MasterKey = 2,
    /// Every other key, each wrapped by the master key.
    Keyring = 3,
}

impl BootRecord {
    /// Where the record is stored.
    pub(crate) fn at(self) -> Vec<u8> {
        let mut key = mount_prefix(MountId::BOOT);
        key.push(self as u8);
        key
    }

    /// Reads the record.
    pub(crate) async fn read(self, snapshot: &dyn Snapshot) -> Result<Option<Vec<u8>>, BarrierError> {
        Ok(snapshot.get(&self.at()).await?)
    }
}

/// How the vault is sealed. Public: `seal-status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealConfig {
    format: u8,
    /// Which seal wraps the master key ("shamir").
    pub kind: String,
    /// How many shares there are, and how many it takes.
    pub threshold: Threshold,
    /// Random, new with every set of shares.
    pub nonce: MountId,
}

impl SealConfig {
    /// A configuration with a fresh nonce; for seals.
    #[must_use]
    pub fn new(kind: &str, threshold: Threshold) -> Self {
        Self { format: FORMAT, kind: kind.into(), threshold, nonce: MountId::random() }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BarrierError> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|_| BarrierError::Tampered { what: "seal configuration" })?;
        if config.format == FORMAT {
            Ok(config)
        } else {
            Err(BarrierError::Tampered { what: "seal configuration" })
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields serialise")
    }
}
