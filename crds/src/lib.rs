//! The custom resource types of `coffer.dev/v1alpha1`, the annotation vocabulary, and the generated CRDs.
//!
//! Never talks to a cluster and never decides anything: what a type means is the operator's business.

#![allow(unreachable_pub, reason = "kube's schema derive copies each type into a function")]
#![allow(clippy::duplicated_attributes, reason = "printer columns and list keys repeat by their nature")]

pub mod annotations;
pub mod connection;
pub mod database;
pub mod duration;
pub mod dynamic;
#[cfg(test)]
mod fuzz;
pub mod generate;
pub mod policy;
pub mod refs;

pub use connection::{CofferConnection, CofferConnectionSpec, CofferConnectionStatus};
pub use database::{DatabaseConnection, DatabaseConnectionSpec, DatabaseConnectionStatus};
pub use dynamic::{DynamicSecret, DynamicSecretSpec, DynamicSecretStatus};
pub use policy::{Capability, VaultPolicy, VaultPolicySpec, VaultPolicyStatus};

/// API group of all kinds.
pub const GROUP: &str = "coffer.dev";
/// The version this crate defines.
pub const VERSION: &str = "v1alpha1";
/// Finalizer on every object that has something at the server.
pub const FINALIZER: &str = "coffer.dev/server-objects";
