//! Who is at work at what within this process, and how time goes on meanwhile. Knows nothing of the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;

/// The time, as it goes on during slow work.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    at: Timestamp,
    since: Instant,
}

impl Moment {
    /// It is `now` at this moment.
    pub(crate) fn at(now: Timestamp) -> Self {
        Self { at: now, since: Instant::now() }
    }

    /// What it is now.
    pub(crate) fn now(self) -> Timestamp {
        self.at.plus(self.since.elapsed())
    }
}

type Names = HashMap<(MountId, String), Arc<tokio::sync::Mutex<()>>>;

/// Lets one at a time work at a thing within this process: two would only set the same password twice, but a third
/// could be a step ahead of a slow one.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Names>);

impl Turns {
    /// Waits for its turn, which is over when what this gives back is dropped.
    pub(crate) async fn take(&self, mount: MountId, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(names.entry((mount, name.to_owned())).or_default())
        };
        turn.lock_owned().await
    }
}
