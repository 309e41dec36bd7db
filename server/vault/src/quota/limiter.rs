//! Counting requests per rule and caller, in bounded memory.
//!
//! A window is as long as the rule's interval and begins with the first request in it. Of callers that were not
//! heard of for long, the counts are forgotten first. Never looks at a clock: it is told the time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coffer_core::time::Timestamp;

const SHARDS: usize = 16;
/// The most counts of a shard and generation: two generations of 16 shards are at most 131,072 counts.
const GENERATION_MAX: usize = 4096;

/// Whose requests are counted together, within a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// An IPv4 address, or the /64 of an IPv6 address: whoever has one has all of them.
    Address([u8; 8]),
    /// Everybody.
    All,
    /// The bearer of a token, by a keyed hash of it.
    Token(u64),
}

impl Caller {
    pub(super) fn address(ip: IpAddr) -> Self {
        let mut bytes = [0; 8];
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                bytes[7] = 4;
            }
            IpAddr::V6(v6) => bytes.copy_from_slice(&v6.octets()[..8]),
        }
        Self::Address(bytes)
    }
}

/// A rule's number and whose count.
type Key = (u64, Caller);

#[derive(Clone, Copy)]
struct Count {
    /// When the window began.
    since: Timestamp,
    used: u64,
    blocked_until: Option<Timestamp>,
}

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) requests: u64,
    pub(super) interval: Duration,
    pub(super) block: Duration,
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) admitted: bool,
    pub(super) left: u64,
    /// Until the window, or the block, ends.
    pub(super) wait: Duration,
}

#[derive(Default)]
struct Shard {
    young: HashMap<Key, Count>,
    old: HashMap<Key, Count>,
}

impl Shard {
    fn count(&mut self, key: &Key, now: Timestamp) -> &mut Count {
        if !self.young.contains_key(key) {
            let kept = self.old.remove(key);
            if self.young.len() >= GENERATION_MAX {
                self.old = std::mem::take(&mut self.young);
            }
            let fresh = Count { since: now, used: 0, blocked_until: None };
            self.young.insert(key.clone(), kept.unwrap_or(fresh));
        }
        self.young.entry(key.clone()).or_insert(Count { since: now, used: 0, blocked_until: None })
    }
}

/// All counts.
pub(super) struct Limiter {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Limiter {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// Whose requests these are, by what he sent as a token: hashed under a key that only this process has.
    pub(super) fn bearer(&self, token: &str) -> Caller {
        Caller::Token(self.hasher.hash_one(token))
    }

    /// Counts a request.
    pub(super) fn take(&self, rule: u64, caller: Caller, allowed: Allowance, now: Timestamp) -> Taken {
        let key = (rule, caller);
        let at = usize::try_from(self.hasher.hash_one(&key) % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.count(&key, now);
        if let Some(until) = count.blocked_until {
            if now < until {
                return Taken { admitted: false, left: 0, wait: until.saturating_sub(now) };
            }
            *count = Count { since: now, used: 0, blocked_until: None };
        }
        let end = count.since.plus(allowed.interval);
        if now >= end || now < count.since {
            *count = Count { since: now, used: 0, blocked_until: None };
        }
        let wait = count.since.plus(allowed.interval).saturating_sub(now);
        if count.used < allowed.requests {
            count.used += 1;
            return Taken { admitted: true, left: allowed.requests - count.used, wait };
        }
        if !allowed.block.is_zero() {
            count.blocked_until = Some(now.plus(allowed.block));
            return Taken { admitted: false, left: 0, wait: allowed.block };
        }
        Taken { admitted: false, left: 0, wait }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn client(n: u32) -> Caller {
        Caller::address(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_window_admits_its_number_and_the_next_one_begins_anew() {
        let limiter = Limiter::new();
        let allowed = Allowance { requests: 2, interval: SECOND, block: Duration::ZERO };
        let take = |millis| limiter.take(1, client(1), allowed, at(millis));
        assert_eq!(take(0), Taken { admitted: true, left: 1, wait: SECOND });
        assert_eq!(take(400), Taken { admitted: true, left: 0, wait: Duration::from_millis(600) });
        assert_eq!(take(999), Taken { admitted: false, left: 0, wait: Duration::from_millis(1) });
        assert!(
            limiter.take(1, client(2), allowed, at(999)).admitted,
            "another client has a count of its own"
        );
        assert!(limiter.take(2, client(1), allowed, at(999)).admitted, "and so has another rule");
        assert!(take(1000).admitted);
    }

    #[test]
    fn a_block_lasts_its_time_however_often_is_asked() {
        let limiter = Limiter::new();
        let allowed = Allowance { requests: 1, interval: SECOND, block: 5 * SECOND };
        let take = |millis| limiter.take(1, Caller::All, allowed, at(millis));
        assert!(take(0).admitted);
        assert_eq!(take(10), Taken { admitted: false, left: 0, wait: 5 * SECOND });
        assert!(!take(4000).admitted && !take(5009).admitted);
        assert!(take(5010).admitted);
    }

    #[test]
    fn however_many_clients_there_are_memory_is_bounded_and_the_busy_one_is_remembered() {
        let limiter = Limiter::new();
        let allowed = Allowance { requests: 3, interval: 1000 * SECOND, block: Duration::ZERO };
        let busy = |millis| limiter.take(1, client(u32::MAX), allowed, at(millis)).admitted;
        assert!(busy(0) && busy(0) && busy(0));
        for n in 0..400_000 {
            limiter.take(1, client(n), allowed, at(1));
            assert!(n % 1000 != 0 || !busy(1), "forgotten after {n} others");
        }
        assert!(limiter.len() <= 2 * SHARDS * GENERATION_MAX, "{}", limiter.len());
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_are_one_client() {
        let of = |text: &str| Caller::address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
