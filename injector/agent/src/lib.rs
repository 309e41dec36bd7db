//! The sidecar of an injected pod: logs in once, fetches each secret once, keeps the files fresh and
//! gives everything back at the end. It talks to the Coffer server and, on loopback, to its own pod;
//! never to the Kubernetes API. Its state lives in a memory-backed directory of its own, so that a
//! restart of its container costs no login and no credential.

#![forbid(unsafe_code)]

pub mod attempts;
pub mod clock;
pub mod config;
mod documents;
mod duration;
pub mod error;
mod farewell;
pub mod files;
#[cfg(test)]
mod fuzz;
pub mod keeper;
mod notify;
pub mod plan;
pub mod render;
pub mod run;
pub mod state;
pub mod status;
mod template;
mod watch;
