//! The order to die: at which step, and the how-manieth time it is reached. A file, so that a server can be given one
//! while it runs, or before.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use coffer_core::failpoint::{self, Step};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

/// Where the server looks for its order.
pub(crate) const ORDER: &str = "COFFER_CRASH_ORDER";
/// What it says before it dies, followed by the step.
pub(crate) const DYING: &str = "dying at step ";

/// What it says before it stands still, followed by the step.
pub(crate) const STOPPING: &str = "standing still at step ";
/// Before an order that is none to die.
const STOP: &str = "stop ";

/// A death to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// At this step, or at whichever is reached.
    pub(crate) step: Option<Step>,
    /// How often it is reached up to then, at least once.
    pub(crate) count: u32,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.step.map_or("any", Step::name), self.count)
    }
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        let (step, count) = text.split_once(' ')?;
        let step = match step {
            "any" => None,
            name => Some(*Step::ALL.iter().find(|step| step.name() == name)?),
        };
        Some(Self { step, count: count.parse().ok()? })
    }

    /// Gives the order. It is there whole or not at all.
    pub(crate) fn give(self, path: &Path) {
        Self::write(&self.to_string(), path);
    }

    /// The same, but not to die: to stand still there until somebody lets it go on.
    pub(crate) fn give_to_stop(self, path: &Path) {
        Self::write(&format!("{STOP}{self}"), path);
    }

    fn write(text: &str, path: &Path) {
        let half = path.with_extension("half");
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, path).unwrap();
    }
}

/// From here on this process obeys: the first order that it finds.
pub(crate) fn obey() {
    let Some(path) = std::env::var_os(ORDER) else { return };
    let order: Mutex<Option<(Order, bool)>> = Mutex::new(None);
    let first = failpoint::arm(Box::new(move |reached| {
        let mut order = order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.is_none() {
            *order = std::fs::read_to_string(&path).ok().and_then(|text| {
                let stop = text.strip_prefix(STOP);
                Some((Order::parse(stop.unwrap_or(&text))?, stop.is_some()))
            });
        }
        let Some((Order { step, count }, stop)) = &mut *order else { return };
        if step.is_some_and(|step| step != reached) {
            return;
        }
        *count = count.saturating_sub(1);
        if *count == 0 && *stop {
            std::fs::remove_file(&path).unwrap();
            *order = None;
            eprintln!("{STOPPING}{}", reached.name());
            // To this very thread: with a signal to the process it could go on for a while.
            raise(Signal::SIGSTOP).unwrap();
        } else if *count == 0 {
            eprintln!("{DYING}{}", reached.name());
            // Nothing is flushed, dropped or unwound; the lock on the order is held to the end.
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
    }));
    assert!(first, "armed twice");
}
