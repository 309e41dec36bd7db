//! The one place that reads the clock. Never waits.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Wall-clock time, for conditions and deadlines that Kubernetes counts.
pub(crate) fn now() -> Time {
    Time(Timestamp::now())
}

/// Whole seconds since `then`; 0 when it lies in the future.
pub(crate) fn seconds_since(then: &Time, now: &Time) -> u64 {
    u64::try_from(now.0.as_second().saturating_sub(then.0.as_second())).unwrap_or(0)
}

/// How long until an object is looked at again though nothing changed: a minute, spread by its UID so that
/// a restart does not bring all of them at once for ever after.
pub(crate) fn recheck_after(uid: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    Duration::from_millis(55_000 + hasher.finish() % 10_000)
}
