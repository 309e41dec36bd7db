//! The operator's side of the vault: sessions, and changes as data. Never decides what to change.

mod change;
mod hcl;
mod session;

pub(crate) use change::Change;
pub(crate) use hcl::{Grant, is_quotable, render};
pub(crate) use session::{Sessions, Vault, client_for, explain};
