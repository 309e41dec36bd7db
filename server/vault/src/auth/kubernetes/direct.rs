//! A ServiceAccount's token used as it is, as the credential of requests, where a role allows that (`allow_direct`).
//!
//! Nothing is stored of it and nobody logs in: it is what a batch token is, with an end of its own. It ends with the JWT,
//! with its pod, with a change of its role, its mount or that one's boundary, and with whatever ends batch tokens; so do
//! the leases that hang from it. It makes no identity, but is the one that its ServiceAccount has.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;
use coffer_core::token::{Token, TokenHash};

use super::config::Config;
use super::login;
use super::role::{self, Role};
use super::verify::{Verified, verify};
use crate::auth::grant;
use crate::cidr::Cidrs;
use crate::error::Fail;
use crate::identity::Entity;
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::token::batch::{Origin, RolePrint};
use crate::token::{Kind, TokenEntry};

/// What such a credential begins with: `k8s:<mount>/<role>:<JWT>`.
const PREFIX: &str = "k8s:";
/// How long a verification is believed. What the store knows of is looked up at each use; this is how late it is noticed
/// that a cluster withdrew a key, or that its API server does not believe the token any more.
const BELIEVED: Duration = Duration::from_secs(60);
/// The most verifications that are kept.
const KEPT_MAX: usize = 4096;

/// Whether a text is meant as such a credential.
pub(crate) fn looks_like_one(token: &Token) -> bool {
    // No token that somebody chose himself has a dot.
    token.expose().starts_with(PREFIX) && token.expose().contains('.')
}

/// Verifications that are still believed.
#[derive(Default)]
pub(crate) struct Believed {
    entries: Mutex<HashMap<TokenHash, (Timestamp, TokenEntry)>>,
}

impl Believed {
    fn entries(&self) -> MutexGuard<'_, HashMap<TokenHash, (Timestamp, TokenEntry)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a credential stands for, if it was verified lately.
    pub(crate) fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<TokenEntry> {
        let entries = self.entries();
        let (since, entry) = entries.get(hash)?;
        (now >= *since && now < since.plus(BELIEVED)).then(|| entry.clone())
    }

    fn keep(&self, entry: &TokenEntry, now: Timestamp) {
        let mut entries = self.entries();
        if entries.len() >= KEPT_MAX {
            entries.retain(|_, (since, _)| now < since.plus(BELIEVED));
        }
        if entries.len() < KEPT_MAX {
            entries.insert(entry.hash, (now, entry.clone()));
        }
    }

    /// Forgets one.
    pub(crate) fn drop_one(&self, hash: &TokenHash) {
        self.entries().remove(hash);
    }

    /// Forgets all of a mount: its settings changed.
    pub(super) fn forget(&self, mount: MountId) {
        self.entries().retain(|_, (_, entry)| entry.mount != Some(mount));
    }
}

/// What the credential stands for; none if there is no such mount or role, or none that allows this. Says nothing about
/// whether it is alive: that is asked as of any batch token.
pub(crate) async fn verified(open: &Open, token: &Token, now: Timestamp) -> Result<Option<TokenEntry>, Fail> {
    let hash = open.tokens.hash(token);
    let Some((place, jwt)) = token.expose().strip_prefix(PREFIX).and_then(|text| text.split_once(':')) else {
        return Ok(None);
    };
    let Some((path, role_name)) = place.rsplit_once('/') else { return Ok(None) };
    let Some((mount, "")) = open.mounts.route(Class::Auth, path) else { return Ok(None) };
    if mount.kind != "kubernetes" {
        return Ok(None);
    }
    let name = role::name(role_name);
    let reader = open.barrier.reader().await?;
    let role = Role::load(&reader, &mount, &name).await?.filter(|role| role.allow_direct);
    let (Some(config), Some(role)) = (Config::load(&reader, &mount).await?, role) else { return Ok(None) };
    let print = RolePrint::take(&reader, mount.id, &format!("role/{name}")).await?;
    drop(reader);
    let verified = verify(open, &mount, &config, &role, jwt, now).await?;
    let mut entry = made(open, hash, &mount, &name, &role, verified).await?;
    entry.origin = Some(Origin { mount_created: Some(mount.created), role: print });
    open.direct.keep(&entry, now);
    Ok(Some(entry))
}

async fn made(
    open: &Open,
    hash: TokenHash,
    mount: &Mount,
    role_name: &str,
    role: &Role,
    verified: Verified,
) -> Result<TokenEntry, Fail> {
    let Verified { identity, issued, expires } = verified;
    let alias = login::alias(role, &identity);
    let reader = open.barrier.reader().await?;
    let entity = Entity::of_alias(&open.barrier, &reader, &mount.accessor, &alias.name).await?;
    let pod = identity.pod.as_ref().map(|(_, uid)| uid.clone());
    let shown = format!("{}-{}", identity.namespace, identity.service_account);
    Ok(TokenEntry {
        kind: Kind::Batch,
        policies: grant::policies(&role.token),
        boundary: mount.boundary.clone(),
        display_name: format!("{}-{shown}", mount.path.replace('/', "-")),
        metadata: login::metadata(role_name, identity),
        path: format!("auth/{}/direct", mount.path),
        mount: Some(mount.id),
        pod,
        entity: entity.map(|entity| entity.id),
        ttl: expires.saturating_sub(issued),
        expires: Some(expires),
        max_expires: Some(expires),
        bound_cidrs: Cidrs::clone(&role.token.bound_cidrs),
        ..TokenEntry::blank(hash, open.tokens.batch_accessor(&hash), issued)
    })
}
