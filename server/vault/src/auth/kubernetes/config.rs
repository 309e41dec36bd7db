//! `auth/<mount>/config`: whose tokens are believed, and where their signing keys are.

use std::sync::Arc;

use coffer_barrier::{Read, RecordKind, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::auth::jose::{KeySet, Source};
use crate::codec::{self, transact};
use crate::deps::KeysQuery;
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// The longest text of a setting.
const TEXT_MAX: usize = 64 * 1024;

/// The settings of a Kubernetes mount as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) issuer: String,
    pub(super) host: String,
    pub(super) ca_pem: Option<String>,
    pub(super) jwks_url: Option<String>,
    /// A key set given as text; then nothing is fetched.
    pub(super) jwks: Option<String>,
}

impl Config {
    /// The row of the settings.
    pub(super) fn key(mount: &Mount) -> RowKey {
        RowKey::path(mount.id, RecordKind::Entry, "config")
    }

    /// The settings of a mount, if they were written.
    pub(super) async fn load(reader: &dyn Read, mount: &Mount) -> Result<Option<Self>, Fail> {
        codec::get(reader, &Self::key(mount)).await
    }

    /// Where the keys are asked for. The server's own ServiceAccount token goes to the API server only.
    pub(super) fn source(&self) -> Source {
        Source::At(match &self.jwks_url {
            Some(url) => KeysQuery { url: url.clone(), ca_pem: self.ca_pem.clone(), own_token: false },
            None => KeysQuery {
                url: format!("{}/openid/v1/jwks", self.host.trim_end_matches('/')),
                ca_pem: self.ca_pem.clone(),
                own_token: true,
            },
        })
    }
}

/// Reads or writes the settings.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    match ctx.request.operation {
        Operation::Read => read(ctx, mount).await,
        Operation::Update => write(ctx, mount).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn read(ctx: &Ctx, mount: &Mount) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let config = Config::load(&reader, mount).await?.ok_or(Fail::NotFound)?;
    Ok(Outcome::data(json!({
        "issuer": config.issuer,
        "kubernetes_host": config.host,
        "kubernetes_ca_cert": config.ca_pem.unwrap_or_default(),
        "jwks_url": config.jwks_url.unwrap_or_default(),
        "jwks": config.jwks.unwrap_or_default(),
        "token_reviewer_jwt_set": false,
    })))
}

async fn write(ctx: &Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let text = |name: &str| -> Result<Option<String>, Fail> {
        let found = ctx.text(name)?.filter(|t| !t.is_empty());
        if found.is_some_and(|t| t.len() > TEXT_MAX) {
            return Err(Fail::TooLarge(format!("{name} is longer than {TEXT_MAX} bytes")));
        }
        Ok(found.map(str::to_owned))
    };
    if text("token_reviewer_jwt")?.is_some() {
        return Err(bad("token_reviewer_jwt is not supported: tokens are verified with the cluster's keys"));
    }
    let config = Config {
        issuer: text("issuer")?
            .ok_or_else(|| bad("missing issuer: tokens of any issuer are never accepted"))?,
        host: text("kubernetes_host")?.unwrap_or_default(),
        ca_pem: text("kubernetes_ca_cert")?,
        jwks_url: text("jwks_url")?,
        jwks: text("jwks")?,
    };
    let secure = |url: &str| url.starts_with("https://");
    if config.jwks.is_none() && config.jwks_url.is_none() && config.host.is_empty() {
        return Err(bad("one of kubernetes_host, jwks_url and jwks is needed"));
    }
    if !config.host.is_empty() && !secure(&config.host) {
        return Err(bad("kubernetes_host must be an https:// URL"));
    }
    if config.jwks_url.as_deref().is_some_and(|url| !secure(url)) {
        return Err(bad("jwks_url must be an https:// URL"));
    }
    if let Some(jwks) = &config.jwks {
        KeySet::from_jwks(jwks).map_err(|refused| bad(format!("jwks is {refused}")))?;
    }
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        codec::put(w, &Config::key(mount), &config).await?;
    });
    ctx.open.keys.forget(mount.id);
    written?;
    Ok(Outcome::empty())
}
