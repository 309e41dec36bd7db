//! Which server, which CAs, which token: flags first, then the environment, then files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use coffer_client::wire::Disclose;
use coffer_client::{Client, ClientBuilder, Limits};
use zeroize::Zeroizing;

use super::Global;
use super::out::complain;

const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";
/// Where distributions keep the CAs they trust.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// More would only hide that the server does not answer.
const RETRIES_MAX: u32 = 10;
const TOKEN_FILE: &str = ".coffer-token";

/// A server to talk to.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
}

impl Session {
    /// Finds address, trust and the rest of what a connection needs.
    pub(crate) fn new(flags: &Global) -> anyhow::Result<Self> {
        let address = flags.address.clone().or_else(|| variable("ADDR"));
        let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let retries = variable("MAX_RETRIES").map(|text| text.parse::<u32>()).transpose();
        let retries = retries.context("MAX_RETRIES: expected a number")?.unwrap_or(0).min(RETRIES_MAX);
        let mut builder = Client::builder(&address).limits(Limits { retries, ..Limits::default() });
        if address.starts_with("https:") {
            builder = tls(builder, flags)?;
        }
        if let Some(namespace) = flags.namespace.clone().or_else(|| variable("NAMESPACE")) {
            builder = builder.header("x-vault-namespace", &namespace)?;
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

/// A variable under each of its names: ours, Vault's, OpenBao's.
fn variable(name: &str) -> Option<String> {
    let value = |whose: &&str| std::env::var(format!("{whose}_{name}")).ok().filter(|text| !text.is_empty());
    ["COFFER", "VAULT", "BAO"].iter().find_map(value)
}

fn tls(mut builder: ClientBuilder, flags: &Global) -> anyhow::Result<ClientBuilder> {
    let file =
        |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
    let skip = variable("SKIP_VERIFY").map(|text| truth(&text)).transpose().context("SKIP_VERIFY")?;
    if flags.tls_skip_verify || skip == Some(true) {
        complain("Warning: the server's certificate is not verified");
        builder = builder.trust_anyone();
    } else {
        builder = builder.ca_pem(ca_bundle(file(&flags.ca_cert, "CACERT"), file(&flags.ca_path, "CAPATH"))?);
    }
    if let Some(name) = flags.tls_server_name.clone().or_else(|| variable("TLS_SERVER_NAME")) {
        builder = builder.server_name(&name);
    }
    match (file(&flags.client_cert, "CLIENT_CERT"), file(&flags.client_key, "CLIENT_KEY")) {
        (None, None) => Ok(builder),
        (Some(cert), Some(key)) => {
            let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
            Ok(builder.own_certificate(read(&cert)?, Zeroizing::new(read(&key)?)))
        }
        _ => anyhow::bail!("--client-cert and --client-key belong together"),
    }
}

fn truth(text: &str) -> anyhow::Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => anyhow::bail!("expected true or false"),
    }
}

fn ca_bundle(file: Option<PathBuf>, dir: Option<PathBuf>) -> anyhow::Result<Vec<u8>> {
    if let Some(path) = file {
        return std::fs::read(&path).with_context(|| format!("CA certificates {}", path.display()));
    }
    if let Some(dir) = dir {
        return ca_directory(&dir).with_context(|| format!("CA certificates in {}", dir.display()));
    }
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from) {
        // Whoever names one does not want others to be trusted instead.
        return std::fs::read(&path).with_context(|| format!("SSL_CERT_FILE {}", path.display()));
    }
    SYSTEM_BUNDLES
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .context("the system has no CA certificates: name them with --ca-cert or COFFER_CACERT")
}

/// Every file of a directory, one after another.
fn ca_directory(dir: &Path) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            pem.extend(std::fs::read(path)?);
            pem.push(b'\n');
        }
    }
    Ok(pem)
}

fn token() -> anyhow::Result<Option<Disclose>> {
    if let Some(token) = variable("TOKEN") {
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
