//! Mounts: which engine or auth method answers for which path. Each has its own id, and so its own rows and its
//! own key.
//!
//! Only the table. What a mount does is the engine's or the auth method's.

mod ops;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_engines::kv::PLAIN_KIND;
use serde::{Deserialize, Serialize};

pub(crate) use ops::{blank, handle, preflight, revoke_issued};

use crate::auth::lockout::LockoutConfig;
use crate::codec;
use crate::error::{Fail, bad};
use crate::rows;
use crate::swap::Swap;

/// The most mounts of both classes together.
pub(crate) const MOUNTS_MAX: usize = 1000;

/// Which of the two name spaces a mount is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// `auth/<path>`.
    Auth,
    /// `<path>`.
    Secret,
}

/// A mount as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) id: MountId,
    pub(crate) class: Class,
    /// Without slash at the end, and without `auth/`.
    pub(crate) path: String,
    /// `kv`, `database`, `kubernetes` ...
    pub(crate) kind: String,
    pub(crate) description: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) accessor: String,
    pub(crate) created: Timestamp,
    /// Zero: the system's.
    pub(crate) default_ttl: Duration,
    /// Zero: the system's.
    pub(crate) max_ttl: Duration,
    /// What every token issued here is limited to.
    pub(crate) boundary: Option<PolicyName>,
    /// Of an auth mount: what locks a name out. None: as Vault does unless told otherwise.
    #[serde(default)]
    pub(crate) lockout: Option<LockoutConfig>,
    /// Being removed: it answers nothing any more, but what it issued is still to be taken back.
    pub(crate) tainted: bool,
    /// On its way from one version of its engine to the next: it answers nothing until that is done.
    #[serde(default)]
    pub(crate) upgrading: bool,
}

impl Mount {
    /// The path with `auth/` where it belongs, and a slash at the end: as leases and clients see it.
    pub(crate) fn full_path(&self) -> String {
        match self.class {
            Class::Auth => format!("auth/{}/", self.path),
            Class::Secret => format!("{}/", self.path),
        }
    }

    /// Which engine serves it: the same type has one for each of its versions.
    pub(crate) fn engine_kind(&self) -> &str {
        match self.kind.as_str() {
            "kv" if !self.versioned() => PLAIN_KIND,
            "generic" => PLAIN_KIND,
            kind => kind,
        }
    }

    /// Whether it is a key-value mount of version 2.
    pub(crate) fn versioned(&self) -> bool {
        self.kind == "kv" && self.options.get("version").is_some_and(|version| version == "2")
    }

    /// Fails while the mount is being upgraded.
    pub(crate) fn check_ready(&self) -> Result<(), Fail> {
        if self.upgrading { Err(upgrade::refusal()) } else { Ok(()) }
    }

    /// The guarded row that is this mount.
    pub(crate) fn key(&self) -> coffer_barrier::RowKey {
        rows::mount(self.created, self.id)
    }
}

/// All mounts, in memory; the rows are behind it.
pub(crate) struct MountTable {
    barrier: Arc<Barrier>,
    table: Swap<Vec<Arc<Mount>>>,
    /// Changes of the table, one at a time: "is this path free" must stay true until it is taken.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl MountTable {
    /// Reads the table.
    pub(crate) async fn load(barrier: Arc<Barrier>) -> Result<Self, Fail> {
        let table = Self { barrier, table: Swap::new(Vec::new()), changing: tokio::sync::Mutex::default() };
        table.reload().await?;
        Ok(table)
    }

    /// Reads the table anew, after a change was committed.
    pub(crate) async fn reload(&self) -> Result<(), Fail> {
        let reader = self.barrier.reader().await?;
        let rows = reader.range_ordered(MountId::SYSTEM, rows::MOUNTS, u64::MAX, MOUNTS_MAX).await?;
        let mounts: Result<Vec<_>, Fail> =
            rows.iter().map(|(_, _, bytes)| codec::decode::<Mount>(bytes).map(Arc::new)).collect();
        self.table.store(mounts?);
        Ok(())
    }

    /// All mounts of a class, by path.
    pub(crate) fn all(&self, class: Class) -> Vec<Arc<Mount>> {
        let mut mounts: Vec<_> = self.table.load().iter().filter(|m| m.class == class).cloned().collect();
        mounts.sort_by(|a, b| a.path.cmp(&b.path));
        mounts
    }

    /// The mount at exactly this path.
    pub(crate) fn at(&self, class: Class, path: &str) -> Option<Arc<Mount>> {
        self.table.load().iter().find(|m| m.class == class && m.path == path).cloned()
    }

    /// The mount of this id, whatever its path.
    pub(crate) fn by_id(&self, id: MountId) -> Option<Arc<Mount>> {
        self.table.load().iter().find(|m| m.id == id).cloned()
    }

    /// The mount that answers for `path` (below `auth/` for the auth class), and what is left of the path.
    /// The longest match wins.
    pub(crate) fn route<'p>(&self, class: Class, path: &'p str) -> Option<(Arc<Mount>, &'p str)> {
        let table = self.table.load();
        let below = |mount: &Mount| {
            let rest = path.strip_prefix(mount.path.as_str())?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
        };
        let found = table
            .iter()
            .filter(|m| m.class == class && !m.tainted)
            .filter_map(|m| below(m).map(|rest| (m, rest)))
            .max_by_key(|(m, _)| m.path.len());
        found.map(|(mount, rest)| (Arc::clone(mount), rest))
    }

    /// Fails if a mount at `path` would get in the way of another, or would be got in the way of.
    pub(crate) fn check_free(&self, class: Class, path: &str) -> Result<(), Fail> {
        let table = self.table.load();
        if table.len() >= MOUNTS_MAX {
            return Err(bad(format!("there are {MOUNTS_MAX} mounts already")));
        }
        let below = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let taken = table
            .iter()
            .find(|m| m.class == class && (below(&m.path, path) || below(path, &m.path)))
            .map(|m| m.full_path());
        match taken {
            Some(at) => Err(bad(format!("path is already in use at {at}"))),
            None => Ok(()),
        }
    }

    /// Within a transaction: writes a mount.
    pub(crate) async fn put_in(writer: &mut Writer, mount: &Mount) -> Result<(), Fail> {
        codec::put(writer, &mount.key(), mount).await
    }

    /// Within a transaction: the mount still stands, and the commit fails if that changes.
    pub(crate) async fn guard_in(writer: &mut Writer, mount: &Mount) -> Result<(), Fail> {
        let key = mount.key();
        let stored = codec::get::<Mount>(writer as &dyn Read, &key).await?;
        let Some(stored) = stored.filter(|m| !m.tainted) else {
            return Err(Fail::NoRoute(mount.full_path()));
        };
        stored.check_ready()?;
        if stored.engine_kind() != mount.engine_kind() {
            // Upgraded since the request was routed: what it was about to do belongs to the old version.
            return Err(upgrade::refusal());
        }
        writer.guard(&key)?;
        Ok(())
    }
}
