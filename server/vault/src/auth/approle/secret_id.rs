//! Secret ids as stored: a keyed hash for a name, and never the id itself.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_barrier::{Barrier, MountId, Read, RecordKind, RowKey, Writer};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::role;
use crate::cidr::Cidrs;
use crate::codec;
use crate::error::{Fail, bad};
use crate::mounts::Mount;
use crate::rows;

/// A secret id as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SecretId {
    pub(super) accessor: String,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) ttl: Duration,
    pub(super) expires: Option<Timestamp>,
    /// None: as often as wanted.
    pub(super) uses_left: Option<u64>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Where it may be used from.
    pub(super) cidrs: Cidrs,
    /// Where tokens granted for it may be used from; empty: as the role says.
    pub(super) token_cidrs: Cidrs,
}

/// Where the secret id of an accessor is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AccessorEntry {
    pub(super) hash: String,
}

/// In the order of expiry: which secret id is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ExpiringSecretId {
    pub(super) mount: MountId,
    pub(super) uid: String,
    pub(super) hash: String,
}

/// The directory that a role's accessors are linked in.
pub(super) fn accessor_dir(uid: &str) -> String {
    format!("accessor/{uid}")
}

/// The row of an accessor.
pub(super) fn accessor_key(mount: MountId, uid: &str, accessor: &str) -> RowKey {
    RowKey::path(mount, RecordKind::Entry, &format!("{}/{accessor}", accessor_dir(uid)))
}

impl SecretId {
    /// What the store knows a secret id of a role by.
    pub(super) fn hash(barrier: &Barrier, mount: &Mount, uid: &str, secret: &str) -> Result<String, Fail> {
        role::hash(barrier, "secret-id", mount, [uid, secret])
    }

    /// The row of a secret id.
    pub(super) fn key(mount: MountId, uid: &str, hash: &str) -> RowKey {
        RowKey::path(mount, RecordKind::Entry, &format!("secret-id/{uid}/{hash}"))
    }

    /// A secret id that is not over, or none.
    pub(super) async fn load(
        reader: &dyn Read,
        mount: &Mount,
        uid: &str,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, Fail> {
        let found = codec::get::<Self>(reader, &Self::key(mount.id, uid, hash)).await?;
        Ok(found.filter(|secret| secret.alive(now)))
    }

    /// Whether its time is not over.
    pub(super) fn alive(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    /// Within a transaction: stores a new one and everything it is found by.
    pub(super) async fn insert_in(
        &self,
        writer: &mut Writer,
        mount: &Mount,
        uid: &str,
        hash: &str,
    ) -> Result<(), Fail> {
        let key = Self::key(mount.id, uid, hash);
        if writer.exists(&key).await? {
            return Err(bad("failed to store secret_id: SecretID is already registered"));
        }
        codec::put(writer, &key, self).await?;
        let accessor = AccessorEntry { hash: hash.to_owned() };
        codec::put(writer, &accessor_key(mount.id, uid, &self.accessor), &accessor).await?;
        writer.link(mount.id, &format!("{}/{}", accessor_dir(uid), self.accessor)).await?;
        if let Some(expires) = self.expires {
            let due = ExpiringSecretId { mount: mount.id, uid: uid.to_owned(), hash: hash.to_owned() };
            codec::put(writer, &rows::secret_id_due(expires, hash), &due).await?;
        }
        Ok(())
    }

    /// Within a transaction: removes it and everything it is found by.
    pub(super) async fn remove_in(
        &self,
        writer: &mut Writer,
        mount: MountId,
        uid: &str,
        hash: &str,
    ) -> Result<(), Fail> {
        writer.delete(&Self::key(mount, uid, hash)).await?;
        writer.delete(&accessor_key(mount, uid, &self.accessor)).await?;
        writer.unlink(mount, &format!("{}/{}", accessor_dir(uid), self.accessor)).await?;
        if let Some(expires) = self.expires {
            writer.delete(&rows::secret_id_due(expires, hash)).await?;
        }
        Ok(())
    }

    /// Within a transaction: takes one use from it; the last one removes it. What is not counted is guarded.
    pub(super) async fn spend_in(
        &self,
        writer: &mut Writer,
        mount: MountId,
        uid: &str,
        hash: &str,
        now: Timestamp,
    ) -> Result<(), Fail> {
        let key = Self::key(mount, uid, hash);
        match self.uses_left {
            None => Ok(writer.guard(&key)?),
            Some(left) if left <= 1 => self.remove_in(writer, mount, uid, hash).await,
            Some(left) => {
                let rest = Self { uses_left: Some(left - 1), updated: now, ..self.clone() };
                codec::put(writer, &key, &rest).await
            }
        }
    }

    /// What a lookup shows.
    pub(super) fn show(&self) -> Value {
        /// What Go prints for a time that is not set.
        const NEVER: &str = "0001-01-01T00:00:00Z";
        json!({
            "cidr_list": self.cidrs.texts(),
            "creation_time": self.created.to_rfc3339(),
            "expiration_time": self.expires.map_or_else(|| NEVER.to_owned(), Timestamp::to_rfc3339),
            "last_updated_time": self.updated.to_rfc3339(),
            "metadata": self.metadata,
            "secret_id_accessor": self.accessor,
            "secret_id_num_uses": self.uses_left.unwrap_or(0),
            "secret_id_ttl": self.ttl.as_secs(),
            "token_bound_cidrs": self.token_cidrs.texts(),
        })
    }
}
