//! `sys/quotas/...`: the rules of rate limits, made, shown and removed.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{MountId, Read};
use coffer_core::path::VaultPath;
use serde_json::{Value, json};

use super::{QUOTAS_MAX, Quota, Settings};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::Class;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;
use crate::rows;

/// The longest name of a rule, in bytes.
const NAME_MAX: usize = 256;
/// The most paths that are never refused.
const EXEMPT_MAX: usize = 256;
/// Mounts whose logins name a role.
const WITH_ROLES: [&str; 2] = ["kubernetes", "jwt"];

/// Handles `sys/quotas/<below>`.
pub(crate) async fn handle(ctx: &mut Ctx, below: &str) -> Result<Outcome, Fail> {
    let operation = ctx.request.operation;
    match below.trim_end_matches('/') {
        "config" => match operation {
            Operation::Read => Ok(Outcome::data(json!(ctx.open.quotas.table.load().settings))),
            Operation::Update => configure(ctx).await,
            _ => Err(Fail::NoOperation),
        },
        "rate-limit" if operation == Operation::List => list(ctx).await,
        "rate-limit" => Err(Fail::NoOperation),
        other => {
            let name = other.strip_prefix("rate-limit/").ok_or(Fail::UnsupportedPath)?.to_owned();
            if name.len() > NAME_MAX || name.contains('/') || VaultPath::parse(&name).is_err() {
                return Err(bad("invalid name of a quota"));
            }
            match operation {
                Operation::Read => read(ctx, &name).await,
                Operation::Update => write(ctx, &name).await,
                Operation::Delete => delete(ctx, &name).await,
                _ => Err(Fail::NoOperation),
            }
        }
    }
}

async fn configure(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (open, body) = (&ctx.open, &ctx.request.body);
    let _turn = open.quotas.changing.lock().await;
    let mut settings: Settings = open.quotas.table.load().settings.clone();
    let flag = |name, before| Ok::<bool, Fail>(params::flag(body, name)?.unwrap_or(before));
    settings.enable_rate_limit_audit_logging =
        flag("enable_rate_limit_audit_logging", settings.enable_rate_limit_audit_logging)?;
    settings.enable_rate_limit_response_headers =
        flag("enable_rate_limit_response_headers", settings.enable_rate_limit_response_headers)?;
    if let Some(paths) = params::list(body, "rate_limit_exempt_paths")? {
        if paths.len() > EXEMPT_MAX {
            return Err(Fail::TooLarge(format!(
                "rate_limit_exempt_paths has more than {EXEMPT_MAX} entries"
            )));
        }
        settings.rate_limit_exempt_paths = paths;
    }
    let stored: Result<(), Fail> =
        transact!(open.barrier, |w| codec::put(w, &rows::quota_settings(), &settings).await?);
    stored?;
    open.quotas.reload().await?;
    Ok(Outcome::empty())
}

async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    Ok(Outcome::list(reader.list(MountId::SYSTEM, rows::QUOTA_DIR, after, limit).await?))
}

async fn read(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let quota = codec::get::<Quota>(&reader, &rows::quota(name)).await?.ok_or(Fail::NotFound)?;
    let mut data = json!({
        "block_interval": quota.block_interval.as_secs(),
        "inheritable": quota.inheritable,
        "interval": quota.interval.as_secs(),
        "name": quota.name,
        "path": quota.path,
        "rate": number(quota.rate),
        "role": quota.role,
        "type": "rate-limit",
    });
    if let (Value::Object(map), true) = (&mut data, quota.group_by != "ip") {
        map.insert("group_by".into(), quota.group_by.into());
    }
    Ok(Outcome::data(data))
}

/// Whole numbers without a fraction, as Go prints them.
#[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
fn number(rate: f64) -> Value {
    if rate.fract() == 0.0 && rate.abs() < 1e15 { json!(rate as i64) } else { json!(rate) }
}

async fn write(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let _turn = open.quotas.changing.lock().await;
    let reader = open.barrier.reader().await?;
    let before = codec::get::<Quota>(&reader, &rows::quota(name)).await?;
    drop(reader);
    let quota = wanted(ctx, name, before.as_ref())?;
    let table = open.quotas.table.load();
    if before.is_none() && table.rules.len() >= QUOTAS_MAX {
        return Err(bad(format!("there are {QUOTAS_MAX} quotas already")));
    }
    let same = |q: &Quota| q.name != name && q.path == quota.path && q.role == quota.role;
    if let Some(other) = table.rules.iter().find(|r| same(&r.quota)) {
        let other = &other.quota.name;
        return Err(bad(format!("quota rule with similar properties exists under the name {other:?}")));
    }
    let stored: Result<(), Fail> = transact!(open.barrier, |w| {
        codec::put(w, &rows::quota(name), &quota).await?;
        w.link(MountId::SYSTEM, &rows::quota_path(name)).await?;
    });
    stored?;
    open.quotas.reload().await?;
    Ok(Outcome::empty())
}

fn wanted(ctx: &Ctx, name: &str, before: Option<&Quota>) -> Result<Quota, Fail> {
    let body = &ctx.request.body;
    if ctx.text("type")?.is_some_and(|t| !t.is_empty() && t != "rate-limit") {
        return Err(bad("the type of a quota is \"rate-limit\""));
    }
    let rate = match body.get("rate") {
        None | Some(Value::Null) => before.map_or(0.0, |b| b.rate),
        Some(Value::Number(n)) => n.as_f64().unwrap_or(0.0),
        Some(Value::String(text)) => text.parse().unwrap_or(0.0),
        Some(_) => 0.0,
    };
    if !rate.is_finite() || rate <= 0.0 || rate > 1e15 {
        return Err(bad("'rate' is invalid"));
    }
    let time = |field, present: Option<Duration>| -> Result<Duration, Fail> {
        Ok(params::duration(body, field)?.or(present).unwrap_or_default())
    };
    let interval = time("interval", before.map(|b| b.interval))?;
    let interval = if interval.is_zero() { Duration::from_secs(1) } else { interval };
    let given = ctx.text("path")?.or(before.map(|b| b.path.as_str())).unwrap_or("");
    let role = ctx.text("role")?.or(before.map(|b| b.role.as_str())).unwrap_or("").to_owned();
    let path = place(&ctx.open, given, &role)?;
    let inheritable = params::flag(body, "inheritable")?.or(before.map(|b| b.inheritable));
    let group_by = ctx.text("group_by")?.or(before.map(|b| b.group_by.as_str())).unwrap_or("ip");
    if !matches!(group_by, "ip" | "token" | "none") {
        return Err(bad("'group_by' must be \"ip\", \"token\" or \"none\""));
    }
    Ok(Quota {
        name: name.to_owned(),
        inheritable: inheritable.unwrap_or(path.is_empty()),
        path,
        role,
        rate,
        interval,
        block_interval: time("block_interval", before.map(|b| b.block_interval))?,
        group_by: group_by.to_owned(),
    })
}

/// Where a rule holds, as it is kept: a mount with its slash, anything below one as it was given.
fn place(open: &Open, given: &str, role: &str) -> Result<String, Fail> {
    let path = given.trim_matches('/');
    if path.is_empty() {
        return if role.is_empty() { Ok(String::new()) } else { Err(suffix_and_role()) };
    }
    VaultPath::parse(path).map_err(|error| bad(error.to_string()))?;
    let bare = path.trim_end_matches('*').trim_end_matches('/');
    let Some(mount) = open.mounts.containing(bare) else {
        return Err(bad(format!("invalid mount path {:?}", format!("{path}/"))));
    };
    let whole = mount.full_path().trim_end_matches('/') == path;
    if !role.is_empty() {
        if !whole {
            return Err(suffix_and_role());
        }
        if mount.class != Class::Auth || !WITH_ROLES.contains(&mount.kind.as_str()) {
            let at = mount.full_path();
            return Err(bad(format!("Mount path {at:?} does not support use with role-based quotas")));
        }
    }
    Ok(if whole { mount.full_path() } else { path.to_owned() })
}

fn suffix_and_role() -> Fail {
    bad(
        "Quotas cannot contain both a path suffix and a role. If a role is provided, path must be a valid auth mount \
         with a concept of roles",
    )
}

async fn delete(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let open = &ctx.open;
    let _turn = open.quotas.changing.lock().await;
    let deleted: Result<(), Fail> = transact!(open.barrier, |w| {
        if w.exists(&rows::quota(name)).await? {
            w.delete(&rows::quota(name)).await?;
            w.unlink(MountId::SYSTEM, &rows::quota_path(name)).await?;
        }
    });
    deleted?;
    open.quotas.reload().await?;
    Ok(Outcome::empty())
}
