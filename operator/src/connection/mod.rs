//! CofferConnection: whether the vault answers, is unsealed, and lets the operator in.

mod plan;
mod reconcile;

pub(crate) use reconcile::reconcile;
