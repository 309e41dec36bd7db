//! DynamicSecret: a database role, a policy that reads it, and the delivery document for the agents.

mod plan;
mod reconcile;
mod source;

pub(crate) use reconcile::{lease_count, reconcile};
