//! The only place that reads a clock and the only source of jitter. Never used by the plan itself,
//! which is told what time it is.

use nix::time::{ClockId, clock_gettime};
use std::hash::{BuildHasher, RandomState};

/// Milliseconds since the machine booted, sleep included. Nobody can set this clock, and it is the
/// same for the next container of the same pod, so the state file can hold its readings.
pub fn boot_ms() -> u64 {
    // The call fails only for clocks the kernel does not have; this one is older than native sidecars.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| {
        let whole = u64::try_from(t.tv_sec()).unwrap_or(0);
        whole.saturating_mul(1000).saturating_add(u64::try_from(t.tv_nsec()).unwrap_or(0) / 1_000_000)
    })
}

/// A number in `0..=255` that differs between pods. For spreading load, not for secrets.
pub fn jitter() -> u8 {
    let [first, ..] = RandomState::new().hash_one(0u8).to_le_bytes();
    first
}
