//! `auth/<mount>/login`: from a ServiceAccount's JWT to a token.
//!
//! The token carries the pod's UID, so that everything this pod is given can be taken back in one call; a pod
//! that was revoked does not get in again.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{Read, Writer};

use super::claims::Identity;
use super::config::Config;
use super::role::{self, AliasName, Role};
use super::verify::{Verified, verify};
use crate::auth::grant::{self, Grant, Login};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::identity::NewAlias;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::rows;

/// Logs a ServiceAccount in.
pub(super) async fn login(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let role_name = role::name(ctx.filled("role")?);
    let open = Arc::clone(&ctx.open);
    let (config, role) = {
        let reader = open.barrier.reader().await?;
        let config = Config::load(&reader, mount).await?;
        (config, Role::load(&reader, mount, &role_name).await?)
    };
    let config = config.ok_or_else(|| bad("could not load backend configuration"))?;
    let role =
        role.ok_or_else(|| bad(format!("invalid role name {:?}", role_name.escape_default().to_string())))?;
    if !role.token.bound_cidrs.admits(ctx.request.client_ip) {
        return Err(Fail::Login("the role may not be used from this address"));
    }
    let jwt = ctx.filled("jwt")?;
    let Verified { identity, .. } = verify(&open, mount, &config, &role, jwt, ctx.now).await?;
    let name = format!("{}-{}", identity.namespace, identity.service_account);
    let alias = alias(&role, &identity);
    let pod = identity.pod.as_ref().map(|(_, uid)| uid.clone());
    let login = Login {
        mount,
        params: &role.token,
        name: &name,
        metadata: metadata(&role_name, identity),
        pod,
        bound_cidrs: None,
        alias,
    };
    let mut grant = Grant::new(ctx, login).await?;
    let key = Role::key(mount, &role_name);
    grant.tie(ctx, mount, &key).await?;
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        grant::guard_in(w, mount, &key, &role).await?;
        grant::guard_row_in(w, &Config::key(mount), &config).await?;
        if let Some(uid) = grant.pod() {
            guard_pod_in(w, mount, uid).await?;
        }
        grant.insert_in(ctx, w).await?;
    });
    made?;
    Ok(grant.outcome(ctx))
}

/// The pod is not revoked, and the commit fails if it is meanwhile.
async fn guard_pod_in(writer: &mut Writer, mount: &Mount, uid: &str) -> Result<(), Fail> {
    let tombstone = rows::pod_tombstone(mount.id, uid);
    if writer.exists(&tombstone).await? {
        return Err(Fail::Login("the pod was revoked"));
    }
    writer.guard(&tombstone)?;
    Ok(())
}

/// The ServiceAccount, by its UID: one that comes back under an old name is another. Unless the role wants it to be one.
pub(super) fn alias(role: &Role, identity: &Identity) -> NewAlias {
    let metadata = BTreeMap::from([
        ("service_account_name".to_owned(), identity.service_account.clone()),
        ("service_account_namespace".to_owned(), identity.namespace.clone()),
        ("service_account_uid".to_owned(), identity.service_account_uid.clone()),
        ("service_account_secret_name".to_owned(), String::new()),
    ]);
    let name = match role.alias_name_source {
        AliasName::ServiceaccountUid => identity.service_account_uid.clone(),
        AliasName::ServiceaccountName => format!("{}/{}", identity.namespace, identity.service_account),
    };
    NewAlias { name, metadata }
}

/// What is said of a login's token.
pub(super) fn metadata(role_name: &str, identity: Identity) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("role".to_owned(), role_name.to_owned()),
        ("service_account_name".to_owned(), identity.service_account),
        ("service_account_namespace".to_owned(), identity.namespace),
        ("service_account_uid".to_owned(), identity.service_account_uid),
    ]);
    if let Some((name, uid)) = identity.pod {
        metadata.insert("pod_name".into(), name);
        metadata.insert("pod_uid".into(), uid);
    }
    metadata
}
