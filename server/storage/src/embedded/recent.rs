//! Which keys changed since the oldest transaction that is still open.
//!
//! Owned by the committer alone. Bounded: when a transaction stays open for very long, what it would need is
//! forgotten, and it conflicts.

use std::collections::{HashMap, VecDeque};

/// The most changes that are remembered.
const CHANGES_MAX: usize = 1_000_000;

#[derive(Default)]
pub(crate) struct Recent {
    last: HashMap<Vec<u8>, u64>,
    order: VecDeque<(u64, Vec<u8>)>,
    /// Transactions with an older snapshot can no longer be validated.
    floor: u64,
}

impl Recent {
    /// Whether a transaction that read at `snapshot` can be validated at all.
    pub(crate) const fn covers(&self, snapshot: u64) -> bool {
        snapshot >= self.floor
    }

    /// The version that last changed `key`, if it is remembered.
    pub(crate) fn last_change(&self, key: &[u8]) -> Option<u64> {
        self.last.get(key).copied()
    }

    /// Remembers that `version` changed `key`.
    pub(crate) fn record(&mut self, key: Vec<u8>, version: u64) {
        self.order.push_back((version, key.clone()));
        self.last.insert(key, version);
    }

    /// Forgets what no transaction that read at `oldest` or later can conflict with.
    pub(crate) fn prune(&mut self, oldest: u64) {
        while let Some((version, _)) = self.order.front() {
            let dropped = *version;
            if dropped > oldest && self.order.len() <= CHANGES_MAX {
                break;
            }
            let Some((_, key)) = self.order.pop_front() else { break };
            if self.last.get(&key) == Some(&dropped) {
                self.last.remove(&key);
            }
            self.floor = self.floor.max(dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_nobody_needs_and_refuses_who_is_too_old() {
        let mut recent = Recent::default();
        recent.record(b"a".to_vec(), 1);
        recent.record(b"b".to_vec(), 2);
        recent.record(b"a".to_vec(), 3);
        recent.prune(1);
        assert_eq!(recent.last_change(b"a"), Some(3));
        assert_eq!(recent.last_change(b"b"), Some(2));
        recent.prune(2);
        assert_eq!(recent.last_change(b"b"), None);
        assert!(recent.covers(2) && !recent.covers(1));
    }
}
