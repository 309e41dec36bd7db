//! The end of secret ids: those that are over, and those of roles that are gone.
//!
//! Neither can be used any more; this only takes their rows away.

use coffer_barrier::{MountId, Read, RowKey, Writer};
use coffer_core::time::Timestamp;
use serde_json::Value;

use super::secret_id::{AccessorEntry, ExpiringSecretId, SecretId, accessor_dir, accessor_key};
use crate::codec::{self, transact};
use crate::error::Fail;
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::rows;

/// The family of roles that are gone and whose secret ids may still have rows.
const DEAD: &str = "dead-roles";
/// How many secret ids one transaction removes.
const STEP: usize = 200;
/// The most steps of one call, whoever it is that waits for it.
const STEPS_MAX: usize = 500;

/// Within a transaction: says that a role is gone.
pub(super) async fn bury_in(
    writer: &mut Writer,
    mount: &Mount,
    uid: &str,
    now: Timestamp,
) -> Result<(), Fail> {
    let row = RowKey::ordered(mount.id, DEAD, now.as_millis(), uid.as_bytes());
    codec::put(writer, &row, &uid.to_owned()).await
}

/// Removes the secret ids of roles that are gone.
pub(super) async fn clear_dead(open: &Open, mount: &Mount) -> Result<(), Fail> {
    let reader = open.barrier.reader().await?;
    let dead = reader.range_ordered(mount.id, DEAD, u64::MAX, STEP).await?;
    drop(reader);
    for (row, _, bytes) in dead {
        let uid: String = codec::decode(&bytes)?;
        for _ in 0..STEPS_MAX {
            let cleared: Result<bool, Fail> =
                transact!(open.barrier, |w| clear_step(w, mount.id, &uid, &row).await?);
            if cleared? {
                break;
            }
        }
    }
    Ok(())
}

/// Goes on with what `clear_dead` began in any mount and a crash or a failing store kept it from ending.
pub(crate) async fn clear_dead_everywhere(open: &Open) -> Result<(), Fail> {
    let mut result = Ok(());
    for mount in open
        .mounts
        .table()
        .iter()
        .filter(|mount| mount.class == Class::Auth && mount.kind == "approle" && mount.answers())
    {
        result = result.and(clear_dead(open, mount).await);
    }
    result
}

/// True if that was the last.
async fn clear_step(writer: &mut Writer, mount: MountId, uid: &str, dead: &RowKey) -> Result<bool, Fail> {
    let accessors = writer.list(mount, &accessor_dir(uid), None, STEP).await?;
    for accessor in &accessors {
        let key = accessor_key(mount, uid, accessor);
        let Some(entry) = codec::get::<AccessorEntry>(&*writer as &dyn Read, &key).await? else { continue };
        let secret =
            codec::get::<SecretId>(&*writer as &dyn Read, &SecretId::key(mount, uid, &entry.hash)).await?;
        if let Some(secret) = secret {
            secret.remove_in(writer, mount, uid, &entry.hash).await?;
        }
    }
    let last = accessors.len() < STEP;
    if last {
        writer.delete(dead).await?;
    }
    Ok(last)
}

/// Removes the secret ids of all mounts whose time is over: up to `limit`, oldest first. Part of every sweep.
pub(crate) async fn remove_expired(open: &Open, limit: usize) -> Result<(), Fail> {
    let reader = open.barrier.reader().await?;
    let now = open.now();
    let due = reader.range_ordered(MountId::SYSTEM, rows::SECRET_IDS_DUE, now.as_millis(), limit).await?;
    drop(reader);
    for (row, _, bytes) in due {
        let over: ExpiringSecretId = codec::decode(&bytes)?;
        let removed: Result<(), Fail> = transact!(open.barrier, |w| {
            let key = SecretId::key(over.mount, &over.uid, &over.hash);
            let found = codec::get::<SecretId>(&*w as &dyn Read, &key).await?;
            if let Some(secret) = found.filter(|secret| !secret.alive(now)) {
                secret.remove_in(w, over.mount, &over.uid, &over.hash).await?;
            }
            w.delete(&row).await?;
        });
        removed?;
    }
    Ok(())
}

/// `tidy/secret-id`. Vault does this in the background and answers at once; here it is done when the answer is given.
pub(super) async fn tidy(ctx: &Ctx, mount: &Mount) -> Result<Outcome, Fail> {
    clear_dead(&ctx.open, mount).await?;
    for _ in 0..STEPS_MAX {
        let reader = ctx.open.barrier.reader().await?;
        let upto = ctx.now.as_millis();
        let left = reader.range_ordered(MountId::SYSTEM, rows::SECRET_IDS_DUE, upto, 1).await?;
        drop(reader);
        if left.is_empty() {
            break;
        }
        remove_expired(&ctx.open, STEP).await?;
    }
    let text = "Tidy operation successfully started. Any information from the operation will be printed to the \
                server logs.";
    let mut outcome = Outcome { status: 202, ..Outcome::data(Value::Null) };
    outcome.warnings.push(text.to_owned());
    Ok(outcome)
}
