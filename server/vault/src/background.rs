//! What goes on without anybody asking: sweeping, rotating, anchoring the audit log, signs of life.
//!
//! Everything here stops while the vault is sealed. The audit log brings itself to the disk.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::RewrapStep;
use tokio_util::sync::CancellationToken;

use crate::audit::anchor;
use crate::auth::approle;
use crate::door::Door;
use crate::error::Fail;
use crate::open::{Open, Surroundings};
use crate::{lease, reconcile, rotations, sweep, sys};

/// How often most of it is done.
const TICK: Duration = Duration::from_secs(1);
/// From how far apart the wall clock and the vault's time are an alarm.
const CLOCK_APART: u64 = 60;
/// How many change-log rows are kept, and how many closed streams.
const LOG_KEEP: u64 = 100_000;
const LOG_STREAMS_KEEP: usize = 8;
/// Every how many ticks the change log is trimmed, beginning with the first: a server that never lives long must
/// not fill the store.
const TRIM_EVERY: u64 = 60;
/// Every how many ticks it is counted what waits to be taken back.
const MEASURE_EVERY: u64 = 10;
/// How often the change log's mark is published.
const PUBLISH: Duration = Duration::from_millis(100);

/// Runs until `shutdown`, then brings the audit log to its end.
pub(crate) async fn run(around: Arc<Surroundings>, door: Arc<Door>, shutdown: CancellationToken) {
    let sweeper = tokio::spawn(sweep_regularly(Arc::clone(&door), shutdown.clone()));
    let publisher = tokio::spawn(publish_regularly(Arc::clone(&door), shutdown.clone()));
    let rewrapper = tokio::spawn(rewrap_regularly(Arc::clone(&door), shutdown.clone()));
    let rotator = tokio::spawn(rotations::run(Arc::clone(&door), shutdown.clone()));
    let reconciler = tokio::spawn(reconcile::run(Arc::clone(&door), shutdown.clone()));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    let mut apart = false;
    // Once: a vault that somebody seals stays sealed.
    let mut to_open = around.barrier.opens_alone();
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        if to_open {
            let opened = door.open_alone().await;
            to_open = door.open().is_none();
            report("opening without shares", opened);
        }
        tell_counted(&around).await;
        let Some(open) = door.open() else { continue };
        apart = compare_clocks(&open, apart);
        report("anchor", anchor::anchor(&open).await);
        if count.is_multiple_of(TRIM_EVERY) {
            report("removing what nobody needs", trim(&open).await);
            report("rotating keys that are due", sys::keys::rotate_if_due(&open).await);
            report("retiring audit files", anchor::retire(&open).await);
        }
        count += 1;
    }
    // None may be dropped half way: the one is at a target, the others at the store.
    let _ = tokio::join!(sweeper, publisher, rewrapper, rotator, reconciler);
    tell_counted(&around).await;
    if let Some(open) = door.open() {
        report("last anchor", anchor::anchor(&open).await);
    }
    flush(&around).await;
}

/// Refusals that were not recorded one by one. What cannot be written now is told the next time.
async fn tell_counted(around: &Surroundings) {
    let _next_time = around.audit.tell_counted(around.clock.now()).await.is_err();
}

/// Tells how far the wall clock is from the vault's time, and says so once when that is far. True if it is.
fn compare_clocks(open: &Open, was_apart: bool) -> bool {
    let (own, wall) = (open.now(), open.around.clock.wall());
    let (ahead, behind) = (wall.saturating_sub(own).as_secs(), own.saturating_sub(wall).as_secs());
    let signed = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX);
    open.around.metrics.clock_ahead.set(signed(ahead) - signed(behind));
    let apart = ahead.max(behind) >= CLOCK_APART;
    if apart && !was_apart {
        tracing::warn!(ahead, behind, "the wall clock was set: leases go on by the time that has passed");
    }
    apart
}

fn report(what: &str, result: Result<(), Fail>) {
    match result {
        Ok(()) | Err(Fail::Barrier(coffer_barrier::BarrierError::Sealed)) => {}
        Err(error) => tracing::warn!(what, %error, "background work failed; it is tried again"),
    }
}

async fn flush(around: &Arc<Surroundings>) {
    let around = Arc::clone(around);
    match tokio::task::spawn_blocking(move || around.audit.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "audit log cannot be flushed to disk"),
        Err(error) => tracing::error!(%error, "audit log flush died"),
    }
}

async fn sweep_regularly(door: Arc<Door>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(open) = door.open() else { continue };
        let result = sweep::sweep(&open).await;
        if result.is_err() {
            open.around.metrics.sweeper_errors.inc();
        }
        report("sweep", result);
        if count.is_multiple_of(MEASURE_EVERY) {
            report("counting what waits to be taken back", lease::measure(&open).await);
        }
        count += 1;
    }
}

async fn rewrap_regularly(door: Arc<Door>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(open) = door.open() else { continue };
        let work = shutdown.run_until_cancelled(rewrap(&open)).await;
        report("bringing rows under new keys", work.unwrap_or(Ok(())));
    }
}

/// Brings rows under the newest keys until there is nothing to do, or somebody to wait for. Giving up between two
/// batches, or in one, loses nothing.
pub(crate) async fn rewrap(open: &Open) -> Result<(), Fail> {
    while open.barrier.rewrap().await? == RewrapStep::More {
        // A batch is some milliseconds of work: others come first.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn publish_regularly(door: Arc<Door>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(PUBLISH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(open) = door.open() else { continue };
        report("publishing the change log", open.barrier.publish_log().await.map_err(Fail::from));
    }
}

/// Deletes what nobody needs any more: of the change log, and of roles that are gone.
pub(crate) async fn trim(open: &Open) -> Result<(), Fail> {
    let dead = approle::clear_dead_everywhere(open).await;
    open.barrier.trim_log(LOG_KEEP, LOG_STREAMS_KEEP).await?;
    dead
}

/// Closes the change-log streams of processes that are gone, where it is certain that they are: an open stream is
/// never removed. Not doing it costs room only, so a failure does not keep the vault shut.
pub(crate) async fn close_streams(open: &Open) {
    if open.around.store_is_exclusive {
        report("closing old streams", open.barrier.close_other_streams().await.map_err(Fail::from));
    }
}
