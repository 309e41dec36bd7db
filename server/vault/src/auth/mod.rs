//! Auth methods: who a caller is, said by somebody the vault trusts.
//!
//! What a caller may do is not decided here, only which policies he carries. Every method grants its tokens
//! through [`grant`], by the role's [`token_params`].

pub(crate) mod approle;
#[cfg(test)]
mod fuzz;
mod glob;
mod grant;
mod jose;
mod jwt;
mod kubernetes;
pub(crate) mod lockout;
mod passwords;
pub(crate) mod token_params;
mod userpass;

use std::sync::Arc;

pub(crate) use grant::{Life, go_duration};
pub use jose::HttpKeys;
pub(crate) use jose::KeyCache;
pub(crate) use kubernetes::{TombstoneEnd, direct};
pub(crate) use passwords::Passwords;
pub(crate) use token_params::TokenParams;

use crate::error::Fail;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::{Operation, Request};

/// An auth method, by the kind of its mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    AppRole,
    Jwt,
    Kubernetes,
    Userpass,
}

impl Method {
    /// The method of a mount of this kind.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "approle" => Self::AppRole,
            "jwt" | "oidc" => Self::Jwt,
            "kubernetes" => Self::Kubernetes,
            "userpass" => Self::Userpass,
            _ => return None,
        })
    }

    /// Whether this is a login: open to all.
    pub(crate) fn is_login(self, rest: &str, request: &Request) -> bool {
        let path = match self {
            Self::AppRole | Self::Jwt | Self::Kubernetes => rest == "login",
            Self::Userpass => rest.starts_with("login/"),
        };
        path && request.operation == Operation::Update
    }

    /// The row that a write to this path makes or replaces. None: every write there is an `update`, such as one to a part
    /// of a role, or one that makes a secret id.
    pub(crate) fn row_of(self, rest: &str) -> Option<String> {
        let dir = match self {
            Self::AppRole | Self::Jwt => "role/",
            Self::Userpass => "users/",
            Self::Kubernetes => return Some(rest.to_ascii_lowercase()),
        };
        let name = rest.strip_prefix(dir).filter(|name| !name.contains('/'))?;
        // Names are kept in lower case.
        Some(format!("{dir}{}", name.to_ascii_lowercase()))
    }

    /// Whether this write only asks something.
    pub(crate) fn only_asks(self, rest: &str) -> bool {
        match self {
            Self::AppRole => approle::only_asks(rest),
            Self::Jwt | Self::Kubernetes | Self::Userpass => false,
        }
    }
}

/// Handles `auth/<mount>/<rest>`.
pub(crate) async fn handle(
    ctx: &mut Ctx,
    _permitted: &Permitted,
    mount: &Arc<Mount>,
    method: Method,
    rest: &str,
) -> Result<Outcome, Fail> {
    match method {
        Method::AppRole => approle::handle(ctx, mount, rest).await,
        Method::Jwt => jwt::handle(ctx, mount, rest).await,
        Method::Kubernetes => kubernetes::handle(ctx, mount, rest).await,
        Method::Userpass => userpass::handle(ctx, mount, rest).await,
    }
}

/// Whether a text can be the name of a role or a user: letters, digits and `_`, with `-` and `.` between them.
pub(crate) fn is_generic_name(text: &str, bytes_max: usize) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let ends = text.bytes().next().is_some_and(word) && text.bytes().next_back().is_some_and(word);
    ends && text.len() <= bytes_max && text.bytes().all(|c| word(c) || c == b'-' || c == b'.')
}
