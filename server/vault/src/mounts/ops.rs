//! `sys/mounts/...` and `sys/auth/...`: mounts made, tuned, shown and removed through the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::path::VaultPath;
use coffer_core::time::Timestamp;
use serde_json::{Map, Value};

use super::tuning::{self, Tuning, When};
use super::{Class, Mount, MountTable, removal, show, upgrade};
use crate::auth::Method;
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::lease;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// First segments that no secrets engine may take.
const RESERVED: [&str; 6] = ["sys", "auth", "cubbyhole", "identity", "delivery", "v1"];

/// Whether no mount may be made at, or moved from or to, this path.
pub(super) fn is_reserved(class: Class, path: &str) -> bool {
    class == Class::Secret && RESERVED.contains(&path.split('/').next().unwrap_or(path))
}

/// Handles `sys/mounts/<rest>` and `sys/auth/<rest>`; `rest` is empty for the table itself.
pub(crate) async fn handle(ctx: &mut Ctx, class: Class, rest: &str) -> Result<Outcome, Fail> {
    let rest = rest.trim_end_matches('/');
    let operation = ctx.request.operation;
    if rest.is_empty() {
        return if operation == Operation::Read {
            Ok(show::table(&ctx.open, class))
        } else {
            Err(Fail::NoOperation)
        };
    }
    if let Some(path) = rest.strip_suffix("/tune") {
        // Old clients tune auth methods as `sys/mounts/auth/<path>/tune`.
        let (class, path) = match (class, path.strip_prefix("auth/")) {
            (Class::Secret, Some(below)) => (Class::Auth, below),
            _ => (class, path),
        };
        return match operation {
            Operation::Read => {
                let shown = |m: Arc<Mount>| Outcome::doubled(show::tuned(&ctx.open, &m));
                let none = || bad(format!("cannot fetch sysview for path {:?}", full(class, path)));
                ctx.open.mounts.at(class, path).map(shown).ok_or_else(none)
            }
            Operation::Update => tune(ctx, class, path).await,
            _ => Err(Fail::NoOperation),
        };
    }
    if let (Class::Secret, Some(path), Operation::Read) = (class, rest.strip_suffix("/health"), operation) {
        let mount =
            ctx.open.mounts.at(class, path).ok_or_else(|| bad("no secret engine mount at that path"))?;
        return Ok(Outcome::data(Value::Object(lease::health(&ctx.open, &mount).await?)));
    }
    match operation {
        Operation::Read => {
            let none = || match class {
                Class::Auth => bad(format!("No auth engine at {rest}/")),
                Class::Secret => bad(format!("No secret engine mount at {rest}/")),
            };
            let mount = ctx.open.mounts.at(class, rest).ok_or_else(none)?;
            Ok(Outcome::doubled(show::mount_info(&ctx.open, &mount)))
        }
        Operation::Update => enable(ctx, class, rest).await,
        Operation::Delete => removal::disable(ctx, class, rest).await,
        _ => Err(Fail::NoOperation),
    }
}

fn full(class: Class, path: &str) -> String {
    match class {
        Class::Auth => format!("auth/{path}/"),
        Class::Secret => format!("{path}/"),
    }
}

async fn enable(ctx: &mut Ctx, class: Class, path: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let mount = new_mount(ctx, class, path)?;
    let _turn = open.mounts.changing.lock().await;
    open.mounts.check_room()?;
    if let Some(other) = open.mounts.in_the_way(class, path) {
        return Err(bad(format!("path is already in use at {}/", other.path)));
    }
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        open.barrier.create_kek(w, mount.id).await?;
        MountTable::put_in(w, &mount).await?;
    });
    made?;
    open.mounts.reload().await?;
    Ok(Outcome::empty())
}

fn new_mount(ctx: &Ctx, class: Class, path: &str) -> Result<Mount, Fail> {
    if is_reserved(class, path) {
        return Err(bad(format!("cannot mount \"{path}/\"")));
    }
    VaultPath::parse(path).map_err(|error| bad(error.to_string()))?;
    let body = &ctx.request.body;
    let kind = ctx.text("type")?.filter(|kind| !kind.is_empty());
    let kind = kind.ok_or_else(|| bad("backend type must be specified as a string"))?;
    let options = params::labels(body, "options")?.unwrap_or_default();
    let mut mount = blank(class, path, kind, ctx.now);
    mount.options = options;
    if let (Class::Secret, "kv-v1" | "kv-v2") = (class, kind) {
        mount.options.insert("version".into(), kind.trim_start_matches("kv-v").into());
        "kv".clone_into(&mut mount.kind);
        mount.accessor = accessor(class, "kv", mount.id);
    }
    check_kind(ctx, &mount)?;
    // Both places are known to clients; what is said in `config` counts.
    tuning::apply(&mut mount, body, When::Made)?;
    if let Some(Value::Object(config)) = body.get("config") {
        tuning::apply(&mut mount, config, When::Made)?;
    }
    mount.local = params::flag(body, "local")?.unwrap_or(false);
    mount.seal_wrap = params::flag(body, "seal_wrap")?.unwrap_or(false);
    Ok(mount)
}

fn check_kind(ctx: &Ctx, mount: &Mount) -> Result<(), Fail> {
    let kind = mount.kind.as_str();
    if mount.is_builtin() || kind == crate::dispatch::DELIVERY {
        return Err(bad(format!("mount type of \"{kind}\" is not mountable")));
    }
    let known = match mount.class {
        Class::Auth => Method::of(kind).is_some(),
        Class::Secret => ctx.open.around.engines.contains_key(mount.engine_kind()),
    };
    if !known {
        return Err(bad(format!("plugin not found in the catalog: {}", kind.escape_default())));
    }
    let version = mount.options.get("version").map_or("", String::as_str);
    if kind == "kv" && !matches!(version, "" | "1" | "2") {
        return Err(bad("there is no such version of the kv engine: options.version is \"1\" or \"2\""));
    }
    Ok(())
}

/// What names a mount for good.
pub(super) fn accessor(class: Class, kind: &str, id: MountId) -> String {
    let prefix = if class == Class::Auth { "auth_" } else { "" };
    format!("{prefix}{kind}_{}", &id.to_hex()[..8])
}

/// A mount with a fresh id and nothing set.
pub(crate) fn blank(class: Class, path: &str, kind: &str, now: Timestamp) -> Mount {
    let id = MountId::random();
    Mount {
        id,
        class,
        path: path.to_owned(),
        kind: kind.to_owned(),
        description: String::new(),
        options: BTreeMap::new(),
        accessor: accessor(class, kind, id),
        created: now,
        default_ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        boundary: None,
        lockout: None,
        tainted: false,
        upgrading: false,
        erasing: false,
        moving: false,
        local: false,
        seal_wrap: false,
        tuning: Tuning::default(),
    }
}

/// What can be tuned on `auth/token/`, the one built-in mount whose settings have an effect.
const TOKEN_TUNABLE: [&str; 5] =
    ["default_lease_ttl", "max_lease_ttl", "description", "listing_visibility", "token_type"];

fn check_builtin(mount: &Mount, body: &Map<String, Value>) -> Result<(), Fail> {
    let free: &[&str] = if mount.class == Class::Auth { &TOKEN_TUNABLE } else { &[] };
    match body.keys().find(|key| !free.contains(&key.as_str())) {
        Some(key) => Err(bad(format!("cannot tune parameter {} of {}/", key.escape_default(), mount.path))),
        None => Ok(()),
    }
}

async fn tune(ctx: &mut Ctx, class: Class, path: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let _turn = open.mounts.changing.lock().await;
    let found = open.mounts.at(class, path);
    let none = || bad(format!("tune of path {:?} failed: no mount entry found", full(class, path)));
    let mut mount = (*found.ok_or_else(none)?).clone();
    let body = &ctx.request.body;
    if mount.is_builtin() {
        check_builtin(&mount, body)?;
    }
    let wanted = upgrade::tune_options(&mut mount, body)?;
    tuning::apply(&mut mount, body, When::Tuned)?;
    let stored: Result<(), Fail> = transact!(open.barrier, |w| MountTable::put_in(w, &mount).await?);
    stored?;
    open.mounts.reload().await?;
    if class == Class::Auth {
        // What a mount says about its tokens is part of what was decided about them.
        open.tokens.forget_issued(mount.id, None);
    }
    if wanted {
        upgrade::run(&open, mount).await?;
        return Ok(Outcome::empty().warning(vec!["Upgraded mount from version 1 to version 2.".to_owned()]));
    }
    Ok(Outcome::empty())
}
