//! `auth/token/...`: tokens looked at, prolonged, created and revoked through the API.
//!
//! Whether the caller may use the path was decided before; whose token it is about is decided here.

use std::time::Duration;

use coffer_barrier::{Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, Token, TokenHash};
use serde_json::{Value, json};

use super::{ANCESTORS_MAX, TokenEntry, Tokens};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::{Outcome, Undo};
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::revoke;
use crate::rows;

/// Handles `auth/token/...`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, rest: &str) -> Result<Outcome, Fail> {
    use Operation::{Read, Update};
    let allowed: &[Operation] = if rest == "lookup-self" { &[Read, Update] } else { &[Update] };
    only(&ctx.request, allowed)?;
    let caller = permitted.caller()?;
    match rest {
        "lookup-self" => {
            // Not looked up anew: this may have been its last use.
            let left = caller.uses_left.map(|left| left.saturating_sub(1));
            let entry = TokenEntry { uses_left: left, ..caller.clone() };
            Ok(Outcome::data(lookup_data(&entry, ctx.request.token.as_ref(), ctx.now)))
        }
        "lookup" => {
            let token = named_token(ctx)?;
            lookup(ctx, ctx.open.tokens.hash(&token), Some(&token)).await
        }
        "lookup-accessor" => lookup(ctx, by_accessor(ctx).await?, None).await,
        "renew-self" => renew(ctx, caller.hash, ctx.request.token.as_ref()).await,
        "renew" => {
            let token = named_token(ctx)?;
            renew(ctx, ctx.open.tokens.hash(&token), Some(&token)).await
        }
        "renew-accessor" => renew(ctx, by_accessor(ctx).await?, None).await,
        "revoke-self" => revoke_one(ctx, caller.hash).await,
        "revoke" => {
            // An unknown token is as dead as anybody could wish.
            let hash = ctx.open.tokens.hash(&named_token(ctx)?);
            revoke_one(ctx, hash).await
        }
        "revoke-accessor" => revoke_one(ctx, by_accessor(ctx).await?).await,
        "create" => create(ctx, permitted, false).await,
        "create-orphan" => create(ctx, permitted, true).await,
        _ => Err(Fail::NoRoute(ctx.request.path.clone())),
    }
}

fn named_token(ctx: &Ctx) -> Result<Token, Fail> {
    Token::parse(ctx.required("token")?).map_err(|_| bad("bad token"))
}

async fn by_accessor(ctx: &Ctx) -> Result<TokenHash, Fail> {
    let found = ctx.open.tokens.by_accessor(ctx.required("accessor")?).await?;
    found.ok_or_else(|| bad("invalid accessor"))
}

async fn lookup(ctx: &Ctx, hash: TokenHash, shown: Option<&Token>) -> Result<Outcome, Fail> {
    let found = ctx.open.tokens.live(&ctx.open.policies, &hash, ctx.now).await?;
    let token = found.ok_or(Fail::BadToken)?;
    Ok(Outcome::data(lookup_data(&token.entry, shown, ctx.now)))
}

/// `data` of a lookup. The token itself is shown only to who sent it.
fn lookup_data(entry: &TokenEntry, shown: Option<&Token>, now: Timestamp) -> Value {
    let mut data = json!({
        "accessor": entry.accessor,
        "creation_time": entry.created.as_secs(),
        "creation_ttl": entry.ttl.as_secs(),
        "display_name": entry.display_name,
        "entity_id": "",
        "expire_time": entry.expires.map(Timestamp::to_rfc3339),
        "explicit_max_ttl": entry.explicit_max_ttl.as_secs(),
        "id": shown.map_or("", Token::expose),
        "issue_time": entry.created.to_rfc3339(),
        "meta": if entry.metadata.is_empty() { Value::Null } else { json!(entry.metadata) },
        "num_uses": entry.uses_left.unwrap_or(0),
        "orphan": entry.ancestors.is_empty(),
        "path": entry.path,
        "period": entry.period.as_secs(),
        "policies": entry.policies,
        "renewable": entry.renewable,
        "ttl": entry.ttl_left(now),
        "type": "service",
    });
    if !entry.bound_cidrs.is_empty() {
        data["bound_cidrs"] = json!(entry.bound_cidrs.texts());
    }
    data
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
    Ok(Outcome { identity: None, ..Outcome::auth(&entry, shown, seconds) })
}

async fn renew_in(
    open: &Open,
    writer: &mut Writer,
    hash: &TokenHash,
    increment: Option<Duration>,
    now: Timestamp,
) -> Result<TokenEntry, Fail> {
    let alive = open.tokens.guard_alive(writer, hash, now).await?;
    let Some(stored) = codec::get::<TokenEntry>(&*writer as &dyn Read, &rows::token(hash)).await? else {
        return Err(Fail::BadToken);
    };
    if !alive.renewable {
        return Err(bad("lease is not renewable"));
    }
    let expires = alive.renewed_until(increment, now);
    // A renewal never takes time away that was there already.
    let entry = TokenEntry { expires: expires.max(alive.expires), ..alive };
    Tokens::update_in(writer, &stored, &entry).await?;
    Ok(entry)
}

async fn revoke_one(ctx: &Ctx, hash: TokenHash) -> Result<Outcome, Fail> {
    revoke::token(&ctx.open, &hash).await?;
    Ok(Outcome::empty())
}

/// What a caller asks for in a new token.
struct Wanted {
    policies: Vec<PolicyName>,
    orphan: bool,
    ttl: Duration,
    explicit_max: Duration,
    period: Duration,
    uses: Option<u64>,
    renewable: bool,
    display_name: String,
    metadata: std::collections::BTreeMap<String, String>,
}

async fn create(ctx: &mut Ctx, permitted: &Permitted, orphan: bool) -> Result<Outcome, Fail> {
    let parent = permitted.caller()?.clone();
    let wanted = wanted(ctx, permitted, &parent, orphan)?;
    let (mut entry, token) = new_entry(ctx, &parent, &wanted)?;
    let open = &ctx.open;
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        let alive = open.tokens.guard_alive(w, &parent.hash, ctx.now).await?;
        if alive.uses_left.is_some() {
            return Err(bad("restricted use token cannot generate child tokens"));
        }
        Tokens::insert_in(w, &entry).await?;
    });
    made?;
    // Shown as it is, without the copy of the parent's policies being named twice.
    entry.policies.sort();
    let seconds = entry.ttl_left(ctx.now);
    let mut outcome = Outcome::auth(&entry, Some(&token), seconds);
    outcome.undo = Some(Undo::Token(entry.hash));
    for name in &entry.policies {
        if !name.is_root() && open.policies.get(name).await?.is_none() {
            outcome.warnings.push(format!("policy {:?} does not exist", name.as_str()));
        }
    }
    Ok(outcome)
}

fn wanted(ctx: &Ctx, permitted: &Permitted, parent: &TokenEntry, orphan: bool) -> Result<Wanted, Fail> {
    let body = &ctx.request.body;
    let powerful = permitted.sudo() || parent.is_root();
    if body.contains_key("id") {
        return Err(bad("a token's id is chosen by the vault"));
    }
    if ctx.text("type")?.is_some_and(|t| !matches!(t, "" | "service")) {
        return Err(bad("only service tokens can be created"));
    }
    let no_parent = params::flag(body, "no_parent")?.unwrap_or(false);
    if (no_parent || orphan) && !powerful {
        return Err(bad("root or sudo privileges required to create orphan token"));
    }
    let mut policies = params::policies(body, "policies")?.unwrap_or_default();
    if policies.is_empty() {
        policies.clone_from(&parent.policies);
    }
    if !powerful && policies.iter().any(|p| !parent.policies.contains(p) && p.as_str() != "default") {
        return Err(bad("child policies must be subset of parent"));
    }
    if policies.iter().any(PolicyName::is_root) && !parent.is_root() {
        return Err(bad("root tokens may not be created without parent token being root"));
    }
    let default = PolicyName::default_policy();
    let no_default = params::flag(body, "no_default_policy")?.unwrap_or(false);
    if !no_default && !policies.iter().any(PolicyName::is_root) && !policies.contains(&default) {
        policies.push(default);
    }
    let period = params::duration(body, "period")?.unwrap_or_default();
    if !period.is_zero() && !powerful {
        return Err(bad("root or sudo privileges required to create periodic token"));
    }
    let name = ctx.text("display_name")?.unwrap_or("").chars().take(128).collect::<String>();
    Ok(Wanted {
        policies,
        orphan: no_parent || orphan,
        ttl: params::duration(body, "ttl")?.unwrap_or_default(),
        explicit_max: params::duration(body, "explicit_max_ttl")?.unwrap_or_default(),
        period,
        uses: params::number(body, "num_uses")?.filter(|n| *n > 0),
        renewable: params::flag(body, "renewable")?.unwrap_or(true),
        display_name: if name.is_empty() { "token".into() } else { format!("token-{name}") },
        metadata: params::labels(body, "meta")?.unwrap_or_default(),
    })
}

fn new_entry(ctx: &Ctx, parent: &TokenEntry, wanted: &Wanted) -> Result<(TokenEntry, Token), Fail> {
    let open = &ctx.open;
    let mut ancestors = Vec::new();
    if !wanted.orphan {
        ancestors.push(parent.hash);
        ancestors.extend(&parent.ancestors);
    }
    if ancestors.len() > ANCESTORS_MAX {
        return Err(Fail::TooLarge(format!("a token has at most {ANCESTORS_MAX} ancestors")));
    }
    // A root token without ttl lives until it is revoked.
    let endless = wanted.policies.iter().any(PolicyName::is_root) && wanted.ttl.is_zero();
    let (ttl, max) = open.life(None, wanted.ttl.max(wanted.period), wanted.explicit_max);
    let token = Token::generate(&mut rand::rng());
    let max_expires = (!endless && wanted.period.is_zero()).then(|| ctx.now.plus(max));
    // Metadata that the boundary's templates refer to is the parent's: a child cannot talk itself elsewhere.
    let mut metadata = wanted.metadata.clone();
    metadata.retain(|key, _| !RESERVED_METADATA.contains(&key.as_str()));
    metadata.extend(parent.metadata.clone());
    let entry = TokenEntry {
        hash: open.tokens.hash(&token),
        accessor: Accessor::generate(&mut rand::rng()),
        ancestors,
        policies: wanted.policies.clone(),
        boundary: parent.boundary.clone(),
        metadata,
        display_name: wanted.display_name.clone(),
        path: ctx.request.path.clone(),
        mount: parent.mount,
        pod: parent.pod.clone(),
        created: ctx.now,
        ttl: if endless { Duration::ZERO } else { ttl },
        expires: (!endless).then(|| ctx.now.plus(ttl)),
        max_expires,
        explicit_max_ttl: wanted.explicit_max,
        period: wanted.period,
        renewable: wanted.renewable && !endless,
        uses_left: wanted.uses,
        // A child is no way around where its parent may be used from.
        bound_cidrs: parent.bound_cidrs.clone(),
        revoked: None,
    };
    Ok((entry, token))
}

/// Metadata that only an auth method may set.
const RESERVED_METADATA: [&str; 6] = [
    "role",
    "service_account_name",
    "service_account_namespace",
    "service_account_uid",
    "pod_name",
    "pod_uid",
];
