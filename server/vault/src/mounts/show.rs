//! Mounts as clients see them: tables, single mounts, `/tune`, the router's view.
//!
//! Only shows.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Class, Mount, tuning};
use crate::auth::lockout::LockoutConfig;
use crate::open::Open;
use crate::outcome::Outcome;

/// The version of a built-in engine or auth method, as `sys/mounts` and the catalogue tell it.
pub(crate) fn running_version(open: &Open) -> String {
    format!("v{}+builtin.coffer", open.around.config.version)
}

/// `sys/mounts` or `sys/auth`.
pub(super) fn table(open: &Open, class: Class) -> Outcome {
    let mounts = open.mounts.all(class);
    let entry = |m: &Mount| (format!("{}/", m.path), Value::Object(mount_info(open, m)));
    Outcome::doubled(mounts.iter().map(|m| entry(m)).collect())
}

/// A mount.
pub(crate) fn mount_info(open: &Open, mount: &Mount) -> Map<String, Value> {
    let builtin = mount.is_builtin();
    let mut info = Map::new();
    info.insert("accessor".into(), mount.accessor.as_str().into());
    info.insert("config".into(), Value::Object(config(mount)));
    if !builtin {
        info.insert("deprecation_status".into(), "supported".into());
    }
    info.insert("description".into(), mount.description.as_str().into());
    info.insert("external_entropy_access".into(), false.into());
    info.insert("local".into(), mount.local.into());
    info.insert("options".into(), if builtin { Value::Null } else { json!(mount.options) });
    info.insert("plugin_version".into(), "".into());
    info.insert("running_plugin_version".into(), running_version(open).into());
    info.insert("running_sha256".into(), "".into());
    info.insert("seal_wrap".into(), mount.seal_wrap.into());
    info.insert("type".into(), mount.kind.as_str().into());
    info.insert("uuid".into(), uuid(mount).into());
    info
}

fn uuid(mount: &Mount) -> String {
    uuid::Uuid::from_bytes(*mount.id.as_bytes()).to_string()
}

/// What is set on the mount itself; zero is the system's.
fn config(mount: &Mount) -> Map<String, Value> {
    let mut config = tuning::shown(mount);
    config.insert("default_lease_ttl".into(), mount.default_ttl.as_secs().into());
    config.insert("max_lease_ttl".into(), mount.max_ttl.as_secs().into());
    if let Some(lockout) = &mount.lockout {
        // Side by side in a mount's tuning, but apart in the table of mounts.
        config.insert("user_lockout_config".into(), Value::Object(lockout.show()));
    }
    config
}

/// `/tune`: what holds, whoever set it.
pub(super) fn tuned(open: &Open, mount: &Mount) -> Map<String, Value> {
    let (default, max) = open.life(Some(mount), Duration::ZERO, Duration::ZERO);
    let mut tune = tuning::shown(mount);
    tune.insert("default_lease_ttl".into(), default.as_secs().into());
    tune.insert("max_lease_ttl".into(), max.as_secs().into());
    tune.insert("description".into(), mount.description.as_str().into());
    if !mount.options.is_empty() {
        tune.insert("options".into(), json!(mount.options));
    }
    tune.extend(mount.lockout.iter().flat_map(LockoutConfig::show));
    tune
}

/// `sys/internal/inspect/router/<tag>`; only the mounts, by `root`, can be looked at.
pub(crate) fn inspect(open: &Open) -> Outcome {
    let entry = |m: &std::sync::Arc<Mount>| {
        json!({ "accessor": m.accessor, "mount_namespace": "", "mount_path": format!("{}/", m.path),
            "mount_type": m.kind, "storage_prefix": m.id.to_hex(), "tainted": m.tainted, "uuid": uuid(m) })
    };
    let entries: Vec<Value> = open.mounts.table().iter().map(entry).collect();
    Outcome::data(json!({ "root": entries }))
}
