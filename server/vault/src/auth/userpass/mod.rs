//! userpass: people with a name and a password.
//!
//! Names are one name in any case. Paths, parameters and messages are those of Vault and OpenBao 2.7.2.

mod login;
mod user;

use std::sync::Arc;

use crate::error::Fail;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// Handles `auth/<mount>/<rest>` of a userpass mount.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, rest: &str) -> Result<Outcome, Fail> {
    let trimmed = rest.trim_end_matches('/');
    if trimmed == "users" {
        only(&ctx.request, &[Operation::List])?;
        return user::list(ctx, mount).await;
    }
    if let Some(name) = trimmed.strip_prefix("login/") {
        only(&ctx.request, &[Operation::Update])?;
        let name = user::name(name)?;
        return login::login(ctx, mount, &name).await;
    }
    let below = trimmed.strip_prefix("users/").ok_or(Fail::UnsupportedPath)?;
    let (name, field) = below.split_once('/').unwrap_or((below, ""));
    let name = user::name(name)?;
    match field {
        "" => user::handle(ctx, mount, &name).await,
        "password" => {
            only(&ctx.request, &[Operation::Update])?;
            user::set_password(ctx, mount, &name).await
        }
        "policies" => {
            only(&ctx.request, &[Operation::Update])?;
            user::set_policies(ctx, mount, &name).await
        }
        _ => Err(Fail::UnsupportedPath),
    }
}
