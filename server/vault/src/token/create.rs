//! `auth/token/create...`: from what a caller asks for to a token below his own.
//!
//! A child may do what its parent may, or less: policies, boundary, pod and metadata are bounded by the parent's.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_core::policy::PolicyName;
use coffer_core::token::{Accessor, Token};
use serde_json::Value;

use super::{ANCESTORS_MAX, Kind, TokenEntry, Tokens, wrapping};
use crate::auth::{Life, TokenParams};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::outcome::{Outcome, Undo};
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::Ctx;

/// Characters of a display name.
const NAME_CHARS_MAX: usize = 128;
/// Metadata that only an auth method may set.
const RESERVED_METADATA: [&str; 6] = [
    "role",
    "service_account_name",
    "service_account_namespace",
    "service_account_uid",
    "pod_name",
    "pod_uid",
];

/// What a caller asks for in a new token.
struct Wanted {
    id: Option<Token>,
    policies: Vec<PolicyName>,
    orphan: bool,
    ttl: Duration,
    explicit_max: Duration,
    period: Duration,
    uses: Option<u64>,
    renewable: bool,
    display_name: String,
    metadata: BTreeMap<String, String>,
}

/// Makes a token below the caller's.
pub(super) async fn create(ctx: &mut Ctx, permitted: &Permitted, orphan: bool) -> Result<Outcome, Fail> {
    let parent = permitted.caller()?.clone();
    if parent.kind == Kind::Batch {
        return Err(bad("batch tokens cannot create more tokens"));
    }
    if parent.uses_left.is_some() {
        return Err(bad("restricted use token cannot generate child tokens"));
    }
    let mut wanted = wanted(ctx, permitted, &parent, orphan)?;
    let chosen = wanted.id.take();
    let mut warnings = Vec::new();
    let token = chosen.unwrap_or_else(|| Token::generate(&mut rand::rng()));
    let entry = new_entry(ctx, &parent, &wanted, &token, &mut warnings)?;
    insert(ctx, &parent, &entry).await?;
    let seconds = entry.ttl_left(ctx.now);
    let mut outcome = Outcome::auth(&entry, Some(&token), seconds);
    outcome.undo = Some(Undo::Token(entry.hash));
    for name in &entry.policies {
        if !name.is_root() && ctx.open.policies.get(name).await?.is_none() {
            warnings.push(format!("Policy {:?} does not exist", name.as_str()));
        }
    }
    outcome.warnings = warnings;
    Ok(outcome)
}

async fn insert(ctx: &Ctx, parent: &TokenEntry, entry: &TokenEntry) -> Result<(), Fail> {
    let open = &ctx.open;
    transact!(open.barrier, |w| {
        open.tokens.guard_alive(w, &parent.hash, ctx.now).await?;
        if Tokens::known_in(w, &entry.hash).await? {
            return Err(bad("cannot create a token with a duplicate ID"));
        }
        Tokens::insert_in(w, entry).await?;
    })
}

fn wanted(ctx: &Ctx, permitted: &Permitted, parent: &TokenEntry, orphan: bool) -> Result<Wanted, Fail> {
    let body = &ctx.request.body;
    let powerful = permitted.sudo() || parent.is_root();
    if !matches!(ctx.text("type")?.unwrap_or(""), "" | "service") {
        return Err(bad("invalid 'token_type' value"));
    }
    if matches!(body.get("num_uses"), Some(Value::Number(n)) if n.as_i64().is_some_and(|n| n < 0)) {
        return Err(bad("number of uses cannot be negative"));
    }
    let no_parent = params::flag(body, "no_parent")?.unwrap_or(false);
    if no_parent && !powerful {
        return Err(bad("root or sudo privileges required to create orphan token"));
    }
    let period = params::duration(body, "period")?.unwrap_or_default();
    if !period.is_zero() && !powerful {
        return Err(bad("root or sudo privileges required to create periodic token"));
    }
    Ok(Wanted {
        id: chosen_id(ctx, powerful)?,
        policies: policies(ctx, parent, powerful)?,
        orphan: no_parent || orphan,
        ttl: params::duration(body, "ttl")?.unwrap_or_default(),
        explicit_max: params::duration(body, "explicit_max_ttl")?.unwrap_or_default(),
        period,
        uses: params::number(body, "num_uses")?.filter(|n| *n > 0),
        renewable: params::flag(body, "renewable")?.unwrap_or(true),
        display_name: display_name(ctx.text("display_name")?.unwrap_or("")),
        metadata: params::labels(body, "meta")?.unwrap_or_default(),
    })
}

/// A token that the caller made up himself. The rules are Vault's; a dot would make it look like one of ours.
fn chosen_id(ctx: &Ctx, powerful: bool) -> Result<Option<Token>, Fail> {
    let Some(id) = ctx.text("id")?.filter(|id| !id.is_empty()) else { return Ok(None) };
    if !powerful {
        return Err(bad("root or sudo privileges required to specify token id"));
    }
    if id.starts_with("s.") {
        return Err(bad("custom token ID cannot have the 's.' prefix"));
    }
    if id.contains('.') {
        return Err(bad("custom token ID cannot have a '.' in the value"));
    }
    Token::parse(id)
        .map(Some)
        .map_err(|_| bad("custom token ID has characters that no token has, or is too long"))
}

/// `token-` and what of the name is letters, digits and dashes.
fn display_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let name: String = name.chars().take(NAME_CHARS_MAX).map(plain).collect();
    format!("token-{name}").trim_end_matches('-').to_owned()
}

/// The policies asked for, or the parent's.
fn policies(ctx: &Ctx, parent: &TokenEntry, powerful: bool) -> Result<Vec<PolicyName>, Fail> {
    let body = &ctx.request.body;
    let default = PolicyName::default_policy();
    let with_default = !params::flag(body, "no_default_policy")?.unwrap_or(false);
    let mut policies = params::policies(body, "policies")?.unwrap_or_default();
    if policies.is_empty() {
        policies.clone_from(&parent.policies);
    } else if powerful {
        if with_default {
            policies.push(default);
        }
    } else {
        if !policies.iter().all(|name| parent.policies.contains(name)) {
            return Err(bad("child policies must be subset of parent"));
        }
        if with_default && parent.policies.contains(&default) {
            policies.push(default);
        }
    }
    if policies.iter().any(PolicyName::is_root) {
        if !parent.is_root() {
            return Err(bad("root tokens may not be created without parent token being root"));
        }
        // There is nothing that others would add to it.
        return Ok(vec![PolicyName::root()]);
    }
    wrapping::check_assignable(&policies)?;
    policies.sort();
    policies.dedup();
    Ok(policies)
}

fn new_entry(
    ctx: &Ctx,
    parent: &TokenEntry,
    wanted: &Wanted,
    token: &Token,
    warnings: &mut Vec<String>,
) -> Result<TokenEntry, Fail> {
    let mut ancestors = Vec::new();
    if !wanted.orphan {
        ancestors.push(parent.hash);
        ancestors.extend(&parent.ancestors);
    }
    if ancestors.len() > ANCESTORS_MAX {
        return Err(Fail::TooLarge(format!("a token has at most {ANCESTORS_MAX} ancestors")));
    }
    // Metadata that the boundary's templates refer to is the parent's: a child cannot talk itself elsewhere.
    let mut metadata = wanted.metadata.clone();
    metadata.retain(|key, _| !RESERVED_METADATA.contains(&key.as_str()));
    metadata.extend(parent.metadata.clone());
    let entry = TokenEntry {
        ancestors,
        policies: wanted.policies.clone(),
        boundary: parent.boundary.clone(),
        metadata,
        display_name: wanted.display_name.clone(),
        path: ctx.request.path.clone(),
        mount: parent.mount,
        pod: parent.pod.clone(),
        explicit_max_ttl: wanted.explicit_max,
        period: wanted.period,
        renewable: wanted.renewable,
        uses_left: wanted.uses,
        // A child is no way around where its parent may be used from.
        bound_cidrs: parent.bound_cidrs.clone(),
        ..TokenEntry::blank(ctx.open.tokens.hash(token), Accessor::generate(&mut rand::rng()), ctx.now)
    };
    Ok(with_life(ctx, entry, wanted.ttl, warnings))
}

/// Gives an entry its life: as asked for, within the system's maximum and its own.
fn with_life(ctx: &Ctx, mut entry: TokenEntry, ttl: Duration, warnings: &mut Vec<String>) -> TokenEntry {
    let explicit = Some(entry.explicit_max_ttl).filter(|max| !max.is_zero());
    let wanted = if entry.period.is_zero() { ttl } else { entry.period };
    if entry.is_root() && wanted.is_zero() && explicit.is_none() {
        // A root token without a ttl lives until it is revoked.
        entry.renewable = false;
        return entry;
    }
    let (default, most) = ctx.open.life(None, Duration::ZERO, Duration::ZERO);
    let params = TokenParams {
        ttl,
        period: entry.period,
        explicit_max_ttl: entry.explicit_max_ttl,
        ..TokenParams::default()
    };
    let life = Life::of(&params, default, most);
    warnings.extend(life.warnings);
    entry.ttl = life.ttl;
    entry.expires = Some(ctx.now.plus(life.ttl));
    entry.max_expires = life.max.map(|max| ctx.now.plus(max));
    entry.period = life.period;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_are_plain() {
        assert_eq!(display_name(""), "token");
        assert_eq!(display_name("joe bloggs!"), "token-joe-bloggs");
        assert_eq!(display_name("a/b"), "token-a-b");
    }
}
