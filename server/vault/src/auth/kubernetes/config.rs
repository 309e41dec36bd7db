//! `auth/<mount>/config`: whose tokens are believed, and who says so: the cluster's keys, its API server, or both.

use std::sync::Arc;

use coffer_barrier::{Read, RecordKind, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::auth::jose::{Jwt, KeySet, Source};
use crate::codec::{self, transact};
use crate::deps::KeysQuery;
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// The longest text of a setting.
const TEXT_MAX: usize = 64 * 1024;

/// The settings of a Kubernetes mount as stored. Not `Debug`: one of them is a credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    /// What `iss` must be. Never empty where tokens are verified locally; empty: the API server says.
    pub(super) issuer: String,
    pub(super) host: String,
    pub(super) ca_pem: Option<String>,
    jwks_url: Option<String>,
    /// A key set given as text; then nothing is fetched.
    jwks: Option<String>,
    /// Keys or certificates given in PEM; then nothing is fetched.
    #[serde(default)]
    pem_keys: Vec<String>,
    /// Verify signatures here.
    #[serde(default = "yes")]
    pub(super) local: bool,
    /// Ask the API server.
    #[serde(default)]
    pub(super) review: bool,
    /// What the API server is asked with, in place of the server's own ServiceAccount token.
    #[serde(default)]
    pub(super) reviewer_jwt: Option<Zeroizing<String>>,
    /// Do not use the server's own ServiceAccount token and the CA beside it.
    #[serde(default)]
    pub(super) disable_local: bool,
}

const fn yes() -> bool {
    true
}

/// The keys that signatures are verified with here.
pub(super) enum LocalKeys<'a> {
    /// A key set as text.
    Set(&'a str),
    /// Keys in PEM.
    Pem(&'a [String]),
    /// Whoever is to be asked.
    Asked(Source),
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

    /// Where the keys are. The server's own ServiceAccount token goes to the API server only.
    pub(super) fn local_keys(&self) -> LocalKeys<'_> {
        if let Some(text) = &self.jwks {
            return LocalKeys::Set(text);
        }
        if !self.pem_keys.is_empty() {
            return LocalKeys::Pem(&self.pem_keys);
        }
        LocalKeys::Asked(Source::At(match &self.jwks_url {
            Some(url) => KeysQuery { url: url.clone(), ca_pem: self.ca_pem.clone(), own_token: false },
            None => KeysQuery {
                url: format!("{}/openid/v1/jwks", self.host.trim_end_matches('/')),
                ca_pem: self.ca_pem.clone(),
                own_token: !self.disable_local,
            },
        }))
    }

    const fn verification(&self) -> &'static str {
        match (self.local, self.review) {
            (true, true) => "both",
            (false, true) => "token_review",
            (_, false) => "local",
        }
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
        "kubernetes_ca_cert": config.ca_pem.clone().unwrap_or_default(),
        "jwks_url": config.jwks_url.clone().unwrap_or_default(),
        "jwks": config.jwks.clone().unwrap_or_default(),
        "pem_keys": config.pem_keys,
        "disable_iss_validation": config.issuer.is_empty(),
        "disable_local_ca_jwt": config.disable_local,
        "token_reviewer_jwt_set": config.reviewer_jwt.is_some(),
        "verification": config.verification(),
    })))
}

async fn write(ctx: &Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let config = wanted(ctx)?;
    check(&config)?;
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        codec::put(w, &Config::key(mount), &config).await?;
    });
    ctx.open.keys.forget(mount.id);
    written?;
    Ok(Outcome::empty())
}

/// What a body says; what it leaves open is as Vault has it, as far as that can be meant here.
fn wanted(ctx: &Ctx) -> Result<Config, Fail> {
    let text = |name: &str| -> Result<Option<String>, Fail> {
        let found = ctx.text(name)?.filter(|t| !t.is_empty());
        if found.is_some_and(|t| t.len() > TEXT_MAX) {
            return Err(Fail::TooLarge(format!("{name} is longer than {TEXT_MAX} bytes")));
        }
        Ok(found.map(str::to_owned))
    };
    let flag = |name: &str| params::flag(&ctx.request.body, name).map(|flag| flag.unwrap_or(false));
    if flag("use_annotations_as_alias_metadata")? {
        return Err(bad("use_annotations_as_alias_metadata is not supported"));
    }
    let issuer = text("issuer")?.unwrap_or_default();
    if flag("disable_iss_validation")? && !issuer.is_empty() {
        return Err(bad("disable_iss_validation is not supported: an issuer that is named is checked"));
    }
    let reviewer_jwt = text("token_reviewer_jwt")?.map(Zeroizing::new);
    let pem_keys = params::list(&ctx.request.body, "pem_keys")?.unwrap_or_default();
    let (jwks_url, jwks) = (text("jwks_url")?, text("jwks")?);
    let keys = !pem_keys.is_empty() || jwks_url.is_some() || jwks.is_some();
    let (local, review) = match ctx.text("verification")?.unwrap_or_default() {
        "local" => (true, false),
        "token_review" if keys => {
            return Err(bad(
                "verification token_review verifies no signature: jwks, jwks_url and pem_keys cannot be set",
            ));
        }
        "token_review" => (false, true),
        "both" => (true, true),
        // As in Vault the API server is asked, unless there is only what is needed to do without it.
        "" => {
            let review = issuer.is_empty() || reviewer_jwt.is_some() || !pem_keys.is_empty();
            (!issuer.is_empty() || keys, review)
        }
        _ => return Err(bad("verification must be local, token_review or both")),
    };
    Ok(Config {
        issuer,
        host: text("kubernetes_host")?.unwrap_or_default(),
        ca_pem: text("kubernetes_ca_cert")?,
        jwks_url,
        jwks,
        pem_keys,
        local,
        review,
        reviewer_jwt,
        disable_local: flag("disable_local_ca_jwt")?,
    })
}

fn check(config: &Config) -> Result<(), Fail> {
    let secure = |url: &str| url.starts_with("https://");
    let given = config.jwks.is_some() || config.jwks_url.is_some() || !config.pem_keys.is_empty();
    if config.host.is_empty() && (config.review || !given) {
        return Err(bad("no host provided"));
    }
    if config.local && config.issuer.is_empty() {
        return Err(bad("missing issuer: tokens of any issuer are never accepted"));
    }
    if !config.host.is_empty() && !secure(&config.host) {
        return Err(bad("kubernetes_host must be an https:// URL"));
    }
    if config.jwks_url.as_deref().is_some_and(|url| !secure(url)) {
        return Err(bad("jwks_url must be an https:// URL"));
    }
    let ways = [config.jwks.is_some(), config.jwks_url.is_some(), !config.pem_keys.is_empty()];
    if ways.iter().filter(|way| **way).count() > 1 {
        return Err(bad("at most one of jwks, jwks_url and pem_keys can be set"));
    }
    if let Some(jwks) = &config.jwks {
        KeySet::from_jwks(jwks).map_err(|refused| bad(format!("jwks is {refused}")))?;
    }
    if config.pem_keys.iter().map(String::len).sum::<usize>() > TEXT_MAX {
        return Err(Fail::TooLarge(format!("pem_keys are longer than {TEXT_MAX} bytes")));
    }
    KeySet::from_pem(&config.pem_keys).map_err(|refused| bad(refused.to_string()))?;
    if config.disable_local && config.ca_pem.is_none() && !config.host.is_empty() {
        return Err(bad("kubernetes_ca_cert must be given when disable_local_ca_jwt is true"));
    }
    if config.reviewer_jwt.as_ref().is_some_and(|jwt| Jwt::parse(jwt).is_err()) {
        return Err(bad("token_reviewer_jwt is not a JWT"));
    }
    Ok(())
}
