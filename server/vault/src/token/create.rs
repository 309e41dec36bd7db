//! `auth/token/create...`: from what a caller asks for to a token below his own.
//!
//! A child may do what its parent may, or less: policies, boundary, pod and metadata are bounded by the parent's.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_barrier::{MountId, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::token::{Accessor, Token};
use serde_json::Value;

use super::batch::{self, Origin, RowPrint};
use super::roles::{Role, RoleType};
use super::{ANCESTORS_MAX, Kind, TokenEntry, Tokens, wrapping};
use crate::auth::{Life, TokenParams};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::identity::{self, NewAlias};
use crate::mounts::Class;
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
    kind: Kind,
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
    /// Whose entity it is to be, instead of the parent's.
    entity_alias: Option<String>,
}

/// How a token is asked for: `create`, `create-orphan`, or `create/<role>`.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    Nothing,
    Orphan,
    Role(&'a str),
}

/// Makes a token below the caller's, or beside it.
pub(super) async fn create(ctx: &mut Ctx, permitted: &Permitted, by: By<'_>) -> Result<Outcome, Fail> {
    let parent = permitted.caller()?.clone();
    if parent.kind == Kind::Batch {
        return Err(bad("batch tokens cannot create more tokens"));
    }
    if parent.uses_left.is_some() {
        return Err(bad("restricted use token cannot generate child tokens"));
    }
    let role = match by {
        By::Role(name) => Some(load_role(ctx, name).await?),
        By::Nothing | By::Orphan => None,
    };
    let powerful = permitted.sudo() || parent.is_root();
    let mut wanted = wanted(ctx, &parent, powerful, role.as_ref().map(|r| &r.role))?;
    wanted.orphan |= matches!(by, By::Orphan);
    let mut warnings = Vec::new();
    let print = role.as_ref().and_then(|role| role.print.clone());
    let entry = new_entry(ctx, &parent, &wanted, role, &mut warnings)?;
    let (entry, token) = match wanted.kind {
        Kind::Service => {
            service(ctx, &parent, entry, wanted.id, print, wanted.entity_alias.as_deref()).await?
        }
        Kind::Batch => sealed(ctx, &parent, entry, wanted.entity_alias.as_deref()).await?,
    };
    let seconds = entry.ttl_left(ctx.now);
    let from_entity = identity::policies_of(&ctx.open, &entry).await?;
    let mut outcome = Outcome::auth(&entry, Some(&token), seconds).with_identity_policies(&from_entity);
    if entry.kind == Kind::Service {
        outcome.undo = Some(Undo::Token(entry.hash));
    }
    for name in &entry.policies {
        if !name.is_root() && ctx.open.policies.get(name).await?.is_none() {
            warnings.push(format!("Policy {:?} does not exist", name.as_str()));
        }
    }
    outcome.warnings = warnings;
    Ok(outcome)
}

/// A role by which a token is made.
struct MakingRole {
    name: String,
    role: Role,
    print: Option<RowPrint>,
}

async fn load_role(ctx: &Ctx, name: &str) -> Result<MakingRole, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let unknown = || bad(format!("unknown role {}", name.escape_default()));
    let role = Role::load(&reader, name).await?.ok_or_else(unknown)?;
    let print = RowPrint::take(&reader, MountId::SYSTEM, &Role::path(name)).await?;
    Ok(MakingRole { name: name.to_owned(), role, print })
}

/// Stores a service token. The parent's ancestors are those of the transaction: it may have become an orphan since it was
/// looked up. The role is still what the token was made from: what was narrowed in the meantime stays narrow.
async fn service(
    ctx: &Ctx,
    parent: &TokenEntry,
    entry: TokenEntry,
    chosen: Option<Token>,
    role: Option<RowPrint>,
    alias: Option<&str>,
) -> Result<(TokenEntry, Token), Fail> {
    let open = &ctx.open;
    let token = chosen.unwrap_or_else(|| Token::generate(&mut rand::rng()));
    let entry = TokenEntry { hash: open.tokens.hash(&token), ..entry };
    let made: Result<(TokenEntry, bool), Fail> = transact!(open.barrier, |w| {
        let mut entry = entry.clone();
        let mut changed = false;
        let alive = open.tokens.guard_alive(w, &parent.hash, ctx.now).await?;
        if !entry.ancestors.is_empty() {
            entry.ancestors = std::iter::once(parent.hash).chain(alive.ancestors).collect();
        }
        if let Some(role) = &role {
            role.guard_in(w).await?;
        }
        if Tokens::known_in(w, &entry.hash).await? {
            return Err(bad("cannot create a token with a duplicate ID"));
        }
        if let Some(alias) = alias {
            let (entity, renewed) = entity_in(ctx, w, alias).await?;
            (entry.entity, changed) = (Some(entity), renewed);
        }
        Tokens::insert_in(w, &entry).await?;
        (entry, changed)
    });
    let (made, changed) = made?;
    if let (true, Some(entity)) = (changed, &made.entity) {
        open.tokens.forget_entity(entity);
    }
    Ok((made, token))
}

/// Seals a batch token. Nothing is stored; it hangs from what it says it hangs from.
async fn sealed(
    ctx: &Ctx,
    parent: &TokenEntry,
    mut entry: TokenEntry,
    alias: Option<&str>,
) -> Result<(TokenEntry, Token), Fail> {
    let open = &ctx.open;
    if let Some(id) = entry.mount {
        let changed = || bad("the auth mount or its boundary was changed since the login: log in again");
        let mount = open.mounts.by_id(id).ok_or_else(changed)?;
        if mount.boundary != entry.boundary {
            return Err(changed());
        }
        entry.origin.get_or_insert_default().mount_created = Some(mount.created);
    }
    let entity: Result<Option<(String, bool)>, Fail> = transact!(open.barrier, |w| {
        open.tokens.guard_alive(w, &parent.hash, ctx.now).await?;
        match alias {
            Some(alias) => Some(entity_in(ctx, w, alias).await?),
            None => None,
        }
    });
    if let Some((entity, changed)) = entity? {
        if changed {
            open.tokens.forget_entity(&entity);
        }
        entry.entity = Some(entity);
    }
    let token = batch::seal(&open.tokens, &open.barrier, &mut entry)?;
    Ok((entry, token))
}

fn wanted(ctx: &Ctx, parent: &TokenEntry, powerful: bool, role: Option<&Role>) -> Result<Wanted, Fail> {
    let body = &ctx.request.body;
    let kind = kind(ctx, role)?;
    if matches!(body.get("num_uses"), Some(Value::Number(n)) if n.as_i64().is_some_and(|n| n < 0)) {
        return Err(bad("number of uses cannot be negative"));
    }
    let no_parent = params::flag(body, "no_parent")?.unwrap_or(false);
    if role.is_none() && no_parent && !powerful {
        return Err(bad("root or sudo privileges required to create orphan token"));
    }
    let period = params::duration(body, "period")?.unwrap_or_default();
    if !period.is_zero() && !powerful {
        return Err(bad("root or sudo privileges required to create periodic token"));
    }
    let mut wanted = Wanted {
        entity_alias: entity_alias(ctx, role)?,
        kind,
        id: chosen_id(ctx, powerful)?,
        policies: policies(ctx, parent, powerful, role)?,
        orphan: role.map_or(no_parent, |role| role.orphan),
        ttl: params::duration(body, "ttl")?.unwrap_or_default(),
        explicit_max: params::duration(body, "explicit_max_ttl")?.unwrap_or_default(),
        period,
        uses: params::number(body, "num_uses")?.filter(|n| *n > 0),
        renewable: params::flag(body, "renewable")?.unwrap_or(true),
        display_name: display_name(ctx.text("display_name")?.unwrap_or("")),
        metadata: params::labels(body, "meta")?.unwrap_or_default(),
    };
    if kind == Kind::Batch {
        check_batch(&wanted)?;
        wanted.id = None;
        wanted.renewable = false;
    }
    if let Some(role) = role {
        limit(&mut wanted, role);
    }
    if kind == Kind::Batch && wanted.uses.is_some() {
        // Nothing counts the uses of a batch token, so a role's count cannot be kept.
        return Err(bad("batch tokens cannot have \"num_uses\" set"));
    }
    Ok(wanted)
}

/// Whose entity the token is to be, where a role allows it: a name at the mount of tokens.
fn entity_alias(ctx: &Ctx, role: Option<&Role>) -> Result<Option<String>, Fail> {
    let Some(alias) = ctx.text("entity_alias")?.filter(|alias| !alias.is_empty()) else { return Ok(None) };
    let Some(role) = role else {
        return Err(bad("'entity_alias' is only allowed in combination with token role"));
    };
    let lower = alias.to_ascii_lowercase();
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => lower.starts_with(prefix),
        None => *pattern == lower,
    };
    if !role.allowed_entity_aliases.iter().flatten().any(fits) {
        return Err(bad("invalid 'entity_alias' value"));
    }
    identity::checked_name(alias).map(Some)
}

/// Within a transaction: the entity of an alias at the mount of tokens. True if it was changed.
async fn entity_in(ctx: &Ctx, writer: &mut Writer, alias: &str) -> Result<(String, bool), Fail> {
    let open = &ctx.open;
    let mount = open.mounts.at(Class::Auth, "token").ok_or(Fail::Internal("no mount of tokens"))?;
    let alias = NewAlias { name: alias.to_owned(), metadata: BTreeMap::new() };
    let (entity, changed) = identity::ensure_in(&open.barrier, writer, &mount, &alias, ctx.now).await?;
    Ok((entity.id, changed))
}

/// A role's limits beside what was asked for: the smaller of two counts.
fn limit(wanted: &mut Wanted, role: &Role) {
    let smaller = |a: Duration, b: Duration| if a.is_zero() || (!b.is_zero() && b < a) { b } else { a };
    wanted.period = smaller(wanted.period, role.params.period);
    wanted.explicit_max = smaller(wanted.explicit_max, role.params.explicit_max_ttl);
    if role.params.num_uses > 0 {
        wanted.uses = Some(wanted.uses.unwrap_or(u64::MAX).min(role.params.num_uses));
    }
    wanted.renewable &= role.renewable;
}

fn kind(ctx: &Ctx, role: Option<&Role>) -> Result<Kind, Fail> {
    let asked = match ctx.text("type")?.unwrap_or("") {
        "" => None,
        "service" => Some(Kind::Service),
        "batch" => Some(Kind::Batch),
        _ => return Err(bad("invalid 'token_type' value")),
    };
    Ok(match role.map_or(RoleType::DefaultService, |role| role.token_type) {
        RoleType::Batch => Kind::Batch,
        RoleType::DefaultBatch => asked.unwrap_or(Kind::Batch),
        RoleType::DefaultService => asked.unwrap_or(Kind::Service),
        RoleType::Service => Kind::Service,
    })
}

fn check_batch(wanted: &Wanted) -> Result<(), Fail> {
    let cannot = |what: &str| bad(format!("batch tokens cannot have {what:?} set"));
    if !wanted.explicit_max.is_zero() {
        return Err(cannot("explicit_max_ttl"));
    }
    if wanted.uses.is_some() {
        return Err(cannot("num_uses"));
    }
    if !wanted.period.is_zero() {
        return Err(cannot("period"));
    }
    if wanted.policies.iter().any(PolicyName::is_root) {
        return Err(bad("batch tokens cannot be root tokens"));
    }
    Ok(())
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

/// The policies asked for, or the parent's; by a role that names policies, what it lets pass.
fn policies(
    ctx: &Ctx,
    parent: &TokenEntry,
    powerful: bool,
    role: Option<&Role>,
) -> Result<Vec<PolicyName>, Fail> {
    let body = &ctx.request.body;
    let default = PolicyName::default_policy();
    let no_default = params::flag(body, "no_default_policy")?.unwrap_or(false);
    let add_default = !no_default && role.is_none_or(|role| !role.params.no_default_policy);
    let asked = params::policies(body, "policies")?.unwrap_or_default();
    let mut policies = match role.filter(|role| role.has_policies()) {
        Some(role) => role.policies(&asked, no_default, &parent.policies)?,
        None if asked.is_empty() => parent.policies.clone(),
        None if powerful => with(asked, add_default.then_some(default.clone())),
        None => {
            if !asked.iter().all(|name| parent.policies.contains(name)) {
                return Err(bad("child policies must be subset of parent"));
            }
            let add = add_default && parent.policies.contains(&default);
            with(asked, add.then_some(default.clone()))
        }
    };
    if no_default {
        policies.retain(|name| *name != default);
    }
    wrapping::check_assignable(&policies)?;
    if policies.iter().any(PolicyName::is_root) {
        if !parent.is_root() {
            return Err(bad("root tokens may not be created without parent token being root"));
        }
        // There is nothing that others would add to it.
        return Ok(vec![PolicyName::root()]);
    }
    policies.sort();
    policies.dedup();
    Ok(policies)
}

fn with(mut policies: Vec<PolicyName>, more: Option<PolicyName>) -> Vec<PolicyName> {
    policies.extend(more);
    policies
}

/// The entry to be. Its hash is that of nothing yet.
fn new_entry(
    ctx: &Ctx,
    parent: &TokenEntry,
    wanted: &Wanted,
    role: Option<MakingRole>,
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
    // What the maker makes up is shown only: else he could fill in the templates of his policies as he likes.
    let mut made_up = parent.made_up.clone();
    if !parent.is_root() {
        made_up.extend(metadata.keys().filter(|key| !parent.metadata.contains_key(*key)).cloned());
    }
    metadata.extend(parent.metadata.clone());
    let mut path = ctx.request.path.clone();
    // A child is no way around where its parent may be used from.
    let mut bound_cidrs = parent.bound_cidrs.clone();
    if let Some(MakingRole { role, .. }) = &role {
        if !role.path_suffix.is_empty() {
            path = format!("{path}/{}", role.path_suffix);
        }
        let own = &role.params.bound_cidrs;
        if !own.is_empty() && own.within(&bound_cidrs) {
            bound_cidrs = own.clone();
        } else if !bound_cidrs.within(own) {
            return Err(bad("the role's addresses do not lie within those of the parent token"));
        }
    }
    let origin = (wanted.kind == Kind::Batch)
        .then(|| Origin { role: role.as_ref().and_then(|role| role.print.clone()), ..Origin::default() });
    let entry = TokenEntry {
        kind: wanted.kind,
        ancestors,
        policies: wanted.policies.clone(),
        boundary: parent.boundary.clone(),
        metadata,
        made_up,
        display_name: wanted.display_name.clone(),
        path,
        role: role.map(|role| role.name),
        mount: parent.mount,
        pod: parent.pod.clone(),
        // As in Vault, an orphan is nobody's.
        entity: if wanted.orphan { None } else { parent.entity.clone() },
        explicit_max_ttl: wanted.explicit_max,
        period: wanted.period,
        renewable: wanted.renewable,
        uses_left: wanted.uses,
        bound_cidrs,
        origin,
        ..TokenEntry::blank(parent.hash, Accessor::generate(&mut rand::rng()), ctx.now)
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
    if entry.kind == Kind::Batch && entry.pod.is_some() && entry.ttl > batch::POD_LIFE_MAX {
        entry.ttl = batch::POD_LIFE_MAX;
        entry.expires = Some(ctx.now.plus(entry.ttl));
        entry.max_expires = entry.expires;
    }
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
