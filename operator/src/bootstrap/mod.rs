//! Setting a server up for a cluster. `auto_init` does it unattended, for evaluation; `cluster` is what an admin's own
//! `k8s-bootstrap` does too.

mod auto;
mod cluster;
mod keys;
mod policies;

pub(crate) use auto::auto_init;
