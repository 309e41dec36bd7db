//! `sys/...`: the vault's own affairs. The whole map is on this page.

mod audit;
mod capabilities;
mod catalog;
mod config;
mod explain;
mod host;
mod internal;
pub(crate) mod keys;
mod locked_users;
mod password_policies;
mod policies;
mod tools;

use serde_json::json;

use crate::ceremony::{self, Dialect};
use crate::error::{Fail, bad};
use crate::mounts::{self, Class};
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::{events, lease, quota, rotation, token, versions};

/// Paths that are questions although they come as writes.
pub(crate) fn only_asks(rest: &str) -> bool {
    matches!(
        rest,
        "capabilities" | "capabilities-self" | "capabilities-accessor" | "leases/lookup" | "wrapping/lookup"
    ) || rest.starts_with("policy-explain")
        || rest.starts_with("leases/lookup/")
        || rest.starts_with("audit-hash/")
        || rest.starts_with("tools/")
}

/// Handles `sys/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, rest: &str) -> Result<Outcome, Fail> {
    let (first, below) = rest.split_once('/').unwrap_or((rest, ""));
    match first {
        "mounts" => mounts::handle(ctx, Class::Secret, below).await,
        "auth" => mounts::handle(ctx, Class::Auth, below).await,
        "policies" if below == "acl" || below.starts_with("acl/") => {
            policies::handle(ctx, below.strip_prefix("acl/").unwrap_or(""), "policy").await
        }
        "policies" if below == "password" || below.starts_with("password/") => {
            password_policies::handle(ctx, below.strip_prefix("password/").unwrap_or("")).await
        }
        "policies" if below.trim_end_matches('/') == "detailed/acl" => policies::detailed(ctx, "").await,
        "policies" if below.starts_with("detailed/acl/") => {
            policies::detailed(ctx, below.strip_prefix("detailed/acl/").unwrap_or("")).await
        }
        "policy" => policies::handle(ctx, below, "rules").await,
        "leases" => lease::handle(ctx, permitted, below).await,
        "renew" | "revoke" | "revoke-prefix" => lease::handle(ctx, permitted, rest).await,
        "capabilities" | "capabilities-self" | "capabilities-accessor" => {
            capabilities::handle(ctx, permitted, first).await
        }
        "remount" if below.is_empty() => mounts::remount(ctx).await,
        "remount" => match below.strip_prefix("status/") {
            Some(id) => mounts::remount_status(ctx, id),
            None => Err(Fail::UnsupportedPath),
        },
        "policy-explain" | "policy-explain-self" | "policy-explain-accessor" if below.is_empty() => {
            explain::handle(ctx, permitted, first).await
        }
        "internal" => internal::handle(ctx, permitted, below),
        "audit" => audit::handle(ctx, below).await,
        "audit-hash" => audit::hash(ctx, below),
        "metrics" => metrics(ctx),
        "locked-users" => locked_users::handle(ctx, below),
        "quotas" => quota::handle(ctx, below).await,
        "rotations" => rotation::handle(ctx, permitted, below).await,
        "tools" => tools::handle(ctx, below),
        "plugins" => catalog::handle(ctx, below),
        "config" => config::handle(ctx, below),
        "host-info" if below.is_empty() => host::handle(ctx).await,
        "version-history" if below.is_empty() => {
            only(&ctx.request, &[Operation::List])?;
            Ok(Outcome::data(versions::told(&ctx.open).await?))
        }
        // There is the root namespace only.
        "namespaces" => Err(Fail::NotFound),
        "seal" => seal(ctx),
        "step-down" => {
            // One node leads whatever it is told.
            only(&ctx.request, &[Operation::Update])?;
            Ok(Outcome::empty())
        }
        "ha-status" => ha_status(ctx),
        "key-status" => keys::key_status(ctx).await,
        "rekey" => ceremony::rekey(ctx, Dialect::Legacy, below).await,
        "generate-root" => ceremony::generate_root(ctx, Dialect::Legacy, below).await,
        "generate-root-token" => ceremony::generate_root(ctx, Dialect::Present, below).await,
        "rotate" => match below {
            "" | "keyring" => keys::rotate(ctx).await,
            "config" | "keyring/config" => keys::config(ctx).await,
            "status" => keys::status(ctx).await,
            _ => match (below.strip_prefix("root/"), below.strip_prefix("recovery/")) {
                (Some(rest), _) => ceremony::rekey(ctx, Dialect::Present, rest).await,
                (None, Some("init" | "update" | "verify" | "backup")) => {
                    Err(bad("recovery keys not supported"))
                }
                (None, _) => Err(Fail::NoRoute(ctx.request.path.clone())),
            },
        },
        "wrapping" => token::wrapping::handle(ctx, permitted, rest).await,
        "events" => {
            // The stream itself does not come through here; what does is the decision about it.
            only(&ctx.request, &[Operation::Read])?;
            let pattern = below.strip_prefix("subscribe/").filter(|p| !p.is_empty());
            let pattern = pattern.ok_or_else(|| Fail::NoRoute(ctx.request.path.clone()))?;
            events::check(pattern, &ctx.request)?;
            // Whether there is room; the seat itself is taken with the stream.
            drop(ctx.open.around.events.seat(permitted.caller()?.hash)?);
            Ok(Outcome::data(json!({ "subscribed": pattern })))
        }
        _ => Err(Fail::UnsupportedPath),
    }
}

/// `sys/ha-status`: one node, this one.
fn ha_status(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let config = &ctx.open.around.config;
    let node = json!({
        "hostname": config.node_name, "api_address": "", "cluster_address": "", "active_node": true,
        "last_echo": null, "version": config.version,
    });
    Ok(Outcome::doubled([("nodes".to_owned(), json!([node]))].into_iter().collect()))
}

/// `sys/metrics`: as JSON, or as Prometheus reads it.
fn metrics(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let metrics = &ctx.open.around.metrics;
    match ctx.request.query.get("format").map_or("", String::as_str) {
        "" => Ok(Outcome::raw(metrics.told(ctx.now))),
        "prometheus" => {
            let text = metrics.render().map_err(|_| Fail::Internal("metrics"))?;
            Ok(Outcome::text("text/plain; version=0.0.4", text))
        }
        other => Err(bad(format!("metric response format {other:?} unknown"))),
    }
}

/// `sys/seal` is carried out by the door once this request is recorded; see [`crate::Vault::handle`].
fn seal(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    Ok(Outcome::empty().sealing())
}
