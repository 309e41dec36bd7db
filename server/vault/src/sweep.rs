//! The sweeper: everything whose time is over goes, and what could not be taken back is tried again.
//!
//! Runs every second while unsealed. Never forgets: a row leaves the order of what is due only when it is done, or
//! moved to a later time.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{MountId, Read, RowKey, Writer};
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::time::Timestamp;
use coffer_core::token::TokenHash;

use crate::auth::{self, TombstoneEnd};
use crate::codec::{self, transact};
use crate::error::Fail;
use crate::lease;
use crate::open::Open;
use crate::pipeline::describe;
use crate::revoke;
use crate::rows;
use crate::token::{Dying, TokenEntry, Tokens};

/// How many rows of a kind are taken at a time.
const BATCH: usize = 1000;
/// The most batches of a kind in one sweep: many leases must not keep tokens from expiring.
const BATCHES_MAX: usize = 50;

/// Sweeps once, and waits for no target: what is to be taken back is in the targets' queues when this returns, and
/// those are worked at. Tombstones are looked at last, they do no harm. A step that fails keeps none of the others from
/// being taken: one bad row must not let every credential live on. Returns the first failure.
pub(crate) async fn sweep(open: &Arc<Open>) -> Result<(), Fail> {
    // Explicit revocations first: somebody waits for them, or did when this server went down.
    let dying = finish_dying(open).await;
    open.secrets.expire(open.now());
    let tokens = expire_tokens(open).await;
    let leases = expire_leases(open).await;
    let secret_ids = auth::approle::remove_expired(open, BATCH).await;
    let mounts = crate::mounts::finish_removals(open).await;
    let rest = secret_ids.and(mounts).and(clear_tombstones(open).await);
    dying.and(tokens).and(leases).and(rest)
}

async fn due<T: serde::de::DeserializeOwned>(
    open: &Open,
    family: &str,
    upto: u64,
) -> Result<Vec<(RowKey, T)>, Fail> {
    let reader = open.barrier.reader().await?;
    let rows = reader.range_ordered(MountId::SYSTEM, family, upto, BATCH).await?;
    rows.into_iter().map(|(key, _, bytes)| Ok((key, codec::decode(&bytes)?))).collect()
}

/// Goes on with revocations that were begun and not finished.
async fn finish_dying(open: &Arc<Open>) -> Result<(), Fail> {
    let dying: Vec<(RowKey, Dying)> = due(open, rows::DYING, u64::MAX).await?;
    revoke::cascade(open, dying.into_iter().map(|(_, dead)| dead).collect(), Duration::ZERO).await
}

async fn expire_tokens(open: &Arc<Open>) -> Result<(), Fail> {
    for _ in 0..BATCHES_MAX {
        let now = open.now();
        let page: Vec<(RowKey, TokenHash)> = due(open, rows::TOKEN_DUE, now.as_millis()).await?;
        if page.is_empty() {
            break;
        }
        let mut dying = Vec::new();
        for (key, hash) in page {
            let expired: Option<TokenEntry> =
                transact!(open.barrier, |w| settle_token(open, w, &key, &hash, now).await?)?;
            if let Some(entry) = expired {
                dying.extend(expire(open, &entry, now).await?);
            }
        }
        // All of them are dead before the first target is asked: a slow one holds up no token.
        revoke::cascade(open, dying, Duration::ZERO).await?;
    }
    Ok(())
}

/// Kills a token whose time is over, with a record before and after.
async fn expire(open: &Open, entry: &TokenEntry, now: Timestamp) -> Result<Vec<Dying>, Fail> {
    let id = uuid::Uuid::new_v4().to_string();
    let mut record = AuditRecord::new(now, RecordType::Intent, id, "expire", entry.path.as_str());
    describe(&mut record, entry);
    open.around.audit.write(&record).await?;
    let dying = open.tokens.kill(&[entry.hash], now).await?;
    record.kind = RecordType::Completion;
    record.status = Some(204);
    record.time = open.now();
    open.around.audit.complete(&record).await?;
    Ok(dying)
}

/// Gives back the entry of a token that has to die.
async fn settle_token(
    open: &Open,
    writer: &mut Writer,
    due: &RowKey,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<TokenEntry>, Fail> {
    let row = rows::token(hash);
    let Some(stored) = codec::get::<TokenEntry>(&*writer as &dyn Read, &row).await? else {
        writer.delete(due).await?;
        return Ok(None);
    };
    match stored.due() {
        Some(at) if at <= now => {}
        _ => {
            // Renewed in the meantime; its row of now is another one.
            writer.delete(due).await?;
            return Ok(None);
        }
    }
    if stored.revoked.is_some() {
        writer.delete(due).await?;
        writer.delete(&row).await?;
        return Ok(None);
    }
    let mut entry = stored.clone();
    open.tokens.with_grace(&mut entry);
    if entry.expires.is_some_and(|end| end > now) {
        Tokens::update_in(writer, &stored, &entry).await?;
        return Ok(None);
    }
    Ok(Some(entry))
}

async fn expire_leases(open: &Arc<Open>) -> Result<(), Fail> {
    let mut swept = Ok(());
    for _ in 0..BATCHES_MAX {
        let now = open.now();
        let page: Vec<(RowKey, String)> = due(open, rows::LEASE_DUE, now.as_millis()).await?;
        let ids: Vec<String> = page.into_iter().map(|(_, id)| id).collect();
        swept = lease::begin_due(open, &ids, now).await.map(|_| ());
        if ids.len() < BATCH || swept.is_err() {
            break;
        }
    }
    // Whatever became of the new ones: those that wait already have their turn.
    swept.and(open.leases.queues.wake(open).await)
}

async fn clear_tombstones(open: &Open) -> Result<(), Fail> {
    let page: Vec<(RowKey, TombstoneEnd)> = due(open, rows::POD_TOMBSTONES, open.now().as_millis()).await?;
    for (key, end) in page {
        transact!(open.barrier, |w| {
            w.delete(&key).await?;
            w.delete(&rows::pod_tombstone(end.mount, &end.uid)).await?;
        })?;
    }
    Ok(())
}
