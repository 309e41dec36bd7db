//! Taking back: the decision is durable first, then the target is asked, as often as it takes.
//!
//! No lease is ever forgotten: what cannot be revoked stays, visibly, and is tried again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Read, Writer};
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::lease::{LeaseEvent, LeaseState};
use coffer_core::time::Timestamp;
use coffer_engines::{EngineError, ReadView};

use super::entry::ISSUE_DEADLINE;
use super::target::{Target, TargetKey};
use super::{Begun, LeaseEntry, Leases};
use crate::codec::{self, transact};
use crate::error::Fail;
use crate::events::Draft;
use crate::open::Open;
use crate::rows;

/// How long one call to a target may take.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(25);
/// How many leases one transaction marks.
const BATCH: usize = 100;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The credential is gone.
    Gone,
    /// Not yet; it will be tried again.
    Pending,
    /// What came of it could not be written down, or nothing could be read: the store is not as it should be.
    Lost,
}

/// Why leases are taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Asked,
    Due,
    /// Asked for before; those that are being taken back go on at their own pace.
    GoingOn,
}

/// Somebody wants these leases gone: makes it durable, and gives back those to be worked on. Ids of leases that
/// do not exist are passed over.
pub(crate) async fn begin_revoke(open: &Open, ids: &[String], now: Timestamp) -> Result<Vec<Begun>, Fail> {
    begin(open, ids, now, Cause::Asked).await
}

/// The sweeper found these leases due: as [`begin_revoke`], but those that have time left after all are only moved
/// to where they belong.
pub(crate) async fn begin_due(open: &Open, ids: &[String], now: Timestamp) -> Result<Vec<Begun>, Fail> {
    begin(open, ids, now, Cause::Due).await
}

/// As [`begin_revoke`], but those that are being taken back already are left to their queues.
pub(crate) async fn begin_the_rest(open: &Open, ids: &[String], now: Timestamp) -> Result<Vec<Begun>, Fail> {
    begin(open, ids, now, Cause::GoingOn).await
}

async fn begin(open: &Open, ids: &[String], now: Timestamp, cause: Cause) -> Result<Vec<Begun>, Fail> {
    let mut begun = Vec::new();
    for batch in ids.chunks(BATCH) {
        let marked: Vec<Begun> = transact!(open.barrier, |w| {
            let mut marked = Vec::new();
            let mut new = HashSet::new();
            for id in batch {
                let Some(lease) = begin_in(open, w, id, now, cause).await? else { continue };
                let target = lease.target();
                if !open.leases.queues.knows(&target) && new.insert((target.mount, target.name.clone())) {
                    register_in(w, &target).await?;
                }
                marked.push(Begun { id: lease.id, target });
            }
            marked
        })?;
        open.leases.queues.note(marked.iter().map(|one| &one.target));
        begun.extend(marked);
    }
    Ok(begun)
}

/// A target's row is written once. It is never removed while its mount is there, so it need not be guarded.
async fn register_in(writer: &mut Writer, target: &TargetKey) -> Result<(), Fail> {
    let row = rows::lease_target(target);
    if !(&*writer as &dyn Read).exists(&row).await? {
        codec::put(writer, &row, target).await?;
    }
    Ok(())
}

async fn begin_in(
    open: &Open,
    writer: &mut Writer,
    id: &str,
    now: Timestamp,
    cause: Cause,
) -> Result<Option<LeaseEntry>, Fail> {
    let Some(mut lease) = Leases::get_in(writer, id).await? else { return Ok(None) };
    let was = lease.due_row();
    let before = lease.state.clone();
    if cause == Cause::Due {
        if lease.due() > now {
            return Ok(None);
        }
        lease.with_grace(open.outage.as_ref());
        if lease.state != before && lease.due() > now {
            Leases::update_in(writer, was, &lease).await?;
            return Ok(None);
        }
    }
    if cause == Cause::GoingOn && lease.queued {
        return Ok(None);
    }
    if let LeaseState::Issuing { deadline } = before {
        // From now if that is later: a process that stood still goes on creating when it goes on.
        lease.clean_again = Some(deadline.max(now).plus(ISSUE_DEADLINE));
    }
    if before != LeaseState::Revoked {
        let event = if cause == Cause::Due { LeaseEvent::Due } else { LeaseEvent::RevokeRequested };
        if lease.step(event, now).is_err() {
            return Ok(None);
        }
    } else if cause == Cause::Asked {
        return Ok(None);
    }
    lease.queued = true;
    lease.busy_until = None;
    Leases::update_in(writer, was, &lease).await?;
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
                let was = lease.due_row();
                // The target has confirmed; what is left is the row that has it cleaned once more.
                if lease.state == LeaseState::Revoked {
                    continue;
                }
                if lease.step(LeaseEvent::ForceRevoked, open.now()).is_ok() {
                    Leases::remove_in(w, &was, &lease).await?;
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

/// One attempt at a lease in its target's queue. `due`: when it was, as the store has it; none if somebody asks.
pub(super) async fn attempt_queued(
    open: &Arc<Open>,
    target: &Target,
    id: &str,
    due: Option<Timestamp>,
) -> Attempt {
    match attempt_found(open, target, id, due).await {
        Ok(attempt) => attempt,
        Err(error) => {
            // The target is clean or not; the row says "revoking" either way, so it is tried again.
            tracing::warn!(lease = %id, %error, "a lease could not be read, or the end of its revocation not written");
            Attempt::Lost
        }
    }
}

async fn attempt_found(
    open: &Arc<Open>,
    target: &Target,
    id: &str,
    due: Option<Timestamp>,
) -> Result<Attempt, Fail> {
    let lease = open.leases.get(id).await?;
    let Some(lease) = lease.filter(|lease| is_at(lease, target, due)) else {
        if let Some(due) = due {
            transact!(open.barrier, |w| drop_stale_in(w, target, id, due).await?)?;
        }
        return Ok(Attempt::Gone);
    };
    let place = open.leases.queues.place(target).await;
    let failure = attempt(open, &lease).await.err();
    drop(place);
    match &failure {
        Some(failure) if failure.of_target => target.failed(&failure.why, open.now(), rand::random()),
        Some(Failure { asked: false, .. }) => {}
        _ => target.answered(),
    }
    settle(open, &lease, failure.as_ref().map(|failure| failure.why.as_str())).await?;
    Ok(if failure.is_none() { Attempt::Gone } else { Attempt::Pending })
}

/// Whether a lease waits in this queue, and at that time.
fn is_at(lease: &LeaseEntry, target: &Target, due: Option<Timestamp>) -> bool {
    let here = lease.queued && lease.mount == target.key.mount && lease.target == target.key.name;
    // What was confirmed is only ever cleaned again at its time.
    here && due.map_or(lease.state != LeaseState::Revoked, |due| lease.due() == due)
}

/// A row of a queue whose lease is elsewhere by now.
async fn drop_stale_in(writer: &mut Writer, target: &Target, id: &str, due: Timestamp) -> Result<(), Fail> {
    let lease = Leases::get_in(writer, id).await?;
    writer.guard(&rows::lease(id))?;
    if !lease.is_some_and(|lease| is_at(&lease, target, Some(due))) {
        writer.delete(&rows::lease_queued(&target.key, due, id)).await?;
    }
    Ok(())
}

/// Why an attempt failed.
struct Failure {
    why: String,
    /// The target was asked.
    asked: bool,
    /// It may be the target that fails, not this lease.
    of_target: bool,
}

impl Failure {
    /// Nobody was asked.
    fn here(why: impl Into<String>) -> Self {
        Self { why: why.into(), asked: false, of_target: false }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let of_target = matches!(error, EngineError::Target { retriable: true, .. });
        let asked = matches!(error, EngineError::Target { .. });
        Self { why: error.to_string(), asked, of_target }
    }
}

/// Asks the target, with a record before and after.
async fn attempt(open: &Arc<Open>, lease: &LeaseEntry) -> Result<(), Failure> {
    let mut record = record_of(open, lease);
    open.around
        .audit
        .write(&record)
        .await
        .map_err(|_| Failure::here("the audit log could not be written"))?;
    let result = ask_target(open, lease).await;
    record.kind = RecordType::Completion;
    record.time = open.now();
    record.status = Some(if result.is_ok() { 204 } else { 502 });
    record.error = result.as_ref().err().map(|failure| failure.why.clone());
    if let Err(error) = open.around.audit.complete(&record).await {
        // The intent is there, so the log shows that something was under way.
        tracing::error!(%error, "audit log cannot be written");
    }
    result
}

async fn ask_target(open: &Open, lease: &LeaseEntry) -> Result<(), Failure> {
    let mount = open.mounts.by_id(lease.mount).ok_or_else(|| Failure::here("its mount is gone"))?;
    let engine = open.engine(&mount).map_err(|error| Failure::here(error.to_string()))?;
    let reader = open.barrier.reader().await.map_err(|error| Failure::here(error.to_string()))?;
    let view = ReadView::new(mount.id, &reader);
    match tokio::time::timeout(REVOKE_TIMEOUT, engine.revoke(&view, &lease.payload.0)).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            let why = format!("{}: no answer in time", lease.target);
            Err(Failure { why, asked: true, of_target: true })
        }
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
    let was = lease.due_row();
    let was_tombstone = lease.state == LeaseState::Revoked;
    lease.busy_until = None;
    match failure {
        Some(_) if was_tombstone => {
            // The second cleaning is a precaution: it may fail until it succeeds.
            lease.clean_again = Some(now.plus(ISSUE_DEADLINE));
        }
        Some(why) => {
            let event = LeaseEvent::AttemptFailed { why: why.to_owned(), spread: rand::random() };
            lease.step(event, now).map_err(|_| Fail::Internal("a lease in an unexpected state"))?;
        }
        None => {
            lease
                .step(LeaseEvent::TargetCleaned, now)
                .map_err(|_| Fail::Internal("a lease in an unexpected state"))?;
            if was_tombstone || lease.clean_again.is_none_or(|again| again <= now) {
                Leases::remove_in(writer, &was, &lease).await?;
                return Ok(!was_tombstone);
            }
        }
    }
    Leases::update_in(writer, was, &lease).await?;
    Ok(failure.is_none() && !was_tombstone)
}
