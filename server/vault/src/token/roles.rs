//! `auth/token/roles/...`: what tokens may be made through a role, whatever their maker's own policies.

use coffer_barrier::{MountId, Read, RowKey};
use coffer_core::policy::PolicyName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::token_params::OldName;
use crate::auth::{TokenParams, is_generic_name};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;
use crate::rows;

/// The longest name of a role, and the longest suffix.
const NAME_BYTES_MAX: usize = 512;

/// Which kind of token a role makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RoleType {
    Batch,
    /// Batch, unless the maker says otherwise.
    DefaultBatch,
    /// Service, unless the maker says otherwise.
    #[default]
    DefaultService,
    Service,
}

impl RoleType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::DefaultBatch => "default-batch",
            Self::DefaultService => "default-service",
            Self::Service => "service",
        }
    }

    fn parse(text: &str) -> Result<Self, Fail> {
        Ok(match text {
            "batch" => Self::Batch,
            "default-batch" => Self::DefaultBatch,
            "" | "default" | "default-service" => Self::DefaultService,
            "service" => Self::Service,
            other => return Err(bad(format!("invalid 'token_type' value {other:?}"))),
        })
    }
}

/// A role as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) allowed_policies: Vec<String>,
    pub(super) allowed_policies_glob: Vec<String>,
    pub(super) disallowed_policies: Vec<String>,
    pub(super) disallowed_policies_glob: Vec<String>,
    pub(super) allowed_entity_aliases: Option<Vec<String>>,
    pub(super) orphan: bool,
    pub(super) renewable: bool,
    pub(super) path_suffix: String,
    pub(super) token_type: RoleType,
    /// The limits. Policies and lives in it are not set.
    pub(super) params: TokenParams,
    /// The explicit maximum was written by its old name, and is shown by it, too.
    pub(super) old_explicit_max: bool,
}

impl Default for Role {
    fn default() -> Self {
        Self {
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            allowed_entity_aliases: None,
            orphan: false,
            renewable: true,
            path_suffix: String::new(),
            token_type: RoleType::default(),
            params: TokenParams::default(),
            old_explicit_max: false,
        }
    }
}

impl Role {
    /// The path of a role's row among the system's.
    pub(super) fn path(name: &str) -> String {
        format!("{}/{name}", rows::TOKEN_ROLE_DIR)
    }

    /// The row of a role.
    pub(super) fn key(name: &str) -> RowKey {
        rows::token_role(name)
    }

    /// A role, or none.
    pub(super) async fn load(reader: &dyn Read, name: &str) -> Result<Option<Self>, Fail> {
        if !valid_name(name) {
            return Ok(None);
        }
        codec::get(reader, &Self::key(name)).await
    }

    /// Whether the role itself says which policies its tokens have.
    pub(super) fn has_policies(&self) -> bool {
        [
            &self.allowed_policies,
            &self.allowed_policies_glob,
            &self.disallowed_policies,
            &self.disallowed_policies_glob,
        ]
        .iter()
        .any(|list| !list.is_empty())
    }

    /// The policies of a token: those asked for (or all allowed, or the maker's), if the role lets them pass.
    pub(super) fn policies(
        &self,
        wanted: &[PolicyName],
        no_default: bool,
        parent: &[PolicyName],
    ) -> Result<Vec<PolicyName>, Fail> {
        let default = PolicyName::default_policy();
        let with_default = !no_default && !self.params.no_default_policy && !self.disallows(&default);
        let sanitized = |names: Vec<PolicyName>| -> Vec<PolicyName> {
            let mut names = names;
            if with_default && !names.iter().any(PolicyName::is_root) {
                names.push(default.clone());
            }
            names.sort();
            names.dedup();
            names
        };
        let asked = if wanted.is_empty() { Vec::new() } else { sanitized(wanted.to_vec()) };
        let policies = if self.allowed_policies.is_empty() && self.allowed_policies_glob.is_empty() {
            if asked.is_empty() { sanitized(parent.to_vec()) } else { asked }
        } else {
            let named =
                self.allowed_policies.iter().filter_map(|text| PolicyName::parse(text).ok()).collect();
            let allowed = sanitized(named);
            if asked.is_empty() {
                allowed
            } else {
                let fine = |name: &PolicyName| {
                    allowed.contains(name)
                        || self.allowed_policies_glob.iter().any(|g| glob(g, name.as_str()))
                };
                if !asked.iter().all(fine) {
                    return Err(bad(format!(
                        "token policies ({}) must be subset of the role's allowed policies ({}) or glob policies ({})",
                        quoted(asked.iter().map(PolicyName::as_str)),
                        quoted(allowed.iter().map(PolicyName::as_str)),
                        quoted(self.allowed_policies_glob.iter().map(String::as_str)),
                    )));
                }
                asked
            }
        };
        if let Some(name) = policies.iter().find(|name| self.disallows(name)) {
            return Err(bad(format!("token policy {:?} is disallowed by this role", name.as_str())));
        }
        Ok(policies)
    }

    fn disallows(&self, name: &PolicyName) -> bool {
        self.disallowed_policies.iter().any(|text| text.eq_ignore_ascii_case(name.as_str()))
            || self.disallowed_policies_glob.iter().any(|g| glob(g, name.as_str()))
    }

    fn show(&self, name: &str) -> Map<String, Value> {
        let Value::Object(mut data) = json!({
            "allowed_entity_aliases": self.allowed_entity_aliases,
            "allowed_policies": self.allowed_policies,
            "allowed_policies_glob": self.allowed_policies_glob,
            "disallowed_policies": self.disallowed_policies,
            "disallowed_policies_glob": self.disallowed_policies_glob,
            "explicit_max_ttl": if self.old_explicit_max { self.params.explicit_max_ttl.as_secs() } else { 0 },
            "name": name,
            "orphan": self.orphan,
            "path_suffix": self.path_suffix,
            "period": if self.params.old_names.contains(&OldName::Period) { self.params.period.as_secs() } else { 0 },
            "renewable": self.renewable,
            "token_explicit_max_ttl": self.params.explicit_max_ttl.as_secs(),
            "token_no_default_policy": self.params.no_default_policy,
            "token_period": self.params.period.as_secs(),
            "token_type": self.token_type.as_str(),
        }) else {
            return Map::new();
        };
        if !self.params.bound_cidrs.is_empty() {
            let texts = json!(self.params.bound_cidrs.texts());
            if self.params.old_names.contains(&OldName::BoundCidrs) {
                data.insert("bound_cidrs".into(), texts.clone());
            }
            data.insert("token_bound_cidrs".into(), texts);
        }
        if self.params.num_uses > 0 {
            data.insert("token_num_uses".into(), self.params.num_uses.into());
        }
        data
    }

    /// Takes over what a body says; what it does not name keeps its value.
    fn merge(&mut self, body: &Map<String, Value>) -> Result<Vec<String>, Fail> {
        for (place, name) in [
            (&mut self.allowed_policies, "allowed_policies"),
            (&mut self.disallowed_policies, "disallowed_policies"),
        ] {
            if let Some(names) = params::policies(body, name)? {
                *place = names.iter().map(|name| name.as_str().to_owned()).collect();
            }
        }
        for (place, name) in [
            (&mut self.allowed_policies_glob, "allowed_policies_glob"),
            (&mut self.disallowed_policies_glob, "disallowed_policies_glob"),
        ] {
            if let Some(globs) = params::list(body, name)? {
                *place = globs.iter().map(|glob| glob.to_ascii_lowercase()).collect();
            }
        }
        if let Some(names) = params::list(body, "allowed_entity_aliases")? {
            self.allowed_entity_aliases = Some(names.iter().map(|name| name.to_ascii_lowercase()).collect());
        }
        self.orphan = params::flag(body, "orphan")?.unwrap_or(self.orphan);
        self.renewable = params::flag(body, "renewable")?.unwrap_or(self.renewable);
        if let Some(suffix) = params::text(body, "path_suffix")? {
            if !suffix.is_empty() && !valid_name(suffix) {
                return Err(bad(
                    "given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w",
                ));
            }
            self.path_suffix = suffix.to_owned();
        }
        if let Some(text) = params::text(body, "token_type")? {
            self.token_type = RoleType::parse(text)?;
        }
        let warnings = self.merge_limits(body)?;
        self.check()?;
        Ok(warnings)
    }

    fn merge_limits(&mut self, body: &Map<String, Value>) -> Result<Vec<String>, Fail> {
        const LIMITS: [&str; 8] = [
            "token_bound_cidrs",
            "bound_cidrs",
            "token_no_default_policy",
            "token_num_uses",
            "token_period",
            "period",
            "token_explicit_max_ttl",
            "explicit_max_ttl",
        ];
        let mut limits: Map<String, Value> =
            LIMITS.iter().filter_map(|n| Some(((*n).to_owned(), body.get(*n)?.clone()))).collect();
        if let Some(old) = limits.remove("explicit_max_ttl") {
            self.old_explicit_max = true;
            limits.entry("token_explicit_max_ttl").or_insert(old);
        } else if limits.contains_key("token_explicit_max_ttl") {
            self.old_explicit_max = false;
        }
        self.params.merge(&limits, &[OldName::BoundCidrs, OldName::Period])
    }

    fn check(&self) -> Result<(), Fail> {
        if self.token_type != RoleType::Batch {
            return Ok(());
        }
        let never = |what| bad(format!("'token_type' cannot be 'batch' when role is set to generate {what}"));
        if !self.orphan {
            return Err(never("non-orphan tokens"));
        }
        if !self.params.period.is_zero() {
            return Err(never("periodic tokens"));
        }
        if self.renewable {
            return Err(never("renewable tokens"));
        }
        if !self.params.explicit_max_ttl.is_zero() {
            return Err(never("tokens with an explicit max TTL"));
        }
        if self.params.num_uses > 0 {
            return Err(never("tokens with limited use count"));
        }
        Ok(())
    }
}

fn valid_name(name: &str) -> bool {
    is_generic_name(name, NAME_BYTES_MAX)
}

/// A glob as Vault's lists have them: stars at either end, or both.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(rest), Some(_)) => text.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// Handles `auth/token/roles` and `auth/token/roles/<name>`.
pub(super) async fn handle(ctx: &mut Ctx, name: &str) -> Result<Outcome, Fail> {
    if name.is_empty() {
        return if ctx.request.operation == Operation::List {
            list(ctx).await
        } else {
            Err(Fail::NoOperation)
        };
    }
    match ctx.request.operation {
        Operation::Read => {
            let reader = ctx.open.barrier.reader().await?;
            let role = Role::load(&reader, name).await?.ok_or(Fail::NotFound)?;
            Ok(Outcome::data(Value::Object(role.show(name))))
        }
        Operation::Create | Operation::Update => write(ctx, name).await,
        Operation::Delete => delete(ctx, name).await,
        _ => Err(Fail::NoOperation),
    }
}

/// Whether there is a role of this name.
pub(crate) async fn exists(open: &Open, name: &str) -> Result<bool, Fail> {
    Ok(valid_name(name) && open.barrier.reader().await?.exists(&Role::key(name)).await?)
}

async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    Ok(Outcome::list(reader.list(MountId::SYSTEM, rows::TOKEN_ROLE_DIR, after, limit).await?))
}

async fn write(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    if !valid_name(name) {
        return Err(bad("invalid role name"));
    }
    let row = Role::key(name);
    let written: Result<Vec<String>, Fail> = transact!(ctx.open.barrier, |w| {
        let mut role = codec::get::<Role>(&*w as &dyn Read, &row).await?.unwrap_or_default();
        let warnings = role.merge(&ctx.request.body)?;
        codec::put(w, &row, &role).await?;
        w.link(MountId::SYSTEM, &Role::path(name)).await?;
        warnings
    });
    let warnings = written?;
    if warnings.is_empty() {
        return Ok(Outcome::empty());
    }
    Ok(Outcome { warnings, ..Outcome::data(Value::Null) })
}

async fn delete(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let row = Role::key(name);
    let deleted: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        if valid_name(name) && w.exists(&row).await? {
            w.delete(&row).await?;
            w.unlink(MountId::SYSTEM, &Role::path(name)).await?;
        }
    });
    deleted?;
    Ok(Outcome::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_have_stars_at_their_ends() {
        for (pattern, text, fits) in [
            ("*", "x", true),
            ("dev*", "dev-a", true),
            ("dev*", "a-dev", false),
            ("*-a", "dev-a", true),
            ("*ev*", "dev-a", true),
            ("dev", "dev", true),
            ("dev", "dev-a", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn names_and_suffixes_are_words() {
        for good in ["a", "a_b", "a-b.c", "9"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a/b", "a b", "ä"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }
}
