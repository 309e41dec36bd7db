//! The end of a mount: first it stops answering, then what it issued is taken back, then its path is free, and
//! last its rows and its key go, a thousand rows at a time.
//!
//! How far it has come is in the mount's row, so a crash anywhere leaves work for the sweeper and nothing else.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{MountId, Read};
use coffer_core::failpoint::{self, Step};

use super::{Class, Mount, MountTable};
use crate::codec::{self, transact};
use crate::dispatch::DELIVERY;
use crate::error::{Fail, bad};
use crate::lease;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::revoke;
use crate::rows;
use crate::token::IssuedToken;

/// How many rows one step of a removal takes.
const STEP: usize = 1000;
/// How many such steps one sweep takes.
const STEPS_MAX: usize = 20;
/// How many leases of a removed mount one sweep puts into their queues.
const LEASES_MAX: usize = 100_000;

/// Removes a mount. When it returns, nothing that the mount issued is left; its rows may be.
pub(super) async fn disable(ctx: &mut Ctx, class: Class, path: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let _turn = open.mounts.changing.lock().await;
    let Some(mount) = open.mounts.at(class, path) else { return Ok(Outcome::empty()) };
    if mount.kind == DELIVERY || mount.is_builtin() {
        return Err(bad(match class {
            Class::Auth => "token credential backend cannot be disabled".to_owned(),
            Class::Secret => format!("cannot unmount \"{path}/\""),
        }));
    }
    let tainted = Mount { tainted: true, ..(*mount).clone() };
    set(&open, &tainted).await?;
    failpoint::reach(Step::MountTainted);
    open.tokens.forget_all();
    open.secrets.forget_mount(mount.id);
    let left = take_back(&open, &tainted, open.around.config.revoke_wait).await?;
    if left {
        return Err(Fail::Unavailable(
            "the mount is disabled, but some of its leases cannot be revoked yet; that goes on in the background"
                .into(),
        ));
    }
    set(&open, &Mount { erasing: true, ..tainted }).await?;
    failpoint::reach(Step::MountTakenBack);
    Ok(Outcome::empty())
}

/// Writes the mount's row, if the mount is still there, and reads the table anew.
async fn set(open: &Open, mount: &Mount) -> Result<(), Fail> {
    let stored: Result<(), Fail> = transact!(open.barrier, |w| {
        if codec::get::<Mount>(&*w as &dyn Read, &mount.key()).await?.is_some() {
            MountTable::put_in(w, mount).await?;
        }
    });
    stored?;
    open.mounts.reload().await
}

/// Revokes what the mount issued. True if something is left that cannot be revoked yet.
pub(super) async fn take_back(open: &Arc<Open>, mount: &Mount, wait: Duration) -> Result<bool, Fail> {
    match mount.class {
        Class::Auth => {
            revoke_issued(open, mount.id, None).await?;
            Ok(false)
        }
        Class::Secret => revoke_leases(open, mount, wait).await,
    }
}

async fn revoke_leases(open: &Arc<Open>, mount: &Mount, wait: Duration) -> Result<bool, Fail> {
    let prefix = mount.full_path();
    loop {
        let ids = open.leases.below(&prefix, STEP).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let begun = lease::begin_revoke(open, &ids, open.now()).await?;
        if begun.is_empty() || !lease::execute_all(open, begun, wait).await {
            return Ok(!open.leases.below(&prefix, 1).await?.is_empty());
        }
    }
}

/// Lets what a removed mount issued go, each lease in its target's queue. True if something is left.
async fn leases_left(open: &Arc<Open>, mount: &Mount) -> Result<bool, Fail> {
    let prefix = mount.full_path();
    if !open.leases.queues.has_taken(mount.id) {
        let ids = open.leases.below(&prefix, LEASES_MAX).await?;
        let begun = lease::begin_the_rest(open, &ids, open.now()).await?;
        lease::execute_all(open, begun, Duration::ZERO).await;
        if ids.len() < LEASES_MAX {
            open.leases.queues.take(mount.id);
        }
    }
    Ok(!open.leases.below(&prefix, 1).await?.is_empty())
}

/// Revokes the tokens that an auth mount issued, or those of one pod there.
pub(crate) async fn revoke_issued(open: &Arc<Open>, mount: MountId, pod: Option<&str>) -> Result<(), Fail> {
    let families: Vec<String> = match pod {
        Some(uid) => vec![rows::pod_tokens(mount, uid)],
        None => (0..rows::ISSUED_SHARDS).map(|shard| rows::issued_tokens(mount, shard)).collect(),
    };
    for family in families {
        while revoke_page(open, &family).await? {}
    }
    // Also when nothing was found: another revocation may have got ahead with the rows, and not be done with
    // what is in memory (trap 5 of `revocation.md`).
    open.tokens.forget_issued(mount, pod);
    Ok(())
}

/// False if there was nothing left.
async fn revoke_page(open: &Arc<Open>, family: &str) -> Result<bool, Fail> {
    let reader = open.barrier.reader().await?;
    let page = reader.range_ordered(MountId::SYSTEM, family, u64::MAX, STEP).await?;
    drop(reader);
    let mut hashes = Vec::with_capacity(page.len());
    for (_, _, bytes) in &page {
        hashes.push(codec::decode::<IssuedToken>(bytes)?.hash);
    }
    let killed = revoke::tokens(open, &hashes).await?;
    if killed == 0 {
        // Rows that outlived their tokens.
        let cleared: Result<(), Fail> = transact!(open.barrier, |w| {
            for (key, _, _) in &page {
                w.delete(key).await?;
            }
        });
        cleared?;
    }
    Ok(!page.is_empty())
}

/// Goes on with removals and moves that were begun and not finished. One that fails keeps none of the others.
pub(crate) async fn finish(open: &Arc<Open>) -> Result<(), Fail> {
    let work = |m: &Arc<Mount>| m.tainted || m.erasing || m.moving;
    if !open.mounts.table().iter().any(work) {
        return Ok(());
    }
    // Whoever changes the table now is at it himself.
    let Ok(_turn) = open.mounts.changing.try_lock() else { return Ok(()) };
    let mut steps = STEPS_MAX;
    let mut result = Ok(());
    for mount in open.mounts.table().iter().filter(|m| work(m)) {
        result = result.and(go_on(open, mount, &mut steps).await);
    }
    result.and(open.mounts.reload().await)
}

async fn go_on(open: &Arc<Open>, mount: &Mount, steps: &mut usize) -> Result<(), Fail> {
    if !mount.tainted && !mount.erasing {
        // A move that was not finished: the mount answers where it was. Only what somebody removed is ever erased.
        return set(open, &Mount { moving: false, ..mount.clone() }).await;
    }
    if !mount.erasing {
        let left = match mount.class {
            Class::Auth => take_back(open, mount, Duration::ZERO).await?,
            Class::Secret => leases_left(open, mount).await?,
        };
        if left {
            return Ok(());
        }
        set(open, &Mount { erasing: true, ..mount.clone() }).await?;
    }
    while *steps > 0 {
        *steps -= 1;
        let cleared: Result<usize, Fail> = transact!(open.barrier, |w| w.clear_mount(mount.id, STEP).await?);
        failpoint::reach(Step::MountErasing);
        if cleared? < STEP {
            let gone: Result<(), Fail> = transact!(open.barrier, |w| {
                open.barrier.drop_kek(w, mount.id).await?;
                open.leases.queues.remove_mount_in(w, mount.id).await?;
                w.delete(&mount.key()).await?;
            });
            gone?;
            open.leases.queues.forget_mount(mount.id);
            return Ok(());
        }
    }
    Ok(())
}
