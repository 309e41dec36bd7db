//! What can be set on a mount, when it is made and later through `/tune`, and how it is shown.
//!
//! Only reads and shows settings; what they mean is for those who use them.

use std::time::Duration;

use coffer_core::policy::PolicyName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Class, Mount};
use crate::auth::lockout::LockoutConfig;
use crate::error::{Fail, bad};
use crate::params;

/// The longest description of a mount, in bytes.
const DESCRIPTION_MAX: usize = 2048;
/// The most names in one of a mount's lists.
const NAMES_MAX: usize = 128;

/// Settings of a mount that were not there from the first release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tuning {
    /// Kept and shown: caches here are always coherent.
    pub(crate) force_no_cache: bool,
    /// Keys of requests whose texts stand in the lines of audit devices as they are.
    pub(crate) audit_non_hmac_request_keys: Option<Vec<String>>,
    /// The same for replies.
    pub(crate) audit_non_hmac_response_keys: Option<Vec<String>>,
    /// `unauth`: the mount is listed for everybody.
    pub(crate) listing_visibility: Option<String>,
    /// Kept and shown: built-in engines look at no headers.
    pub(crate) passthrough_request_headers: Option<Vec<String>>,
    /// Kept and shown: built-in engines set no headers.
    pub(crate) allowed_response_headers: Option<Vec<String>>,
    /// `service`, `batch`, `default-service`, `default-batch`; auth mounts only.
    pub(crate) token_type: Option<String>,
}

/// Where settings come from: the two differ in words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Made,
    Tuned,
}

/// A duration that may also be `system`: the system's.
fn ttl(body: &Map<String, Value>, name: &str, what: &str) -> Result<Option<Duration>, Fail> {
    match body.get(name) {
        Some(Value::String(text)) if text == "system" || text.is_empty() => Ok(Some(Duration::ZERO)),
        _ => params::duration(body, name).map_err(|_| bad(format!("unable to parse {what} TTL"))),
    }
}

fn names(body: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, Fail> {
    let Some(list) = params::list(body, name)? else { return Ok(None) };
    if list.len() > NAMES_MAX {
        return Err(Fail::TooLarge(format!("{name} has more than {NAMES_MAX} entries")));
    }
    Ok(Some(list))
}

/// Takes over what a body says about a mount.
pub(super) fn apply(mount: &mut Mount, body: &Map<String, Value>, when: When) -> Result<(), Fail> {
    let default = ttl(body, "default_lease_ttl", "default")?;
    let max = ttl(body, "max_lease_ttl", "max")?;
    mount.default_ttl = default.unwrap_or(mount.default_ttl);
    mount.max_ttl = max.unwrap_or(mount.max_ttl);
    if !mount.max_ttl.is_zero() && mount.default_ttl > mount.max_ttl {
        return Err(bad(match when {
            When::Made => "given default lease TTL greater than given max lease TTL".to_owned(),
            When::Tuned => format!(
                "backend max lease TTL of {} would be less than backend default lease TTL of {}",
                mount.max_ttl.as_secs(),
                mount.default_ttl.as_secs()
            ),
        }));
    }
    if let Some(text) = params::text(body, "description")? {
        if text.len() > DESCRIPTION_MAX {
            return Err(Fail::TooLarge(format!("description is longer than {DESCRIPTION_MAX} bytes")));
        }
        text.clone_into(&mut mount.description);
    }
    apply_lists(mount, body)?;
    if let Some(visibility) = params::text(body, "listing_visibility")? {
        if !matches!(visibility, "" | "hidden" | "unauth") {
            return Err(bad(format!("invalid listing_visibility {}", visibility.escape_default())));
        }
        mount.tuning.listing_visibility = Some(visibility.to_owned()).filter(|v| !v.is_empty());
    }
    apply_token_type(mount, body, when)?;
    apply_lockout(mount, body)?;
    apply_boundary(mount, body)
}

fn apply_lists(mount: &mut Mount, body: &Map<String, Value>) -> Result<(), Fail> {
    let tuning = &mut mount.tuning;
    for (name, field) in [
        ("audit_non_hmac_request_keys", &mut tuning.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &mut tuning.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &mut tuning.passthrough_request_headers),
        ("allowed_response_headers", &mut tuning.allowed_response_headers),
    ] {
        if let Some(list) = names(body, name)? {
            *field = Some(list).filter(|l| !l.is_empty());
        }
    }
    tuning.force_no_cache = params::flag(body, "force_no_cache")?.unwrap_or(tuning.force_no_cache);
    Ok(())
}

fn apply_token_type(mount: &mut Mount, body: &Map<String, Value>, when: When) -> Result<(), Fail> {
    let Some(kind) = params::text(body, "token_type")?.filter(|t| !t.is_empty()) else { return Ok(()) };
    if mount.class != Class::Auth {
        // As in OpenBao: passed over when a mount is made.
        return match when {
            When::Made => Ok(()),
            When::Tuned => Err(bad("'token_type' can only be modified on auth mounts")),
        };
    }
    if mount.is_builtin() {
        return Err(bad("'token_type' cannot be set for 'token' or 'ns_token' auth mounts"));
    }
    let kind = match kind {
        "default" => "default-service",
        "service" | "batch" | "default-service" | "default-batch" => kind,
        _ => return Err(bad("invalid value for 'token_type'")),
    };
    mount.tuning.token_type = Some(kind.to_owned());
    Ok(())
}

fn apply_lockout(mount: &mut Mount, body: &Map<String, Value>) -> Result<(), Fail> {
    if body.get("user_lockout_config").is_none_or(Value::is_null) {
        return Ok(());
    }
    if mount.class != Class::Auth || !matches!(mount.kind.as_str(), "userpass" | "approle" | "ldap") {
        return Err(bad(format!(
            "tuning of user lockout configuration for auth type {:?} not allowed",
            mount.kind
        )));
    }
    mount.lockout = LockoutConfig::merge(mount.lockout.as_ref(), body)?;
    Ok(())
}

fn apply_boundary(mount: &mut Mount, body: &Map<String, Value>) -> Result<(), Fail> {
    let Some(name) = params::text(body, "token_boundary_policy")? else { return Ok(()) };
    if mount.class != Class::Auth || mount.is_builtin() {
        return Err(bad("only auth mounts that issue tokens have a token_boundary_policy"));
    }
    mount.boundary = match name {
        "" => None,
        name => Some(PolicyName::parse(name).map_err(|_| bad("invalid token_boundary_policy"))?),
    };
    if mount.boundary.as_ref().is_some_and(PolicyName::is_root) {
        return Err(bad("root is no boundary"));
    }
    Ok(())
}

/// What mount tables and `/tune` show alike.
pub(super) fn shown(mount: &Mount) -> Map<String, Value> {
    let tuning = &mount.tuning;
    let mut map = Map::new();
    map.insert("force_no_cache".into(), tuning.force_no_cache.into());
    for (name, list) in [
        ("audit_non_hmac_request_keys", &tuning.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &tuning.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &tuning.passthrough_request_headers),
        ("allowed_response_headers", &tuning.allowed_response_headers),
    ] {
        if let Some(list) = list {
            map.insert(name.into(), json!(list));
        }
    }
    if let Some(visibility) = &tuning.listing_visibility {
        map.insert("listing_visibility".into(), visibility.as_str().into());
    }
    if mount.class == Class::Auth {
        let kind = tuning.token_type.as_deref().unwrap_or("default-service");
        map.insert("token_type".into(), kind.into());
        if let Some(boundary) = &mount.boundary {
            map.insert("token_boundary_policy".into(), boundary.as_str().into());
        }
    }
    map
}
