//! `sys/internal/ui/mounts` and `.../<path>`: what `kv` commands and user interfaces ask first.
//!
//! Answers only what the asker may see anyhow.

use serde_json::{Map, Value, json};

use super::show::mount_info;
use super::{Class, Mount};
use crate::error::Fail;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::Ctx;

fn for_everybody(mount: &Mount) -> bool {
    mount.tuning.listing_visibility.as_deref() == Some("unauth")
}

/// All mounts that somebody without a token sees, and of each only what he needs for a login.
pub(crate) fn listed_for_all(open: &Open) -> Outcome {
    let listed = |class| -> Map<String, Value> {
        let mounts = open.mounts.all(class).into_iter().filter(|m| for_everybody(m));
        let entry = |m: &Mount| json!({ "description": m.description, "options": m.options, "type": m.kind });
        mounts.map(|m| (format!("{}/", m.path), entry(&m))).collect()
    };
    Outcome::data(json!({ "secret": listed(Class::Secret), "auth": listed(Class::Auth) }))
}

/// All mounts that this token may do anything at.
pub(crate) fn visible(ctx: &Ctx, permitted: &Permitted) -> Result<Outcome, Fail> {
    let (acl, open) = (permitted.acl()?, &ctx.open);
    let seen = |class| -> Map<String, Value> {
        let seen = |m: &Mount| for_everybody(m) || acl.sees_mount(&m.full_path());
        let mounts = open.mounts.all(class).into_iter().filter(|m| seen(m));
        mounts.map(|m| (format!("{}/", m.path), Value::Object(mount_info(open, &m)))).collect()
    };
    Ok(Outcome::data(json!({ "secret": seen(Class::Secret), "auth": seen(Class::Auth) })))
}

/// The mount that answers for a path, if this token may do anything at it.
pub(crate) fn preflight(ctx: &Ctx, permitted: &Permitted, path: &str) -> Result<Outcome, Fail> {
    let (acl, open) = (permitted.acl()?, &ctx.open);
    let path = path.trim_matches('/');
    let found = open.mounts.containing(path).filter(|m| acl.sees_mount(&m.full_path()));
    let mount = found.ok_or_else(|| {
        Fail::Forbidden(format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}/\""
        ))
    })?;
    let mut info = mount_info(open, &mount);
    info.insert("path".into(), format!("{}/", mount.path).into());
    Ok(Outcome::data(Value::Object(info)))
}
