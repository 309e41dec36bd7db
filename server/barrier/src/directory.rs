//! A directory's names, sorted and in memory, so that a page of a large directory costs no more than a page.
//!
//! Names are inside ciphertexts, so the store cannot hand them out in order, and an index that it could would tell it
//! the order of the names. What is here is made from all child rows once and used for as long as the directory is what
//! it was: every transaction that adds or removes a child writes one of the directory's markers anew, under a fresh
//! salt, so that equal marker rows mean equal children. Never says what a snapshot does not say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

/// The most bytes of names kept of one directory. Pages of a larger one are picked from all its rows each time.
pub(crate) const DIRECTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of names kept altogether.
const KEPT_BYTES_MAX: usize = 48 * 1024 * 1024;

/// What tells one state of a directory from another: a hash of its marker rows.
pub(crate) type State = [u8; 32];

/// A directory's names in one state.
pub(crate) struct Directory {
    state: State,
    /// All names, one after the other.
    text: Zeroizing<String>,
    /// Where in the text each ends.
    ends: Vec<usize>,
}

impl Directory {
    /// From the names in any order.
    pub(crate) fn new(state: State, mut names: Vec<String>) -> Self {
        names.sort_unstable();
        let mut text = Zeroizing::new(String::with_capacity(names.iter().map(String::len).sum()));
        let mut ends = Vec::with_capacity(names.len());
        for name in &names {
            text.push_str(name);
            ends.push(text.len());
        }
        Self { state, text, ends }
    }

    /// Whether it still is what the directory is.
    pub(crate) fn is(&self, state: &State) -> bool {
        self.state == *state
    }

    /// Up to `limit` names behind `after`.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> Vec<String> {
        let first = after.map_or(0, |after| self.first_behind(after));
        (first..self.ends.len()).take(limit).map(|at| self.name(at).to_owned()).collect()
    }

    fn first_behind(&self, after: &str) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.name(middle) <= after {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn name(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<usize>() + size_of::<Self>()
    }
}

/// The directories in memory; the one not used for the longest time goes first. Dropped with the keys.
#[derive(Default)]
pub(crate) struct Directories(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// By what a directory's child rows begin with.
    entries: HashMap<Vec<u8>, (u64, Arc<Directory>)>,
    bytes: usize,
    clock: u64,
}

impl Directories {
    pub(crate) fn get(&self, prefix: &[u8]) -> Option<Arc<Directory>> {
        let mut kept = self.lock();
        kept.clock += 1;
        let now = kept.clock;
        let (used, directory) = kept.entries.get_mut(prefix)?;
        *used = now;
        Some(Arc::clone(directory))
    }

    pub(crate) fn put(&self, prefix: Vec<u8>, directory: Arc<Directory>) {
        // Wiped after the lock is free: that takes a while for large ones.
        let mut old = Vec::new();
        let mut kept = self.lock();
        kept.clock += 1;
        let now = kept.clock;
        kept.bytes += directory.bytes();
        if let Some((_, before)) = kept.entries.insert(prefix, (now, directory)) {
            kept.bytes -= before.bytes();
            old.push(before);
        }
        while kept.bytes > KEPT_BYTES_MAX {
            let oldest =
                kept.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(prefix, _)| prefix.clone());
            let Some((_, gone)) = oldest.and_then(|prefix| kept.entries.remove(&prefix)) else { return };
            kept.bytes -= gone.bytes();
            old.push(gone);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let _old = std::mem::take(&mut *self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The smallest names behind `after`, of as many as come along: keeps no more than one too many.
pub(crate) struct Smallest<'a> {
    after: Option<&'a str>,
    limit: usize,
    heap: std::collections::BinaryHeap<String>,
}

impl<'a> Smallest<'a> {
    pub(crate) fn new(after: Option<&'a str>, limit: usize) -> Self {
        Self { after, limit, heap: std::collections::BinaryHeap::new() }
    }

    pub(crate) fn offer(&mut self, name: String) {
        if self.after.is_some_and(|after| name.as_str() <= after) {
            return;
        }
        if self.heap.len() == self.limit {
            // Full: in only past the largest.
            if self.heap.peek().is_none_or(|largest| name >= *largest) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(name);
    }

    pub(crate) fn into_sorted(self) -> Vec<String> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{:04}", n * 7919 % count)).collect()
    }

    #[test]
    fn pages_join_up_in_both_ways_of_making_them() {
        let all = names(1000);
        let directory = Directory::new([0; 32], all.clone());
        let mut sorted = all.clone();
        sorted.sort_unstable();
        for limit in [1, 7, 999, 1000, 2000] {
            let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
            loop {
                let page = directory.page(after.as_deref(), limit);
                let mut smallest = Smallest::new(after.as_deref(), limit);
                all.iter().cloned().for_each(|name| smallest.offer(name));
                assert_eq!(page, smallest.into_sorted());
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                found.extend(page);
            }
            assert_eq!(found, sorted);
        }
        assert_eq!(directory.page(Some("0500x"), 1), ["0501"]);
        assert!(directory.page(Some("9999"), 10).is_empty() && directory.page(None, 0).is_empty());
        assert!(Smallest::new(None, 0).into_sorted().is_empty());
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let kept = Directories::default();
        let large = |state| Arc::new(Directory::new([state; 32], vec!["x".repeat(15 * 1024 * 1024)]));
        for number in 0..3u8 {
            kept.put(vec![number], large(number));
        }
        assert!(kept.get(&[0]).is_some());
        kept.put(vec![3], large(3));
        assert!(kept.get(&[1]).is_none() && kept.get(&[0]).is_some() && kept.get(&[3]).is_some());
        kept.put(vec![3], large(4));
        assert!(kept.get(&[3]).is_some_and(|d| d.is(&[4; 32])) && kept.get(&[0]).is_some());
        kept.clear();
        assert!(kept.get(&[0]).is_none());
    }
}
