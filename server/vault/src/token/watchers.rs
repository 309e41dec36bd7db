//! Who wants to hear that a token may have ended, or may do other things than before: streams and waiting reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::LiveToken;
use crate::events::Bell;

#[derive(Default)]
struct State {
    next: u64,
    watched: HashMap<u64, (Arc<LiveToken>, Arc<Bell>)>,
}

/// Those who watch.
#[derive(Default)]
pub(super) struct Watchers(Arc<Mutex<State>>);

/// One of them. Watches until dropped.
pub(crate) struct Watch {
    watchers: Weak<Mutex<State>>,
    id: u64,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watchers {
    /// Rings `bell` whenever something is cut off that this token may hang from.
    pub(super) fn watch(&self, token: &Arc<LiveToken>, bell: &Arc<Bell>) -> Watch {
        let state = &mut *lock(&self.0);
        state.next += 1;
        state.watched.insert(state.next, (Arc::clone(token), Arc::clone(bell)));
        Watch { watchers: Arc::downgrade(&self.0), id: state.next }
    }

    /// Tells those whose token is one of which `dead` says so.
    pub(super) fn tell_where(&self, dead: impl Fn(&LiveToken) -> bool) {
        lock(&self.0).watched.values().filter(|(token, _)| dead(token)).for_each(|(_, bell)| bell.changed());
    }
}

impl Drop for Watchers {
    /// The vault was sealed.
    fn drop(&mut self) {
        self.tell_where(|_| true);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(watchers) = self.watchers.upgrade() {
            lock(&watchers).watched.remove(&self.id);
        }
    }
}
