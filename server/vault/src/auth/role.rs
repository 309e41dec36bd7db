//! `auth/<mount>/role/...`: which ServiceAccounts get which policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Read, RecordKind, RowKey};
use coffer_core::policy::PolicyName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// A role as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// Names of ServiceAccounts, or `*`.
    pub(super) names: Vec<String>,
    /// Their namespaces, or `*`.
    pub(super) namespaces: Vec<String>,
    /// What the JWT must be meant for. Always set: a token for somebody else must not open the vault.
    pub(super) audience: String,
    pub(super) policies: Vec<PolicyName>,
    pub(super) no_default_policy: bool,
    pub(super) ttl: Duration,
    pub(super) max_ttl: Duration,
    pub(super) period: Duration,
    pub(super) custom_metadata: BTreeMap<String, String>,
}

impl Role {
    /// The row of a role.
    pub(super) fn key(mount: &Mount, name: &str) -> RowKey {
        RowKey::path(mount.id, RecordKind::Entry, &format!("role/{name}"))
    }

    /// A role, or none.
    pub(super) async fn load(reader: &dyn Read, mount: &Mount, name: &str) -> Result<Option<Self>, Fail> {
        if !valid_name(name) {
            return Ok(None);
        }
        codec::get(reader, &Self::key(mount, name)).await
    }

    /// Whether this ServiceAccount may take the role.
    pub(super) fn admits(&self, namespace: &str, name: &str) -> bool {
        let among = |list: &[String], value: &str| list.iter().any(|entry| entry == "*" || entry == value);
        among(&self.namespaces, namespace) && among(&self.names, name)
    }
}

fn valid_name(name: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    !name.is_empty() && name.len() <= 512 && name.bytes().all(good) && name != "." && name != ".."
}

/// Handles a role, or their list.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    if ctx.request.operation == Operation::List {
        if !name.is_empty() {
            return Err(Fail::NotFound);
        }
        let (after, limit) = params::page(&ctx.request.query)?;
        let reader = ctx.open.barrier.reader().await?;
        return Ok(Outcome::list(reader.list(mount.id, "role", after, limit).await?));
    }
    if !valid_name(name) {
        return Err(bad("invalid role name"));
    }
    match ctx.request.operation {
        Operation::Read => read(ctx, mount, name).await,
        Operation::Create | Operation::Update => write(ctx, mount, name).await,
        Operation::Delete => delete(ctx, mount, name).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn read(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let role = Role::load(&reader, mount, name).await?.ok_or(Fail::NotFound)?;
    Ok(Outcome::data(json!({
        "bound_service_account_names": role.names,
        "bound_service_account_namespaces": role.namespaces,
        "audience": role.audience,
        "alias_name_source": "serviceaccount_uid",
        "token_policies": role.policies,
        "token_no_default_policy": role.no_default_policy,
        "token_ttl": role.ttl.as_secs(),
        "token_max_ttl": role.max_ttl.as_secs(),
        "token_explicit_max_ttl": 0,
        "token_period": role.period.as_secs(),
        "token_num_uses": 0,
        "token_type": "default",
        "token_bound_cidrs": [],
        "custom_metadata": role.custom_metadata,
    })))
}

/// What a body says on top of what there is: fields that are not named keep their value.
fn merged(before: Option<Role>, body: &Map<String, Value>) -> Result<Role, Fail> {
    // Limits that are not enforced must not be accepted.
    for field in ["token_bound_cidrs", "bound_service_account_namespace_selector"] {
        let empty =
            |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty) || v.as_str() == Some("");
        if body.get(field).is_some_and(|v| !empty(v)) {
            return Err(bad(format!("{field} is not supported")));
        }
    }
    if params::number(body, "token_num_uses")?.is_some_and(|n| n != 0) {
        return Err(bad("token_num_uses is not supported"));
    }
    let mut role = before.unwrap_or(Role {
        names: Vec::new(),
        namespaces: Vec::new(),
        audience: String::new(),
        policies: Vec::new(),
        no_default_policy: false,
        ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        period: Duration::ZERO,
        custom_metadata: BTreeMap::new(),
    });
    if let Some(names) = params::list(body, "bound_service_account_names")? {
        role.names = names;
    }
    if let Some(namespaces) = params::list(body, "bound_service_account_namespaces")? {
        role.namespaces = namespaces;
    }
    if let Some(audience) = params::text(body, "audience")? {
        role.audience = audience.to_owned();
    }
    let policies = match params::policies(body, "token_policies")? {
        Some(policies) => Some(policies),
        None => params::policies(body, "policies")?,
    };
    if let Some(policies) = policies {
        role.policies = policies;
    }
    role.no_default_policy = params::flag(body, "token_no_default_policy")?.unwrap_or(role.no_default_policy);
    role.ttl = params::duration(body, "token_ttl")?.unwrap_or(role.ttl);
    role.max_ttl = params::duration(body, "token_max_ttl")?.unwrap_or(role.max_ttl);
    role.period = params::duration(body, "token_period")?.unwrap_or(role.period);
    if let Some(labels) = params::labels(body, "custom_metadata")? {
        role.custom_metadata = labels;
    }
    check(&role)?;
    Ok(role)
}

fn check(role: &Role) -> Result<(), Fail> {
    if role.names.is_empty() {
        return Err(bad("\"bound_service_account_names\" can not be empty"));
    }
    if role.namespaces.is_empty() {
        return Err(bad("\"bound_service_account_namespaces\" can not be empty"));
    }
    let any = |list: &[String]| list.iter().any(|entry| entry == "*");
    if any(&role.names) && any(&role.namespaces) {
        return Err(bad("names and namespaces can not both be \"*\""));
    }
    let odd = |entry: &String| entry.is_empty() || (entry.contains('*') && entry != "*");
    if role.names.iter().chain(&role.namespaces).any(odd) {
        return Err(bad("bound names are exact, or \"*\""));
    }
    if role.audience.is_empty() || role.audience.len() > 512 {
        return Err(bad("missing audience: tokens meant for somebody else are never accepted"));
    }
    if role.policies.iter().any(PolicyName::is_root) {
        return Err(bad("auth methods cannot create root tokens"));
    }
    if !role.max_ttl.is_zero() && role.ttl > role.max_ttl {
        return Err(bad("'token_ttl' can not be greater than 'token_max_ttl'"));
    }
    Ok(())
}

async fn write(ctx: &Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    let row = Role::key(mount, name);
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let before = codec::get::<Role>(&*w as &dyn Read, &row).await?;
        let role = merged(before, &ctx.request.body)?;
        codec::put(w, &row, &role).await?;
        w.link(mount.id, &format!("role/{name}")).await?;
    });
    written?;
    Ok(Outcome::empty())
}

async fn delete(ctx: &Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    let row = Role::key(mount, name);
    let deleted: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        if w.exists(&row).await? {
            w.delete(&row).await?;
            w.unlink(mount.id, &format!("role/{name}")).await?;
        }
    });
    deleted?;
    Ok(Outcome::empty())
}
