//! Puts the rooms together: storage, clock, engines, vault. Holds no logic of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use coffer_barrier::store::Store;
use coffer_storage::embedded::EmbeddedStore;
use coffer_storage::memory::MemoryStore;
use coffer_vault::{Deps, HttpKeys, RequestRate, Vault, VaultConfig, standard_engines};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::clock::SystemClock;
use crate::config::{Config, LogFormat, Storage};

/// A sealed vault, and the clock it goes by.
pub(crate) struct Assembled {
    pub(crate) vault: Arc<Vault>,
    pub(crate) clock: Arc<SystemClock>,
}

/// Builds what a configuration describes.
pub(crate) fn assemble(config: &Config) -> anyhow::Result<Assembled> {
    let clock = Arc::new(SystemClock::default());
    let deps = Deps {
        store: store(&config.storage)?,
        // Memory is this process's own, and the embedded store is locked.
        store_is_exclusive: matches!(config.storage, Storage::Memory | Storage::Embedded { .. }),
        clock: Arc::clone(&clock) as Arc<_>,
        keys: Arc::new(HttpKeys::new(config.outbound.clone())),
        engines: standard_engines(&config.outbound),
        audit_dir: config.audit_dir.clone(),
        ca_bundle: config.ca_file.as_deref().map(ca_bundle).transpose()?,
        config: vault_config(config),
    };
    let vault = Vault::new(deps).with_context(|| format!("starting with {}", config.audit_dir.display()))?;
    Ok(Assembled { vault, clock })
}

fn store(storage: &Storage) -> anyhow::Result<Arc<dyn Store>> {
    match storage {
        Storage::Memory => Ok(Arc::new(MemoryStore::new())),
        Storage::Embedded { path, cache_bytes } => {
            let opened = EmbeddedStore::open_with(path, *cache_bytes);
            let store = opened.with_context(|| format!("storage {}", path.display()))?;
            Ok(Arc::new(store))
        }
    }
}

fn vault_config(config: &Config) -> VaultConfig {
    let defaults = VaultConfig::default();
    let max_lease_ttl = config.max_lease_ttl.unwrap_or(defaults.max_lease_ttl);
    VaultConfig {
        default_lease_ttl: config.default_lease_ttl.unwrap_or(defaults.default_lease_ttl).min(max_lease_ttl),
        max_lease_ttl,
        cluster_name: config.cluster_name.clone().unwrap_or(defaults.cluster_name),
        node_name: node_name().unwrap_or(defaults.node_name),
        client_rate: config.client_request_rate.map(a_second),
        token_rate: config.token_request_rate.map(a_second),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        storage_type: config.storage.name().to_owned(),
        audit: config.audit.clone(),
        cache: config.cache,
        audit_devices: config.audit_devices.clone(),
        audit_directories: config.audit_directories.clone(),
        revoke_wait: defaults.revoke_wait,
        subscribers: defaults.subscribers,
        unauthenticated_ceremonies: config.unauthenticated_ceremonies,
        sanitized: sanitized(config),
    }
}

/// What `sys/config/state/sanitized` shows of the configuration, in Vault's names.
fn sanitized(config: &Config) -> serde_json::Map<String, serde_json::Value> {
    use serde_json::json;
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| {
            json!({ "type": "tcp", "config": {
                "address": listener.address.to_string(),
                "tls_disable": listener.tls.is_none(),
                "max_request_size": listener.limits.body_bytes_max,
            } })
        })
        .collect();
    let format = match config.log_format {
        LogFormat::Standard => "standard",
        LogFormat::Json => "json",
    };
    let path = config.pid_file.as_ref().map(|path| path.display().to_string());
    [
        ("api_addr", json!(config.api_addr.as_deref().unwrap_or_default())),
        ("listeners", json!(listeners)),
        ("log_format", json!(format)),
        ("log_level", json!(config.log_level.as_deref().unwrap_or_default())),
        ("pid_file", json!(path.unwrap_or_default())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

/// A number of requests a second.
fn a_second(requests: u64) -> RequestRate {
    RequestRate { requests, interval: std::time::Duration::from_secs(1) }
}

/// The host's name; in a pod that is the pod's.
fn node_name() -> Option<String> {
    let name = std::fs::read_to_string(PathBuf::from("/proc/sys/kernel/hostname")).ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// What `sys/ca` gives out; checked now, so that a wrong file is found at the start.
pub(crate) fn ca_bundle(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("ca_file {}", path.display()))?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(found) if !found.is_empty() => Ok(text),
        _ => anyhow::bail!("ca_file {}: expected PEM certificates", path.display()),
    }
}
