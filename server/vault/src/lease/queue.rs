//! One queue for each target: what is to be taken back there, as fast as that target bears, and none waits for another.
//!
//! The queue itself is in the store, in order of time; what is in memory is bounded and may be lost at any moment. A
//! target that fails is left alone for a while, then asked by one call at a time. Decides nothing about a lease.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_barrier::{MountId, Read, Writer};
use coffer_core::time::Timestamp;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::revoke::{Attempt, attempt_queued};
use super::target::{Tally, Target, TargetKey, push_all};
use crate::codec;
use crate::error::Fail;
use crate::open::Open;
use crate::rows;

/// How many calls run at a time at all targets together, beside one for each target that no other can take away: many
/// dead ones hold up no healthy one.
const CALLS: usize = 64;
/// How many rows of a queue are looked at together.
const PAGE: usize = 128;

/// A lease that waits in a queue, as stored there.
#[derive(Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) id: String,
    /// It has been tried many times.
    pub(super) stuck: bool,
    /// The target has confirmed that it is gone: it is only cleaned once more.
    pub(super) confirmed: bool,
}

/// A lease that is to be taken back: known to be so in the store.
pub(crate) struct Begun {
    pub(crate) id: String,
    pub(crate) target: TargetKey,
}

/// All queues.
pub(crate) struct Queues {
    targets: Mutex<BTreeMap<TargetKey, Arc<Target>>>,
    /// Removed mounts all of whose leases are in their queues.
    taken: Mutex<BTreeSet<MountId>>,
    calls: Semaphore,
    running: AtomicUsize,
    idle: Notify,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            targets: Mutex::default(),
            taken: Mutex::default(),
            calls: Semaphore::new(CALLS),
            running: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    fn get(&self, key: &TargetKey) -> Arc<Target> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(targets.entry(key.clone()).or_insert_with(|| Target::new(key.clone())))
    }

    /// Whether the store is known to have a row for this target.
    pub(super) fn knows(&self, key: &TargetKey) -> bool {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// The store has a row for each of these.
    pub(super) fn note<'k>(&self, targets: impl Iterator<Item = &'k TargetKey>) {
        for target in targets {
            self.get(target);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Whether all leases of a removed mount are known to be in their queues.
    pub(crate) fn has_taken(&self, mount: MountId) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).contains(&mount)
    }

    /// All leases of a removed mount are in their queues.
    pub(crate) fn take(&self, mount: MountId) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(mount);
    }

    /// Within a transaction: nothing is left of a mount. Its targets are forgotten once that is known.
    pub(crate) async fn remove_mount_in(&self, writer: &mut Writer, mount: MountId) -> Result<(), Fail> {
        for target in self.all().into_iter().filter(|target| target.key.mount == mount) {
            writer.delete(&rows::lease_target(&target.key)).await?;
        }
        Ok(())
    }

    /// A mount is gone.
    pub(crate) fn forget_mount(&self, mount: MountId) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.mount != mount);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&mount);
    }

    /// Knows the targets that the store knows. Not only once: a commit whose outcome nobody heard of may bring another.
    pub(super) async fn load(&self, open: &Open) -> Result<(), Fail> {
        let reader = open.barrier.reader().await?;
        let mut after = None;
        loop {
            let page = reader
                .range_ordered_after(MountId::SYSTEM, rows::LEASE_TARGETS, after.as_ref(), u64::MAX, PAGE)
                .await?;
            let Some((last, _, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, _, bytes) in page {
                self.get(&codec::decode(&bytes)?);
            }
        }
    }

    /// Lets every target that has something due, and is not to be left alone, be worked at. Waits for none.
    pub(crate) async fn wake(&self, open: &Arc<Open>) -> Result<(), Fail> {
        self.load(open).await?;
        for target in self.all() {
            let now = open.now();
            if target.is_running() {
                target.more.notify_one();
            } else if !target.health().pausing(now) && !due(open, &target, now, 1).await?.is_empty() {
                self.start(open, target);
            }
        }
        Ok(())
    }

    /// Lets these be worked at now, before what is due by itself.
    pub(super) fn push(&self, open: &Arc<Open>, begun: Vec<Begun>) -> Arc<Tally> {
        let leases: Vec<_> = begun.into_iter().map(|one| (self.get(&one.target), one.id)).collect();
        let mut targets: BTreeMap<TargetKey, Arc<Target>> = BTreeMap::new();
        for (target, _) in &leases {
            targets.entry(target.key.clone()).or_insert_with(|| Arc::clone(target));
        }
        let tally = push_all(leases);
        for target in targets.into_values() {
            self.start(open, target);
        }
        tally
    }

    fn start(&self, open: &Arc<Open>, target: Arc<Target>) {
        if target.begin() {
            self.running.fetch_add(1, Ordering::SeqCst);
            let running = Running { open: Arc::clone(open), target, resting: false };
            tokio::spawn(run(running));
        }
    }

    /// Waits until no target is being worked at.
    pub(crate) async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.running.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Waits for a place among the calls that are under way: the target's own, or one of those for all.
    pub(super) async fn place<'p>(&'p self, target: &'p Target) -> Option<SemaphorePermit<'p>> {
        tokio::select! {
            biased;
            own = target.own.acquire() => own.ok(),
            any = self.calls.acquire() => any.ok(),
        }
    }
}

/// Works on leases, each in the queue of its target. Waits up to `wait` for all of them, then lets the rest go on in
/// the background. True if all are gone.
pub(crate) async fn execute_all(open: &Arc<Open>, begun: Vec<Begun>, wait: Duration) -> bool {
    open.leases.queues.push(open, begun).all_gone(wait).await
}

/// A target's work under way. However it ends, the target is free for the next.
struct Running {
    open: Arc<Open>,
    target: Arc<Target>,
    resting: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.resting {
            self.target.stop();
        }
        let queues = &self.open.leases.queues;
        if queues.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            queues.idle.notify_waiters();
        }
    }
}

async fn run(mut running: Running) {
    while work(&running.open, &running.target).await {
        if running.target.rest() {
            running.resting = true;
            return;
        }
    }
}

/// What to do next.
struct Next {
    id: String,
    /// When it was due, if it was found in the store.
    due: Option<Timestamp>,
}

/// Works until nothing is due. False if that was not to be: the target is left alone, or the store fails.
async fn work(open: &Arc<Open>, target: &Arc<Target>) -> bool {
    let mut hand = FuturesUnordered::new();
    let mut page = VecDeque::new();
    // One call is made even if the target is to be left alone: somebody asks for it.
    let mut started = false;
    let mut dry = false;
    let mut broken = false;
    loop {
        while !broken && hand.len() < target.health().width() {
            if started && target.health().pausing(open.now()) {
                broken = true;
                break;
            }
            match next(open, target, &mut page, &mut dry).await {
                Ok(Some(next)) => {
                    started = true;
                    hand.push(async move {
                        let attempt = attempt_queued(open, target, &next.id, next.due).await;
                        target.settled(&next.id, attempt == Attempt::Gone);
                        attempt
                    });
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "what is due at a target cannot be looked up; it is tried again");
                    broken = true;
                }
            }
        }
        if hand.is_empty() {
            return !broken;
        }
        tokio::select! {
            Some(attempt) = hand.next() => {
                dry = false;
                broken |= attempt == Attempt::Lost;
            }
            // A call that takes long holds up nobody who comes while there is room beside it.
            () = target.more.notified() => dry = false,
        }
    }
}

/// First what somebody asked for, then what is due, as the store has it. `dry`: nothing was due that is not being
/// worked on already.
async fn next(
    open: &Open,
    target: &Target,
    page: &mut VecDeque<Next>,
    dry: &mut bool,
) -> Result<Option<Next>, Fail> {
    loop {
        if let Some(id) = target.take() {
            return Ok(Some(Next { id, due: None }));
        }
        while let Some(next) = page.pop_front() {
            if target.claim(&next.id) {
                return Ok(Some(next));
            }
        }
        if std::mem::replace(dry, true) {
            return Ok(None);
        }
        page.extend(due(open, target, open.now(), PAGE).await?);
    }
}

/// The leases that are due in a target's queue.
async fn due(open: &Open, target: &Target, now: Timestamp, limit: usize) -> Result<Vec<Next>, Fail> {
    let reader = open.barrier.reader().await?;
    let family = rows::lease_queue(&target.key);
    let rows = reader.range_ordered(MountId::SYSTEM, &family, now.as_millis(), limit).await?;
    rows.into_iter()
        .map(|(_, order, bytes)| {
            let queued: Queued = codec::decode(&bytes)?;
            Ok(Next { id: queued.id, due: Some(Timestamp::from_millis(order)) })
        })
        .collect()
}
