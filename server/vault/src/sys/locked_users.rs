//! `sys/locked-users`: who is locked out of logging in, and letting him in again.
//!
//! What locks is decided by the auth methods.

use std::sync::Arc;

use crate::auth::lockout;
use crate::error::Fail;
use crate::mounts::{Class, Mount};
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// Handles `sys/locked-users`, and `.../<mount accessor>/unlock/<alias>`.
pub(super) fn handle(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    let open = &ctx.open;
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() {
        only(&ctx.request, &[Operation::Read])?;
        let wanted = ctx.request.query.get("mount_accessor");
        let mut mounts: Vec<Arc<Mount>> = open.mounts.all(Class::Auth);
        mounts.retain(|mount| wanted.is_none_or(|accessor| *accessor == mount.accessor));
        mounts.sort_by(|a, b| a.accessor.cmp(&b.accessor));
        return Ok(Outcome::data(open.lockouts.report(&mounts, ctx.now)));
    }
    let Some((accessor, alias)) = rest.split_once("/unlock/") else {
        return Err(Fail::NoRoute(ctx.request.path.clone()));
    };
    only(&ctx.request, &[Operation::Update])?;
    // What there is not is not locked.
    if let Some(mount) = open.mounts.all(Class::Auth).iter().find(|mount| mount.accessor == accessor) {
        open.lockouts.clear(mount.id, &lockout::normal(alias));
    }
    Ok(Outcome::empty())
}
