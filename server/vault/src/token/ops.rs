//! `auth/token/...`: tokens looked at, prolonged and revoked through the API.
//!
//! Whether the caller may use the path was decided before; whose token it is about is decided here.

use std::time::Duration;

use coffer_barrier::{Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_core::token::{Token, TokenHash};
use serde_json::{Map, Value, json};

use super::create::By;
use super::{Kind, LiveToken, TokenEntry, Tokens, accessors, batch, create, orphan, roles};
use crate::auth::go_duration;
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::identity;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::revoke;
use crate::rows;

/// What is written to below `auth/token/`, roles aside.
const KNOWN: [&str; 11] = [
    "create",
    "create-orphan",
    "lookup-accessor",
    "renew",
    "renew-accessor",
    "renew-self",
    "revoke",
    "revoke-accessor",
    "revoke-orphan",
    "revoke-self",
    "tidy",
];
const NOT_RENEWED: &str = "batch tokens cannot be renewed";
const NOT_REVOKED: &str = "batch tokens cannot be revoked";

/// Handles `auth/token/...`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, rest: &str) -> Result<Outcome, Fail> {
    use Operation::{List, Read, Update};
    if let Some(name) = rest.strip_prefix("roles/").or((rest == "roles").then_some("")) {
        return roles::handle(ctx, name).await;
    }
    let allowed: &[Operation] = match rest {
        "lookup" | "lookup-self" => &[Read, Update],
        "accessors" | "accessors/" => &[List],
        _ if !KNOWN.contains(&rest) && !rest.starts_with("create/") => return Err(Fail::UnsupportedPath),
        _ => &[Update],
    };
    only(&ctx.request, allowed)?;
    let caller = permitted.caller()?;
    match rest {
        "lookup-self" => Ok(lookup_self(ctx, permitted.token()?)),
        "lookup" => match token_in_body(ctx)? {
            None => Ok(lookup_self(ctx, permitted.token()?)),
            Some(token) => {
                let found = ctx.open.caller(&token, Some(ctx.request.client_ip), ctx.now).await?;
                let found = found.ok_or(Fail::UnknownToken)?;
                Ok(Outcome::data(lookup_data(&found.entry, found.identity_policies(), Some(&token), ctx.now)))
            }
        },
        "lookup-accessor" => {
            let hash = by_accessor(ctx).await?.ok_or_else(|| invalid("invalid accessor"))?;
            // Between the list and the token it may have died.
            let found = ctx.open.tokens.live(&ctx.open.policies, &hash, ctx.now).await?;
            let found = found.ok_or_else(|| invalid("invalid accessor"))?;
            Ok(Outcome::data(lookup_data(&found.entry, found.identity_policies(), None, ctx.now)))
        }
        "renew-self" if caller.kind == Kind::Batch => Err(bad(NOT_RENEWED)),
        "renew-self" => renew(ctx, caller.hash, ctx.request.token.as_ref()).await,
        "renew" => {
            let token = token_in_body(ctx)?.ok_or_else(|| bad("missing token ID"))?;
            if batch::looks_like_one(&token) {
                return Err(bad(NOT_RENEWED));
            }
            renew(ctx, ctx.open.tokens.hash(&token), Some(&token)).await
        }
        "renew-accessor" => {
            let hash = by_accessor(ctx).await?.ok_or_else(|| invalid("invalid accessor"))?;
            renew(ctx, hash, None).await
        }
        "revoke-self" if caller.kind == Kind::Batch => Err(bad(NOT_REVOKED)),
        "revoke-self" => revoke_one(ctx, caller.hash).await,
        "revoke" => {
            // An unknown token is as dead as anybody could wish.
            let token = token_in_body(ctx)?.ok_or_else(|| bad("missing token ID"))?;
            if batch::looks_like_one(&token) {
                return Err(bad(NOT_REVOKED));
            }
            revoke_one(ctx, ctx.open.tokens.hash(&token)).await
        }
        "revoke-accessor" => match by_accessor(ctx).await? {
            Some(hash) => revoke_one(ctx, hash).await,
            None => {
                let mut outcome = Outcome::data(Value::Null);
                outcome.warnings.push("No token found with this accessor".into());
                Ok(outcome)
            }
        },
        "revoke-orphan" => {
            let token = token_in_body(ctx)?.ok_or_else(|| bad("missing token ID"))?;
            if batch::looks_like_one(&token) {
                return Err(bad(NOT_REVOKED));
            }
            orphan::revoke(ctx, &ctx.open.tokens.hash(&token)).await
        }
        "accessors" | "accessors/" => accessors::list(ctx).await,
        "tidy" => Ok(accessors::tidy(ctx)),
        "create" => create::create(ctx, permitted, By::Nothing).await,
        "create-orphan" => create::create(ctx, permitted, By::Orphan).await,
        _ if rest.starts_with("create/") => {
            create::create(ctx, permitted, By::Role(rest.strip_prefix("create/").unwrap_or(""))).await
        }
        _ => Err(Fail::UnsupportedPath),
    }
}

/// A `400` as Vault writes those that its handlers return as errors.
fn invalid(message: &str) -> Fail {
    bad(format!("1 error occurred:\n\t* {message}\n\n"))
}

fn token_in_body(ctx: &Ctx) -> Result<Option<Token>, Fail> {
    match ctx.text("token")? {
        None | Some("") => Ok(None),
        Some(text) => Token::parse(text).map(Some).map_err(|_| bad("bad token")),
    }
}

/// The living token that the accessor of the body names.
async fn by_accessor(ctx: &Ctx) -> Result<Option<TokenHash>, Fail> {
    let accessor = ctx.text("accessor")?.filter(|text| !text.is_empty());
    ctx.open.tokens.by_accessor(accessor.ok_or_else(|| invalid("missing accessor"))?).await
}

fn lookup_self(ctx: &Ctx, caller: &LiveToken) -> Outcome {
    // Not looked up anew: this may have been its last use.
    let left = caller.entry.uses_left.map(|left| left.saturating_sub(1));
    let entry = TokenEntry { uses_left: left, ..caller.entry.clone() };
    let token = ctx.request.token.as_ref();
    let mut data = lookup_data(&entry, caller.identity_policies(), token, ctx.now);
    if left == Some(0) {
        // Zero is for tokens whose uses are not counted.
        data["num_uses"] = json!(-1);
    }
    Outcome::data(data)
}

/// `data` of a lookup. The token itself is shown only to who sent it.
fn lookup_data(
    entry: &TokenEntry,
    identity_policies: &[PolicyName],
    shown: Option<&Token>,
    now: Timestamp,
) -> Value {
    let mut data = json!({
        "accessor": entry.shown_accessor(),
        "creation_time": entry.created.as_secs(),
        "creation_ttl": entry.ttl.as_secs(),
        "display_name": entry.display_name,
        "entity_id": entry.entity.as_deref().unwrap_or_default(),
        "expire_time": entry.expires.map(Timestamp::to_rfc3339),
        "explicit_max_ttl": entry.explicit_max_ttl.as_secs(),
        "id": shown.map_or("", Token::expose),
        "issue_time": entry.created.to_rfc3339(),
        "meta": if entry.metadata.is_empty() { Value::Null } else { json!(entry.metadata) },
        "num_uses": entry.uses_left.unwrap_or(0),
        "orphan": entry.ancestors.is_empty(),
        "path": entry.path,
        "policies": entry.policies,
        "renewable": entry.renewable,
        "ttl": entry.ttl_left(now),
        "type": entry.kind.as_str(),
    });
    if let Value::Object(map) = &mut data {
        // As in Vault, what was made with shares and not by a call has neither.
        if entry.path == "auth/token/root" {
            map.remove("issue_time");
            map.remove("renewable");
        }
        add_rare(map, entry);
        if !identity_policies.is_empty() {
            map.insert("identity_policies".into(), json!(identity_policies));
        }
    }
    data
}

/// What only some tokens have.
fn add_rare(data: &mut Map<String, Value>, entry: &TokenEntry) {
    if !entry.bound_cidrs.is_empty() {
        data.insert("bound_cidrs".into(), json!(entry.bound_cidrs.texts()));
    }
    if !entry.period.is_zero() {
        data.insert("period".into(), entry.period.as_secs().into());
    }
    if let Some(role) = &entry.role {
        data.insert("role".into(), role.as_str().into());
    }
    if let Some((at, _)) = entry.renewed {
        data.insert("last_renewal".into(), at.to_rfc3339().into());
        data.insert("last_renewal_time".into(), at.as_secs().into());
    }
}

async fn renew(ctx: &Ctx, hash: TokenHash, shown: Option<&Token>) -> Result<Outcome, Fail> {
    let increment = params::duration(&ctx.request.body, "increment")?;
    let open = &ctx.open;
    let renewed: Result<TokenEntry, Fail> =
        transact!(open.barrier, |w| renew_in(open, w, &hash, increment, ctx.now).await?);
    // Descendants in memory know their ancestors' ends.
    open.tokens.forget(&[hash]);
    let entry = renewed?;
    let seconds = entry.ttl_left(ctx.now);
    let identity_policies = identity::policies_of(open, &entry).await?;
    let outcome = Outcome::auth(&entry, shown, seconds).with_identity_policies(&identity_policies);
    Ok(Outcome { identity: None, ..outcome }.warning(capped(&entry, increment)))
}

/// Whether more was asked for than the token could ever have.
fn capped(entry: &TokenEntry, increment: Option<Duration>) -> Vec<String> {
    let most =
        entry.max_expires.filter(|_| entry.period.is_zero()).map(|end| end.saturating_sub(entry.created));
    match (increment, most) {
        (Some(wanted), Some(most)) if wanted > most => {
            let (wanted, most) = (go_duration(wanted), go_duration(most));
            vec![format!(
                "TTL of {wanted:?} exceeded the effective max_ttl of {most:?}; TTL value is capped accordingly"
            )]
        }
        _ => Vec::new(),
    }
}

async fn renew_in(
    open: &Open,
    writer: &mut Writer,
    hash: &TokenHash,
    increment: Option<Duration>,
    now: Timestamp,
) -> Result<TokenEntry, Fail> {
    let alive = open.tokens.guard_in_use(writer, hash, now).await.map_err(|fail| match fail {
        Fail::BadToken => bad("token not found"),
        other => other,
    })?;
    let Some(stored) = codec::get::<TokenEntry>(&*writer as &dyn Read, &rows::token(hash)).await? else {
        return Err(bad("token not found"));
    };
    if !alive.renewable {
        return Err(bad("lease is not renewable"));
    }
    let expires = alive.renewed_until(increment, now);
    let life = expires.map_or(Duration::ZERO, |end| end.saturating_sub(now));
    let uses_left = stored.uses_left;
    let entry = TokenEntry { expires, renewed: Some((now, life)), uses_left, ..alive };
    Tokens::update_in(writer, &stored, &entry).await?;
    Ok(entry)
}

async fn revoke_one(ctx: &Ctx, hash: TokenHash) -> Result<Outcome, Fail> {
    revoke::token(&ctx.open, &hash).await?;
    Ok(Outcome::empty())
}
