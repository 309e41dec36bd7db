//! Auth methods: who a caller is, said by somebody the vault trusts.
//!
//! What a caller may do is not decided here, only which policies he carries. Every method grants its tokens
//! through [`grant`], by the role's [`token_params`].

mod grant;
mod kubernetes;
pub(crate) mod token_params;

use std::sync::Arc;

pub use kubernetes::HttpKeys;
pub(crate) use kubernetes::{KeyCache, TombstoneEnd};

use crate::error::Fail;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::{Operation, Request};

/// An auth method, by the kind of its mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Kubernetes,
}

impl Method {
    /// The method of a mount of this kind.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "kubernetes" => Self::Kubernetes,
            _ => return None,
        })
    }

    /// Whether this is a login: open to all.
    pub(crate) fn is_login(self, rest: &str, request: &Request) -> bool {
        let path = match self {
            Self::Kubernetes => rest == "login",
        };
        path && request.operation == Operation::Update
    }

    /// Whether this write only asks something.
    pub(crate) const fn only_asks(self, _rest: &str) -> bool {
        match self {
            Self::Kubernetes => false,
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
        Method::Kubernetes => kubernetes::handle(ctx, mount, rest).await,
    }
}
