//! `auth/<mount>/login`: from a ServiceAccount's JWT to a token.
//!
//! The token carries the pod's UID, so that everything this pod is given can be taken back in one call; a pod
//! that was revoked does not get in again.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::token::{Accessor, Token};
use std::time::Duration;

use super::claims::{self, Identity};
use super::config::Config;
use super::role::Role;
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::{Outcome, Undo};
use crate::pipeline::Ctx;
use crate::rows;
use crate::token::{TokenEntry, Tokens};

/// Logs a ServiceAccount in.
pub(super) async fn login(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let role_name = ctx.required("role")?.to_owned();
    let open = Arc::clone(&ctx.open);
    let (config, role) = {
        let reader = open.barrier.reader().await?;
        let config = Config::load(&reader, mount).await?;
        (config, Role::load(&reader, mount, &role_name).await?)
    };
    let config = config.ok_or_else(|| bad("could not load backend configuration"))?;
    let role =
        role.ok_or_else(|| bad(format!("invalid role name {:?}", role_name.escape_default().to_string())))?;
    let identity = {
        let jwt = ctx.required("jwt")?;
        let kid = claims::key_id(jwt)?;
        let key = open.keys.find(mount.id, &config, &kid, ctx.now).await?;
        claims::verify(jwt, &key, &config.issuer, &role.audience, ctx.now)?
    };
    if !role.admits(&identity.namespace, &identity.service_account) {
        return Err(Fail::Login("the role is not for this ServiceAccount"));
    }
    let (entry, token) = new_entry(ctx, mount, &role_name, &role, identity);
    let made: Result<(), Fail> = transact!(open.barrier, |w| admit_in(w, mount, &role_name, &entry).await?);
    made?;
    let seconds = entry.ttl_left(ctx.now);
    let mut outcome = Outcome::auth(&entry, Some(&token), seconds);
    outcome.undo = Some(Undo::Token(entry.hash));
    Ok(outcome)
}

/// The mount and the role stand, the pod is not revoked, and the commit fails if any of that changes.
async fn admit_in(
    writer: &mut Writer,
    mount: &Mount,
    role_name: &str,
    entry: &TokenEntry,
) -> Result<(), Fail> {
    MountTable::guard_in(writer, mount).await?;
    let role = Role::key(mount, role_name);
    if !writer.exists(&role).await? {
        return Err(bad("the role was removed"));
    }
    writer.guard(&role)?;
    if let Some(uid) = &entry.pod {
        let tombstone = rows::pod_tombstone(mount.id, uid);
        if writer.exists(&tombstone).await? {
            return Err(Fail::Login("the pod was revoked"));
        }
        writer.guard(&tombstone)?;
    }
    Tokens::insert_in(writer, entry).await
}

fn new_entry(
    ctx: &Ctx,
    mount: &Mount,
    role_name: &str,
    role: &Role,
    identity: Identity,
) -> (TokenEntry, Token) {
    let open = &ctx.open;
    let token = Token::generate(&mut rand::rng());
    let mut policies = role.policies.clone();
    let default = PolicyName::default_policy();
    if !role.no_default_policy && !policies.contains(&default) {
        policies.insert(0, default);
    }
    let periodic = !role.period.is_zero();
    let (ttl, max) = open.life(Some(mount), role.ttl.max(role.period), role.max_ttl);
    let display_name =
        format!("{}-{}-{}", mount.path.replace('/', "-"), identity.namespace, identity.service_account);
    let pod = identity.pod.as_ref().map(|(_, uid)| uid.clone());
    let entry = TokenEntry {
        hash: open.tokens.hash(&token),
        accessor: Accessor::generate(&mut rand::rng()),
        ancestors: Vec::new(),
        policies,
        boundary: mount.boundary.clone(),
        metadata: metadata(role_name, identity),
        display_name,
        path: ctx.request.path.clone(),
        mount: Some(mount.id),
        pod,
        created: ctx.now,
        ttl,
        expires: Some(ctx.now.plus(ttl)),
        max_expires: (!periodic).then(|| ctx.now.plus(max)),
        explicit_max_ttl: Duration::ZERO,
        period: role.period,
        renewable: true,
        uses_left: None,
        revoked: None,
    };
    (entry, token)
}

fn metadata(role_name: &str, identity: Identity) -> BTreeMap<String, String> {
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
