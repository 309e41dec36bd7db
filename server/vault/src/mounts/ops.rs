//! `sys/mounts/...` and `sys/auth/...`: mounts made, tuned, shown and removed through the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{MountId, Read};
use coffer_core::policy::PolicyName;
use serde_json::{Map, Value, json};

use super::{Class, Mount, MountTable, upgrade};
use crate::auth::Method;
use crate::auth::lockout::LockoutConfig;
use crate::codec::{self, transact};
use crate::dispatch::DELIVERY;
use crate::error::{Fail, bad};
use crate::lease;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::Operation;
use crate::revoke;
use crate::rows;
use crate::token::IssuedToken;

/// First segments that no mount may take.
const RESERVED: [&str; 6] = ["sys", "auth", "cubbyhole", "identity", "delivery", "v1"];
/// How many rows one step of a removal takes.
const STEP: usize = 1000;

/// Handles `sys/mounts/<rest>` and `sys/auth/<rest>`; `rest` is empty for the table itself.
pub(crate) async fn handle(ctx: &mut Ctx, class: Class, rest: &str) -> Result<Outcome, Fail> {
    let rest = rest.trim_end_matches('/');
    let operation = ctx.request.operation;
    if rest.is_empty() {
        return if operation == Operation::Read {
            Ok(table(&ctx.open, class))
        } else {
            Err(Fail::NoOperation)
        };
    }
    if let Some(path) = rest.strip_suffix("/tune") {
        return match operation {
            Operation::Read => Ok(Outcome::doubled(tuning(&ctx.open, &*existing(ctx, class, path)?))),
            Operation::Update => tune(ctx, class, path).await,
            _ => Err(Fail::NoOperation),
        };
    }
    match operation {
        Operation::Read => {
            let mount = existing(ctx, class, rest)?;
            Ok(Outcome::doubled(mount_info(&ctx.open, &mount)))
        }
        Operation::Update => enable(ctx, class, rest).await,
        Operation::Delete => disable(ctx, class, rest).await,
        _ => Err(Fail::NoOperation),
    }
}

fn existing(ctx: &Ctx, class: Class, path: &str) -> Result<Arc<Mount>, Fail> {
    ctx.open.mounts.at(class, path).ok_or_else(|| bad(format!("no mount at {path}/")))
}

fn table(open: &Open, class: Class) -> Outcome {
    let mut map = Map::new();
    for mount in open.mounts.all(class) {
        map.insert(format!("{}/", mount.path), Value::Object(mount_info(open, &mount)));
    }
    let built_in = |kind: &str, description: &str| {
        let class_prefix = if class == Class::Auth { "auth_" } else { "" };
        json!({ "type": kind, "description": description, "accessor": format!("{class_prefix}{kind}_builtin"),
            "config": { "default_lease_ttl": 0, "max_lease_ttl": 0 }, "options": null, "local": false,
            "seal_wrap": false, "external_entropy_access": false, "uuid": "" })
    };
    match class {
        Class::Auth => map.insert("token/".into(), built_in("token", "token based credentials")),
        Class::Secret => map.insert("sys/".into(), built_in("system", "the vault itself")),
    };
    Outcome::doubled(map)
}

/// A mount as clients see it.
pub(crate) fn mount_info(open: &Open, mount: &Mount) -> Map<String, Value> {
    let mut info = Map::new();
    info.insert("type".into(), mount.kind.as_str().into());
    info.insert("description".into(), mount.description.as_str().into());
    info.insert("accessor".into(), mount.accessor.as_str().into());
    info.insert("uuid".into(), mount.id.to_hex().into());
    let options = if mount.options.is_empty() { Value::Null } else { json!(mount.options) };
    info.insert("options".into(), options);
    let mut config = tuning(open, mount);
    if let Some(lockout) = &mount.lockout {
        // Side by side in a mount's tuning, but apart in the table of mounts.
        config.retain(|name, _| !name.starts_with("user_lockout_"));
        config.insert("user_lockout_config".into(), Value::Object(lockout.show()));
    }
    info.insert("config".into(), Value::Object(config));
    info.insert("local".into(), false.into());
    info.insert("seal_wrap".into(), false.into());
    info.insert("external_entropy_access".into(), false.into());
    info
}

fn tuning(open: &Open, mount: &Mount) -> Map<String, Value> {
    let (default, max) = open.life(Some(mount), Duration::ZERO, Duration::ZERO);
    let mut config = Map::new();
    config.insert("default_lease_ttl".into(), default.as_secs().into());
    config.insert("max_lease_ttl".into(), max.as_secs().into());
    config.insert("force_no_cache".into(), false.into());
    config.insert("description".into(), mount.description.as_str().into());
    if mount.class == Class::Auth {
        config.insert("token_type".into(), "default-service".into());
        config.extend(mount.lockout.iter().flat_map(LockoutConfig::show));
        if let Some(boundary) = &mount.boundary {
            config.insert("token_boundary_policy".into(), boundary.as_str().into());
        }
    }
    config
}

/// Takes over what a body says about a mount's limits.
fn apply_tuning(mount: &mut Mount, body: &Map<String, Value>) -> Result<(), Fail> {
    if let Some(ttl) = params::duration(body, "default_lease_ttl")? {
        mount.default_ttl = ttl;
    }
    if let Some(ttl) = params::duration(body, "max_lease_ttl")? {
        mount.max_ttl = ttl;
    }
    if !mount.max_ttl.is_zero() && mount.default_ttl > mount.max_ttl {
        return Err(bad("default_lease_ttl is longer than max_lease_ttl"));
    }
    if let Some(text) = params::text(body, "description")? {
        mount.description = text.chars().take(512).collect();
    }
    if mount.class == Class::Auth {
        mount.lockout = LockoutConfig::merge(mount.lockout.as_ref(), body)?;
    }
    if let Some(name) = params::text(body, "token_boundary_policy")? {
        if mount.class != Class::Auth {
            return Err(bad("only auth mounts have a token_boundary_policy"));
        }
        mount.boundary = match name {
            "" => None,
            name => Some(PolicyName::parse(name).map_err(|_| bad("invalid token_boundary_policy"))?),
        };
        if mount.boundary.as_ref().is_some_and(PolicyName::is_root) {
            return Err(bad("root is no boundary"));
        }
    }
    Ok(())
}

async fn enable(ctx: &mut Ctx, class: Class, path: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let mount = new_mount(ctx, class, path)?;
    let _turn = open.mounts.changing.lock().await;
    open.mounts.check_free(class, path)?;
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        open.barrier.create_kek(w, mount.id).await?;
        MountTable::put_in(w, &mount).await?;
    });
    made?;
    open.mounts.reload().await?;
    Ok(Outcome::empty())
}

fn new_mount(ctx: &Ctx, class: Class, path: &str) -> Result<Mount, Fail> {
    let first = path.split('/').next().unwrap_or(path);
    let reserved = match class {
        Class::Auth => first == "token",
        Class::Secret => RESERVED.contains(&first),
    };
    if reserved {
        return Err(bad(format!("cannot mount at {path}/")));
    }
    let body = &ctx.request.body;
    let kind = ctx.required("type")?;
    let mut options = params::labels(body, "options")?.unwrap_or_default();
    let kind = match (class, kind) {
        (Class::Secret, "kv-v1" | "kv-v2") => {
            options.insert("version".into(), kind.trim_start_matches("kv-v").into());
            "kv"
        }
        (_, kind) => kind,
    };
    if kind == "kv" && options.get("version").is_some_and(|v| !matches!(v.as_str(), "" | "1" | "2")) {
        return Err(bad("there is no such version of the kv engine: options.version is \"1\" or \"2\""));
    }
    let mut mount = blank(class, path, kind, ctx.now);
    mount.options = options;
    let known = match class {
        Class::Auth => Method::of(kind).is_some(),
        Class::Secret => ctx.open.around.engines.contains_key(mount.engine_kind()),
    };
    if !known {
        return Err(bad(format!("plugin not found in the catalog: {}", kind.escape_default())));
    }
    apply_tuning(&mut mount, body)?;
    if let Some(Value::Object(config)) = body.get("config") {
        apply_tuning(&mut mount, config)?;
    }
    Ok(mount)
}

/// A mount with a fresh id and nothing set.
pub(crate) fn blank(class: Class, path: &str, kind: &str, now: coffer_core::time::Timestamp) -> Mount {
    let id = MountId::random();
    let class_prefix = if class == Class::Auth { "auth_" } else { "" };
    let accessor = format!("{class_prefix}{kind}_{}", &id.to_hex()[..8]);
    Mount {
        id,
        class,
        path: path.to_owned(),
        kind: kind.to_owned(),
        description: String::new(),
        options: BTreeMap::new(),
        accessor,
        created: now,
        default_ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        boundary: None,
        lockout: None,
        tainted: false,
        upgrading: false,
    }
}

async fn tune(ctx: &mut Ctx, class: Class, path: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let _turn = open.mounts.changing.lock().await;
    let mut mount = (*existing(ctx, class, path)?).clone();
    apply_tuning(&mut mount, &ctx.request.body)?;
    let wanted = upgrade::tune_options(&mut mount, &ctx.request.body)?;
    let stored: Result<(), Fail> = transact!(open.barrier, |w| MountTable::put_in(w, &mount).await?);
    stored?;
    open.mounts.reload().await?;
    if wanted {
        upgrade::run(&open, mount).await?;
        return Ok(Outcome::empty().warning(vec!["Upgraded mount from version 1 to version 2.".to_owned()]));
    }
    Ok(Outcome::empty())
}

/// Removes a mount: first it stops answering, then what it issued is taken back, and only then its rows and its key
/// go. If something cannot be taken back yet, the mount stays, silent, and the call can be repeated.
async fn disable(ctx: &mut Ctx, class: Class, path: &str) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let _turn = open.mounts.changing.lock().await;
    let Some(mount) = open.mounts.at(class, path) else { return Ok(Outcome::empty()) };
    if mount.kind == DELIVERY {
        return Err(bad("this mount cannot be removed"));
    }
    let tainted = Mount { tainted: true, ..(*mount).clone() };
    let marked: Result<(), Fail> = transact!(open.barrier, |w| MountTable::put_in(w, &tainted).await?);
    marked?;
    open.mounts.reload().await?;
    open.tokens.forget_all();
    open.secrets.forget_mount(mount.id);
    match class {
        Class::Auth => revoke_issued(&open, mount.id, None).await?,
        Class::Secret => revoke_leases(&open, &mount).await?,
    }
    erase(&open, &mount).await?;
    open.mounts.reload().await?;
    Ok(Outcome::empty())
}

/// Revokes the tokens that an auth mount issued, or those of one pod there.
pub(crate) async fn revoke_issued(open: &Arc<Open>, mount: MountId, pod: Option<&str>) -> Result<(), Fail> {
    let families: Vec<String> = match pod {
        Some(uid) => vec![rows::pod_tokens(mount, uid)],
        None => (0..rows::ISSUED_SHARDS).map(|shard| rows::issued_tokens(mount, shard)).collect(),
    };
    for family in families {
        while revoke_page(open, &family).await? {}
    }
    // Also when nothing was found: another revocation may have got ahead with the rows, and not be done with
    // what is in memory (trap 5 of `revocation.md`).
    open.tokens.forget_issued(mount, pod);
    Ok(())
}

/// False if there was nothing left.
async fn revoke_page(open: &Arc<Open>, family: &str) -> Result<bool, Fail> {
    let reader = open.barrier.reader().await?;
    let page = reader.range_ordered(MountId::SYSTEM, family, u64::MAX, STEP).await?;
    drop(reader);
    let mut hashes = Vec::with_capacity(page.len());
    for (_, _, bytes) in &page {
        hashes.push(codec::decode::<IssuedToken>(bytes)?.hash);
    }
    let killed = revoke::tokens(open, &hashes).await?;
    if killed == 0 {
        // Rows that outlived their tokens.
        let cleared: Result<(), Fail> = transact!(open.barrier, |w| {
            for (key, _, _) in &page {
                w.delete(key).await?;
            }
        });
        cleared?;
    }
    Ok(!page.is_empty())
}

async fn revoke_leases(open: &Arc<Open>, mount: &Mount) -> Result<(), Fail> {
    let prefix = mount.full_path();
    loop {
        let ids = open.leases.below(&prefix, STEP).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let begun = lease::begin_revoke(open, &ids, open.now()).await?;
        if begun.is_empty() || !lease::execute_all(open, begun, open.around.config.revoke_wait).await {
            let left = open.leases.below(&prefix, STEP).await?.len();
            return Err(Fail::Unavailable(format!(
                "the mount is disabled, but {left} of its leases are still being revoked; repeat the call later"
            )));
        }
    }
}

async fn erase(open: &Open, mount: &Mount) -> Result<(), Fail> {
    loop {
        let cleared: Result<usize, Fail> = transact!(open.barrier, |w| w.clear_mount(mount.id, STEP).await?);
        if cleared? < STEP {
            break;
        }
    }
    transact!(open.barrier, |w| {
        open.barrier.drop_kek(w, mount.id).await?;
        w.delete(&mount.key()).await?;
    })
}

/// `sys/internal/ui/mounts` and `.../<path>`: what `kv` commands ask first.
pub(crate) fn preflight(ctx: &Ctx, permitted: &Permitted, rest: &str) -> Result<Outcome, Fail> {
    let acl = permitted.acl()?;
    let open = &ctx.open;
    let path = rest.trim_matches('/');
    if path.is_empty() {
        let visible = |class| -> Map<String, Value> {
            let mounts = open.mounts.all(class).into_iter().filter(|m| acl.sees_mount(&m.full_path()));
            mounts.map(|m| (format!("{}/", m.path), Value::Object(mount_info(open, &m)))).collect()
        };
        return Ok(Outcome::data(json!({ "secret": visible(Class::Secret), "auth": visible(Class::Auth) })));
    }
    let (mount, _) = open.mounts.route(Class::Secret, path).ok_or(Fail::Denied)?;
    if !acl.sees_mount(&mount.full_path()) {
        return Err(Fail::Denied);
    }
    let mut info = mount_info(open, &mount);
    info.insert("path".into(), mount.full_path().into());
    Ok(Outcome::data(Value::Object(info)))
}
