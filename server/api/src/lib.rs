//! The HTTP surface of the vault: the `/v1` routes, parsing, limits, and the one mapping from replies to HTTP.
//!
//! Nothing is decided here. A request is read within its limits, its path made canonical, and handed to the
//! vault; what comes back audited goes out. What is refused before that is reported to the vault for its
//! audit log all the same.

mod answer;
mod events;
mod forwarded;
mod json;
mod parse;
mod rate;
mod routes;
mod state;
mod status;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod fuzz_bodies;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod number_tests;
#[cfg(test)]
mod tests;

pub use forwarded::TrustedProxies;
pub use routes::respond;
pub use state::{Api, Bodies, Held, Limits, Peer};
