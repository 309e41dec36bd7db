//! A small typed client of the `/v1` API, for operator, agent and CLI.
//!
//! HTTP/1.1 over TLS 1.3, a few idle connections, a time limit on every call and a size limit on
//! every body. It never retries what may have had an effect, never logs a body, and its errors never
//! hold a token. The agent links it into every pod, so it stays free of large dependencies.

#![forbid(unsafe_code)]

mod address;
mod builder;
mod call;
mod error;
mod events;
#[cfg(test)]
mod fuzz;
mod transport;
mod trust;
mod typed;

pub use builder::{ClientBuilder, Limits};
pub use call::{Call, Client};
pub use coffer_wire as wire;
pub use error::ClientError;
pub use events::EventStream;
