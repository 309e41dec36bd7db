//! The recent events, in their order, for whoever was away for a while.
//!
//! Holds at least the last 100,000 and, up to a limit, those of the last hour. What is gone is never passed over in
//! silence: asking for it says so.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::time::Timestamp;

use super::Event;

/// How many events are kept at least, however old.
const KEPT_MIN: usize = 100_000;
/// How long events are kept at least, while there are no more than [`KEPT_MAX`].
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many events are kept at most: about 60 MB.
const KEPT_MAX: usize = 250_000;

/// The ring.
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    last: u64,
    /// The last event about each subject, of those that are here. By hash: two that meet are woken once too often.
    latest: HashMap<u64, u64>,
    hasher: RandomState,
    keep: (usize, usize),
}

impl Default for Ring {
    fn default() -> Self {
        Self::holding(KEPT_MIN, KEPT_MAX)
    }
}

impl Ring {
    pub(super) fn holding(min: usize, max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            last: 0,
            latest: HashMap::new(),
            hasher: RandomState::new(),
            keep: (min, max),
        }
    }

    /// The number of the last event; zero for none.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn push(&mut self, event: Arc<Event>, now: Timestamp) {
        self.last = event.seq;
        self.latest.insert(self.hasher.hash_one(event.draft.subject()), event.seq);
        self.events.push_back(event);
        let (min, max) = self.keep;
        while self.events.len() > max
            || (self.events.len() > min && self.events.front().is_some_and(|e| e.at.plus(KEPT_FOR) < now))
        {
            let Some(gone) = self.events.pop_front() else { break };
            let subject = self.hasher.hash_one(gone.draft.subject());
            if self.latest.get(&subject) == Some(&gone.seq) {
                self.latest.remove(&subject);
            }
        }
    }

    /// The number of the oldest event that is still here.
    fn oldest(&self) -> u64 {
        self.events.front().map_or(self.last + 1, |event| event.seq)
    }

    /// Whether everything after `seq` is here.
    pub(super) fn reaches(&self, seq: u64) -> bool {
        seq <= self.last && seq + 1 >= self.oldest()
    }

    /// Up to `limit` events after `seq`; `None` if some of them are gone.
    pub(super) fn after(&self, seq: u64, limit: usize) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if !self.reaches(seq) {
            return None;
        }
        let skip = usize::try_from(seq + 1 - self.oldest()).unwrap_or(usize::MAX);
        Some(self.events.range(skip.min(self.events.len())..).take(limit))
    }

    /// Whether anything was published about a subject after `seq`, as far as can be told: yes, if that is not known.
    pub(super) fn touched_since(&self, subject: &str, seq: u64) -> bool {
        !self.reaches(seq)
            || self.latest.get(&self.hasher.hash_one(subject)).is_some_and(|latest| *latest > seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Draft;

    fn event(seq: u64, secs: u64, path: &str) -> Arc<Event> {
        let draft = Draft {
            event_type: "delivery/write",
            path: path.into(),
            operation: "write",
            mount_path: "delivery/".into(),
        };
        Arc::new(Event { seq, at: Timestamp::from_secs(secs), draft, id: uuid::Uuid::nil() })
    }

    fn push(ring: &mut Ring, seq: u64, secs: u64, path: &str) {
        ring.push(event(seq, secs, path), Timestamp::from_secs(secs));
    }

    #[test]
    fn holds_an_hour_and_a_number_whichever_is_more() {
        let mut ring = Ring::holding(2, 4);
        for seq in 1..=3 {
            push(&mut ring, seq, 10, "delivery/a");
        }
        assert!(ring.reaches(0), "more than the minimum, but young");
        push(&mut ring, 4, 3700, "delivery/b");
        assert!(!ring.reaches(1) && ring.reaches(2), "old, and more than the minimum");
        push(&mut ring, 5, 99_000, "delivery/b");
        assert!(ring.reaches(3) && !ring.reaches(2), "the minimum stays however old");
        for seq in 6..=9 {
            push(&mut ring, seq, 99_000, "delivery/c");
        }
        assert!(ring.reaches(5) && !ring.reaches(4), "the maximum is one");
        assert!(ring.after(4, 10).is_none());
        assert_eq!(ring.after(7, 10).unwrap().map(|e| e.seq).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(ring.after(5, 2).unwrap().count(), 2);
        assert!(!ring.reaches(10), "of another process");
    }

    #[test]
    fn knows_when_a_subject_was_last_touched() {
        let mut ring = Ring::holding(2, 2);
        push(&mut ring, 1, 1, "delivery/a");
        push(&mut ring, 2, 1, "delivery/b");
        assert!(ring.touched_since("delivery/a", 0) && !ring.touched_since("delivery/a", 1));
        assert!(!ring.touched_since("delivery/c", 0));
        push(&mut ring, 3, 1, "delivery/b");
        assert!(ring.touched_since("delivery/c", 0), "nobody knows any more");
        assert!(!ring.touched_since("delivery/c", 1));
        assert_eq!(ring.latest.len(), 1, "nothing is remembered of what is gone");
    }
}
