//! VaultPolicy: a policy at the server, and its share of the roles of its ServiceAccounts.

mod delegation;
#[cfg(test)]
mod fuzz;
mod plan;
mod reconcile;

pub(crate) use delegation::patterns;
pub(crate) use reconcile::reconcile;
