//! Mounts: which engine or auth method answers for which path. Each has its own id, and so its own rows and its
//! own key.
//!
//! Only the table. What a mount does is the engine's or the auth method's.

mod builtin;
mod ops;
mod preflight;
mod remount;
mod removal;
mod show;
mod tuning;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_engines::kv::PLAIN_KIND;
use serde::{Deserialize, Serialize};

use remount::Move;

pub(crate) use ops::{blank, handle};
pub(crate) use preflight::{listed_for_all, preflight, visible};
pub(crate) use remount::{handle as remount, handle_status as remount_status};
pub(crate) use removal::{finish as finish_removals, revoke_issued};
pub(crate) use show::{inspect, running_version};
pub(crate) use tuning::Tuning;

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
    /// Being removed or moved: it answers nothing any more, but what it issued is still to be taken back.
    pub(crate) tainted: bool,
    /// On its way from one version of its engine to the next: it answers nothing until that is done.
    #[serde(default)]
    pub(crate) upgrading: bool,
    /// Being removed, and nothing that it issued is left: its path is free, its rows go bit by bit.
    #[serde(default)]
    pub(crate) erasing: bool,
    /// Being moved to another path: it answers nothing while what it issued is revoked.
    #[serde(default)]
    pub(crate) moving: bool,
    /// Kept and shown as it was given: there is one server, so every mount is local.
    #[serde(default)]
    pub(crate) local: bool,
    /// Kept and shown as it was given: every row is sealed anyhow.
    #[serde(default)]
    pub(crate) seal_wrap: bool,
    #[serde(default)]
    pub(crate) tuning: Tuning,
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

    /// One that every vault has. It is found by its name and not through this table.
    pub(crate) fn is_builtin(&self) -> bool {
        builtin::is(self.class, &self.kind)
    }

    /// Whether requests may come to it.
    pub(crate) const fn answers(&self) -> bool {
        !self.tainted && !self.erasing && !self.moving
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
    /// What `sys/remount/status` can be asked about, newest last.
    moves: std::sync::Mutex<std::collections::VecDeque<Move>>,
}

impl MountTable {
    /// Reads the table.
    pub(crate) async fn load(barrier: Arc<Barrier>) -> Result<Self, Fail> {
        let table = Self {
            barrier,
            table: Swap::new(Vec::new()),
            changing: tokio::sync::Mutex::default(),
            moves: std::sync::Mutex::default(),
        };
        table.reload().await?;
        Ok(table)
    }

    /// Reads the table anew, after a change was committed.
    pub(crate) async fn reload(&self) -> Result<(), Fail> {
        let reader = self.barrier.reader().await?;
        let rows = reader.range_ordered(MountId::SYSTEM, rows::MOUNTS, u64::MAX, MOUNTS_MAX).await?;
        let stored: Result<Vec<_>, Fail> =
            rows.iter().map(|(_, _, bytes)| codec::decode::<Mount>(bytes).map(Arc::new)).collect();
        let mut mounts = stored?;
        for builtin in builtin::all(&self.barrier.hmac_key("mount")?) {
            // One that was tuned is stored.
            if !mounts.iter().any(|m| m.id == builtin.id) {
                mounts.push(Arc::new(builtin));
            }
        }
        self.table.store(mounts);
        Ok(())
    }

    /// Every mount, also those that are being erased.
    pub(crate) fn table(&self) -> Arc<Vec<Arc<Mount>>> {
        self.table.load()
    }

    /// All mounts of a class, by path.
    pub(crate) fn all(&self, class: Class) -> Vec<Arc<Mount>> {
        let table = self.table.load();
        let mut mounts: Vec<_> = table.iter().filter(|m| m.class == class && !m.erasing).cloned().collect();
        mounts.sort_by(|a, b| a.path.cmp(&b.path));
        mounts
    }

    /// The mount at exactly this path.
    pub(crate) fn at(&self, class: Class, path: &str) -> Option<Arc<Mount>> {
        self.table.load().iter().find(|m| m.class == class && m.path == path && !m.erasing).cloned()
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
            .filter(|m| m.class == class && m.answers() && !m.is_builtin())
            .filter_map(|m| below(m).map(|rest| (m, rest)))
            .max_by_key(|(m, _)| m.path.len());
        found.map(|(mount, rest)| (Arc::clone(mount), rest))
    }

    /// The mount that a full path (with `auth/` where it belongs) is at or below, built-in ones too.
    pub(crate) fn containing(&self, full: &str) -> Option<Arc<Mount>> {
        let table = self.table.load();
        let below = |m: &Mount| format!("{full}/").starts_with(&m.full_path());
        table.iter().filter(|m| m.answers() && below(m)).max_by_key(|m| m.path.len()).cloned()
    }

    fn remember(&self, made: Move, most: usize) {
        let mut moves = self.moves.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if moves.len() >= most {
            moves.pop_front();
        }
        moves.push_back(made);
    }

    fn moved<T>(&self, look: impl Fn(&Move) -> Option<T>) -> Option<T> {
        let moves = self.moves.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        moves.iter().rev().find_map(look)
    }

    /// Fails if there is no room for one more mount.
    pub(crate) fn check_room(&self) -> Result<(), Fail> {
        if self.table.load().len() >= MOUNTS_MAX {
            return Err(bad(format!("there are {MOUNTS_MAX} mounts already")));
        }
        Ok(())
    }

    /// The mount that one at `path` would get in the way of, or be got in the way of by.
    pub(crate) fn in_the_way(&self, class: Class, path: &str) -> Option<Arc<Mount>> {
        let table = self.table.load();
        let below = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let meets = |m: &Mount| below(&m.path, path) || below(path, &m.path);
        table.iter().find(|m| m.class == class && !m.erasing && meets(m)).cloned()
    }

    /// Within a transaction: writes a mount.
    pub(crate) async fn put_in(writer: &mut Writer, mount: &Mount) -> Result<(), Fail> {
        codec::put(writer, &mount.key(), mount).await
    }

    /// Within a transaction: the mount still stands, and the commit fails if that changes.
    pub(crate) async fn guard_in(writer: &mut Writer, mount: &Mount) -> Result<(), Fail> {
        let key = mount.key();
        let stored = codec::get::<Mount>(writer as &dyn Read, &key).await?;
        let Some(stored) = stored.filter(Mount::answers) else {
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
