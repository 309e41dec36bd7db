//! File descriptors: every connection takes one, and a process may have only so many. Never lowers a limit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For files, logs, databases and whatever else is open beside connections.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one: the soft one is low by custom, for programs of another time. Says so when even
/// that is less than the listeners may need.
pub(crate) fn make_room(connections: usize) {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match allowed {
        Ok(hard) if (connections as u64).saturating_add(OTHERS) > hard => {
            tracing::warn!(
                hard,
                connections,
                "the system allows fewer open files than there may be connections"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}
