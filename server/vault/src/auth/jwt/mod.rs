//! jwt and oidc: machines with a signed token of an issuer that the mount trusts.
//!
//! Paths, parameters and messages are those of Vault and OpenBao 2.7.2. Logins of people through a browser are not
//! part of it: what belongs to them is refused by name.

mod claims;
mod config;
mod login;
mod role;

use std::sync::Arc;

use crate::error::{Fail, bad};
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// Handles `auth/<mount>/<rest>` of a jwt or oidc mount.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, rest: &str) -> Result<Outcome, Fail> {
    let trimmed = rest.trim_end_matches('/');
    match trimmed {
        "login" => {
            only(&ctx.request, &[Operation::Update])?;
            login::login(ctx, mount).await
        }
        "config" => config::handle(ctx, mount).await,
        "oidc/auth_url" | "oidc/callback" | "oidc/poll" => {
            Err(bad("OIDC login is not configured for this mount"))
        }
        "role" => {
            only(&ctx.request, &[Operation::List])?;
            role::list(ctx, mount).await
        }
        _ => {
            let name = trimmed.strip_prefix("role/").ok_or(Fail::UnsupportedPath)?;
            let name = role::name(name)?;
            role::handle(ctx, mount, &name).await
        }
    }
}
