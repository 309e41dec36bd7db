//! `auth/<mount>/config`: whose tokens are believed, and what their signatures are verified with.

use std::sync::Arc;

use coffer_barrier::{Read, RecordKind, RowKey};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::jose::{KeySet, Source, algorithm_named};
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
/// Settings that belong to logins through a browser, or that nothing here would look at. A setting that does nothing must
/// not be accepted.
const UNSUPPORTED: [&str; 8] = [
    "oidc_client_id",
    "oidc_client_secret",
    "oidc_response_mode",
    "oidc_response_types",
    "provider_config",
    "jwks_pairs",
    "override_allowed_server_names",
    "skip_jwks_validation",
];

/// Where the keys of a mount come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeysFrom {
    /// Public keys in PEM, given as such.
    Given(Vec<String>),
    /// A JSON Web Key Set at a URL.
    Url { url: String, ca_pem: Option<String> },
    /// The issuer's discovery document.
    Discovery { url: String, ca_pem: Option<String> },
}

impl KeysFrom {
    /// Where to ask for them, unless they were given.
    pub(super) fn source(&self) -> Option<Source> {
        let query = |url: &String, ca_pem: &Option<String>| KeysQuery {
            url: url.clone(),
            ca_pem: ca_pem.clone(),
            own_token: false,
        };
        match self {
            Self::Given(_) => None,
            Self::Url { url, ca_pem } => Some(Source::At(query(url, ca_pem))),
            Self::Discovery { url, ca_pem } => Some(Source::Discovered(query(url, ca_pem))),
        }
    }
}

/// The settings of a mount as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) keys: KeysFrom,
    /// As given; see [`Config::issuer`].
    bound_issuer: String,
    pub(super) default_role: String,
    supported_algs: Vec<String>,
    namespace_in_state: bool,
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

    /// What `iss` must be. With discovery the document vouches for its own URL.
    pub(super) fn issuer(&self) -> &str {
        match &self.keys {
            KeysFrom::Discovery { url, .. } if self.bound_issuer.is_empty() => url,
            _ => &self.bound_issuer,
        }
    }

    /// The algorithms that are believed; none: all that are supported.
    pub(super) fn algorithms(&self) -> Option<Vec<Algorithm>> {
        let known = self.supported_algs.iter().filter_map(|name| algorithm_named(name)).collect();
        Some(known).filter(|list: &Vec<Algorithm>| !list.is_empty())
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
    let (mut given, mut jwks, mut discovery) = (Vec::new(), Default::default(), Default::default());
    match config.keys {
        KeysFrom::Given(keys) => given = keys,
        KeysFrom::Url { url, ca_pem } => jwks = (url, ca_pem.unwrap_or_default()),
        KeysFrom::Discovery { url, ca_pem } => discovery = (url, ca_pem.unwrap_or_default()),
    }
    Ok(Outcome::data(json!({
        "bound_issuer": config.bound_issuer,
        "default_role": config.default_role,
        "jwks_ca_pem": jwks.1,
        "jwks_url": jwks.0,
        "jwt_supported_algs": config.supported_algs,
        "jwt_validation_pubkeys": given,
        "namespace_in_state": config.namespace_in_state,
        "oidc_client_id": "",
        "oidc_discovery_ca_pem": discovery.1,
        "oidc_discovery_url": discovery.0,
        "oidc_response_mode": "",
        "oidc_response_types": [],
        "override_allowed_server_names": [],
        "provider_config": {},
        "status": "valid",
    })))
}

/// Whether a value says anything at all.
pub(super) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(true) => true,
    }
}

async fn write(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let config = wanted(ctx).await?;
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let key = Config::key(mount);
        let mut config = config.clone();
        if let (None, Some(before)) =
            (ctx.request.body.get("namespace_in_state"), Config::load(&*w, mount).await?)
        {
            config.namespace_in_state = before.namespace_in_state;
        }
        codec::put(w, &key, &config).await?;
    });
    ctx.open.keys.forget(mount.id);
    written?;
    Ok(Outcome::empty())
}

/// What a body says, with its keys looked at once.
async fn wanted(ctx: &Ctx) -> Result<Config, Fail> {
    let body = &ctx.request.body;
    for name in UNSUPPORTED {
        if body.get(name).is_some_and(says_something) {
            return Err(bad(format!("{name} is not supported: only roles of type \"jwt\" are")));
        }
    }
    let text = |name: &str| -> Result<Option<String>, Fail> {
        let found = ctx.text(name)?.filter(|t| !t.is_empty());
        if found.is_some_and(|t| t.len() > TEXT_MAX) {
            return Err(Fail::TooLarge(format!("{name} is longer than {TEXT_MAX} bytes")));
        }
        Ok(found.map(str::to_owned))
    };
    let pem = params::list(body, "jwt_validation_pubkeys")?.unwrap_or_default();
    let keys = match (pem.is_empty(), text("jwks_url")?, text("oidc_discovery_url")?) {
        (false, None, None) => KeysFrom::Given(pem),
        (true, Some(url), None) => KeysFrom::Url { url, ca_pem: text("jwks_ca_pem")? },
        (true, None, Some(url)) => KeysFrom::Discovery { url, ca_pem: text("oidc_discovery_ca_pem")? },
        _ => {
            return Err(bad(
                "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url', or \
                 'provider_config' must be set",
            ));
        }
    };
    let config = Config {
        keys,
        bound_issuer: text("bound_issuer")?.unwrap_or_default(),
        default_role: text("default_role")?.unwrap_or_default().to_ascii_lowercase(),
        supported_algs: params::list(body, "jwt_supported_algs")?.unwrap_or_default(),
        namespace_in_state: params::flag(body, "namespace_in_state")?.unwrap_or(true),
    };
    if let Some(name) = config.supported_algs.iter().find(|name| algorithm_named(name).is_none()) {
        let name = name.escape_default();
        return Err(bad(format!("invalid jwt_supported_algs: unsupported signing algorithm \"{name}\"")));
    }
    if config.issuer().is_empty() {
        return Err(bad("missing bound_issuer: tokens of any issuer are never accepted"));
    }
    check_keys(ctx, &config.keys).await?;
    Ok(config)
}

async fn check_keys(ctx: &Ctx, keys: &KeysFrom) -> Result<(), Fail> {
    let secure = |name: &str, url: &str| {
        if url.starts_with("https://") { Ok(()) } else { Err(bad(format!("{name} must be an https:// URL"))) }
    };
    let what = match keys {
        KeysFrom::Given(texts) => {
            if texts.iter().map(String::len).sum::<usize>() > TEXT_MAX {
                let message = format!("jwt_validation_pubkeys are longer than {TEXT_MAX} bytes");
                return Err(Fail::TooLarge(message));
            }
            let parsed = KeySet::from_pem(texts);
            return parsed.map(|_| ()).map_err(|error| bad(format!("error parsing public key: {error}")));
        }
        KeysFrom::Url { url, .. } => {
            secure("jwks_url", url)?;
            "jwks URL"
        }
        KeysFrom::Discovery { url, .. } => {
            secure("oidc_discovery_url", url)?;
            "oidc discovery URL"
        }
    };
    let source = keys.source().ok_or(Fail::Internal("keys from nowhere"))?;
    ctx.open.keys.probe(&source).await.map_err(|why| bad(format!("error checking {what}: {why}")))
}
