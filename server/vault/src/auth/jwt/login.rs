//! `auth/<mount>/login`: from a signed token of the issuer to one of the vault's.

use std::sync::Arc;

use coffer_core::time::Timestamp;
use serde_json::Value;

use super::config::{Config, KeysFrom};
use super::role::{BoundType, Role};
use super::{claims, role};
use crate::auth::grant::{self, Grant, Login};
use crate::auth::jose::{Claims, Expected, Jwt, KeySet, Refused};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::identity::NewAlias;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;

/// Logs the owner of a token in.
pub(super) async fn login(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let open = Arc::clone(&ctx.open);
    let reader = open.barrier.reader().await?;
    let config = Config::load(&reader, mount).await?.ok_or_else(|| bad("could not load configuration"))?;
    let (role_name, role) = {
        let given = ctx.text("role")?.filter(|name| !name.is_empty());
        let asked = given.unwrap_or(&config.default_role);
        if asked.is_empty() {
            return Err(bad("missing role"));
        }
        let unknown = || bad(format!("role \"{}\" could not be found", asked.escape_debug()));
        let name = role::name(asked).map_err(|_| unknown())?;
        let role = Role::load(&reader, mount, &name).await?.ok_or_else(unknown)?;
        (name, role)
    };
    drop(reader);
    let claims = {
        let text = ctx.text("jwt")?.filter(|jwt| !jwt.is_empty()).ok_or_else(|| bad("missing token"))?;
        if !role.token.bound_cidrs.admits(ctx.request.client_ip) {
            return Err(Fail::Login("the role may not be used from this address"));
        }
        verified(ctx, mount, &config, &role, text).await?
    };
    let user = claims::user(&claims, &role.user_claim, role.user_claim_json_pointer)?;
    let mut metadata = claims::metadata(&claims, &role.claim_mappings.clone().unwrap_or_default())?;
    metadata.insert("role".to_owned(), role_name.clone());
    let groups = match role.groups_claim.as_str() {
        "" => Vec::new(),
        claim => claims::groups(&claims, claim)?,
    };
    if let Some(bound) = &role.bound_claims {
        claims::check_bound(&claims, bound, role.bound_claims_type == BoundType::Glob)?;
    }
    let alias = NewAlias { name: user.clone(), metadata: metadata.clone() };
    let login =
        Login { mount, params: &role.token, name: &user, metadata, pod: None, bound_cidrs: None, alias };
    let mut grant = Grant::new(ctx, login).await?.with_groups(groups);
    let key = Role::key(mount, &role_name);
    grant.tie(ctx, mount, &key).await?;
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        grant::guard_in(w, mount, &key, &role).await?;
        grant::guard_row_in(w, &Config::key(mount), &config).await?;
        grant.insert_in(ctx, w).await?;
    });
    made?;
    Ok(grant.outcome(ctx))
}

/// The claims of a token that is the issuer's, meant for this role, and within its time.
async fn verified(
    ctx: &Ctx,
    mount: &Mount,
    config: &Config,
    role: &Role,
    text: &str,
) -> Result<Claims, Fail> {
    let invalid = |refused: Refused| bad(format!("error validating token: {refused}"));
    let jwt = Jwt::parse(text).map_err(invalid)?;
    let algorithms = config.algorithms();
    let algorithms = algorithms.as_deref();
    let claims = match &config.keys {
        KeysFrom::Given(texts) => {
            let keys = KeySet::from_pem(texts).map_err(invalid)?;
            jwt.verify(jwt.candidates(keys.keys()), algorithms)
        }
        elsewhere => {
            let source = elsewhere.source().ok_or(Fail::Internal("keys from nowhere"))?;
            ctx.open.keys.claims(mount.id, &source, &jwt, algorithms, ctx.now).await?
        }
    };
    let claims = claims.map_err(invalid)?;
    let expected = Expected {
        issuer: Some(config.issuer()),
        audiences: &role.bound_audiences,
        subject: Some(role.bound_subject.as_str()).filter(|subject| !subject.is_empty()),
        leeway: role.leeway(),
    };
    let now = ctx.open.civil();
    expected.check(&claims, now).map_err(invalid)?;
    check_age(role, &claims, now).map_err(invalid)?;
    Ok(claims)
}

/// Its owner proved himself to the issuer lately enough, where the role asks for that.
fn check_age(role: &Role, claims: &Claims, now: Timestamp) -> Result<(), Refused> {
    if role.max_age.is_zero() {
        return Ok(());
    }
    let said = claims.get("auth_time").and_then(Value::as_u64);
    let proved =
        Timestamp::from_secs(said.ok_or(Refused("no authentication time (auth_time) claim in token"))?);
    if now > proved.plus(role.max_age).plus(role.leeway().late) {
        return Err(Refused("invalid authentication time (auth_time) claim: too long ago"));
    }
    Ok(())
}
