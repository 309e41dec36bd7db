//! Credentials that rotate by themselves: what an engine has to do without anybody asking is done here, as the system,
//! with a record before and after.
//!
//! One piece of work at a time for each target, and no target waits for another's. Never looks into a credential.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_engines::ReadView;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::door::Door;
use crate::engine::published;
use crate::error::Fail;
use crate::mounts::{Class, Mount};
use crate::open::Open;

const TICK: Duration = Duration::from_secs(1);
/// How much of a mount's work is looked at in one tick.
const LIMIT: usize = 1000;
/// At how many targets there is work at the same time.
const TARGETS_MAX: usize = 16;
/// How many credentials of a target are worked at before the next look at what is due.
const RUN_MAX: usize = 50;
/// Who does it, in the records.
const SYSTEM: &str = "system";

type Key = (MountId, String);

/// Which targets there is work at.
#[derive(Clone)]
struct Busy {
    targets: Arc<Mutex<HashSet<Key>>>,
    room: Arc<Semaphore>,
}

/// One target's work: free for the next one when this is dropped.
struct Claim {
    busy: Busy,
    key: Key,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.busy.targets.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Busy {
    fn claim(&self, key: Key) -> Option<Claim> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.insert(key.clone()).then(|| Claim { busy: self.clone(), key })
    }
}

/// Until `shutdown`; what is under way then is finished.
pub(crate) async fn run(door: Arc<Door>, shutdown: CancellationToken) {
    let busy = Busy { targets: Arc::default(), room: Arc::new(Semaphore::new(TARGETS_MAX)) };
    let mut works = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        while works.try_join_next().is_some() {}
        let Some(open) = door.open() else { continue };
        if let Err(error) = begin(&open, &busy, &mut works).await {
            tracing::warn!(%error, "rotations that are due could not be looked up; it is tried again");
        }
    }
    while works.join_next().await.is_some() {}
}

/// Does all that is due now, and waits for it.
pub(crate) async fn sweep(open: &Arc<Open>) -> Result<(), Fail> {
    let busy = Busy { targets: Arc::default(), room: Arc::new(Semaphore::new(TARGETS_MAX)) };
    let mut works = JoinSet::new();
    begin(open, &busy, &mut works).await?;
    while works.join_next().await.is_some() {}
    Ok(())
}

/// Begins what is due, but for targets where there is work already.
async fn begin(open: &Arc<Open>, busy: &Busy, works: &mut JoinSet<()>) -> Result<(), Fail> {
    for mount in open.mounts.all(Class::Secret) {
        let Ok(engine) = open.engine(&mount) else { continue };
        if mount.check_ready().is_err() {
            continue;
        }
        let due = {
            let reader = open.barrier.reader().await?;
            engine.due(&ReadView::new(mount.id, &reader), open.now(), LIMIT).await?
        };
        let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for work in due {
            targets.entry(work.target).or_default().push(work.path);
        }
        for (target, paths) in targets {
            let Some(claim) = busy.claim((mount.id, target)) else { continue };
            let (open, mount) = (Arc::clone(open), Arc::clone(&mount));
            works.spawn(async move {
                let Ok(_place) = claim.busy.room.acquire().await else { return };
                for path in paths.into_iter().take(RUN_MAX) {
                    if let Err(error) = work(&open, &mount, &path).await {
                        let path = format!("{}{path}", mount.full_path());
                        tracing::warn!(path, %error, "a rotation failed; it is tried again");
                    }
                }
            });
        }
    }
    Ok(())
}

/// One piece of work, with a record before and after.
async fn work(open: &Open, mount: &Mount, path: &str) -> Result<(), Fail> {
    let now = open.now();
    let id = uuid::Uuid::new_v4().to_string();
    let full = format!("{}{path}", mount.full_path());
    let mut record = AuditRecord::new(now, RecordType::Intent, id, "update", full);
    record.display_name = Some(SYSTEM.to_owned());
    open.around.audit.write(&record).await?;
    let engine = open.engine(mount)?;
    // As for a request: what is kept in memory of it is closed until it is known what became of it.
    let writing = open.secrets.writing(mount.id, engine.touches(path));
    let done: Result<_, Fail> = engine.work(&open.barrier, mount.id, path, now).await.map_err(Fail::from);
    drop(writing);
    record.kind = RecordType::Completion;
    record.time = open.now();
    record.status = Some(done.as_ref().map_or_else(Fail::status, |_| 204));
    record.error = done.as_ref().err().map(ToString::to_string);
    open.around.audit.complete(&record).await?;
    let drafts = done?.into_iter().map(|effect| published(mount, effect)).collect();
    open.around.events.publish(drafts, open.now());
    Ok(())
}
