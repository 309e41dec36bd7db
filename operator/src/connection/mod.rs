//! CofferConnection: whether the vault answers, is unsealed, and lets the operator in.

mod file;
mod plan;
mod reconcile;

pub(crate) use file::{apply_file, read_file};
pub(crate) use reconcile::reconcile;
