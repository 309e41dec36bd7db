//! Leases: what was issued, to whom, until when, and how it is taken back.
//!
//! The rows and their order are kept here. What a credential is, only the engine knows.

mod entry;
mod issue;
mod ops;
mod queue;
mod revoke;
mod target;
mod waiting;

use std::sync::Arc;

use coffer_barrier::{Barrier, MountId, Read, RowKey, Writer};
use coffer_core::lease::LeaseState;

pub(crate) use entry::{LeaseEntry, Payload};
pub(crate) use issue::issue;
pub(crate) use ops::handle;
pub(crate) use queue::{Begun, execute_all};
pub(crate) use revoke::{begin_due, begin_revoke, begin_the_rest};
pub(crate) use target::TargetKey;
pub(crate) use waiting::{health, measure};

use queue::{Queued, Queues};

use crate::codec;
use crate::error::Fail;
use crate::rows;

/// The leases.
pub(crate) struct Leases {
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) queues: Queues,
}

impl Leases {
    pub(crate) fn new(barrier: Arc<Barrier>) -> Self {
        Self { barrier, queues: Queues::new() }
    }

    /// A lease, or none.
    pub(crate) async fn get(&self, id: &str) -> Result<Option<LeaseEntry>, Fail> {
        if !well_formed(id) {
            return Ok(None);
        }
        let reader = self.barrier.reader().await?;
        codec::get(&reader, &rows::lease(id)).await
    }

    /// Within a transaction: a lease, or none.
    pub(crate) async fn get_in(writer: &Writer, id: &str) -> Result<Option<LeaseEntry>, Fail> {
        codec::get(writer as &dyn Read, &rows::lease(id)).await
    }

    /// Within a transaction: writes a new lease and everything it is found by.
    pub(crate) async fn insert_in(writer: &mut Writer, lease: &LeaseEntry) -> Result<(), Fail> {
        codec::put(writer, &rows::lease(&lease.id), lease).await?;
        Self::put_due_in(writer, lease).await?;
        codec::put(writer, &rows::token_lease(&lease.token, lease.issued, &lease.id), &lease.id).await?;
        if let Some(account) = &lease.account {
            codec::put(writer, &rows::lease_account(lease.mount, account), &lease.id).await?;
        }
        writer.link(MountId::SYSTEM, &rows::lease_path(&lease.id)).await?;
        Ok(())
    }

    /// The row that it is found by when it is due.
    async fn put_due_in(writer: &mut Writer, lease: &LeaseEntry) -> Result<(), Fail> {
        if lease.queued {
            let stuck = matches!(lease.state, LeaseState::Stuck { .. });
            let confirmed = lease.state == LeaseState::Revoked;
            let queued = Queued { id: lease.id.clone(), stuck, confirmed };
            return codec::put(writer, &lease.due_row(), &queued).await;
        }
        codec::put(writer, &lease.due_row(), &lease.id).await
    }

    /// Within a transaction: writes a changed lease; `was` is the row that the stored one is found by when it is due.
    pub(crate) async fn update_in(writer: &mut Writer, was: RowKey, lease: &LeaseEntry) -> Result<(), Fail> {
        codec::put(writer, &rows::lease(&lease.id), lease).await?;
        if was != lease.due_row() {
            writer.delete(&was).await?;
        } else if !lease.queued {
            return Ok(());
        }
        Self::put_due_in(writer, lease).await
    }

    /// Within a transaction: removes a lease and everything it is found by.
    pub(crate) async fn remove_in(writer: &mut Writer, was: &RowKey, lease: &LeaseEntry) -> Result<(), Fail> {
        writer.delete(&rows::lease(&lease.id)).await?;
        writer.delete(was).await?;
        writer.delete(&rows::token_lease(&lease.token, lease.issued, &lease.id)).await?;
        if let Some(account) = &lease.account {
            writer.delete(&rows::lease_account(lease.mount, account)).await?;
        }
        writer.unlink(MountId::SYSTEM, &rows::lease_path(&lease.id)).await?;
        Ok(())
    }

    /// Names directly below a prefix; directories end in a slash.
    pub(crate) async fn list(
        &self,
        dir: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Fail> {
        let reader = self.barrier.reader().await?;
        let dir = dir.trim_end_matches('/');
        let path = if dir.is_empty() { rows::LEASE_DIR.into() } else { rows::lease_path(dir) };
        Ok(reader.list(MountId::SYSTEM, &path, after, limit).await?)
    }

    /// The ids of leases at and below a prefix, up to `limit`.
    pub(crate) async fn below(&self, prefix: &str, limit: usize) -> Result<Vec<String>, Fail> {
        let reader = self.barrier.reader().await?;
        let mut found = Vec::new();
        let mut open = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(dir) = open.pop() {
            let mut after: Option<String> = None;
            loop {
                const PAGE: usize = 1000;
                let page =
                    reader.list(MountId::SYSTEM, &rows::lease_path(&dir), after.as_deref(), PAGE).await?;
                let full = page.len() == PAGE;
                after = page.last().cloned();
                for name in page {
                    match name.strip_suffix('/') {
                        Some(below) => open.push(format!("{dir}/{below}")),
                        None => found.push(format!("{dir}/{name}")),
                    }
                    if found.len() >= limit {
                        return Ok(found);
                    }
                }
                if !full {
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// Whether a text can be a lease id at all: a path ending in a name.
pub(crate) fn well_formed(id: &str) -> bool {
    !id.ends_with('/') && coffer_core::path::VaultPath::parse(id).is_ok_and(|p| p.as_str() == id)
}
