//! Kubernetes auth: a ServiceAccount's JWT becomes a token that carries the pod's UID.
//!
//! JWTs are verified here with the cluster's keys, or by its API server (TokenReview), or by both.

mod api;
mod claims;
mod config;
pub(crate) mod direct;
#[cfg(test)]
mod fuzz;
mod login;
mod pods;
mod role;
mod selector;
mod verify;

use std::sync::Arc;

pub(crate) use pods::TombstoneEnd;

use crate::error::Fail;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// Handles `auth/<mount>/<rest>` of a Kubernetes mount.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, rest: &str) -> Result<Outcome, Fail> {
    match rest {
        "login" => {
            only(&ctx.request, &[Operation::Update])?;
            login::login(ctx, mount).await
        }
        "config" => config::handle(ctx, mount).await,
        "pods" => {
            only(&ctx.request, &[Operation::Read])?;
            pods::list(ctx, mount).await
        }
        "revoke-pod" => {
            only(&ctx.request, &[Operation::Update])?;
            pods::revoke(ctx, mount).await
        }
        _ => match rest.strip_prefix("role").map(|r| r.trim_start_matches('/').trim_end_matches('/')) {
            Some(name) if rest == "role" || rest.starts_with("role/") => {
                role::handle(ctx, mount, &role::name(name)).await
            }
            _ => Err(Fail::UnsupportedPath),
        },
    }
}
