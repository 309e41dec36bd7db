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
use crate::config::{Config, Storage};

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
        engines: standard_engines(),
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
    }
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
