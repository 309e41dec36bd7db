//! Signed tokens that somebody else made (JWTs): keys, signatures, and the claims that every one of them must have.
//!
//! Nothing in a token is believed before its signature is. Who may log in with one is not decided here.

mod claims;
mod http;
mod key_set;
mod keys;
mod token;

use crate::error::Fail;

pub(crate) use claims::{Expected, JWT_LIFE_MAX, Leeway};
pub use http::HttpKeys;
pub(crate) use key_set::{KeySet, algorithm_named};
pub(crate) use keys::{KeyCache, Source};
pub(crate) use token::{Claims, Jwt};

/// Why a token is not believed. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) &'static str);

impl From<Refused> for Fail {
    fn from(refused: Refused) -> Self {
        Self::Login(refused.0)
    }
}
