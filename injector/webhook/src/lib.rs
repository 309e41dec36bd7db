//! The pod-mutating admission webhook. `patch` is a pure function of pod and settings; everything else
//! serves it: TLS, certificates it makes for itself, and the review's frame. It never talks to the
//! Coffer server, never sees a secret, and never logs a review.

#![forbid(unsafe_code)]

pub mod certs;
mod clock;
#[cfg(test)]
mod fuzz;
mod keystore;
pub mod patch;
pub mod review;
pub mod run;
mod runner;
mod serve;
pub mod settings;
mod sidecar;
mod webhook_config;
