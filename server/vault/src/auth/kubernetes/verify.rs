//! Whether a ServiceAccount's token is believed, and whether a role is for its owner.
//!
//! With the cluster's keys, by asking its API server, or both, as the mount says.

use coffer_core::time::Timestamp;

use super::api;
use super::claims::{self, Identity};
use super::config::{Config, LocalKeys};
use super::role::Role;
use super::selector::Selector;
use crate::auth::jose::{Claims, Expected, Jwt, KeySet};
use crate::error::Fail;
use crate::mounts::Mount;
use crate::open::Open;

/// A token that is believed.
pub(super) struct Verified {
    pub(super) identity: Identity,
    /// When it begins and ends.
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
}

/// Verifies a token for a role.
pub(super) async fn verify(
    open: &Open,
    mount: &Mount,
    config: &Config,
    role: &Role,
    text: &str,
    now: Timestamp,
) -> Result<Verified, Fail> {
    let jwt = Jwt::parse(text)?;
    let claims = if config.local {
        signed_by_the_cluster(open, mount, config, &jwt, now).await?
    } else {
        // Only to refuse what the API server need not be asked about; it is believed once that believes it.
        jwt.unverified()?
    };
    let expected = Expected {
        issuer: Some(config.issuer.as_str()).filter(|issuer| !issuer.is_empty()),
        audiences: std::slice::from_ref(&role.audience),
        subject: None,
        leeway: claims::LEEWAY,
    };
    let (issued, expires) = expected.check(&claims, open.civil())?;
    let identity = claims::identity(claims)?;
    if !role.admits_name(&identity.service_account) {
        return Err(Fail::Login("the role is not for this ServiceAccount"));
    }
    let listed = role.admits_namespace(&identity.namespace);
    if !listed && role.namespace_selector.is_empty() {
        return Err(Fail::Login("the role is not for this ServiceAccount"));
    }
    if config.review {
        api::review(open, config, text, &role.audience, &identity).await?;
    }
    if !listed {
        let selector = Selector::parse(&role.namespace_selector);
        let selector = selector.ok_or(Fail::Internal("a stored selector could not be read"))?;
        let labels = api::namespace_labels(open, config, text, &identity.namespace).await?;
        if !selector.fits(&labels) {
            return Err(Fail::Login("the role is not for this ServiceAccount's namespace"));
        }
    }
    Ok(Verified { identity, issued: open.in_own_time(issued), expires: open.in_own_time(expires) })
}

async fn signed_by_the_cluster(
    open: &Open,
    mount: &Mount,
    config: &Config,
    jwt: &Jwt<'_>,
    now: Timestamp,
) -> Result<Claims, Fail> {
    let keys = match config.local_keys() {
        LocalKeys::Set(text) => KeySet::from_jwks(text)?,
        LocalKeys::Pem(texts) => KeySet::from_pem(texts)?,
        // Kubernetes always names the key.
        LocalKeys::Asked(_) if jwt.key_id().is_none() => return Err(Fail::Login("the JWT names no key")),
        LocalKeys::Asked(source) => {
            return Ok(open.keys.claims(mount.id, &source, jwt, None, now).await??);
        }
    };
    Ok(jwt.verify(jwt.candidates(keys.keys()), None)?)
}
