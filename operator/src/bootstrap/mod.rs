//! Setting a server up for a cluster. `auto_init` does it unattended, for evaluation; `admin` does it for an
//! admin, with his token; `cluster` is what both do.

mod admin;
mod auto;
mod cluster;
mod keys;
mod policies;

pub(crate) use admin::{k8s_bootstrap, parse_delegation};
pub(crate) use auto::auto_init;
