//! What is known of one target: who waits for it, who is being worked on, and how it has been answering.
//!
//! Bounded whatever happens: what there is no room for here waits in the store. Asks no target itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

/// How many calls to one target run at a time.
pub(super) const WIDTH: usize = 8;
/// How many leases that somebody asked for wait in memory for one target. The others wait in the store only.
const FRONT_MAX: usize = 20_000;
/// After so many failures in a row, whichever leases they were about, it is the target that fails.
const FAILURES_MAX: u32 = 3;
/// The pauses of a target that fails: the first, doubled each time, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so many pauses in a row everything that waits for the target counts as stuck.
const PAUSES_UNTIL_STUCK: u32 = 8;

/// A target: the mount, and what the engine calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TargetKey {
    pub(crate) mount: MountId,
    pub(crate) name: String,
}

/// How a target has been answering.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// Failures since the last success.
    failures: u32,
    /// Pauses since the last success.
    pauses: u32,
    /// No calls before then, unless somebody asks.
    until: Option<Timestamp>,
    since: Option<Timestamp>,
    why: String,
}

impl Health {
    /// A call had an answer that says nothing against the target.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A call failed, and it may be the target's fault. `spread` is chance, from 0 to 255: not all targets that fell
    /// together are asked together again.
    pub(super) fn failed(&mut self, why: &str, now: Timestamp, spread: u8) {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        why.clone_into(&mut self.why);
        // Calls that were under way when the pause began say nothing new.
        if self.failures >= FAILURES_MAX && !self.pausing(now) {
            let whole = PAUSE.saturating_mul(1 << self.pauses.min(16)).min(PAUSE_MAX);
            self.pauses = self.pauses.saturating_add(1);
            self.until = Some(now.plus(coffer_core::lease::jittered(whole, spread)));
        }
    }

    /// Whether it is left alone at `now`.
    pub(super) fn pausing(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// How many calls may run at a time: one that fails is asked by one at a time.
    pub(super) const fn width(&self) -> usize {
        if self.failures == 0 { WIDTH } else { 1 }
    }

    /// Whether it has failed for so long that what waits for it is stuck.
    pub(super) const fn stuck(&self) -> bool {
        self.pauses >= PAUSES_UNTIL_STUCK
    }

    /// Since when it fails, and with what; none unless the target itself is taken to fail.
    pub(super) fn failing(&self) -> Option<(Timestamp, &str)> {
        self.since.filter(|_| self.pauses > 0).map(|since| (since, self.why.as_str()))
    }
}

/// Waits until some leases are gone, or have been tried.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    left: AtomicUsize,
    some_stayed: AtomicBool,
    done: Notify,
}

impl Tally {
    fn of(leases: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(leases), ..Self::default() })
    }

    fn report(&self, gone: bool) {
        if !gone {
            self.some_stayed.store(true, Ordering::SeqCst);
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.done.notify_one();
        }
    }

    /// Waits up to `wait`. True if all are gone.
    pub(crate) async fn all_gone(&self, wait: Duration) -> bool {
        if self.left.load(Ordering::SeqCst) > 0 {
            let _too_long = tokio::time::timeout(wait, self.done.notified()).await.is_err();
        }
        self.left.load(Ordering::SeqCst) == 0 && !self.some_stayed.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct Inside {
    running: bool,
    health: Health,
    /// Those that somebody asked for: before what is due by itself.
    front: VecDeque<String>,
    /// Those in front or being worked on, and who waits for them.
    known: HashMap<String, Vec<Arc<Tally>>>,
    /// Those being worked on.
    working: HashSet<String>,
}

/// One target.
pub(super) struct Target {
    pub(super) key: TargetKey,
    /// The one call that may always be made here, whatever goes on elsewhere.
    pub(super) own: Semaphore,
    /// There is more to be done than there was.
    pub(super) more: Notify,
    inside: Mutex<Inside>,
}

impl Target {
    pub(super) fn new(key: TargetKey) -> Arc<Self> {
        Arc::new(Self { key, own: Semaphore::new(1), more: Notify::new(), inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> Health {
        self.inside().health.clone()
    }

    pub(super) fn answered(&self) {
        self.inside().health.answered();
    }

    pub(super) fn failed(&self, why: &str, now: Timestamp, spread: u8) {
        self.inside().health.failed(why, now, spread);
    }

    /// Puts a lease in front. What there is no room for waits in the store, and its tally hears that it stayed.
    fn push(&self, id: String, tally: &Arc<Tally>) {
        let inside = &mut *self.inside();
        if let Some(waiting) = inside.known.get_mut(&id) {
            waiting.push(Arc::clone(tally));
        } else if inside.front.len() < FRONT_MAX {
            inside.known.insert(id.clone(), vec![Arc::clone(tally)]);
            inside.front.push_back(id);
            self.more.notify_one();
        } else {
            tally.report(false);
        }
    }

    /// The next in front, to be worked on.
    pub(super) fn take(&self) -> Option<String> {
        let inside = &mut *self.inside();
        let id = inside.front.pop_front()?;
        inside.working.insert(id.clone());
        Some(id)
    }

    /// Takes one that was found in the store; false if somebody has it.
    pub(super) fn claim(&self, id: &str) -> bool {
        let inside = &mut *self.inside();
        if inside.known.contains_key(id) {
            return false;
        }
        inside.known.insert(id.to_owned(), Vec::new());
        inside.working.insert(id.to_owned())
    }

    /// An attempt at a lease has ended.
    pub(super) fn settled(&self, id: &str, gone: bool) {
        let waiting = {
            let inside = &mut *self.inside();
            inside.working.remove(id);
            inside.known.remove(id).unwrap_or_default()
        };
        for tally in waiting {
            tally.report(gone);
        }
    }

    /// Whether the caller is the one who has to work now. He then calls [`Self::rest`].
    pub(super) fn begin(&self) -> bool {
        !std::mem::replace(&mut self.inside().running, true)
    }

    pub(super) fn is_running(&self) -> bool {
        self.inside().running
    }

    /// Nothing is left to do for now. False if something came in between.
    pub(super) fn rest(&self) -> bool {
        let inside = &mut *self.inside();
        inside.running = !inside.front.is_empty();
        !inside.running
    }

    /// Stops: those in front stay, for the store has them, and whoever waits for them hears it.
    pub(super) fn stop(&self) {
        let waiting: Vec<Arc<Tally>> = {
            let inside = &mut *self.inside();
            inside.running = false;
            inside.front.clear();
            inside.working.clear();
            inside.known.drain().flat_map(|(_, tallies)| tallies).collect()
        };
        for tally in waiting {
            tally.report(false);
        }
    }
}

/// Puts leases in front of their targets.
pub(super) fn push_all(leases: Vec<(Arc<Target>, String)>) -> Arc<Tally> {
    let tally = Tally::of(leases.len());
    for (target, id) in leases {
        target.push(id, &tally);
    }
    tally
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
