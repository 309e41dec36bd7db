//! What a time without an unsealed server means for what would have expired in it. Pure.

use std::time::Duration;

use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Shorter gaps between two signs of life are not an outage.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest grace.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// A time during which nobody could renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// The last sign of life before it.
    pub(crate) from: Timestamp,
    /// When a server was unsealed again.
    pub(crate) to: Timestamp,
}

/// The last sign of life, written every second while unsealed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub(crate) at: Timestamp,
    pub(crate) outage: Option<Outage>,
}

impl Outage {
    /// The outage that ends now, if there was one. When the grace of an earlier one has not run out it is
    /// continued, so that a server that crashes twice in a row cuts nobody off.
    pub(crate) fn between(last: Option<Heartbeat>, now: Timestamp) -> Option<Self> {
        let last = last?;
        let earlier = last.outage.filter(|o| last.at < o.to.plus(GRACE_MAX));
        if now.saturating_sub(last.at) < SHORTEST {
            return earlier;
        }
        Some(Self { from: earlier.map_or(last.at, |o| o.from), to: now })
    }

    /// The end that something gets which would end at `expires`, as was said at `told`, and lives `ttl` at a time:
    /// unchanged if it ended before the outage, or nobody had promised it yet; otherwise there is time for two renewal intervals (two thirds of the ttl each) after the
    /// outage, at most ten minutes, never beyond `max`.
    pub(crate) fn extend(
        &self,
        told: Timestamp,
        expires: Timestamp,
        ttl: Duration,
        max: Option<Timestamp>,
    ) -> Timestamp {
        if expires <= self.from || told >= self.to {
            return expires;
        }
        let grace = (ttl * 4 / 3).min(GRACE_MAX);
        let end = expires.max(self.to.plus(grace));
        let end = max.map_or(end, |max| end.min(max));
        end.max(expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn grace_goes_to_what_was_alive_and_never_beyond_its_maximum() {
        let outage = Outage { from: at(1000), to: at(5000) };
        let hour = Duration::from_secs(3600);
        assert_eq!(outage.extend(at(0), at(900), hour, None), at(900), "was over before");
        assert_eq!(outage.extend(at(0), at(1500), hour, None), at(5600), "ten minutes to renew");
        assert_eq!(outage.extend(at(0), at(1500), Duration::from_secs(60), None), at(5080));
        assert_eq!(outage.extend(at(0), at(1500), hour, Some(at(2000))), at(2000), "the maximum stands");
        assert_eq!(outage.extend(at(0), at(9000), hour, None), at(9000), "has time enough");
        assert_eq!(
            outage.extend(at(5000), at(5060), hour, None),
            at(5060),
            "was not there during the outage"
        );
    }

    #[test]
    fn a_second_crash_continues_the_first_grace() {
        let first = Outage::between(Some(Heartbeat { at: at(1000), outage: None }), at(5000));
        assert_eq!(first, Some(Outage { from: at(1000), to: at(5000) }));
        let second = Outage::between(Some(Heartbeat { at: at(5010), outage: first }), at(5100));
        assert_eq!(second, Some(Outage { from: at(1000), to: at(5100) }));
        let later = Outage::between(Some(Heartbeat { at: at(9000), outage: first }), at(9100));
        assert_eq!(later, Some(Outage { from: at(9000), to: at(9100) }));
        assert_eq!(Outage::between(None, at(5)), None);
        assert_eq!(Outage::between(Some(Heartbeat { at: at(9), outage: None }), at(10)), None);
    }
}
