//! `auth/<mount>/role/...`: which tokens get which policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Read, RecordKind, RowKey};
use coffer_core::time::duration_from_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::claims;
use super::config::says_something;
use crate::auth::jose::Leeway;
use crate::auth::token_params::{OldName, TokenParams};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// The old names of token parameters that this method's roles know.
const OLD_NAMES: [OldName; 6] = [
    OldName::BoundCidrs,
    OldName::MaxTtl,
    OldName::NumUses,
    OldName::Period,
    OldName::Policies,
    OldName::Ttl,
];
const NAME_BYTES_MAX: usize = 512;
/// The longest leeway: a token that is over for longer is over.
const LEEWAY_MAX: i64 = 3600;
/// The most bound claims, and how long they may be together.
const BOUND_MAX: usize = 64;
const BOUND_BYTES_MAX: usize = 64 * 1024;
/// What belongs to logins through a browser, or would not be looked at.
const UNSUPPORTED: [&str; 6] = [
    "oauth2_metadata",
    "oidc_scopes",
    "allowed_redirect_uris",
    "poll_interval",
    "verbose_oidc_logging",
    "token_policies_template_claims",
];

/// How the values of bound claims are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BoundType {
    #[default]
    String,
    Glob,
}

/// A role as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    /// A token must be meant for one of these. Never empty: a token for somebody else must not open the vault.
    pub(super) bound_audiences: Vec<String>,
    pub(super) bound_subject: String,
    pub(super) bound_claims: Option<Map<String, Value>>,
    pub(super) bound_claims_type: BoundType,
    /// From claims to the metadata that they become.
    pub(super) claim_mappings: Option<BTreeMap<String, String>>,
    pub(super) user_claim: String,
    pub(super) user_claim_json_pointer: bool,
    pub(super) groups_claim: String,
    /// How long ago its owner may have proved himself to the issuer; zero: ever.
    pub(super) max_age: Duration,
    /// In seconds. Zero is Vault's default, less than zero is none.
    expiration_leeway: i64,
    not_before_leeway: i64,
    clock_skew_leeway: i64,
    #[serde(flatten)]
    pub(super) token: TokenParams,
}

/// Checks and lower-cases a role's name.
pub(super) fn name(text: &str) -> Result<String, Fail> {
    if crate::auth::is_generic_name(text, NAME_BYTES_MAX) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Fail::UnsupportedPath)
    }
}

impl Role {
    /// The row of a role.
    pub(super) fn key(mount: &Mount, name: &str) -> RowKey {
        RowKey::path(mount.id, RecordKind::Entry, &format!("role/{name}"))
    }

    /// A role, or none.
    pub(super) async fn load(reader: &dyn Read, mount: &Mount, name: &str) -> Result<Option<Self>, Fail> {
        codec::get(reader, &Self::key(mount, name)).await
    }

    /// How far clocks may be apart, and what follows from a claim that is left out.
    pub(super) fn leeway(&self) -> Leeway {
        let or = |secs: i64, default: u64| match secs {
            0 => Duration::from_secs(default),
            secs => Duration::from_secs(u64::try_from(secs).unwrap_or(0)),
        };
        let skew = or(self.clock_skew_leeway, 60);
        Leeway {
            late: skew,
            early: skew,
            unstated: Some(or(self.not_before_leeway, 150)),
            endless: Some(or(self.expiration_leeway, 150)),
        }
    }
}

/// `LIST role`.
pub(super) async fn list(ctx: &Ctx, mount: &Mount) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    Ok(Outcome::list(reader.list(mount.id, "role", after, limit).await?))
}

/// Handles a role. `name` in lower case.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
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
        ("allowed_redirect_uris", Value::Null),
        ("bound_audiences", json!(role.bound_audiences)),
        ("bound_claims", json!(role.bound_claims)),
        ("bound_claims_type", json!(role.bound_claims_type)),
        ("bound_subject", json!(role.bound_subject)),
        ("callback_mode", json!("client")),
        ("claim_mappings", json!(role.claim_mappings)),
        ("clock_skew_leeway", json!(role.clock_skew_leeway)),
        ("expiration_leeway", json!(role.expiration_leeway)),
        ("groups_claim", json!(role.groups_claim)),
        ("max_age", json!(role.max_age.as_secs())),
        ("not_before_leeway", json!(role.not_before_leeway)),
        ("oauth2_metadata", Value::Null),
        ("oidc_disable_confirmation", json!(false)),
        ("oidc_scopes", Value::Null),
        ("role_type", json!("jwt")),
        ("token_policies_template_claims", json!(false)),
        ("user_claim", json!(role.user_claim)),
        ("user_claim_json_pointer", json!(role.user_claim_json_pointer)),
        ("verbose_oidc_logging", json!(false)),
    ] {
        data.insert(name.to_owned(), value);
    }
    role.token.show_in(&mut data);
    Ok(Outcome::data(Value::Object(data)))
}

/// What a body says on top of what there is: fields that are not named keep their value, but for the type of bound
/// claims, which is `string` unless it is said. Gives back what the client should be warned of, too.
fn merged(before: Option<Role>, body: &Map<String, Value>) -> Result<(Role, Vec<String>), Fail> {
    let for_browsers = is_for_browsers(body)?;
    let mut role = before.unwrap_or_default();
    let warnings = role.token.merge(body, &OLD_NAMES)?;
    for (place, name) in [
        (&mut role.expiration_leeway, "expiration_leeway"),
        (&mut role.not_before_leeway, "not_before_leeway"),
        (&mut role.clock_skew_leeway, "clock_skew_leeway"),
    ] {
        *place = leeway(body, name)?.unwrap_or(*place);
    }
    if let Some(audiences) = params::list(body, "bound_audiences")? {
        role.bound_audiences = audiences;
    }
    for (place, name) in [
        (&mut role.bound_subject, "bound_subject"),
        (&mut role.user_claim, "user_claim"),
        (&mut role.groups_claim, "groups_claim"),
    ] {
        if let Some(text) = params::text(body, name)? {
            text.clone_into(place);
        }
    }
    role.bound_claims_type = match params::text(body, "bound_claims_type")? {
        None | Some("string") => BoundType::String,
        Some("glob") => BoundType::Glob,
        Some(other) => return Err(bad(format!("invalid 'bound_claims_type': {}", other.escape_debug()))),
    };
    match body.get("bound_claims") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => role.bound_claims = Some(bound(map, role.bound_claims_type)?),
        Some(_) => return Err(bad("bound_claims must be an object")),
    }
    if let Some(mappings) = params::pairs(body, "claim_mappings")? {
        role.claim_mappings = Some(mapped(mappings)?);
    }
    role.max_age = params::duration(body, "max_age")?.unwrap_or(role.max_age);
    role.user_claim_json_pointer =
        params::flag(body, "user_claim_json_pointer")?.unwrap_or(role.user_claim_json_pointer);
    if role.user_claim.is_empty() {
        return Err(bad("a user claim must be defined on the role"));
    }
    check_supported(body, for_browsers)?;
    if role.bound_audiences.is_empty() {
        return Err(bad("missing bound_audiences: tokens meant for somebody else are never accepted"));
    }
    Ok((role, warnings))
}

/// Whether the body asks for a role of people with browsers.
fn is_for_browsers(body: &Map<String, Value>) -> Result<bool, Fail> {
    match params::text(body, "role_type")? {
        Some("jwt") => Ok(false),
        None | Some("" | "oidc") => Ok(true),
        Some(other) => Err(bad(format!("invalid 'role_type': {}", other.escape_debug()))),
    }
}

/// Nothing is accepted that would do nothing.
fn check_supported(body: &Map<String, Value>, for_browsers: bool) -> Result<(), Fail> {
    if for_browsers && !body.get("allowed_redirect_uris").is_some_and(says_something) {
        return Err(bad("'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified."));
    }
    if for_browsers {
        return Err(bad("role_type \"oidc\" is not supported: only roles of type \"jwt\" are"));
    }
    for name in UNSUPPORTED {
        if body.get(name).is_some_and(says_something) {
            return Err(bad(format!("{name} is not supported: only roles of type \"jwt\" are")));
        }
    }
    match params::text(body, "callback_mode")? {
        None | Some("client") => Ok(()),
        Some(_) => Err(bad("callback_mode is not supported: only roles of type \"jwt\" are")),
    }
}

/// A leeway: seconds, or a text such as `2m`; with a minus, none at all.
fn leeway(body: &Map<String, Value>, name: &str) -> Result<Option<i64>, Fail> {
    let wrong = || bad(format!("{name} is not a duration"));
    let secs = match body.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) if number.as_i64().is_some_and(|n| n < 0) => number.as_i64(),
        Some(Value::String(text)) if text.starts_with('-') => {
            let text = Value::String(text[1..].to_owned());
            let duration = duration_from_json(&text).map_err(|_| wrong())?;
            i64::try_from(duration.as_secs()).ok().map(|secs| -secs)
        }
        Some(value) => i64::try_from(duration_from_json(value).map_err(|_| wrong())?.as_secs()).ok(),
    };
    let secs = secs.ok_or_else(wrong)?;
    if secs > LEEWAY_MAX {
        return Err(bad(format!("{name} cannot be greater than {LEEWAY_MAX} seconds")));
    }
    Ok(Some(secs))
}

fn bound(map: &Map<String, Value>, how: BoundType) -> Result<Map<String, Value>, Fail> {
    if map.len() > BOUND_MAX {
        return Err(Fail::TooLarge(format!("bound_claims has more than {BOUND_MAX} entries")));
    }
    if serde_json::to_string(map)?.len() > BOUND_BYTES_MAX {
        return Err(Fail::TooLarge(format!("bound_claims are longer than {BOUND_BYTES_MAX} bytes")));
    }
    for value in map.values().filter(|_| how == BoundType::Glob) {
        let list =
            claims::list(value).ok_or_else(|| bad(format!("claim is not a string or list: {value}")))?;
        if let Some(other) = list.iter().find(|value| !value.is_string()) {
            return Err(bad(format!("claim is not a string: {other}")));
        }
    }
    Ok(map.clone())
}

fn mapped(mappings: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fail> {
    let mut seen = std::collections::BTreeSet::new();
    for target in mappings.values() {
        let shown = target.escape_debug();
        if target == "role" {
            let message =
                format!("metadata key \"{shown}\" is reserved and may not be a mapping destination");
            return Err(bad(message));
        }
        if !seen.insert(target) {
            return Err(bad(format!("multiple keys are mapped to metadata key \"{shown}\"")));
        }
    }
    Ok(mappings)
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
