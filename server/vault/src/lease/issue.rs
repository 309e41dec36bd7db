//! Issuing: the intent is durable before the credential exists, and the credential is handed out only once its
//! lease is known to be active.
//!
//! Whatever fails in between leaves a lease that the sweeper takes back. Nothing here knows what a credential is.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Read, Writer};
use coffer_core::lease::{LeaseEvent, LeaseState, first_expiry};
use coffer_core::time::Timestamp;
use coffer_engines::{EngineError, Issue, ReadView};
use rand::RngExt as _;
use serde_json::Value;

use super::entry::ISSUE_DEADLINE;
use super::{LeaseEntry, Leases, Payload, begin_revoke, execute_all};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::events::Draft;
use crate::mounts::{Mount, MountTable};
use crate::open::Open;
use crate::outcome::{Outcome, Undo};
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::rows;
use crate::token::TokenEntry;

/// How long a target may take to create a credential.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of a lease's own name: 24 of 62 are more than 128 bits.
const NAME_LEN: usize = 24;

/// Issues a credential to the caller.
pub(crate) async fn issue(
    ctx: &mut Ctx,
    permitted: &Permitted,
    mount: &Arc<Mount>,
    issue: Issue,
) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let now = ctx.now;
    let (ttl, max_ttl) = open.life(Some(mount), issue.ttl, issue.max_ttl);
    let holder = permitted.caller()?;
    if holder.uses_left.is_some_and(|left| left <= 1) {
        // It would be revoked with its token at the end of this very request.
        return Err(bad(
            "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
        ));
    }
    let lease = LeaseEntry {
        id: format!("{}/{}", ctx.request.path.trim_end_matches('/'), name()),
        mount: mount.id,
        mount_path: mount.full_path(),
        path: ctx.request.path.clone(),
        token: holder.hash,
        accessor: holder.accessor.clone(),
        display_name: holder.display_name.clone(),
        metadata: holder.metadata.clone(),
        issued: now,
        renewed: None,
        ttl,
        max_ttl,
        token_expiry: last_breath(holder),
        renewable: issue.renewable,
        target: issue.target,
        account: issue.account,
        payload: Payload(issue.payload),
        state: LeaseState::Issuing { deadline: now.plus(ISSUE_DEADLINE) },
        queued: false,
        busy_until: None,
        clean_again: None,
    };
    let expires = first_expiry(now, &lease.limits()).map_err(|error| bad(error.to_string()))?;
    ctx.intend(Some(&lease.id)).await?;
    ctx.about_lease(&lease.id);
    transact!(open.barrier, |w| intend_in(&open, w, mount, &lease, holder, now).await?)?;
    let id = lease.id.as_str();
    let delivered = async {
        create(&open, mount, &lease).await?;
        transact!(open.barrier, |w| activate_in(w, id, expires, open.now()).await?)
    };
    if let Err(error) = delivered.await {
        abandon(&open, id).await;
        return Err(error);
    }
    open.around.metrics.leases_issued.inc();
    let seconds = expires.saturating_sub(now).as_secs();
    let mut outcome = Outcome::leased(Value::Object(issue.data), id, seconds, lease.renewable);
    outcome.undo = Some(Undo::Lease(lease.id.clone()));
    Ok(outcome.publishing(Draft {
        event_type: "database/creds-create",
        path: lease.path.clone(),
        operation: "creds-create",
        mount_path: mount.full_path(),
    }))
}

/// When a token ends however often it is renewed.
fn last_breath(token: &TokenEntry) -> Option<Timestamp> {
    if token.renewable { token.max_expires } else { token.max_expires.or(token.expires) }
}

fn name() -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(NAME_LEN).map(char::from).collect()
}

/// The holder and all above him are alive, the mount stands, his pod is not revoked; and the commit fails
/// if any of that changes. Then the intent.
async fn intend_in(
    open: &Open,
    writer: &mut Writer,
    mount: &Mount,
    lease: &LeaseEntry,
    holder: &TokenEntry,
    now: Timestamp,
) -> Result<(), Fail> {
    let holder = open.tokens.guard_holder(writer, holder, now).await?;
    MountTable::guard_in(writer, mount).await?;
    if let (Some(auth_mount), Some(uid)) = (holder.mount, &holder.pod) {
        let tombstone = rows::pod_tombstone(auth_mount, uid);
        if writer.exists(&tombstone).await? {
            return Err(Fail::BadToken);
        }
        writer.guard(&tombstone)?;
    }
    Leases::insert_in(writer, lease).await
}

async fn create(open: &Open, mount: &Mount, lease: &LeaseEntry) -> Result<(), Fail> {
    let engine = open.engine(mount)?;
    let reader = open.barrier.reader().await?;
    let view = ReadView::new(mount.id, &reader);
    match tokio::time::timeout(CREATE_TIMEOUT, engine.create(&view, &lease.payload.0)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Fail::Engine(EngineError::Target {
            target: lease.target.clone(),
            retriable: true,
            message: "no answer in time".into(),
        })),
    }
}

async fn activate_in(writer: &mut Writer, id: &str, expires: Timestamp, now: Timestamp) -> Result<(), Fail> {
    let revoked = || Fail::Unavailable("the lease was revoked while it was being issued".into());
    let Some(mut lease) = Leases::get_in(writer, id).await? else { return Err(revoked()) };
    let was = lease.due_row();
    lease.step(LeaseEvent::Issued { expires }, now).map_err(|_| revoked())?;
    Leases::update_in(writer, was, &lease).await
}

/// Takes back what was not delivered; the sweeper goes on if this does not get through.
async fn abandon(open: &Arc<Open>, id: &str) {
    let ids = [id.to_owned()];
    let undone = async {
        let begun = begin_revoke(open, &ids, open.now()).await?;
        execute_all(open, begun, Duration::ZERO).await;
        Ok::<(), Fail>(())
    };
    if let Err(error) = undone.await {
        tracing::warn!(lease = id, %error, "an undelivered credential is left to the sweeper");
    }
}
