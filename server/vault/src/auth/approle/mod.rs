//! AppRole: a machine shows a role's id and one of its secret ids, and gets a token.
//!
//! Role ids name a role, secret ids prove it. Secret ids are kept as keyed hashes only; what was generated is shown
//! once. Paths, parameters and messages are those of Vault and OpenBao 2.7.2.

mod fields;
mod login;
mod role;
mod secret_id;
mod secret_id_ops;
mod tidy;

use std::sync::Arc;

use crate::error::Fail;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

pub(crate) use tidy::{clear_dead_everywhere, remove_expired};

/// Handles `auth/<mount>/<rest>` of an AppRole mount.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, rest: &str) -> Result<Outcome, Fail> {
    let trimmed = rest.trim_end_matches('/');
    match trimmed {
        "login" => {
            only(&ctx.request, &[Operation::Update])?;
            return login::login(ctx, mount).await;
        }
        "role" => {
            only(&ctx.request, &[Operation::List])?;
            return role::list(ctx, mount).await;
        }
        "tidy/secret-id" => {
            only(&ctx.request, &[Operation::Update])?;
            return tidy::tidy(ctx, mount).await;
        }
        _ => {}
    }
    let below = trimmed.strip_prefix("role/").ok_or(Fail::UnsupportedPath)?;
    let (name, field) = below.split_once('/').unwrap_or((below, ""));
    let name = role::name(name)?;
    match field {
        "" => role::handle(ctx, mount, &name).await,
        "secret-id" => match ctx.request.operation {
            Operation::List => secret_id_ops::list(ctx, mount, &name).await,
            Operation::Update => secret_id_ops::generate(ctx, mount, &name, None).await,
            _ => Err(Fail::NoOperation),
        },
        "custom-secret-id" => {
            only(&ctx.request, &[Operation::Update])?;
            let secret = zeroize::Zeroizing::new(ctx.filled("secret_id")?.to_owned());
            secret_id_ops::generate(ctx, mount, &name, Some(secret)).await
        }
        "secret-id/lookup" => {
            only(&ctx.request, &[Operation::Update])?;
            secret_id_ops::lookup(ctx, mount, &name).await
        }
        "secret-id/destroy" => {
            only(&ctx.request, &[Operation::Update, Operation::Delete])?;
            secret_id_ops::destroy(ctx, mount, &name).await
        }
        "secret-id-accessor/lookup" => {
            only(&ctx.request, &[Operation::Update])?;
            secret_id_ops::lookup_accessor(ctx, mount, &name).await
        }
        "secret-id-accessor/destroy" => {
            only(&ctx.request, &[Operation::Update, Operation::Delete])?;
            secret_id_ops::destroy_accessor(ctx, mount, &name).await
        }
        field => fields::handle(ctx, mount, &name, field).await,
    }
}

/// Whether this write only asks something.
pub(super) fn only_asks(rest: &str) -> bool {
    rest.starts_with("role/")
        && (rest.ends_with("/secret-id/lookup") || rest.ends_with("/secret-id-accessor/lookup"))
}
