//! The time that leases are measured by: a clock that no one can set, begun at the wall clock.
//!
//! Never goes back, never stands still, and never runs slower than time does: no step of the wall clock lengthens a
//! lease. What it does about steps forward is in `docs/adr/0013-time.md`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coffer_core::time::Timestamp;
use coffer_vault::Clock;
use nix::time::{ClockId, clock_gettime};

/// How often the wall clock is compared with, at most. Milliseconds.
const LOOK_EVERY: u64 = 1000;
/// A wall clock that is ahead is followed by going faster by one part in so many.
const GAIN: u64 = 10;

/// Where time is read.
pub(crate) trait Source: Send + Sync + 'static {
    /// Milliseconds since 1970, as far as anybody knows. May be set to anything at any moment.
    fn wall(&self) -> u64;

    /// Milliseconds since some moment before the start of this process; counts also while the machine is suspended,
    /// and cannot be set.
    fn boot(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub(crate) struct Machine {
    start: Instant,
}

impl Source for Machine {
    fn wall(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn boot(&self) -> u64 {
        // Every Linux that this runs on has that clock, so it is either always asked or never.
        let read = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or_else(|_| self.start.elapsed(), std::time::Duration::from);
        u64::try_from(read.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The clock of this process.
#[derive(Debug)]
pub(crate) struct SystemClock<S = Machine> {
    source: S,
    /// What is added to the boot-time clock. Only ever rises.
    offset: AtomicU64,
    /// When the wall clock was last compared with, on the boot-time clock.
    looked: AtomicU64,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::over(Machine { start: Instant::now() })
    }
}

impl<S: Source> SystemClock<S> {
    fn over(source: S) -> Self {
        let boot = source.boot();
        let offset = AtomicU64::new(source.wall().saturating_sub(boot));
        Self { source, offset, looked: AtomicU64::new(boot) }
    }

    /// Catches up with a wall clock that is ahead: by a tenth of the time since the last look, so that whatever has
    /// to be renewed in time still is. Of several at once exactly one does.
    fn follow(&self, boot: u64) {
        let looked = self.looked.load(Ordering::Relaxed);
        let since = boot.saturating_sub(looked);
        if since < LOOK_EVERY {
            return;
        }
        if self.looked.compare_exchange(looked, boot, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let own = boot.saturating_add(self.offset.load(Ordering::Relaxed));
        let ahead = self.source.wall().saturating_sub(own);
        self.offset.fetch_add(ahead.min(since / GAIN), Ordering::Relaxed);
    }
}

impl<S: Source> Clock for SystemClock<S> {
    fn now(&self) -> Timestamp {
        let boot = self.source.boot();
        self.follow(boot);
        Timestamp::from_millis(boot.saturating_add(self.offset.load(Ordering::Relaxed)))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.source.wall())
    }

    fn not_before(&self, floor: Timestamp) {
        let least = floor.as_millis().saturating_sub(self.source.boot());
        self.offset.fetch_max(least, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
