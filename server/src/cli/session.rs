//! Which server, which CAs, which token: flags first, then the environment, then files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use coffer_client::wire::Disclose;
use coffer_client::{Client, Limits};

use super::out::complain;

const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";
/// Where distributions keep the CAs they trust.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const TOKEN_FILE: &str = ".coffer-token";

/// A server to talk to.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
}

impl Session {
    /// Finds address and CAs.
    pub(crate) fn new(address: Option<&str>, ca_cert: Option<&Path>) -> anyhow::Result<Self> {
        let address = match (address, env(&["COFFER_ADDR", "VAULT_ADDR", "BAO_ADDR"])) {
            (Some(flag), _) => flag.to_owned(),
            (None, Some((_, text))) => text,
            (None, None) => DEFAULT_ADDRESS.to_owned(),
        };
        let mut builder = Client::builder(&address).limits(Limits::default());
        if address.starts_with("https:") {
            builder = builder.ca_pem(ca_bundle(ca_cert)?);
        }
        Ok(Self { client: builder.build()? })
    }

    /// A client without a token, for what needs none.
    pub(crate) fn anonymous(&self) -> Client {
        self.client.without_token()
    }

    /// A client with the token from the environment or the token file; without one the server says what it thinks.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        match token()? {
            Some(token) => Ok(self.client.with_token(&token)?),
            None => Ok(self.anonymous()),
        }
    }

    /// A client with this token.
    pub(crate) fn with_token(&self, token: &Disclose) -> anyhow::Result<Client> {
        Ok(self.client.with_token(token)?)
    }
}

/// The first of these variables that is set and not empty.
pub(crate) fn env(names: &[&'static str]) -> Option<(&'static str, String)> {
    names
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| (*name, text)))
}

fn ca_bundle(flag: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let named = flag.map(Path::to_owned).or_else(|| {
        env(&["COFFER_CACERT", "VAULT_CACERT", "BAO_CACERT", "SSL_CERT_FILE"])
            .map(|(_, path)| PathBuf::from(path))
    });
    if let Some(path) = named {
        return std::fs::read(&path).with_context(|| format!("CA certificates {}", path.display()));
    }
    SYSTEM_BUNDLES
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .context("the system has no CA certificates: name them with --ca-cert or COFFER_CACERT")
}

fn token() -> anyhow::Result<Option<Disclose>> {
    if let Some((_, token)) = env(&["COFFER_TOKEN", "VAULT_TOKEN", "BAO_TOKEN"]) {
        return Ok(Some(Disclose::from(token)));
    }
    let Ok(path) = token_path() else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("token file {}", path.display())),
        Ok(text) => {
            let text = Disclose::from(text);
            if std::fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
                complain(&format!("Warning: others may read {}; run: chmod 600 {0}", path.display()));
            }
            let token = text.expose().trim();
            Ok((!token.is_empty()).then(|| Disclose::from(token)))
        }
    }
}

/// Where `login` keeps a token.
pub(crate) fn token_path() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).context("HOME is not set")?;
    Ok(PathBuf::from(home).join(TOKEN_FILE))
}
