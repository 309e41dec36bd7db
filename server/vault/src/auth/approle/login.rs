//! `login`: from a role id and a secret id to a token.
//!
//! A role id that does not exist takes the same steps as a secret id that does not, and gets the same answer.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::role::{ID_BYTES_MAX, Role};
use super::secret_id::SecretId;
use crate::auth::grant::{self, Grant, Login};
use crate::auth::lockout;
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::identity::NewAlias;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;

/// Stands for the role that there is not.
const NOBODY: &str = "00000000000000000000000000000000";

fn invalid() -> Fail {
    bad("invalid role or secret ID")
}

/// Logs an application in.
pub(super) async fn login(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let role_id = ctx.filled("role_id")?.to_owned();
    let secret = Zeroizing::new(ctx.text("secret_id")?.unwrap_or_default().to_owned());
    if role_id.len() > ID_BYTES_MAX || secret.len() > ID_BYTES_MAX {
        return Err(invalid());
    }
    let open = Arc::clone(&ctx.open);
    let alias = lockout::normal(&role_id);
    open.lockouts.check(mount, &alias, ctx.now)?;
    let wrong = || {
        open.lockouts.failed(mount, &alias, ctx.now);
        invalid()
    };
    let reader = open.barrier.reader().await?;
    let found = Role::by_id(&open.barrier, &reader, mount, &role_id).await?;
    if secret.is_empty() && found.as_ref().is_none_or(|(_, role)| role.bind_secret_id) {
        return Err(bad("missing secret_id"));
    }
    let uid = found.as_ref().map_or(NOBODY, |(_, role)| role.uid.as_str());
    let hash = SecretId::hash(&open.barrier, mount, uid, &secret)?;
    let shown = SecretId::load(&reader, mount, uid, &hash, ctx.now).await?;
    drop(reader);
    let Some((name, role)) = found else { return Err(wrong()) };
    let proof = if role.bind_secret_id { Some(shown.ok_or_else(wrong)?) } else { None };
    check_address(ctx, &role, proof.as_ref())?;
    if proof.as_ref().is_some_and(|secret| !secret.token_cidrs.within(&role.token.bound_cidrs)) {
        // The role was narrowed after the secret id was made.
        return Err(bad("the secret ID's token_bound_cidrs are not within the role's any more"));
    }
    let mut metadata = proof.as_ref().map(|secret| secret.metadata.clone()).unwrap_or_default();
    metadata.insert("role_name".into(), name.clone());
    let who = NewAlias { name: role_id.clone(), metadata: metadata.clone() };
    let bound_cidrs =
        proof.as_ref().map(|secret| secret.token_cidrs.clone()).filter(|cidrs| !cidrs.is_empty());
    let login = Login { mount, params: &role.token, name: "", metadata, pod: None, bound_cidrs, alias: who };
    let mut grant = Grant::new(ctx, login).await?;
    let key = Role::key(mount, &name);
    grant.tie(ctx, mount, &key).await?;
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        grant::guard_in(w, mount, &key, &role).await?;
        if role.bind_secret_id {
            // Read anew: somebody may have taken its last use.
            let secret = SecretId::load(&*w, mount, &role.uid, &hash, ctx.now).await?.ok_or_else(invalid)?;
            secret.spend_in(w, mount.id, &role.uid, &hash, ctx.now).await?;
        }
        grant.insert_in(ctx, w).await?;
    });
    made?;
    open.lockouts.clear(mount.id, &alias);
    Ok(grant.outcome(ctx))
}

/// Whether the client is where the role and the secret id want it to be.
fn check_address(ctx: &Ctx, role: &Role, secret: Option<&SecretId>) -> Result<(), Fail> {
    let address = ctx.request.client_ip;
    let refused =
        |by: &str| bad(format!("source address \"{address}\" unauthorized by CIDR restrictions on the {by}"));
    if secret.is_some_and(|secret| !secret.cidrs.admits(address)) {
        return Err(refused("secret ID"));
    }
    if !role.secret_id_bound_cidrs.admits(address) {
        return Err(refused("role"));
    }
    Ok(())
}
