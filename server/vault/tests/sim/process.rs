//! One life of the server process: dies in the call that it is told to die in, and never comes back from it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

pub struct Process {
    dead: AtomicBool,
    left: AtomicI64,
    died: Notify,
}

impl Process {
    pub fn new() -> Self {
        Self { dead: AtomicBool::new(false), left: AtomicI64::new(i64::MAX), died: Notify::new() }
    }

    /// Dies in the call after so many more.
    pub fn die_after(&self, calls: i64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    /// Not after all.
    pub fn live_on(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    /// A point at which it can die: then this never returns.
    pub async fn step(&self) {
        if self.dead.load(Ordering::SeqCst) || self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.dead.store(true, Ordering::SeqCst);
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Returns when it has died.
    pub async fn death(&self) {
        self.died.notified().await;
    }
}
