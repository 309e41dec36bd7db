//! A ServiceAccount's token used as it is, as the credential of requests, where a role allows that (`allow_direct`).
//!
//! Nothing is stored of it and nobody logs in: it is what a batch token is, with an end of its own. It ends with the JWT,
//! with its pod, with a change of its role, its mount, that one's settings or its boundary, and with whatever ends batch
//! tokens; so do the leases that hang from it. It makes no identity, but is the one that its ServiceAccount has, looked
//! up at each use.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_core::time::Timestamp;
use coffer_core::token::{Token, TokenHash};

use super::config::Config;
use super::login;
use super::role::{self, Role};
use super::verify::{Verified, verify};
use crate::auth::grant;
use crate::cidr::Cidrs;
use crate::error::Fail;
use crate::identity;
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::token::batch::{Origin, RowPrint};
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

/// Verifications that are still believed, by the credential as it was sent.
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

    fn keep(&self, hash: TokenHash, entry: &TokenEntry, now: Timestamp) {
        let mut entries = self.entries();
        if entries.len() >= KEPT_MAX {
            entries.retain(|_, (since, _)| now < since.plus(BELIEVED));
        }
        if entries.len() < KEPT_MAX {
            entries.insert(hash, (now, entry.clone()));
        }
    }

    /// Forgets one.
    pub(crate) fn drop_one(&self, hash: &TokenHash) {
        self.entries().remove(hash);
    }
}

/// What the credential stands for; none if there is no such mount or role, or none that allows this. Says nothing about
/// whether it is alive: that is asked as of any batch token. With the address that it came from it counts as a login does
/// where a quota limits those of its role.
pub(crate) async fn verified(
    open: &Open,
    token: &Token,
    from: Option<IpAddr>,
    now: Timestamp,
) -> Result<Option<TokenEntry>, Fail> {
    let Some((place, jwt)) = token.expose().strip_prefix(PREFIX).and_then(|text| text.split_once(':')) else {
        return Ok(None);
    };
    let Some((path, name)) = place.rsplit_once('/') else { return Ok(None) };
    let Some((mount, "")) = open.mounts.route(Class::Auth, path) else { return Ok(None) };
    // A role has one name here, and a mount one path: else one JWT would be many credentials.
    if mount.kind != "kubernetes" || mount.path != path || role::name(name) != name {
        return Ok(None);
    }
    let reader = open.barrier.reader().await?;
    let role = Role::load(&reader, &mount, name).await?.filter(|role| role.allow_direct);
    let (Some(config), Some(role)) = (Config::load(&reader, &mount).await?, role) else { return Ok(None) };
    let role_print = RowPrint::take(&reader, mount.id, &format!("role/{name}")).await?;
    let config_print = RowPrint::take(&reader, mount.id, "config").await?;
    drop(reader);
    if let Some(from) = from {
        open.quotas.admit_role(&mount.full_path(), name, from, now)?;
    }
    let verified = verify(open, &mount, &config, &role, jwt, now).await?;
    let alias = login::alias(&role, &verified.identity).name;
    let origin = Origin {
        mount_created: Some(mount.created),
        role: role_print,
        config: config_print,
        alias: Some(identity::alias_key(&open.barrier, &mount.accessor, &alias)?),
    };
    let entry = TokenEntry {
        origin: Some(origin),
        ..made(open, signed(open, token)?, &mount, name, &role, verified)
    };
    open.direct.keep(open.tokens.hash(token), &entry, now);
    Ok(Some(entry))
}

/// What names the credential: all of it but the signature, of which there may be several that are right (ECDSA).
fn signed(open: &Open, token: &Token) -> Result<TokenHash, Fail> {
    let text = token.expose();
    let text = text.rsplit_once('.').map_or(text, |(signed, _)| signed);
    let signed = Token::parse(text).map_err(|_| Fail::Internal("a part of a token is no token"))?;
    Ok(open.tokens.hash(&signed))
}

fn made(
    open: &Open,
    hash: TokenHash,
    mount: &Mount,
    role_name: &str,
    role: &Role,
    verified: Verified,
) -> TokenEntry {
    let Verified { identity, issued, expires } = verified;
    let pod = identity.pod.as_ref().map(|(_, uid)| uid.clone());
    let shown = format!("{}-{}", identity.namespace, identity.service_account);
    TokenEntry {
        kind: Kind::Batch,
        policies: grant::policies(&role.token),
        boundary: mount.boundary.clone(),
        display_name: format!("{}-{shown}", mount.path.replace('/', "-")),
        metadata: login::metadata(role_name, identity),
        path: format!("auth/{}/direct", mount.path),
        mount: Some(mount.id),
        pod,
        ttl: expires.saturating_sub(issued),
        expires: Some(expires),
        max_expires: Some(expires),
        bound_cidrs: Cidrs::clone(&role.token.bound_cidrs),
        ..TokenEntry::blank(hash, open.tokens.batch_accessor(&hash), issued)
    }
}
