//! The server's configuration: Vault's stanza form in HCL or JSON, read into types that hold only what is valid.
//!
//! A wrong value is refused with file, line and what was expected; an unknown key is a warning. Never opens
//! anything but the configuration file itself, and holds no secrets.

mod audit;
mod forwarded;
mod listener;
mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coffer_api::TrustedProxies;
use coffer_vault::{AuditSettings, CacheSettings, DeclaredDevice, Outbound};

/// Why a configuration was refused, in words for whoever wrote it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file itself.
    #[error("{file}: {source}")]
    File {
        /// As given.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in it.
    #[error("{file}:{line}:{column}: {message}")]
    At {
        /// As given.
        file: String,
        /// From 1.
        line: u32,
        /// From 1.
        column: u32,
        /// What was expected.
        message: String,
    },
    /// Something that is missing as a whole.
    #[error("{file}: {message}")]
    Whole {
        /// As given.
        file: String,
        /// What was expected.
        message: String,
    },
}

/// A complete configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) storage: Storage,
    pub(crate) audit_dir: PathBuf,
    pub(crate) audit: AuditSettings,
    pub(crate) audit_devices: Vec<DeclaredDevice>,
    /// Where audit devices that are enabled by API may have their files.
    pub(crate) audit_directories: Vec<PathBuf>,
    pub(crate) default_lease_ttl: Option<Duration>,
    pub(crate) max_lease_ttl: Option<Duration>,
    pub(crate) api_addr: Option<String>,
    pub(crate) cluster_name: Option<String>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: LogFormat,
    pub(crate) pid_file: Option<PathBuf>,
    /// Requests a second that every client address may make.
    pub(crate) client_request_rate: Option<u64>,
    /// Requests a second that may be made with each token.
    pub(crate) token_request_rate: Option<u64>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Rekey and new root tokens by shares alone, for clients that send no token. Cancelling always takes one.
    pub(crate) unauthenticated_ceremonies: bool,
    pub(crate) cache: CacheSettings,
    /// Where settings may send the server besides what they may anyway.
    pub(crate) outbound: Outbound,
    /// What was understood but changes nothing, or not understood at all.
    pub(crate) warnings: Vec<String>,
}

/// Where the server listens, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// None for plain HTTP, which only loopback may have.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) connections_max: usize,
    /// Of one client address; trusted proxies may have all of them.
    pub(crate) connections_per_client_max: usize,
    pub(crate) limits: Limits,
    /// Whose word about client addresses is taken. None: nobody's.
    pub(crate) proxies: Option<Arc<TrustedProxies>>,
}

/// How much a client may send, and how long it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a request's body.
    pub(crate) body_bytes_max: usize,
    /// For a body to arrive in full.
    pub(crate) body_time: Duration,
    /// For the headers; HTTP/1.1 waits as long for the next request.
    pub(crate) headers: Duration,
    /// How long a connection without any request in flight is kept, whatever it sends to stay.
    pub(crate) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let api = coffer_api::Limits::default();
        Self {
            body_bytes_max: api.body_bytes_max,
            body_time: api.body_time,
            headers: Duration::from_secs(75),
            idle: Duration::from_secs(300),
        }
    }
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Whose certificates are good for clients; None asks for none.
    pub(crate) clients: Option<PathBuf>,
    /// Whether a client without a certificate is sent away.
    pub(crate) clients_required: bool,
}

/// How the process log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Standard,
    /// One JSON object a line.
    Json,
}

/// Where everything is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In memory: gone with the process.
    Memory,
    /// A directory of this server alone.
    Embedded {
        /// The directory.
        path: PathBuf,
        /// Memory for pages of the data file.
        cache_bytes: usize,
    },
}

impl Storage {
    /// The name `sys/seal-status` gives it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "inmem",
            Self::Embedded { .. } => "embedded",
        }
    }
}

/// Connections a listener holds unless told otherwise.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// And of these, how many one client address may hold.
pub(crate) const CONNECTIONS_PER_CLIENT_MAX: usize = CONNECTIONS_MAX / 4;

impl Config {
    /// Reads a configuration: files, and of directories every `.hcl` and `.json` in the order of their names. What
    /// stands once for the whole server and is given twice counts as the last file has it.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Self, ConfigError> {
        let refused = |path: &Path, source| ConfigError::File { file: path.display().to_string(), source };
        let mut sources = Vec::new();
        for path in paths {
            for file in files(path).map_err(|source| refused(path, source))? {
                let text = std::fs::read_to_string(&file).map_err(|source| refused(&file, source))?;
                sources.push((file.display().to_string(), text));
            }
        }
        read::config(&sources)
    }

    /// Reads one file's text; `file` is what errors call it.
    #[cfg(test)]
    fn parse(file: &str, source: &str) -> Result<Self, ConfigError> {
        read::config(&[(file.to_owned(), source.to_owned())])
    }
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = std::fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .filter(|path| {
            let kind = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "hcl" || kind == "json");
            path.as_ref().map_or(true, kind)
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    if found.is_empty() {
        return Err(std::io::Error::other("expected files that end in .hcl or .json in this directory"));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
