//! From stanzas to [`Config`]. Knows every key; a key it does not know becomes a warning with its position.

use std::path::{Path, PathBuf};

use coffer_core::hcl::{self, Block, Body, Entry, HclError, Position};
use coffer_storage::embedded::{CACHE_BYTES, CACHE_BYTES_MIN};
use coffer_vault::{CacheSettings, Outbound};

use super::{Config, ConfigError, Listener, LogFormat, Storage};

/// What may stand at the top, besides [`WITHOUT_EFFECT`]. A key that is not here is unknown.
pub(super) const GLOBAL: &[&str] = &[
    "listener",
    "storage",
    "backend",
    "audit",
    "audit_directories",
    "default_lease_ttl",
    "max_lease_ttl",
    "api_addr",
    "cluster_name",
    "log_level",
    "log_format",
    "pid_file",
    "cache_bytes",
    "cache_ttl",
    "ca_file",
    "unauthenticated_ceremonies",
    "outbound_allowed_networks",
    "client_request_rate",
    "token_request_rate",
];
/// What may stand in `storage "embedded"`.
pub(super) const EMBEDDED: &[&str] = &["path", "cache_size"];
/// Keys of Vault's that mean nothing here, and why.
pub(super) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("disable_mlock", "memory is not locked by this release"),
    ("ui", "there is no web interface"),
    ("cluster_addr", "servers do not talk to one another"),
    ("cache_size", "caches are sized in bytes, by \"cache_bytes\""),
    ("disable_cache", "caches are always coherent with revocation"),
    ("disable_clustering", "servers do not talk to one another"),
    ("plugin_directory", "engines are built in"),
    ("plugin_file_uid", "engines are built in"),
    ("plugin_file_permissions", "engines are built in"),
    ("raw_storage_endpoint", "there is no such endpoint"),
    ("introspection_endpoint", "there is no such endpoint"),
    ("disable_sealwrap", "every record is encrypted alike"),
    ("disable_performance_standby", "there are no standbys"),
    ("telemetry", "metrics are served at sys/metrics"),
];
pub(super) type Read<T> = Result<T, HclError>;

pub(super) struct Reader<'a> {
    file: &'a str,
    warnings: Vec<String>,
}

/// Reads a whole configuration: name and text of each file.
pub(super) fn config(sources: &[(String, String)]) -> Result<Config, ConfigError> {
    let mut found = Found::default();
    let mut warnings = Vec::new();
    for (file, source) in sources {
        let mut reader = Reader { file, warnings: Vec::new() };
        let body = hcl::parse(source).map_err(|error| at(file, &error))?;
        reader.body(&body, &mut found).map_err(|error| at(file, &error))?;
        warnings.append(&mut reader.warnings);
    }
    let names: Vec<&str> = sources.iter().map(|(file, _)| file.as_str()).collect();
    let whole = |message: &str| ConfigError::Whole { file: names.join(", "), message: message.to_owned() };
    if let (Some((default, file, place)), Some(max)) = (&found.default_lease_ttl, found.max_lease_ttl)
        && *default > max
    {
        let message = "\"default_lease_ttl\" must not exceed \"max_lease_ttl\"";
        return Err(at(file, &HclError::new(*place, message)));
    }
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
        (None, Storage::Embedded { path, .. }) => path.join("audit"),
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
        default_lease_ttl: found.default_lease_ttl.map(|(ttl, ..)| ttl),
        max_lease_ttl: found.max_lease_ttl,
        api_addr: found.api_addr,
        cluster_name: found.cluster_name,
        log_level: found.log_level,
        log_format: found.log_format.unwrap_or_default(),
        pid_file: found.pid_file,
        client_request_rate: found.client_request_rate,
        token_request_rate: found.token_request_rate,
        ca_file: found.ca_file,
        unauthenticated_ceremonies: found.unauthenticated_ceremonies,
        warnings,
        cache: found.cache,
        outbound: found.outbound,
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

/// What all files together have said so far.
#[derive(Default)]
struct Found {
    listeners: Vec<Listener>,
    storage: Option<Storage>,
    audit: super::audit::Found,
    audit_directories: Vec<PathBuf>,
    /// And where it stands.
    default_lease_ttl: Option<(std::time::Duration, String, Position)>,
    max_lease_ttl: Option<std::time::Duration>,
    api_addr: Option<String>,
    cluster_name: Option<String>,
    log_level: Option<String>,
    log_format: Option<LogFormat>,
    pid_file: Option<PathBuf>,
    client_request_rate: Option<u64>,
    token_request_rate: Option<u64>,
    ca_file: Option<PathBuf>,
    unauthenticated_ceremonies: bool,
    cache: CacheSettings,
    outbound: Outbound,
}

impl Reader<'_> {
    fn body(&mut self, body: &Body, found: &mut Found) -> Read<()> {
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
        self.audits(body, &mut found.audit)?;
        for entry in &body.entries {
            if let Some((key, why)) = WITHOUT_EFFECT.iter().find(|(name, _)| *name == entry.key) {
                self.warn(entry.at, &format!("{key:?} has no effect: {why}"));
                continue;
            }
            if !self.knows(entry, GLOBAL) {
                continue;
            }
            match entry.key.as_str() {
                "audit_directories" => found.audit_directories = directories(entry)?,
                "default_lease_ttl" => {
                    found.default_lease_ttl = Some((ttl(entry)?, self.file.to_owned(), entry.at));
                }
                "max_lease_ttl" => found.max_lease_ttl = Some(ttl(entry)?),
                "api_addr" => found.api_addr = Some(url(entry)?),
                "cluster_name" => found.cluster_name = Some(cluster_name(entry)?),
                "log_level" => found.log_level = Some(log_level(entry)?),
                "log_format" => found.log_format = Some(log_format(entry)?),
                "pid_file" => found.pid_file = Some(path(entry)?),
                "cache_bytes" => found.cache.bytes = cache_bytes(entry)?,
                "cache_ttl" => found.cache.ttl = cache_ttl(entry)?,
                "client_request_rate" => found.client_request_rate = Some(rate(entry)?),
                "token_request_rate" => found.token_request_rate = Some(rate(entry)?),
                "ca_file" => found.ca_file = Some(path(entry)?),
                "unauthenticated_ceremonies" => found.unauthenticated_ceremonies = flag(entry)?,
                "outbound_allowed_networks" => found.outbound = networks(entry)?,
                // The blocks, read above.
                _ => {}
            }
        }
        Ok(())
    }

    fn storage(&mut self, block: Block<'_>) -> Read<Storage> {
        match block.label {
            "inmem" => {
                block.body.entries.iter().for_each(|entry| {
                    self.knows(entry, &[]);
                });
                Ok(Storage::Memory)
            }
            "embedded" => {
                let (mut dir, mut cache) = (None, CACHE_BYTES);
                for entry in &block.body.entries {
                    match entry.key.as_str() {
                        "path" => dir = Some(path(entry)?),
                        "cache_size" => cache = page_cache_bytes(entry)?,
                        _ => drop(self.knows(entry, EMBEDDED)),
                    }
                }
                let path = dir.ok_or_else(|| missing(block, "path", "the path of a directory"))?;
                Ok(Storage::Embedded { path, cache_bytes: cache })
            }
            other => {
                let message = format!("storage {other:?}: expected \"embedded\" or \"inmem\"");
                Err(HclError::new(block.at, message))
            }
        }
    }

    /// Whether a key is one of these; what is not is warned of.
    pub(super) fn knows(&mut self, entry: &Entry, keys: &[&str]) -> bool {
        let known = keys.contains(&entry.key.as_str());
        if !known {
            self.warn(entry.at, &format!("unknown key {:?} is ignored", entry.key));
        }
        known
    }

    pub(super) fn warn(&mut self, at: Position, message: &str) {
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

/// Blocks of addresses.
fn networks(entry: &Entry) -> Read<Outbound> {
    Outbound::allowing(&entry.as_strings()?).map_err(|block| {
        wrong(entry, &format!("a list of blocks such as \"127.0.0.0/8\", and has {block:?}"))
    })
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
pub(super) fn flag(entry: &Entry) -> Read<bool> {
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

/// The longest time that anything may be kept.
const CACHE_TTL_MAX: std::time::Duration = std::time::Duration::from_secs(60);

fn cache_ttl(entry: &Entry) -> Read<std::time::Duration> {
    match entry.as_duration()? {
        ttl if ttl > CACHE_TTL_MAX => Err(wrong(entry, "a duration up to \"60s\"; \"0s\" keeps nothing")),
        ttl => Ok(ttl),
    }
}

fn cache_bytes(entry: &Entry) -> Read<usize> {
    match usize::try_from(entry.as_int()?) {
        Ok(bytes) if bytes <= 1 << 40 => Ok(bytes),
        _ => Err(wrong(entry, "a number of bytes; 0 keeps nothing")),
    }
}

fn page_cache_bytes(entry: &Entry) -> Read<usize> {
    match usize::try_from(entry.as_int()?) {
        Ok(bytes) if (CACHE_BYTES_MIN..=1 << 40).contains(&bytes) => Ok(bytes),
        _ => Err(wrong(entry, &format!("a number of bytes, at least {CACHE_BYTES_MIN}"))),
    }
}

pub(super) fn count(entry: &Entry) -> Read<usize> {
    match usize::try_from(entry.as_int()?) {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err(wrong(entry, "a number from 1 to 1000000")),
    }
}

/// Requests a second.
fn rate(entry: &Entry) -> Read<u64> {
    Ok(count(entry)? as u64)
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

fn log_format(entry: &Entry) -> Read<LogFormat> {
    match entry.as_str()? {
        "" | "standard" => Ok(LogFormat::Standard),
        "json" => Ok(LogFormat::Json),
        _ => Err(wrong(entry, "\"standard\" or \"json\"")),
    }
}
