//! Injected pods: their tokens and leases end with them, and a pod that waits in vain is told why.

mod diagnose;
mod revoke;
mod watch;

pub(crate) use watch::watch;
