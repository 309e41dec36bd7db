//! Taking back: the decision is durable first, then the target is asked, as often as it takes.
//!
//! No lease is ever forgotten: what cannot be revoked stays, visibly, and is tried again.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coffer_barrier::Writer;
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::lease::{LeaseEvent, LeaseState};
use coffer_core::time::Timestamp;
use coffer_engines::ReadView;

use super::entry::{ATTEMPT_DEADLINE, ISSUE_DEADLINE};
use super::{LeaseEntry, Leases};
use crate::codec::transact;
use crate::error::Fail;
use crate::events::Draft;
use crate::open::Open;
use crate::rows;

/// How long one call to a target may take: shorter than the time the lease counts as being worked on.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(25);
/// How many leases one transaction marks.
const BATCH: usize = 100;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The credential is gone.
    Gone,
    /// Not yet; it will be tried again.
    Pending,
}

/// Why leases are taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Asked,
    Due,
}

/// Somebody wants these leases gone: makes it durable, and gives back those to be worked on. Ids of leases that
/// do not exist are passed over.
pub(crate) async fn begin_revoke(
    open: &Open,
    ids: &[String],
    now: Timestamp,
) -> Result<Vec<LeaseEntry>, Fail> {
    begin(open, ids, now, Cause::Asked).await
}

/// The sweeper found these leases due: as [`begin_revoke`], but those that have time left after all are only moved
/// to where they belong.
pub(crate) async fn begin_due(open: &Open, ids: &[String], now: Timestamp) -> Result<Vec<LeaseEntry>, Fail> {
    begin(open, ids, now, Cause::Due).await
}

async fn begin(open: &Open, ids: &[String], now: Timestamp, cause: Cause) -> Result<Vec<LeaseEntry>, Fail> {
    let mut begun = Vec::new();
    for batch in ids.chunks(BATCH) {
        let marked: Vec<LeaseEntry> = transact!(open.barrier, |w| {
            let mut marked = Vec::new();
            for id in batch {
                marked.extend(begin_in(open, w, id, now, cause).await?);
            }
            marked
        })?;
        begun.extend(marked);
    }
    Ok(begun)
}

async fn begin_in(
    open: &Open,
    writer: &mut Writer,
    id: &str,
    now: Timestamp,
    cause: Cause,
) -> Result<Option<LeaseEntry>, Fail> {
    let Some(mut lease) = Leases::get_in(writer, id).await? else { return Ok(None) };
    let was_due = lease.due();
    let before = lease.state.clone();
    if cause == Cause::Due {
        if was_due > now {
            return Ok(None);
        }
        lease.with_grace(open.outage.as_ref());
        if lease.state != before && lease.due() > now {
            Leases::update_in(writer, was_due, &lease).await?;
            return Ok(None);
        }
    }
    if let LeaseState::Issuing { deadline } = before {
        lease.clean_again = Some(deadline.plus(ISSUE_DEADLINE));
    }
    if before != LeaseState::Revoked {
        let event = if cause == Cause::Due { LeaseEvent::Due } else { LeaseEvent::RevokeRequested };
        if lease.step(event, now).is_err() {
            return Ok(None);
        }
    } else if cause == Cause::Asked {
        return Ok(None);
    }
    lease.busy_until = Some(now.plus(ATTEMPT_DEADLINE));
    Leases::update_in(writer, was_due, &lease).await?;
    writer.delete(&rows::token_lease(&lease.token, lease.issued, id)).await?;
    Ok(Some(lease))
}

/// Forgets those of these leases that are still there, whatever their targets say. Gives back how many.
pub(super) async fn forget(open: &Open, ids: &[String]) -> Result<usize, Fail> {
    let mut forgotten = 0;
    for batch in ids.chunks(BATCH) {
        let gone: Vec<LeaseEntry> = transact!(open.barrier, |w| {
            let mut gone = Vec::new();
            for id in batch {
                let Some(mut lease) = Leases::get_in(w, id).await? else { continue };
                let was_due = lease.due();
                // The target has confirmed; what is left is the row that has it cleaned once more.
                if lease.state == LeaseState::Revoked {
                    continue;
                }
                if lease.step(LeaseEvent::ForceRevoked, open.now()).is_ok() {
                    Leases::remove_in(w, was_due, &lease).await?;
                    gone.push(lease);
                }
            }
            gone
        })?;
        for lease in &gone {
            tracing::warn!(lease = %lease.id, "lease forgotten without a word of its target");
        }
        forgotten += gone.len();
    }
    Ok(forgotten)
}

/// Works on leases, each in the queue of its target. Waits up to `wait` for all of them, then lets the rest go on in
/// the background. True if all are gone.
pub(crate) async fn execute_all(open: &Arc<Open>, leases: Vec<LeaseEntry>, wait: Duration) -> bool {
    let tasks: Vec<_> = leases
        .into_iter()
        .map(|lease| {
            let open = Arc::clone(open);
            tokio::spawn(async move { execute(&open, lease).await })
        })
        .collect();
    if tasks.is_empty() {
        return true;
    }
    let all = futures::future::join_all(tasks);
    match tokio::time::timeout(wait, all).await {
        Ok(results) => results.into_iter().all(|r| matches!(r, Ok(Attempt::Gone))),
        Err(_) => false,
    }
}

/// Holds a lease's place among those being worked on.
struct InFlight<'a> {
    set: &'a std::sync::Mutex<HashSet<String>>,
    id: String,
}

impl<'a> InFlight<'a> {
    fn enter(leases: &'a Leases, id: &str) -> Option<Self> {
        let mut set = leases.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        set.insert(id.to_owned()).then(|| Self { set: &leases.in_flight, id: id.to_owned() })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// One attempt at one lease.
async fn execute(open: &Arc<Open>, lease: LeaseEntry) -> Attempt {
    let Some(_place) = InFlight::enter(&open.leases, &lease.id) else { return Attempt::Pending };
    let queue = open.leases.queue(lease.mount, &lease.target);
    let Ok(_turn) = queue.acquire().await else { return Attempt::Pending };
    let result = attempt(open, &lease).await;
    let (attempt, note) = match result {
        Ok(()) => (Attempt::Gone, None),
        Err(why) => (Attempt::Pending, Some(why)),
    };
    if let Err(error) = settle(open, &lease, note.as_deref()).await {
        // The target is clean or not; the row says "revoking" either way, so the sweeper comes again.
        tracing::warn!(lease = %lease.id, %error, "the end of a revocation could not be written");
        return Attempt::Pending;
    }
    attempt
}

/// Asks the target, with a record before and after.
async fn attempt(open: &Arc<Open>, lease: &LeaseEntry) -> Result<(), String> {
    let mut record = record_of(open, lease);
    open.around.audit.write(&record).await.map_err(|_| "the audit log could not be written".to_owned())?;
    let result = ask_target(open, lease).await;
    record.kind = RecordType::Completion;
    record.time = open.now();
    record.status = Some(if result.is_ok() { 204 } else { 502 });
    record.error = result.as_ref().err().cloned();
    if let Err(error) = open.around.audit.complete(&record).await {
        // The intent is there, so the log shows that something was under way.
        tracing::error!(%error, "audit log cannot be written");
    }
    result
}

async fn ask_target(open: &Open, lease: &LeaseEntry) -> Result<(), String> {
    let mount = open.mounts.by_id(lease.mount).ok_or("its mount is gone")?;
    let engine = open.engine(&mount).map_err(|e| e.to_string())?;
    let reader = open.barrier.reader().await.map_err(|e| e.to_string())?;
    let view = ReadView::new(mount.id, &reader);
    match tokio::time::timeout(REVOKE_TIMEOUT, engine.revoke(&view, &lease.payload.0)).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("{}: no answer in time", lease.target)),
    }
}

/// A record of the system's doing, about a lease.
fn record_of(open: &Open, lease: &LeaseEntry) -> AuditRecord {
    let mut metadata = lease.metadata.clone();
    metadata.insert("holder".into(), lease.accessor.as_str().into());
    AuditRecord {
        display_name: Some("system".into()),
        lease_id: Some(lease.id.clone()),
        metadata,
        ..AuditRecord::new(
            open.now(),
            RecordType::Intent,
            uuid::Uuid::new_v4().to_string(),
            "revoke",
            lease.path.as_str(),
        )
    }
}

/// Writes down how an attempt ended; publishes the end of a lease.
async fn settle(open: &Open, lease: &LeaseEntry, failure: Option<&str>) -> Result<(), Fail> {
    let now = open.now();
    let ended = transact!(open.barrier, |w| settle_in(w, &lease.id, failure, now).await?)?;
    if failure.is_some() {
        open.around.metrics.revoke_failures.inc();
    }
    if ended {
        open.around.metrics.leases_revoked.inc();
        let event = |event_type, operation| Draft {
            event_type,
            path: lease.path.clone(),
            operation,
            mount_path: lease.mount_path.clone(),
        };
        let revoked = [event("lease/revoke", "revoke"), event("database/creds-revoke", "creds-revoke")];
        open.around.events.publish(revoked.into(), now);
    }
    Ok(())
}

/// True if this was the end of the lease.
async fn settle_in(
    writer: &mut Writer,
    id: &str,
    failure: Option<&str>,
    now: Timestamp,
) -> Result<bool, Fail> {
    let Some(mut lease) = Leases::get_in(writer, id).await? else { return Ok(false) };
    let was_due = lease.due();
    let was_tombstone = lease.state == LeaseState::Revoked;
    lease.busy_until = None;
    match failure {
        Some(_) if was_tombstone => {
            // The second cleaning is a precaution: it may fail until it succeeds.
            lease.clean_again = Some(now.plus(ISSUE_DEADLINE));
        }
        Some(why) => {
            let event = LeaseEvent::AttemptFailed { why: why.to_owned() };
            lease.step(event, now).map_err(|_| Fail::Internal("a lease in an unexpected state"))?;
        }
        None => {
            lease
                .step(LeaseEvent::TargetCleaned, now)
                .map_err(|_| Fail::Internal("a lease in an unexpected state"))?;
            if was_tombstone || lease.clean_again.is_none_or(|again| again <= now) {
                Leases::remove_in(writer, was_due, &lease).await?;
                return Ok(!was_tombstone);
            }
        }
    }
    Leases::update_in(writer, was_due, &lease).await?;
    Ok(failure.is_none() && !was_tombstone)
}
