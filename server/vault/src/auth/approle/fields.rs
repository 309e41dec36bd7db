//! `role/<name>/<field>`: one field of a role read, written or set back to its default.

use serde_json::{Map, Value, json};

use super::role::{self, OLD_NAMES, Role};
use crate::auth::token_params::{OldName, TokenParams};
use crate::cidr::Cidrs;
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    BindSecretId,
    BoundCidrList,
    LocalSecretIds,
    Period,
    Policies,
    RoleId,
    SecretIdBoundCidrs,
    SecretIdNumUses,
    SecretIdTtl,
    TokenBoundCidrs,
    TokenMaxTtl,
    TokenNumUses,
    TokenTtl,
}

impl Field {
    fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "bind-secret-id" => Self::BindSecretId,
            "bound-cidr-list" => Self::BoundCidrList,
            "local-secret-ids" => Self::LocalSecretIds,
            "period" => Self::Period,
            "policies" => Self::Policies,
            "role-id" => Self::RoleId,
            "secret-id-bound-cidrs" => Self::SecretIdBoundCidrs,
            "secret-id-num-uses" => Self::SecretIdNumUses,
            "secret-id-ttl" => Self::SecretIdTtl,
            "token-bound-cidrs" => Self::TokenBoundCidrs,
            "token-max-ttl" => Self::TokenMaxTtl,
            "token-num-uses" => Self::TokenNumUses,
            "token-ttl" => Self::TokenTtl,
            _ => return None,
        })
    }

    /// What is shown of it.
    fn show(self, role: &Role) -> Map<String, Value> {
        let cidrs = |cidrs: &Cidrs| if cidrs.is_empty() { Value::Null } else { json!(cidrs.texts()) };
        let one = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        match self {
            Self::BindSecretId => one("bind_secret_id", json!(role.bind_secret_id)),
            Self::BoundCidrList => one("bound_cidr_list", cidrs(&role.secret_id_bound_cidrs)),
            Self::LocalSecretIds => one("local_secret_ids", json!(role.local_secret_ids)),
            Self::RoleId => one("role_id", json!(role.role_id)),
            Self::SecretIdBoundCidrs => one("secret_id_bound_cidrs", cidrs(&role.secret_id_bound_cidrs)),
            Self::SecretIdNumUses => one("secret_id_num_uses", json!(role.secret_id_num_uses)),
            Self::SecretIdTtl => one("secret_id_ttl", json!(role.secret_id_ttl.as_secs())),
            Self::Period => Self::shared(role, &["token_period", "period"]),
            Self::Policies => Self::shared(role, &["token_policies", "policies"]),
            Self::TokenBoundCidrs => Self::shared(role, &["token_bound_cidrs"]),
            Self::TokenMaxTtl => Self::shared(role, &["token_max_ttl"]),
            Self::TokenNumUses => Self::shared(role, &["token_num_uses"]),
            Self::TokenTtl => Self::shared(role, &["token_ttl"]),
        }
    }

    /// Out of what the role's token parameters show of themselves.
    fn shared(role: &Role, names: &[&str]) -> Map<String, Value> {
        let mut all = Map::new();
        role.token.show_in(&mut all);
        all.retain(|name, _| names.contains(&name.as_str()));
        all
    }

    /// Which parameters of a body are this field, the one that is missed if none is there first.
    const fn params(self) -> &'static [&'static str] {
        match self {
            Self::BindSecretId => &["bind_secret_id"],
            Self::BoundCidrList => &["bound_cidr_list"],
            Self::LocalSecretIds => &[],
            Self::Period => &["period", "token_period"],
            Self::Policies => &["token_policies", "policies"],
            Self::RoleId => &["role_id"],
            Self::SecretIdBoundCidrs => &["secret_id_bound_cidrs"],
            Self::SecretIdNumUses => &["secret_id_num_uses"],
            Self::SecretIdTtl => &["secret_id_ttl"],
            Self::TokenBoundCidrs => &["token_bound_cidrs"],
            Self::TokenMaxTtl => &["token_max_ttl"],
            Self::TokenNumUses => &["token_num_uses"],
            Self::TokenTtl => &["token_ttl"],
        }
    }

    fn write(self, role: &mut Role, body: &Map<String, Value>) -> Result<(), Fail> {
        if self == Self::LocalSecretIds {
            return Err(Fail::NoOperation);
        }
        let names = self.params();
        let missing = || bad(format!("missing {}", names.first().copied().unwrap_or_default()));
        let given: Map<String, Value> = body
            .iter()
            .filter(|(name, value)| names.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if given.is_empty() {
            // As Vault has it: a list of addresses that is not there is one that stays.
            return if self == Self::TokenBoundCidrs { Ok(()) } else { Err(missing()) };
        }
        match self {
            Self::LocalSecretIds => {}
            Self::BindSecretId => {
                role.bind_secret_id = params::flag(&given, "bind_secret_id")?.unwrap_or(role.bind_secret_id);
            }
            Self::BoundCidrList | Self::SecretIdBoundCidrs => {
                role.secret_id_bound_cidrs = role::cidrs(&given, names[0])?.unwrap_or_default();
            }
            Self::RoleId => {
                let id = params::text(&given, "role_id")?.filter(|id| !id.is_empty());
                id.ok_or_else(missing)?.clone_into(&mut role.role_id);
            }
            Self::SecretIdNumUses => {
                role.secret_id_num_uses = role::num_uses(&given, names[0])?.unwrap_or_default();
            }
            Self::SecretIdTtl => role.secret_id_ttl = params::duration(&given, names[0])?.unwrap_or_default(),
            Self::TokenMaxTtl => {
                let most = params::duration(&given, names[0])?.unwrap_or_default();
                if !most.is_zero() && role.token.ttl > most {
                    return Err(bad("token_max_ttl should be greater than or equal to token_ttl"));
                }
                role.token.max_ttl = most;
            }
            Self::Period | Self::Policies | Self::TokenBoundCidrs | Self::TokenNumUses | Self::TokenTtl => {
                role.token.merge(&given, &OLD_NAMES)?;
            }
        }
        Ok(())
    }

    /// Sets the field back.
    fn reset(self, role: &mut Role) -> Result<(), Fail> {
        let none = TokenParams::default();
        match self {
            Self::LocalSecretIds | Self::RoleId => return Err(Fail::NoOperation),
            Self::BindSecretId => role.bind_secret_id = true,
            Self::BoundCidrList | Self::SecretIdBoundCidrs => role.secret_id_bound_cidrs = Cidrs::default(),
            Self::Period => {
                role.token.period = none.period;
                role.token.old_names.remove(&OldName::Period);
            }
            Self::Policies => {
                role.token.policies = none.policies;
                role.token.old_names.remove(&OldName::Policies);
            }
            Self::SecretIdNumUses => role.secret_id_num_uses = 0,
            Self::SecretIdTtl => role.secret_id_ttl = std::time::Duration::ZERO,
            Self::TokenBoundCidrs => role.token.bound_cidrs = none.bound_cidrs,
            Self::TokenMaxTtl => role.token.max_ttl = none.max_ttl,
            Self::TokenNumUses => role.token.num_uses = 0,
            Self::TokenTtl => role.token.ttl = none.ttl,
        }
        Ok(())
    }
}

/// Handles `role/<name>/<path>`.
pub(super) async fn handle(ctx: &Ctx, mount: &Mount, name: &str, path: &str) -> Result<Outcome, Fail> {
    let field = Field::parse(path).ok_or(Fail::UnsupportedPath)?;
    match ctx.request.operation {
        Operation::Read => {
            let reader = ctx.open.barrier.reader().await?;
            let role = Role::load(&reader, mount, name).await?.ok_or(Fail::NotFound)?;
            let mut outcome = Outcome::data(Value::Object(field.show(&role)));
            if field == Field::BoundCidrList {
                outcome.warnings.push(
                    "The \"bound_cidr_list\" field is deprecated and will be removed. Please use \
                     \"secret_id_bound_cidrs\" instead."
                        .into(),
                );
            }
            Ok(outcome)
        }
        Operation::Update => change(ctx, mount, name, |role| field.write(role, &ctx.request.body)).await,
        Operation::Delete => change(ctx, mount, name, |role| field.reset(role)).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn change(
    ctx: &Ctx,
    mount: &Mount,
    name: &str,
    how: impl Fn(&mut Role) -> Result<(), Fail> + Sync,
) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let written: Result<(), Fail> = transact!(barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let before = Role::load(&*w, mount, name).await?.ok_or(Fail::UnsupportedPath)?;
        let mut role = before.clone();
        how(&mut role)?;
        role.put_in(barrier, w, mount, name, Some(&before)).await?;
    });
    written?;
    Ok(Outcome::empty())
}
