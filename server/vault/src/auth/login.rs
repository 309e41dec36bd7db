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
use crate::codec::{self, transact};
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
    let made: Result<(), Fail> =
        transact!(open.barrier, |w| admit_in(w, mount, &role_name, &role, &entry).await?);
    made?;
    let seconds = entry.ttl_left(ctx.now);
    let mut outcome = Outcome::auth(&entry, Some(&token), seconds);
    outcome.undo = Some(Undo::Token(entry.hash));
    Ok(outcome)
}

/// The mount's boundary and the role still are what the token was made from, and the commit fails if that changes: a
/// login that began before a restriction must not end after it.
async fn unchanged_in(writer: &mut Writer, mount: &Mount, role_name: &str, role: &Role) -> Result<(), Fail> {
    MountTable::guard_in(writer, mount).await?;
    let stored = codec::get::<Mount>(&*writer as &dyn Read, &mount.key()).await?;
    let key = Role::key(mount, role_name);
    let present = codec::get::<Role>(&*writer as &dyn Read, &key).await?;
    let present = present.ok_or_else(|| bad("the role was removed"))?;
    if stored.is_none_or(|m| m.boundary != mount.boundary) || present != *role {
        return Err(Fail::Unavailable(
            "the role or its mount was changed during the login; log in again".into(),
        ));
    }
    writer.guard(&key)?;
    Ok(())
}

/// The mount and the role stand, the pod is not revoked, and the commit fails if any of that changes.
async fn admit_in(
    writer: &mut Writer,
    mount: &Mount,
    role_name: &str,
    role: &Role,
    entry: &TokenEntry,
) -> Result<(), Fail> {
    unchanged_in(writer, mount, role_name, role).await?;
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

#[cfg(test)]
mod tests {
    use coffer_barrier::Barrier;
    use coffer_core::shamir::Threshold;
    use coffer_core::time::Timestamp;
    use coffer_storage::memory::MemoryStore;

    use super::*;
    use crate::mounts::{Class, blank};

    #[tokio::test]
    async fn a_restriction_during_the_login_wins() {
        let barrier = Barrier::new(Arc::new(MemoryStore::new()));
        let mut rng = crate::door::os_rng();
        let shares = barrier.initialize(Threshold::new(1, 1).unwrap(), &mut rng).await.unwrap();
        barrier.unseal(&shares).await.unwrap();
        let mount = blank(Class::Auth, "kubernetes/prod", "kubernetes", Timestamp::from_secs(1));
        let role = Role {
            names: vec!["orders".into()],
            namespaces: vec!["shop".into()],
            audience: "coffer".into(),
            policies: vec![PolicyName::parse("much").unwrap()],
            no_default_policy: false,
            ttl: Duration::ZERO,
            max_ttl: Duration::ZERO,
            period: Duration::ZERO,
            custom_metadata: BTreeMap::new(),
        };
        let less = Role { policies: Vec::new(), ..role.clone() };
        let bounded = Mount { boundary: Some(PolicyName::parse("edge").unwrap()), ..mount.clone() };
        for (stored_mount, stored_role, fine) in
            [(&mount, &role, true), (&mount, &less, false), (&bounded, &role, false)]
        {
            let checked: Result<(), Fail> = transact!(barrier, |w| {
                barrier.create_kek(w, mount.id).await?;
                MountTable::put_in(w, stored_mount).await?;
                codec::put(w, &Role::key(&mount, "r"), stored_role).await?;
            });
            checked.unwrap();
            let checked: Result<(), Fail> =
                transact!(barrier, |w| unchanged_in(w, &mount, "r", &role).await?);
            assert_eq!(checked.is_ok(), fine);
        }
    }
}
