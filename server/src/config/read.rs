//! From stanzas to [`Config`]. Knows every key; a key it does not know becomes a warning with its position.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use coffer_core::hcl::{self, Block, Body, Entry, HclError, Position};

use super::{CONNECTIONS_MAX, Config, ConfigError, Listener, Storage, TlsFiles};

/// Keys of Vault's that mean nothing here, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("disable_mlock", "memory is not locked by this release"),
    ("ui", "there is no web interface"),
    ("cluster_addr", "servers do not talk to one another"),
    ("disable_cache", "caches are always coherent with revocation"),
    ("disable_clustering", "servers do not talk to one another"),
    ("log_format", "logs are text on standard error"),
    ("pid_file", "the process runs in the foreground"),
    ("plugin_directory", "engines are built in"),
    ("raw_storage_endpoint", "there is no such endpoint"),
    ("telemetry", "metrics are served at sys/metrics"),
];
const LISTENER_WITHOUT_EFFECT: &[&str] = &[
    "cluster_address",
    "http_idle_timeout",
    "http_read_header_timeout",
    "http_read_timeout",
    "http_write_timeout",
    "telemetry",
    "tls_cipher_suites",
    "tls_prefer_server_cipher_suites",
];

pub(super) type Read<T> = Result<T, HclError>;

pub(super) struct Reader<'a> {
    file: &'a str,
    warnings: Vec<String>,
}

/// Reads a whole configuration.
pub(super) fn config(file: &str, source: &str) -> Result<Config, ConfigError> {
    let mut reader = Reader { file, warnings: Vec::new() };
    let body = hcl::parse(source).map_err(|error| at(file, &error))?;
    let found = reader.body(&body).map_err(|error| at(file, &error))?;
    let whole = |message: &str| ConfigError::Whole { file: file.to_owned(), message: message.to_owned() };
    if found.listeners.is_empty() {
        return Err(whole(
            "expected at least one listener: listener \"tcp\" { address = \"127.0.0.1:8200\" ... }",
        ));
    }
    let storage = found
        .storage
        .ok_or_else(|| whole("expected storage: storage \"embedded\" { path = \"/var/lib/coffer\" }"))?;
    let audit_dir = match (found.audit.dir, &storage) {
        (Some(dir), _) => dir,
        (None, Storage::Embedded { path }) => path.join("audit"),
        (None, Storage::Memory) => {
            return Err(whole(
                "expected audit: audit \"file\" { file_path = \"/var/log/coffer/audit.log\" }",
            ));
        }
    };
    Ok(Config {
        listeners: found.listeners,
        storage,
        audit_dir,
        audit: found.audit.settings,
        audit_devices: found.audit.devices,
        audit_directories: found.audit_directories,
        default_lease_ttl: found.default_lease_ttl,
        max_lease_ttl: found.max_lease_ttl,
        api_addr: found.api_addr,
        cluster_name: found.cluster_name,
        log_level: found.log_level,
        ca_file: found.ca_file,
        warnings: reader.warnings,
    })
}

fn at(file: &str, error: &HclError) -> ConfigError {
    ConfigError::At {
        file: file.to_owned(),
        line: error.line,
        column: error.column,
        message: error.message.clone(),
    }
}

#[derive(Default)]
struct Found {
    listeners: Vec<Listener>,
    storage: Option<Storage>,
    audit: super::audit::Found,
    audit_directories: Vec<PathBuf>,
    default_lease_ttl: Option<std::time::Duration>,
    max_lease_ttl: Option<std::time::Duration>,
    api_addr: Option<String>,
    cluster_name: Option<String>,
    log_level: Option<String>,
    ca_file: Option<PathBuf>,
}

impl Reader<'_> {
    fn body(&mut self, body: &Body) -> Read<Found> {
        let mut found = Found::default();
        for block in body.labelled_blocks("listener")? {
            found.listeners.push(self.listener(block)?);
        }
        for key in ["storage", "backend"] {
            for block in body.labelled_blocks(key)? {
                if found.storage.is_some() {
                    return Err(HclError::new(block.at, "expected one storage, found a second"));
                }
                found.storage = Some(self.storage(block)?);
            }
        }
        found.audit = self.audits(body)?;
        for entry in &body.entries {
            match entry.key.as_str() {
                "listener" | "storage" | "backend" | "audit" => {}
                "audit_directories" => found.audit_directories = directories(entry)?,
                "default_lease_ttl" => found.default_lease_ttl = Some(ttl(entry)?),
                "max_lease_ttl" => found.max_lease_ttl = Some(ttl(entry)?),
                "api_addr" => found.api_addr = Some(url(entry)?),
                "cluster_name" => found.cluster_name = Some(cluster_name(entry)?),
                "log_level" => found.log_level = Some(log_level(entry)?),
                "ca_file" => found.ca_file = Some(path(entry)?),
                key => match WITHOUT_EFFECT.iter().find(|(name, _)| *name == key) {
                    Some((_, why)) => self.warn(entry.at, &format!("{key:?} has no effect: {why}")),
                    None => self.unknown(entry),
                },
            }
        }
        if let (Some(default), Some(max)) = (found.default_lease_ttl, found.max_lease_ttl)
            && default > max
            && let Some(entry) = body.entry("default_lease_ttl")
        {
            return Err(HclError::new(entry.at, "\"default_lease_ttl\" must not exceed \"max_lease_ttl\""));
        }
        Ok(found)
    }

    fn listener(&mut self, block: Block<'_>) -> Read<Listener> {
        if block.label != "tcp" {
            let message = format!("listener {:?}: expected \"tcp\"", block.label);
            return Err(HclError::new(block.at, message));
        }
        let (mut address, mut cert, mut key, mut plain) = (None, None, None, None);
        let mut connections_max = CONNECTIONS_MAX;
        for entry in &block.body.entries {
            match entry.key.as_str() {
                "address" => address = Some(socket_address(entry)?),
                "tls_cert_file" => cert = Some(path(entry)?),
                "tls_key_file" => key = Some(path(entry)?),
                "tls_disable" if flag(entry)? => plain = Some(entry.at),
                "tls_disable" => {}
                "tls_min_version" | "tls_max_version" => tls13(entry)?,
                "max_connections" => connections_max = count(entry)?,
                name if LISTENER_WITHOUT_EFFECT.contains(&name) => {
                    self.warn(entry.at, &format!("{name:?} has no effect"));
                }
                _ => self.unknown(entry),
            }
        }
        let address = address.ok_or_else(|| missing(block, "address", "a host and port"))?;
        let tls = match (plain, cert, key) {
            (None, Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None, _) => {
                return Err(missing(block, "tls_cert_file", "the path of a PEM certificate chain"));
            }
            (None, _, None) => return Err(missing(block, "tls_key_file", "the path of a PEM private key")),
            (Some(_), ..) if address.ip().is_loopback() => None,
            (Some(at), ..) => {
                let message =
                    format!("\"tls_disable\" is for loopback addresses only, and {address} is none");
                return Err(HclError::new(at, message));
            }
        };
        Ok(Listener { address, tls, connections_max })
    }

    fn storage(&mut self, block: Block<'_>) -> Read<Storage> {
        match block.label {
            "inmem" => {
                block.body.entries.iter().for_each(|entry| self.unknown(entry));
                Ok(Storage::Memory)
            }
            "embedded" => {
                let mut dir = None;
                for entry in &block.body.entries {
                    match entry.key.as_str() {
                        "path" => dir = Some(path(entry)?),
                        _ => self.unknown(entry),
                    }
                }
                let path = dir.ok_or_else(|| missing(block, "path", "the path of a directory"))?;
                Ok(Storage::Embedded { path })
            }
            other => {
                let message = format!("storage {other:?}: expected \"embedded\" or \"inmem\"");
                Err(HclError::new(block.at, message))
            }
        }
    }

    pub(super) fn unknown(&mut self, entry: &Entry) {
        self.warn(entry.at, &format!("unknown key {:?} is ignored", entry.key));
    }

    fn warn(&mut self, at: Position, message: &str) {
        self.warnings.push(format!("{}:{at}: {message}", self.file));
    }
}

pub(super) fn missing(block: Block<'_>, key: &str, what: &str) -> HclError {
    HclError::new(block.at, format!("expected {key:?} in this block: {what}"))
}

pub(super) fn wrong(entry: &Entry, what: &str) -> HclError {
    HclError::new(entry.at, format!("{:?} must be {what}", entry.key))
}

pub(super) fn path(entry: &Entry) -> Read<PathBuf> {
    match entry.as_str()? {
        "" => Err(wrong(entry, "a path, and is empty")),
        text => Ok(Path::new(text).to_owned()),
    }
}

/// Directories, each absolute.
fn directories(entry: &Entry) -> Read<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = entry.as_strings()?.into_iter().map(PathBuf::from).collect();
    if paths.iter().all(|path| path.is_absolute()) {
        Ok(paths)
    } else {
        Err(wrong(entry, "a list of absolute paths"))
    }
}

/// Vault takes numbers for truth values too.
fn flag(entry: &Entry) -> Read<bool> {
    match &entry.value {
        hcl::Value::Integer(0) => Ok(false),
        hcl::Value::Integer(1) => Ok(true),
        hcl::Value::String(text) if text == "0" => Ok(false),
        hcl::Value::String(text) if text == "1" => Ok(true),
        _ => entry.as_bool(),
    }
}

pub(super) fn ttl(entry: &Entry) -> Read<std::time::Duration> {
    match entry.as_duration()? {
        ttl if ttl.is_zero() => Err(wrong(entry, "a duration longer than zero, such as \"1h\"")),
        ttl => Ok(ttl),
    }
}

fn count(entry: &Entry) -> Read<usize> {
    match usize::try_from(entry.as_int()?) {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err(wrong(entry, "a number from 1 to 1000000")),
    }
}

fn tls13(entry: &Entry) -> Read<()> {
    match entry.as_str()? {
        "tls13" => Ok(()),
        _ => Err(wrong(entry, "\"tls13\": other versions are not spoken")),
    }
}

fn socket_address(entry: &Entry) -> Read<SocketAddr> {
    let expected = || wrong(entry, "a host and port, such as \"127.0.0.1:8200\" or \"[::]:8200\"");
    let text = entry.as_str()?;
    match text.parse() {
        Ok(address) => Ok(address),
        // A name is resolved once, here: what is listened on does not change under way.
        Err(_) => text.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(expected),
    }
}

fn url(entry: &Entry) -> Read<String> {
    let text = entry.as_str()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(wrong(entry, "an address such as \"https://coffer.example.org:8200\"")),
    }
}

fn cluster_name(entry: &Entry) -> Read<String> {
    let text = entry.as_str()?;
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=63).contains(&text.len()) && text.bytes().all(good) {
        Ok(text.to_owned())
    } else {
        Err(wrong(entry, "1 to 63 letters, digits, dots, dashes or underscores"))
    }
}

fn log_level(entry: &Entry) -> Read<String> {
    match entry.as_str()?.to_ascii_lowercase().as_str() {
        level @ ("trace" | "debug" | "info" | "warn" | "error") => Ok(level.to_owned()),
        "err" => Ok("error".to_owned()),
        _ => Err(wrong(entry, "one of \"trace\", \"debug\", \"info\", \"warn\", \"error\"")),
    }
}
