//! Refused requests of nobody in particular: recorded one by one while they are few, counted when they are many.
//!
//! Whoever reaches the port can be refused as fast as he can send; recording each refusal would let him fill the volume.
//! So refusals without a valid token are recorded up to a rate per client and in all, and beyond it counted; the
//! counts are recorded, too. Nothing that has an effect, and nothing a valid token did, ever comes here. See ADR 8.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::time::Timestamp;

/// Records per second, and how many at once, of one client.
const CLIENT: Rate = Rate { per_second: 10, burst: 100 };
/// The same of all clients together.
const ALL: Rate = Rate { per_second: 50, burst: 1000 };
/// The most clients that are told apart; others share what there is for all.
const CLIENTS_MAX: usize = 4096;
/// The most clients that a record of counts names.
const NAMED_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: u64,
    burst: u64,
}

/// A bucket of tokens, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u64,
    at: Timestamp,
}

impl Bucket {
    const fn full(rate: Rate, at: Timestamp) -> Self {
        Self { left: rate.burst * 1000, at }
    }

    fn refill(&mut self, rate: Rate, now: Timestamp) {
        let passed = now.as_millis().saturating_sub(self.at.as_millis());
        self.left = self.left.saturating_add(passed.saturating_mul(rate.per_second)).min(rate.burst * 1000);
        self.at = self.at.max(now);
    }

    const fn is_full(&self, rate: Rate) -> bool {
        self.left >= rate.burst * 1000
    }
}

#[derive(Default)]
struct State {
    all: Option<Bucket>,
    clients: HashMap<IpAddr, Bucket>,
    /// Since the last record of counts.
    counted: u64,
    since: Option<Timestamp>,
    by: BTreeMap<IpAddr, u64>,
}

/// The gate for refusals.
#[derive(Default)]
pub(crate) struct Flood(Mutex<State>);

impl Flood {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refusal is to be recorded by itself. If not, it is counted.
    pub(crate) fn admits(&self, client: IpAddr, now: Timestamp) -> bool {
        let client = network(client);
        let state = &mut *self.state();
        let all = state.all.get_or_insert(Bucket::full(ALL, now));
        all.refill(ALL, now);
        if state.clients.len() >= CLIENTS_MAX && !state.clients.contains_key(&client) {
            state.clients.retain(|_, bucket| {
                bucket.refill(CLIENT, now);
                !bucket.is_full(CLIENT)
            });
        }
        let room = state.clients.len() < CLIENTS_MAX;
        let own = match state.clients.get_mut(&client) {
            Some(bucket) => Some(bucket),
            None if room => Some(state.clients.entry(client).or_insert(Bucket::full(CLIENT, now))),
            None => None,
        };
        let own_left = own.map(|bucket| {
            bucket.refill(CLIENT, now);
            &mut bucket.left
        });
        if all.left >= 1000 && own_left.as_ref().is_none_or(|left| **left >= 1000) {
            all.left -= 1000;
            if let Some(left) = own_left {
                *left -= 1000;
            }
            return true;
        }
        state.counted += 1;
        state.since.get_or_insert(now);
        if state.by.len() < CLIENTS_MAX || state.by.contains_key(&client) {
            *state.by.entry(client).or_default() += 1;
        }
        false
    }

    /// The record of what was counted since the last one; none if nothing was.
    pub(crate) fn summary(&self, now: Timestamp) -> Option<AuditRecord> {
        let (count, since, by) = {
            let mut state = self.state();
            let count = std::mem::take(&mut state.counted);
            (count, state.since.take()?, std::mem::take(&mut state.by))
        };
        let mut clients: Vec<_> = by.into_iter().collect();
        clients.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut metadata = BTreeMap::from([
            ("suppressed".to_owned(), count.to_string()),
            ("since".to_owned(), since.to_rfc3339()),
            ("clients".to_owned(), clients.len().to_string()),
        ]);
        metadata.extend(
            clients
                .into_iter()
                .take(NAMED_MAX)
                .map(|(client, count)| (format!("from {client}"), count.to_string())),
        );
        let text = format!("{count} refused requests without a valid token were not recorded one by one");
        let id = uuid::Uuid::new_v4().to_string();
        Some(AuditRecord {
            display_name: Some("system".into()),
            error: Some(text),
            metadata,
            ..AuditRecord::new(now, RecordType::Completion, id, "suppress", "sys/audit")
        })
    }

    /// Puts a summary's count back: it could not be written.
    pub(crate) fn put_back(&self, record: &AuditRecord, now: Timestamp) {
        let count = record.metadata.get("suppressed").and_then(|count| count.parse::<u64>().ok());
        let mut state = self.state();
        state.counted += count.unwrap_or_default();
        state.since.get_or_insert(now);
    }
}

/// Who counts as one client: an IPv4 address, or an IPv6 /64, which one host has all of.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn one_client_has_a_burst_and_then_a_rate() {
        let flood = Flood::default();
        let admitted = (0..500).filter(|_| flood.admits(ip(1), at(0))).count();
        assert_eq!(admitted as u64, CLIENT.burst);
        // Another one is not held up by that.
        assert!(flood.admits(ip(2), at(0)));
        let later = (0..500).filter(|_| flood.admits(ip(1), at(1000))).count();
        assert_eq!(later as u64, CLIENT.per_second);
    }

    #[test]
    fn all_clients_together_have_a_limit_too() {
        let flood = Flood::default();
        let clients = |n: u32| IpAddr::from(n.to_be_bytes());
        let admitted = (0..20_000).filter(|n| flood.admits(clients(*n), at(0))).count();
        assert_eq!(admitted as u64, ALL.burst);
        assert!(flood.state().clients.len() <= CLIENTS_MAX && flood.state().by.len() <= CLIENTS_MAX);
    }

    #[test]
    fn an_ipv6_host_has_no_more_than_its_network() {
        let flood = Flood::default();
        let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, n]);
        let admitted = (0..500).filter(|n| flood.admits(host(*n), at(0))).count();
        assert_eq!(admitted as u64, CLIENT.burst);
    }

    #[test]
    fn what_is_not_recorded_is_counted() {
        let flood = Flood::default();
        assert!(flood.summary(at(0)).is_none());
        (0..150).for_each(|_| {
            flood.admits(ip(1), at(0));
        });
        let record = flood.summary(at(5)).unwrap();
        assert_eq!(record.metadata["suppressed"], "50");
        assert_eq!(record.metadata["from 10.0.0.1"], "50");
        assert!(flood.summary(at(6)).is_none());
        flood.put_back(&record, at(7));
        assert_eq!(flood.summary(at(8)).unwrap().metadata["suppressed"], "50");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let flood = Flood::default();
        (0..100).for_each(|_| {
            flood.admits(ip(1), at(5000));
        });
        assert!(!flood.admits(ip(1), at(0)));
        assert!(!flood.admits(ip(1), at(5000)));
    }
}
