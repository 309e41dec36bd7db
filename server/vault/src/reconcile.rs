//! The reconciler (R11): the accounts that the vault's engines have at their targets are compared with the leases, and those
//! without one are taken away, with a record before and after.
//!
//! Accounts are listed first, leases are read in a later snapshot: an account has its lease before it exists. Only what an
//! engine knows for certain to be its own is looked at, and only what was found without a lease twice, a minute apart, goes.
//! Static roles are not leased and are nobody's business here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_barrier::{MountId, Read};
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::lease::LeaseState;
use coffer_core::time::Timestamp;
use coffer_engines::{EngineError, ReadView};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::door::Door;
use crate::error::Fail;
use crate::lease::LeaseEntry;
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::rows;

const TICK: Duration = Duration::from_secs(1);
/// How often everything is compared.
const EVERY: Duration = Duration::from_secs(3600);
/// How soon again, when something was found or could not be looked at, and after taking over.
const SOON: Duration = Duration::from_secs(60);
/// For how long an account must have been seen without a lease.
const DELAY: Duration = Duration::from_secs(60);
/// At how many targets at a time.
const TARGETS_MAX: usize = 8;
/// How long a target may take to list its accounts, and to take one away.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How many accounts of a target go in one comparison; the rest go in the next one.
const DROPS_MAX: usize = 1000;

type Account = (MountId, String, String);

/// What was found so far, since the vault was unsealed.
#[derive(Default)]
pub(crate) struct Reconciler(Mutex<Found>);

#[derive(Default)]
struct Found {
    next: Timestamp,
    compared: bool,
    /// Accounts without a lease, and since when they are known.
    lost: HashMap<Account, Timestamp>,
}

impl Reconciler {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down which accounts of a target have no lease; gives back those that go.
    fn note(&self, mount: MountId, target: &str, lost: &HashSet<String>, now: Timestamp) -> Vec<String> {
        let mut found = self.found();
        found.lost.retain(|(at, of, account), _| *at != mount || of != target || lost.contains(account));
        let mut due = Vec::new();
        for account in lost {
            let since = *found.lost.entry((mount, target.to_owned(), account.clone())).or_insert(now);
            if now.saturating_sub(since) >= DELAY {
                due.push(account.clone());
            }
        }
        due.truncate(DROPS_MAX);
        due
    }

    fn gone(&self, mount: MountId, target: &str, account: &str) {
        self.found().lost.remove(&(mount, target.to_owned(), account.to_owned()));
    }

    /// Forgets targets that are no more.
    fn keep(&self, targets: &HashSet<(MountId, String)>) {
        self.found().lost.retain(|(mount, target, _), _| targets.contains(&(*mount, target.clone())));
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.found().next <= now
    }

    /// Says when the next comparison is due, and how many accounts are without a lease now.
    fn settle(&self, failed: bool, now: Timestamp) -> usize {
        let mut found = self.found();
        let soon = failed || !found.compared || !found.lost.is_empty();
        found.compared = true;
        found.next = now.plus(if soon { SOON } else { EVERY });
        found.lost.len()
    }
}

/// Until `shutdown`: at once when the vault is unsealed, which also takes the targets over, and then every hour.
pub(crate) async fn run(door: Arc<Door>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(open) = door.open() else { continue };
        if !open.reconciler.is_due(open.now()) {
            continue;
        }
        if let Some(Err(error)) = shutdown.run_until_cancelled(reconcile(&open)).await {
            tracing::warn!(%error, "accounts could not be compared with leases; it is tried again");
        }
    }
}

/// Compares everything once. A target that does not answer keeps no other from being compared.
pub(crate) async fn reconcile(open: &Arc<Open>) -> Result<(), Fail> {
    let targets = targets(open).await;
    let (targets, listed) = match targets {
        Ok(targets) => (targets, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    if listed.is_ok() {
        open.reconciler.keep(&targets.iter().map(|(mount, target)| (mount.id, target.clone())).collect());
    }
    let failures: usize = futures::stream::iter(targets)
        .map(|(mount, target)| async move {
            match compare(open, &mount, &target).await {
                Ok(failures) => failures,
                Err(error) => {
                    let mount = mount.full_path();
                    tracing::warn!(mount, target, %error, "the accounts at a target could not be compared with leases");
                    1
                }
            }
        })
        .buffer_unordered(TARGETS_MAX)
        .fold(0, |sum, failures| async move { sum + failures })
        .await;
    let lost = open.reconciler.settle(failures > 0 || listed.is_err(), open.now());
    let metrics = &open.around.metrics;
    metrics.reconcile_failures.inc_by(u64::try_from(failures).unwrap_or(u64::MAX));
    metrics.accounts_lost.set(i64::try_from(lost).unwrap_or(i64::MAX));
    listed
}

async fn targets(open: &Open) -> Result<Vec<(Arc<Mount>, String)>, Fail> {
    let mut all = Vec::new();
    let reader = open.barrier.reader().await?;
    for mount in open.mounts.all(Class::Secret) {
        let Ok(engine) = open.engine(&mount) else { continue };
        if mount.check_ready().is_err() {
            continue;
        }
        let targets = engine.targets(&ReadView::new(mount.id, &reader)).await?;
        all.extend(targets.into_iter().map(|target| (Arc::clone(&mount), target)));
    }
    Ok(all)
}

/// One target. Gives back how many accounts could not be taken away.
async fn compare(open: &Open, mount: &Mount, target: &str) -> Result<usize, Fail> {
    let engine = open.engine(mount)?;
    let accounts = {
        let reader = open.barrier.reader().await?;
        in_time(target, engine.accounts(&ReadView::new(mount.id, &reader), target)).await?
    };
    // Later than the list: the lease of whatever is in the list is in here, if it has one.
    let reader = open.barrier.reader().await?;
    let mut lost = HashSet::new();
    for account in accounts {
        if !is_leased(&reader, mount.id, &account).await? {
            lost.insert(account);
        }
    }
    let mut failures = 0;
    for account in open.reconciler.note(mount.id, target, &lost, open.now()) {
        match drop_account(open, mount, target, &account).await {
            Ok(()) => open.reconciler.gone(mount.id, target, &account),
            Err(error) => {
                failures += 1;
                tracing::warn!(target, account, %error, "an account without a lease could not be taken away");
            }
        }
    }
    Ok(failures)
}

/// Whether somebody is responsible for the account. A lease whose target has said that the account is gone is not.
async fn is_leased(reader: &dyn Read, mount: MountId, account: &str) -> Result<bool, Fail> {
    let Some(id) = codec::get::<String>(reader, &rows::lease_account(mount, account)).await? else {
        return Ok(false);
    };
    let lease: Option<LeaseEntry> = codec::get(reader, &rows::lease(&id)).await?;
    Ok(lease.is_some_and(|lease| lease.state != LeaseState::Revoked))
}

async fn drop_account(open: &Open, mount: &Mount, target: &str, account: &str) -> Result<(), Fail> {
    let path = format!("{}{target}", mount.full_path());
    let id = uuid::Uuid::new_v4().to_string();
    let mut record = AuditRecord::new(open.now(), RecordType::Intent, id, "reconcile", path);
    record.display_name = Some("system".to_owned());
    record.metadata.insert("account".to_owned(), account.to_owned());
    open.around.audit.write(&record).await?;
    let engine = open.engine(mount)?;
    let done = {
        let reader = open.barrier.reader().await?;
        in_time(target, engine.remove(&ReadView::new(mount.id, &reader), target, account)).await
    };
    record.kind = RecordType::Completion;
    record.time = open.now();
    record.status = Some(done.as_ref().map_or_else(Fail::status, |()| 204));
    record.error = done.as_ref().err().map(ToString::to_string);
    open.around.audit.complete(&record).await?;
    done?;
    open.around.metrics.accounts_dropped.inc();
    tracing::warn!(target, account, "an account without a lease was taken away");
    Ok(())
}

async fn in_time<T>(target: &str, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, Fail> {
    match tokio::time::timeout(ANSWER_MAX, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Fail::Engine(EngineError::Target {
            target: target.to_owned(),
            retriable: true,
            message: "no answer in time".into(),
        })),
    }
}
