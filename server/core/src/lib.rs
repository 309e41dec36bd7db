//! The pure semantics of the vault: paths, policy, tokens, lease arithmetic, Shamir, the audit chain.
//!
//! Nothing here does IO, waits, reads a clock or asks the system for randomness: whoever calls passes
//! `now` and `rng` in. That is what lets every rule in this room be tested as a table.

pub mod audit;
pub mod exact;
pub mod failpoint;
pub mod hcl;
pub mod lease;
pub mod password_policy;
pub mod path;
pub mod policy;
pub mod rotation;
pub mod schedule;
pub mod secret;
pub mod shamir;
pub mod template;
pub mod time;
pub mod token;

#[cfg(test)]
mod fuzz;
