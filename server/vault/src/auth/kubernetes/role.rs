//! `auth/<mount>/role/...`: which ServiceAccounts get which policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{Read, RecordKind, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::selector::Selector;
use crate::auth::glob::glob;
use crate::auth::token_params::{OldName, TokenParams};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

const SELECTOR: &str = "bound_service_account_namespace_selector";
/// The old names of token parameters that this method's roles know.
const OLD_NAMES: [OldName; 6] = [
    OldName::BoundCidrs,
    OldName::MaxTtl,
    OldName::NumUses,
    OldName::Period,
    OldName::Policies,
    OldName::Ttl,
];

/// What a ServiceAccount is called among the aliases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AliasName {
    /// By its UID.
    #[default]
    ServiceaccountUid,
    /// By namespace and name, so that one made anew is the same.
    ServiceaccountName,
}

/// A role as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// Names of ServiceAccounts; globs.
    pub(super) names: Vec<String>,
    /// Their namespaces; globs.
    pub(super) namespaces: Vec<String>,
    /// Or else namespaces with these labels; empty: no others.
    #[serde(default)]
    pub(super) namespace_selector: String,
    /// What the ServiceAccount is called among the aliases.
    #[serde(default)]
    pub(super) alias_name_source: AliasName,
    /// What the JWT must be meant for. Always set: a token for somebody else must not open the vault.
    pub(super) audience: String,
    /// Whether its ServiceAccounts may use their tokens as they are, without a login.
    #[serde(default)]
    pub(super) allow_direct: bool,
    #[serde(flatten)]
    pub(super) token: TokenParams,
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

    /// Whether a ServiceAccount of this name may take the role.
    pub(super) fn admits_name(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| glob(pattern, name))
    }

    /// Whether one of this namespace may, whatever labels that has.
    pub(super) fn admits_namespace(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|pattern| glob(pattern, namespace))
    }
}

/// A role's name is one in any case.
pub(super) fn name(text: &str) -> String {
    text.to_ascii_lowercase()
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
    let mut data = Map::new();
    for (name, value) in [
        ("bound_service_account_names", json!(role.names)),
        ("bound_service_account_namespaces", json!(role.namespaces)),
        ("audience", json!(role.audience)),
        ("bound_service_account_namespace_selector", json!(role.namespace_selector)),
        ("alias_name_source", json!(role.alias_name_source)),
        ("allow_direct", json!(role.allow_direct)),
        ("custom_metadata", json!(role.custom_metadata)),
    ] {
        data.insert(name.to_owned(), value);
    }
    role.token.show_in(&mut data);
    Ok(Outcome::data(Value::Object(data)))
}

/// What a body says on top of what there is: fields that are not named keep their value.
/// Gives back what the client should be warned of, too.
fn merged(before: Option<Role>, body: &Map<String, Value>) -> Result<(Role, Vec<String>), Fail> {
    let mut role = before.unwrap_or_default();
    if let Some(names) = params::list(body, "bound_service_account_names")? {
        role.names = names;
    }
    if let Some(namespaces) = params::list(body, "bound_service_account_namespaces")? {
        role.namespaces = namespaces;
    }
    if let Some(selector) = params::text(body, SELECTOR)? {
        role.namespace_selector = selector.to_owned();
    }
    role.alias_name_source = match params::text(body, "alias_name_source")? {
        None => role.alias_name_source,
        Some("serviceaccount_uid") => AliasName::ServiceaccountUid,
        Some("serviceaccount_name") => AliasName::ServiceaccountName,
        Some(_) => {
            return Err(bad(
                "invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name",
            ));
        }
    };
    if let Some(audience) = params::text(body, "audience")? {
        role.audience = audience.to_owned();
    }
    role.allow_direct = params::flag(body, "allow_direct")?.unwrap_or(role.allow_direct);
    let warnings = role.token.merge(body, &OLD_NAMES)?;
    if let Some(labels) = params::labels(body, "custom_metadata")? {
        role.custom_metadata = labels;
    }
    check(&role)?;
    Ok((role, warnings))
}

fn check(role: &Role) -> Result<(), Fail> {
    if role.names.is_empty() {
        return Err(bad("\"bound_service_account_names\" can not be empty"));
    }
    if role.namespaces.is_empty() && role.namespace_selector.is_empty() {
        return Err(bad(format!(
            "\"bound_service_account_namespaces\" can not be empty if \"{SELECTOR}\" is not set"
        )));
    }
    if !role.namespace_selector.is_empty() && Selector::parse(&role.namespace_selector).is_none() {
        return Err(bad(format!("invalid \"{SELECTOR}\" configured")));
    }
    let mixed = |list: &[String]| list.len() > 1 && list.iter().any(|entry| entry == "*");
    if mixed(&role.names) || mixed(&role.namespaces) {
        return Err(bad("can not mix \"*\" with values"));
    }
    if role.names.iter().chain(&role.namespaces).any(String::is_empty) {
        return Err(bad("a bound name can not be empty"));
    }
    if role.allow_direct && (role.token.num_uses != 0 || role.token.strictly_bind_ip) {
        return Err(bad(
            "allow_direct cannot be set with token_num_uses or token_strictly_bind_ip: nothing is stored that counts uses \
             or remembers an address",
        ));
    }
    if role.audience.is_empty() || role.audience.len() > 512 {
        return Err(bad("missing audience: tokens meant for somebody else are never accepted"));
    }
    Ok(())
}

async fn write(ctx: &Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    let row = Role::key(mount, name);
    let written: Result<Vec<String>, Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let before = codec::get::<Role>(&*w as &dyn Read, &row).await?;
        let (role, warnings) = merged(before, &ctx.request.body)?;
        codec::put(w, &row, &role).await?;
        w.link(mount.id, &format!("role/{name}")).await?;
        warnings
    });
    Ok(Outcome::empty().warning(written?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_from_before_the_shared_parameters_still_open() {
        let old = r#"{"names":["a"],"namespaces":["n"],"audience":"coffer","policies":["p"],"no_default_policy":true,
            "ttl":{"secs":60,"nanos":0},"max_ttl":{"secs":120,"nanos":0},"period":{"secs":0,"nanos":0},
            "custom_metadata":{}}"#;
        let role: Role = serde_json::from_str(old).unwrap();
        assert_eq!(role.token.ttl.as_secs(), 60);
        assert!(role.token.no_default_policy && role.token.bound_cidrs.is_empty());
        let again: Role = serde_json::from_str(&serde_json::to_string(&role).unwrap()).unwrap();
        assert_eq!(again, role);
    }
}
