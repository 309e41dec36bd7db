//! The system's clock, kept from running backwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use coffer_core::time::Timestamp;
use coffer_vault::Clock;

/// The system's clock. When somebody sets it back, time stands still until it has caught up: a lease must
/// not live longer because of that.
#[derive(Debug, Default)]
pub(crate) struct SystemClock {
    latest_millis: AtomicU64,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let read = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let before = self.latest_millis.fetch_max(read, Ordering::Relaxed);
        Timestamp::from_millis(read.max(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back() {
        let clock = SystemClock::default();
        let ahead = clock.now().as_millis() + 3_600_000;
        clock.latest_millis.store(ahead, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp::from_millis(ahead));
    }
}
